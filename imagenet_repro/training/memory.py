"""The memory of a process: its peak, and what it can still take."""

import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from imagenet_repro.training import hosts

MEMINFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def peak() -> dict[str, Any]:
    """Return the peak in `bytes`, and `of`: "device" for the one with the highest peak (GPU, TPU), else "process"."""
    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in statistics if "peak_bytes_in_use" in stats]
    if peaks:
        return {"bytes": max(peaks), "of": "device"}
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2) counts bytes on macOS, kilobytes elsewhere
    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "of": "process"}


def free() -> int | None:
    """Return the bytes that this process can still take on each of its devices; None where that is not known.

    It is the least over all devices of all processes, so that all of them decide alike.
    """
    least = min(hosts.gather(min(map(_free_on, jax.local_devices()))))
    return None if least == _UNKNOWN else least


_UNKNOWN = 2**62  # bytes


def _free_on(device: Any) -> int:
    if device.platform == "cpu":
        host = free_on_host()
        return _UNKNOWN if host is None else host // jax.local_device_count()
    statistics = device.memory_stats() or {}
    if "bytes_limit" not in statistics:
        return _UNKNOWN
    return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)


def free_on_host() -> int | None:
    """Return the bytes that the system can still give to this process without ending one; None outside of Linux.

    It is what the machine has available, or less where a control group of the process is limited to less.
    """
    try:
        available = re.search(r"^MemAvailable:\s+(\d+) kB$", MEMINFO.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    known = [1024 * int(available[1])] if available else []
    return min([*known, *_free_in_groups()], default=None)


def _free_in_groups() -> Iterator[int]:
    """Yield the bytes that are free in each limited control group of the process (cgroups(7))."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        is_unified = not controllers  # version 2
        mount = GROUPS if is_unified else GROUPS / "memory"
        names = ("memory.max", "memory.current") if is_unified else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        own = mount / path.lstrip("/")
        # In a container the path is that of the host, and the mount is the group itself.
        for group in {mount, own, *own.parents} - {*mount.parents}:
            limit, used = (_read_number(group / name) for name in names)
            if limit is not None and used is not None:
                yield limit - used + _reclaimable(group / "memory.stat")


def _read_number(path: Path) -> int | None:
    """Return the number in a file; None where there is none, as in that of a group without a limit."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _reclaimable(path: Path) -> int:
    """Return the bytes of the cache of files, which the system gives up when memory runs out."""
    try:
        numbers = dict(line.split() for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return 0
    return sum(int(numbers.get(name, 0)) for name in ("inactive_file", "active_file"))
