"""The peak memory of a process."""

import resource
import sys
from typing import Any

import jax


def peak() -> dict[str, Any]:
    """Return the peak in `bytes`, and `of`: "device" for the one with the highest peak (GPU, TPU), else "process"."""
    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in statistics if "peak_bytes_in_use" in stats]
    if peaks:
        return {"bytes": max(peaks), "of": "device"}
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2) counts bytes on macOS, kilobytes elsewhere
    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "of": "process"}
