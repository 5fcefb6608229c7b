"""The number of cores for readers and for work on images."""

import os


def available_cores() -> int:
    """Return the number of cores that this process may use, which is at most the number that the machine has."""
    count = getattr(os, "process_cpu_count", None)  # since Python 3.13
    if count is not None:
        return count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
