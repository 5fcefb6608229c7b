"""Too little memory: a warning before work starts, and the sentence in place of a library's error.

Libraries report it in many ways. Some of XLA's threads end the process by themselves or wait forever, so a limit that
is too low for them is named at the start.
"""

import errno
import resource
import sys

ADDRESSES_NEEDED = 8 * 2**30  # bytes; XLA's threads and its compiler reserve far more than they use
PHRASES = (
    "RESOURCE_EXHAUSTED",  # XLA, of a device or of the host
    "bad_alloc",  # C++
    "can't start new thread",  # Python
    "failed to map segment",  # the loader of shared libraries
)
ADVICE = (
    "Free some, or raise the limit of this process (ulimit -v unlimited). A smaller batch_size or data.eval_batch_size"
    " and fewer data.workers need less"
)


def warn_of_limit(program: str) -> None:
    """Print a warning if the addresses of this process are limited to less than libraries need."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < ADDRESSES_NEEDED:
        print(
            f"{program}: warning: this process may use {limit / 1e9:.1f} GB of addresses (ulimit -v). If that is too"
            " little, libraries crash or wait forever; ulimit -v unlimited removes the limit",
            file=sys.stderr,
        )


def describe(error: BaseException) -> str:
    """Return what to say about an error that was caused by too little memory; empty for any other error."""
    cause: BaseException | None = error
    while cause is not None:
        if _is_shortage(cause):
            text = " ".join(str(cause).split())[:300] or type(cause).__name__
            return f"there is too little memory ({text}). {ADVICE}"
        cause = cause.__cause__
    return ""


def _is_shortage(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError | ImportError):
        return any(phrase in str(error) for phrase in PHRASES)
    return isinstance(error, MemoryError)
