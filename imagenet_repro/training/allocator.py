"""How the C library hands out memory while XLA computes on the CPU."""

import ctypes
import sys

# <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_memory() -> None:
    """Keeps freed memory in the process, in one arena (glibc; elsewhere it does nothing).

    XLA's CPU runtime frees a step's temporaries at its end. By default glibc gives blocks of that size back to the
    kernel, and the next step pays for every page again: ResNet-18 at 64 px, batch 64, trained at 104 images/s without
    this and at 128 with it (two cores, benchmarks/train_step.py). The process holds its peak until it ends.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    for option, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)):
        libc.mallopt(option, value)
