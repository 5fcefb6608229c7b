"""Optimised HLO as text: its computations, their instructions, and the bytes of their arrays.

HLO is the language of XLA. After compilation it says which kernels run, in which order, and where each array lies.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

# Bytes of an element; other types (tokens, opaque handles) hold no data.
WIDTHS = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "s64": 8, "u64": 8,
    "f8e4m3fn": 1, "f8e5m2": 1, "f16": 2, "bf16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip
UNKNOWN_CYCLES = 2**62  # written by the TPU's compiler where it has no estimate
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_ATTRIBUTE_COMPUTATIONS = re.compile(
    r"(?:to_apply|calls|body|true_computation|false_computation|branch_computations)=(\{[^}]*\}|%[\w.\-]+)"
)


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of an instruction's result.

    Attributes:
      dtype: HLO's name of the element type.
      shape: numbers of elements.
      layout: the text of the layout, such as "1,0:T(8,128)S(1)".
    """

    dtype: str
    shape: tuple[int, ...]
    layout: str = ""

    @property
    def is_in_main_memory(self) -> bool:
        """Whether the array is in the device's main memory (HBM): S(n) is a memory on the chip or the host's."""
        return not re.search(r"S\([1-9]\d*\)", self.layout)

    @property
    def bytes(self) -> int:
        """The bytes in main memory, with the padding to whole tiles (TPU); 0 for an array in another memory."""
        if self.dtype not in WIDTHS or not self.is_in_main_memory:
            return 0
        return math.ceil(math.prod(self._padded_shape()) * WIDTHS[self.dtype])

    def _padded_shape(self) -> list[int]:
        """Return the shape, its minor dimensions rounded up to the layout's first tile."""
        shape = list(self.shape)
        tile = re.search(r":.*?T\(([\d,]+)\)", self.layout)
        if not tile or not shape:
            return shape
        order = [int(axis) for axis in self.layout.split(":")[0].split(",") if axis]  # minor dimension first
        sides = [int(side) for side in tile[1].split(",")]
        for axis, side in zip(order, reversed(sides), strict=False):
            shape[axis] = math.ceil(shape[axis] / side) * side
        return shape


def arrays(text: str) -> list[Array]:
    """Return the arrays of a type's text, in order; nested tuples are flattened."""
    return [
        Array(dtype, tuple(int(n) for n in sides.split(",") if n), layout or "")
        for dtype, sides, layout in _ARRAY.findall(text)
    ]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
      name: unique in its computation.
      opcode: such as "fusion" or "all-reduce".
      results: the arrays of its result.
      operands: the names of the instructions that it reads.
      arguments: the text between the parentheses.
      attributes: the text after the parentheses.
      is_root: whether its result is that of the computation.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    arguments: str
    attributes: str
    is_root: bool

    @property
    def bytes(self) -> int:
        """The bytes of the result in main memory."""
        return sum(array.bytes for array in self.results)

    @property
    def called(self) -> list[str]:
        """The names of the computations that it calls, without a loop's condition."""
        return [name for group in _ATTRIBUTE_COMPUTATIONS.findall(self.attributes) for name in _NAME.findall(group)]

    @property
    def cycles(self) -> int:
        """The cycles that a TPU's compiler expects the instruction to take; 0 where it says nothing."""
        cycles = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(cycles[1]) if cycles and int(cycles[1]) < UNKNOWN_CYCLES else 0

    @property
    def target(self) -> str:
        """The target of a custom call, such as "__cudnn$convForward"; empty for other instructions."""
        target = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return target[1] if target else ""

    @property
    def op_name(self) -> str:
        """The place in the traced program that it comes from, such as "jit(step)/conv1/conv_general_dilated"."""
        name = re.search(r'op_name="([^"]*)"', self.attributes)
        return name[1] if name else ""


@dataclasses.dataclass(frozen=True)
class Computation:
    """A list of instructions by name."""

    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        """The instruction whose result is that of the computation."""
        return next(instruction for instruction in self.instructions.values() if instruction.is_root)

    @property
    def parameters(self) -> list[Instruction]:
        """The parameters; the number of each is its `arguments`."""
        return [each for each in self.instructions.values() if each.opcode == "parameter"]

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """Return the instructions whose results an instruction reads, each once."""
        return [self.instructions[name] for name in dict.fromkeys(instruction.operands)]

    def results(self, instruction: Instruction) -> tuple[Array, ...]:
        """Return the arrays that an instruction computes.

        The result of an asynchronous start also holds its operands, before the others except in that of a copy, and
        contexts of a few bytes.
        """
        results = instruction.results
        if instruction.opcode == "copy-start":
            return results[:1]
        if not instruction.opcode.endswith("-start"):
            return results
        operands = sum(len(self.instructions[name].results) for name in instruction.operands)
        return results[operands:] if len(results) > operands else results

    def users(self, name: str) -> Iterator[Instruction]:
        """Yield the instructions that read the result of `name`."""
        return (each for each in self.instructions.values() if name in each.operands)


@dataclasses.dataclass(frozen=True)
class Module:
    """A program.

    Attributes:
      computations: by name.
      entry: the computation that runs; the others are called from it.
      header: the first line, with the program's options.
    """

    computations: dict[str, Computation]
    entry: Computation
    header: str

    def called(self, instruction: Instruction) -> list[Computation]:
        """Return the computations that an instruction calls, without a loop's condition."""
        return [self.computations[name] for name in instruction.called if name in self.computations]

    def trip_count(self, owner: Computation, loop: Instruction) -> int | None:
        """Return how often the body of a loop in `owner` runs; None where it is not known before it runs.

        GPU's compiler writes it down. For TPUs it follows from the condition: a counter that starts at a constant, is
        less than another constant, and grows by one, as in JAX's loops of known length.
        """
        known = re.search(r"known_trip_count\W+n\W+(\d+)", loop.attributes)
        if known:
            return int(known[1])
        condition = re.search(r"condition=%([\w.\-]+)", loop.attributes)
        if not condition:
            return None
        inside = self.computations[condition[1]]
        root = inside.root
        if root.opcode != "compare" or "direction=LT" not in root.attributes:
            return None
        start, end = (self._initial_value(inside, owner, loop, name) for name in root.operands)
        return None if start is None or end is None else max(0, end - start)

    def _initial_value(self, inside: Computation, owner: Computation, loop: Instruction, name: str) -> int | None:
        """Return the value of an integer of a loop's condition before the first iteration; None if not constant."""
        value = inside.instructions[name]
        if value.opcode == "get-tuple-element":
            index = re.search(r"index=(\d+)", value.attributes)
            initial = owner.instructions[loop.operands[0]]
            if index is None or initial.opcode != "tuple":
                return None
            value, inside = owner.instructions[initial.operands[int(index[1])]], owner
        while value.opcode in ("copy", "bitcast"):
            value = inside.instructions[value.operands[0]]
        is_integer = value.opcode == "constant" and re.fullmatch(r"-?\d+", value.arguments)
        return int(value.arguments) if is_integer else None

    @property
    def aliases(self) -> int:
        """The number of results that take the buffer of a donated argument."""
        return len(re.findall(r"(?:may|must)-alias\)", self.header))


def parse(text: str) -> Module:
    """Return the program of HLO's text, as `jax.stages.Compiled.as_text` returns it.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry: str | None = None
    current: dict[str, Instruction] = {}
    for line in text.splitlines():
        heading = _COMPUTATION.match(line)
        if heading:
            current = computations.setdefault(heading[2], {})
            entry = heading[2] if heading[1] else entry
            continue
        instruction = _parse_instruction(line)
        if instruction:
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("the text has no ENTRY computation; it is not HLO")
    by_name = {name: Computation(name, instructions) for name, instructions in computations.items()}
    return Module(by_name, by_name[entry], text.partition("\n")[0])


def _parse_instruction(line: str) -> Instruction | None:
    match = _INSTRUCTION.match(line)
    if not match:
        return None
    root, name, result, opcode, rest = match.groups()
    end = _closing(rest)
    operands = () if opcode == "constant" else tuple(_NAME.findall(rest[:end]))
    return Instruction(name, opcode, tuple(arrays(result)), operands, rest[:end], rest[end + 1 :], bool(root))


def _closing(text: str) -> int:
    """Return the position of the parenthesis that closes one before the text; its length where none does."""
    depth = 1
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position
    return len(text)
