"""Waiting for a storage that does not answer for a while."""

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from imagenet_repro.sweeps.queue import UnreachableError

PATIENCE = 600.0  # seconds, in which a server can be started again
PAUSE = 2.0  # seconds from one try to the next

Answer = TypeVar("Answer")


def retry_unreachable(call: Callable[[], Answer], stopping: Callable[[], bool]) -> Answer:
    """What a call answers, however often its storage cannot be reached meanwhile.

    Args:
      call: what may be done again after it has failed.
      stopping: whether this process was told to end, and should no longer wait.

    Raises:
      UnreachableError: it was so for PATIENCE seconds, or this process is to end.
    """
    began = time.monotonic()
    said = False
    while True:
        try:
            return call()
        except UnreachableError as error:
            if stopping() or time.monotonic() - began > PATIENCE:
                raise
            if not said:
                print(f"{error}; trying for {PATIENCE / 60:.0f} minutes", file=sys.stderr)
            said = True
        time.sleep(PAUSE)
