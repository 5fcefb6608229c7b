"""Collectives of a compiled step: the messages between devices, their bytes and the time that links need for them."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

from imagenet_repro.planning.hlo import Array, Computation, Instruction, Module
from imagenet_repro.planning.traffic import executed

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One message between devices.

    Attributes:
      kind: one of `KINDS`.
      bytes: of the complete array: the sum's, the gathered array's, or the array's before it is scattered.
      devices: the number of devices of a group.
      times: how often it runs in a step.
    """

    kind: str
    bytes: int
    devices: int
    times: int


def find_collectives(module: Module, devices: int) -> list[Collective]:
    """Return the collectives of a program.

    Args:
      module: the program.
      devices: the number of devices that run it.
    """
    collectives = []
    for owner, instruction, times in executed(module):
        for scope, computation, each in _messages(module, "", owner, instruction):
            group = _group_size(each.attributes, devices)
            kind = each.opcode.removesuffix("-start")
            # TPU: a reduce-scatter is a fusion that reduces everything and keeps a part, without sending the rest.
            is_scatter = kind == "reduce-scatter" or (kind == "all-reduce" and "scatter" in scope)
            size = _bytes(computation.results(each))
            size = size * group if kind == "reduce-scatter" else size
            collectives.append(Collective("reduce-scatter" if is_scatter else kind, size, group, times))
    return [each for each in collectives if each.devices > 1]


def _messages(
    module: Module, scope: str, owner: Computation, instruction: Instruction
) -> Iterator[tuple[str, Computation, Instruction]]:
    """Yield the collectives that an instruction is or, if it is a fusion, contains.

    With each come the names of the fusions around it and the computation that it is in.
    """
    opcode = instruction.opcode.removesuffix("-start")
    if opcode in KINDS:
        yield scope, owner, instruction
    elif opcode == "fusion":
        for body in module.called(instruction):
            for each in body.instructions.values():
                yield from _messages(module, f"{scope} {body.name}", body, each)


def _bytes(results: Sequence[Array]) -> int:
    """Return the bytes of arrays wherever they are, without the padding of tiles."""
    return sum(Array(array.dtype, array.shape).bytes for array in results)


def _group_size(attributes: str, devices: int) -> int:
    """Return the number of devices of a group, in any of HLO's notations."""
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes)
    if mesh:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        return math.prod(sizes[name] for name in re.findall(r"'(\w+)'", mesh[2]))
    tiled = re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes)
    if tiled:
        return int(tiled[2])
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    return len(listed[1].split(",")) if listed else devices


def summarise(found: Sequence[Collective]) -> dict[str, dict[str, int]]:
    """Return, for each kind that occurs, the `count` of messages in a step and their `bytes`."""
    counts: dict[str, dict[str, int]] = collections.defaultdict(lambda: {"count": 0, "bytes": 0})
    for each in found:
        counts[each.kind]["count"] += each.times
        counts[each.kind]["bytes"] += each.times * each.bytes
    return dict(counts)


@dataclasses.dataclass(frozen=True)
class Interconnect:
    """The links of a device.

    Attributes:
      bandwidth: bytes/s that a device can send over all links to devices of its host or slice, in one direction.
      host_devices: the devices that these links join; others are reached over the network.
      network_bandwidth: bytes/s that a device can send to other hosts; 0 where there are none.
    """

    bandwidth: float
    host_devices: int
    network_bandwidth: float = 0.0

    def seconds(self, collective: Collective) -> float:
        """Return the least time of a collective, where every link is in use all the time.

        With ring algorithms a device sends (n - 1) / n of the complete array to gather, to scatter or to exchange it,
        and twice that to reduce it. Over several hosts the array is first scattered within each host, so that each
        device's network link carries only its part (the hierarchical form that NCCL uses).
        """
        local = min(collective.devices, self.host_devices)
        hosts = math.ceil(collective.devices / local)
        passes = 2 if collective.kind == "all-reduce" else 1
        seconds = passes * collective.bytes * (local - 1) / local / self.bandwidth if local > 1 else 0.0
        if hosts > 1:
            share = collective.bytes / local
            seconds += passes * share * (hosts - 1) / hosts / self.network_bandwidth
        return collective.times * seconds
