"""The counters of energy that a process can read: NVIDIA's cards by NVML, processors and their memory by RAPL.

NVML counts the energy of a whole card since its driver was loaded (`nvmlDeviceGetTotalEnergyConsumption`, Volta and
newer). RAPL counts that of a processor's package, and of the memory beside it, in the files of Linux's power capping
framework (docs.kernel.org, power/powercap). Both count what everything on the card or the machine takes, not only this
process. A counter that is missing or cannot be read makes its part unknown, with the reason; it is never zero.
"""

import dataclasses
import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

Part = Literal["gpu", "cpu", "memory", "tpu"]

POWERCAP = Path("/sys/class/powercap")  # of Linux's power capping framework
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # names a machine since it was started
# The zones that are counted. "core" and "uncore" are parts of a package, "psys" holds packages, and the zones
# `intel-rapl-mmio` show the packages once more.
PARTS_OF_ZONES: dict[str, Part] = {"package": "cpu", "dram": "memory"}


class UnreadableError(Exception):
    """A counter cannot be read; the message says why."""


@runtime_checkable
class Counter(Protocol):
    """A counter of energy.

    Attributes:
      id: the same for the same hardware in every process, and different for other hardware.
      part: the part of the machine that it counts.
    """

    id: str
    part: Part

    def joules(self) -> float:
        """Return the energy since some moment before the first call.

        Raises:
          UnreadableError: it cannot be read, or has started anew.
        """
        ...


@dataclasses.dataclass(frozen=True)
class FoundCounters:
    """The counters of a machine.

    Attributes:
      counters: those that can be read.
      unknown: the reason for each part that cannot be read completely; `counters` has none of such a part.
    """

    counters: tuple[Counter, ...] = ()
    unknown: Mapping[Part, str] = dataclasses.field(default_factory=dict)


def find_counters(platform: str, cards: Sequence[int]) -> FoundCounters:
    """Return the counters for a process of JAX on this machine.

    Args:
      platform: the platform of its devices: "cpu", "gpu" or "tpu".
      cards: the numbers of its devices among those that CUDA shows it (`local_hardware_id`).
    """
    counters: list[Counter] = []
    unknown: dict[Part, str] = {}
    if platform == "gpu":
        try:
            counters += nvml_counters(cards)
        except UnreadableError as error:
            unknown["gpu"] = str(error)
    elif platform == "tpu":
        unknown["tpu"] = "TPUs have no counter of energy that a program can read"
    try:
        zones = rapl_counters()
    except UnreadableError as error:
        unknown["cpu"] = str(error)
    else:
        counters += zones
    return FoundCounters(tuple(counters), unknown)


# --- processors and memory --------------------------------------------------------------------------------------


class RaplZone:
    """A zone of RAPL, whose counter starts anew at its largest value; that is noticed if it is read often enough.

    Args:
      directory: of the zone, such as `/sys/class/powercap/intel-rapl:0`.
      part: the part of the machine that it counts.
      machine: names the machine since it was started.

    Raises:
      UnreadableError: a file cannot be read.
    """

    def __init__(self, directory: Path, part: Part, machine: str):
        self.id = f"{machine} {directory.name}"
        self.part: Part = part
        self._energy = directory / "energy_uj"
        self._range = _read_number(directory / "max_energy_range_uj")
        self._last, self._total = _read_number(self._energy), 0

    def joules(self) -> float:
        """Return the joules since the object was made."""
        now = _read_number(self._energy)
        self._total += now - self._last if now >= self._last else now - self._last + self._range
        self._last = now
        return self._total / 1e6


def rapl_counters() -> list[Counter]:
    """Return the counters of all packages of processors, and of the memory beside them.

    Raises:
      UnreadableError: there is none, or one cannot be read.
    """
    zones: list[tuple[Path, Part]] = [
        (zone, part) for zone in sorted(POWERCAP.glob("intel-rapl:*")) if (part := _part_of(zone))
    ]
    if not any(part == "cpu" for _, part in zones):
        raise UnreadableError(f"this machine has no counters of its processors (RAPL) below {POWERCAP}")
    machine = BOOT_ID.read_text(encoding="utf-8").strip() if BOOT_ID.exists() else os.uname().nodename
    counters: list[Counter] = [RaplZone(zone, part, machine) for zone, part in zones]
    return counters


def _part_of(zone: Path) -> Part | None:
    try:
        name = (zone / "name").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return PARTS_OF_ZONES.get(name.partition("-")[0])


def _read_number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise UnreadableError(
            f"{path} can be read by root alone; `chmod a+r {path.parent.parent}/intel-rapl:*/energy_uj` as root lets"
            " others read it"
        ) from error
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{path} cannot be read: {error}") from error


# --- cards ------------------------------------------------------------------------------------------------------


class NvmlCard:
    """A card of NVIDIA's.

    Args:
      nvml: the module `pynvml`.
      handle: of the card.

    Raises:
      UnreadableError: the card does not count its energy, or shares it with others.
    """

    def __init__(self, nvml: Any, handle: Any):
        self.part: Part = "gpu"
        self._nvml, self._handle = nvml, handle
        self.id = _text(nvml.nvmlDeviceGetUUID(handle))
        if _is_divided(nvml, handle):
            raise UnreadableError(f"{self.id} is divided by MIG, and NVML counts the energy of whole cards alone")
        self._last = 0
        self.joules()

    def joules(self) -> float:
        """Return the joules since the driver was loaded."""
        try:
            millijoules = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except self._nvml.NVMLError as error:
            raise UnreadableError(f"NVML cannot read the energy of {self.id}: {error}") from error
        if millijoules < self._last:
            raise UnreadableError(f"the counter of {self.id} has started anew, as when its driver is loaded")
        self._last = millijoules
        return millijoules / 1e3


def nvml_counters(cards: Sequence[int], environment: Mapping[str, str] = os.environ) -> list[Counter]:
    """Return the counters of cards.

    Args:
      cards: their numbers among the cards that CUDA shows.
      environment: the environment of this process, whose CUDA_VISIBLE_DEVICES says which these are.

    Raises:
      UnreadableError: NVML is missing, or a card cannot be identified or read.
    """
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as error:
        raise UnreadableError("nvidia-ml-py is not installed (the extra `energy`: pip install .[energy])") from error
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        shown = _shown_by_cuda(nvml, handles, environment)
        if max(cards, default=0) >= len(shown):
            raise UnreadableError(f"NVML shows {len(shown)} cards, and JAX uses number {max(cards)}")
        counters: list[Counter] = [NvmlCard(nvml, shown[card]) for card in cards]
    except nvml.NVMLError as error:
        raise UnreadableError(f"NVML cannot be used: {error}") from error
    return counters


def _shown_by_cuda(nvml: Any, handles: Sequence[Any], environment: Mapping[str, str]) -> list[Any]:
    """Return the handles of the cards that CUDA shows this process, in CUDA's order.

    CUDA puts the fastest card first unless CUDA_DEVICE_ORDER says otherwise. NVML's order is that of the bus. The two
    agree if all cards are of one kind.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in visible.split(",")] if visible else list(map(str, range(len(handles))))
    if any(name.startswith("MIG") for name in names):
        raise UnreadableError("CUDA_VISIBLE_DEVICES names a part of a card (MIG), and NVML counts whole cards alone")
    is_by_bus = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    kinds = {_text(nvml.nvmlDeviceGetName(handle)) for handle in handles}
    if not is_by_bus and len(kinds) > 1 and any(name.isdecimal() for name in names):
        raise UnreadableError(
            "the cards of this machine are of several kinds, so that their numbers do not say which is which; set"
            " CUDA_DEVICE_ORDER=PCI_BUS_ID"
        )
    return [_find(nvml, handles, name) for name in names]


def _find(nvml: Any, handles: Sequence[Any], name: str) -> Any:
    """Return the handle of a card by its number or by the beginning of its UUID, as CUDA_VISIBLE_DEVICES names it."""
    if name.isdecimal() and int(name) < len(handles):
        return handles[int(name)]
    matches = [handle for handle in handles if name and _text(nvml.nvmlDeviceGetUUID(handle)).startswith(name)]
    if len(matches) != 1:
        raise UnreadableError(f"CUDA_VISIBLE_DEVICES names {name!r}, which NVML does not show")
    return matches[0]


def _is_divided(nvml: Any, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError:  # a card without MIG
        return False


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
