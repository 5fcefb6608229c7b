"""Retry calls to a trial storage that is unreachable for a while."""

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from imagenet_repro.sweeps.queue import UnreachableError

PATIENCE = 600.0  # seconds of retrying, enough for a database server to restart
PAUSE = 2.0  # seconds between two attempts

Answer = TypeVar("Answer")


def retry_unreachable(call: Callable[[], Answer], is_stopping: Callable[[], bool]) -> Answer:
    """Return the result of a call, repeating it while its storage cannot be reached.

    Args:
      call: a function that is safe to call again after it failed.
      is_stopping: a function that returns whether this process was asked to stop; it then no longer retries.

    Raises:
      UnreachableError: the storage was unreachable for PATIENCE seconds, or this process is stopping.
    """
    start = time.monotonic()
    is_reported = False
    while True:
        try:
            return call()
        except UnreachableError as error:
            if is_stopping() or time.monotonic() - start > PATIENCE:
                raise
            if not is_reported:
                print(f"{error}; retrying for {PATIENCE / 60:.0f} minutes", file=sys.stderr)
            is_reported = True
        time.sleep(PAUSE)
