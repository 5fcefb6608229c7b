"""Traffic of a compiled step: the bytes that its kernels read from and write to the device's main memory.

A kernel is an instruction of the entry computation, or of a loop's body as often as the loop runs. Each reads its
operands and writes its result once: intermediate values of a fusion stay on the chip. A kernel that takes only rows of
an operand (a scan's inputs, a lookup) counts those rows. Caches are not modelled: on a GPU, a small result that the
next kernel reads at once may never leave the L2 cache, so the count can be above what is measured.
"""

import dataclasses
from collections.abc import Iterator

from imagenet_repro.planning.hlo import Array, Computation, Instruction, Module

# Instructions that move nothing: names for memory, and the ends of copies that were counted at their start.
FREE = {
    "after-all", "bitcast", "constant", "get-tuple-element", "opt-barrier", "parameter", "partition-id", "replica-id",
    "tuple",
}  # fmt: skip
ROW_READERS = {"dynamic-slice", "slice", "gather"}
WITHOUT_TRAFFIC = {"AllocateBuffer"}  # targets of custom calls
LIBRARIES = ("__cublas$", "__cudnn$")  # their last result is scratch memory


@dataclasses.dataclass(frozen=True)
class Kernel:
    """The traffic of one kernel.

    Attributes:
      instruction: as compiled.
      times: how often it runs in a step.
      bytes: read and written in main memory each time.
    """

    instruction: Instruction
    times: int
    bytes: int

    @property
    def total_bytes(self) -> int:
        """The bytes in a step."""
        return self.times * self.bytes


@dataclasses.dataclass(frozen=True)
class Traffic:
    """The kernels of a step.

    Attributes:
      kernels: in the order of the program.
      unknown_loops: names of loops whose number of iterations the compiler does not know; they count once.
    """

    kernels: tuple[Kernel, ...]
    unknown_loops: tuple[str, ...]

    @property
    def total_bytes(self) -> int:
        """The bytes in a step."""
        return sum(kernel.total_bytes for kernel in self.kernels)

    def largest(self, count: int) -> list[Kernel]:
        """Return the kernels with the most bytes in a step, the largest first."""
        return sorted(self.kernels, key=lambda kernel: -kernel.total_bytes)[:count]


def count_traffic(module: Module) -> Traffic:
    """Return the traffic of a program."""
    unknown_loops: list[str] = []
    kernels = []
    for owner, instruction, times in _walk(module, module.entry, 1, unknown_loops):
        size = _bytes(module, owner, instruction)
        if size:
            kernels.append(Kernel(instruction, times, size))
    return Traffic(tuple(kernels), tuple(unknown_loops))


def executed(module: Module) -> Iterator[tuple[Computation, Instruction, int]]:
    """Yield what runs by itself with its computation and the number of times; loops and calls are followed."""
    return _walk(module, module.entry, 1, [])


def _walk(
    module: Module, computation: Computation, times: int, unknown_loops: list[str]
) -> Iterator[tuple[Computation, Instruction, int]]:
    """Yield each kernel with the computation that it is in and the number of times that it runs."""
    for instruction in computation.instructions.values():
        opcode = instruction.opcode
        if opcode == "while":
            count = module.trip_count(computation, instruction)
            if count is None:
                unknown_loops.append(instruction.name)
            for body in module.called(instruction):
                yield from _walk(module, body, times * (1 if count is None else count), unknown_loops)
        elif opcode == "conditional":
            branches = [list(_walk(module, branch, times, unknown_loops)) for branch in module.called(instruction)]
            yield from max(branches, key=lambda branch: _branch_bytes(module, branch), default=[])
        elif opcode in ("call", "async-start"):
            for called in module.called(instruction):
                yield from _walk(module, called, times, unknown_loops)
        elif opcode not in FREE and not opcode.endswith(("-done", "-update")):
            yield computation, instruction, times


def _branch_bytes(module: Module, branch: list[tuple[Computation, Instruction, int]]) -> int:
    return sum(_bytes(module, owner, instruction) * times for owner, instruction, times in branch)


def _bytes(module: Module, computation: Computation, instruction: Instruction) -> int:
    """Return the bytes that one run of an instruction reads and writes."""
    opcode, results = instruction.opcode.removesuffix("-start"), computation.results(instruction)
    if instruction.target in WITHOUT_TRAFFIC:
        return 0
    if opcode == "fusion":
        return _fusion_bytes(module, computation, instruction, results)
    if instruction.target.startswith(LIBRARIES) and len(results) > 1 and results[-1].dtype in ("s8", "u8"):
        results = results[:-1]
    written = sum(array.bytes for array in results)
    return _bytes_by_operands(opcode, written, computation.operands(instruction))


def _bytes_by_operands(opcode: str, written: int, operands: list[Instruction]) -> int:
    """Return the bytes of an instruction that is not a fusion and whose result has `written` bytes."""
    if opcode in ROW_READERS:
        return 2 * written + sum(operand.bytes for operand in operands[1:])
    if opcode == "dynamic-update-slice":
        return 2 * operands[1].bytes
    if opcode == "scatter" and len(operands) == 3:
        # It reads indices and updates, and reads and writes the rows that they change.
        return operands[1].bytes + 3 * operands[2].bytes
    return written + sum(operand.bytes for operand in operands)


def _fusion_bytes(
    module: Module, computation: Computation, instruction: Instruction, results: tuple[Array, ...]
) -> int:
    """Return the bytes that a fusion reads, each operand once, and writes."""
    body = module.called(instruction)[0]
    read: dict[str, int] = {}
    for parameter in body.parameters:
        operand = computation.instructions[instruction.operands[int(parameter.arguments)]]
        size = _bytes_read(module, _Place(body), parameter, operand.bytes) if operand.bytes else 0
        read[operand.name] = min(operand.bytes, read.get(operand.name, 0) + size)
    return sum(read.values()) + sum(_bytes_written(body, body.root, results))


@dataclasses.dataclass(frozen=True)
class _Place:
    """The computation of a fusion; for a fusion inside another, also that fusion and the place that it is in."""

    body: Computation
    fusion: Instruction | None = None
    around: "_Place | None" = None


def _bytes_read(module: Module, place: _Place, value: Instruction, size: int) -> int:
    """Return how much of an operand of `size` bytes a fusion reads: only rows, where only rows are used.

    `value` is the operand, or a view of it, in the computation of `place`.
    """
    total = 0
    if value.is_root:
        if place.around is None or place.fusion is None:
            return size
        total += _bytes_read(module, place.around, place.fusion, size)
    for user in place.body.users(value.name):
        is_first = user.operands[0] == value.name
        if user.opcode in ROW_READERS and is_first:
            total += _unplaced_bytes(user)
        elif user.opcode == "dynamic-update-slice" and is_first:
            continue  # it is overwritten in place
        elif user.opcode == "bitcast":
            total += _bytes_read(module, place, user, size)
        elif user.opcode == "fusion":
            inside = _Place(module.called(user)[0], user, place)
            for parameter in inside.body.parameters:
                if user.operands[int(parameter.arguments)] == value.name:
                    total += _bytes_read(module, inside, parameter, size)
        else:
            return size
    return min(total, size)


def _bytes_written(body: Computation, root: Instruction, results: tuple[Array, ...]) -> Iterator[int]:
    """Yield the bytes that a fusion writes for each result: only rows, where an operand is updated in place."""
    if root.opcode == "tuple" and len(root.operands) == len(results):
        for name, result in zip(root.operands, results, strict=True):
            yield from _bytes_written(body, body.instructions[name], (result,))
        return
    while root.opcode == "bitcast":
        root = body.instructions[root.operands[0]]
    if root.opcode == "dynamic-update-slice":
        yield min(_unplaced_bytes(body.instructions[root.operands[1]]), sum(array.bytes for array in results))
        return
    yield sum(array.bytes for array in results)


def _unplaced_bytes(instruction: Instruction) -> int:
    """Return the bytes of a value inside a fusion, which has no place in memory, without the padding of tiles."""
    return sum(Array(array.dtype, array.shape).bytes for array in instruction.results)
