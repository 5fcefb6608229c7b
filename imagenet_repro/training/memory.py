"""The most memory that a process has used."""

import resource
import sys
from typing import Any

import jax


def peak() -> dict[str, Any]:
    """`bytes`, and `of` which memory: the fullest "device" where it counts (GPU, TPU), else the "process" itself."""
    found = [device.memory_stats() or {} for device in jax.local_devices()]
    counted = [stats["peak_bytes_in_use"] for stats in found if "peak_bytes_in_use" in stats]
    if counted:
        return {"bytes": max(counted), "of": "device"}
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, kilobytes elsewhere
    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "of": "process"}
