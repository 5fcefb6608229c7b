"""The clock of training alone, and the signals that end it."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
import numpy as np
from jax.experimental import multihost_utils


class TrainingClock:
    """Seconds of training: it runs while steps run, and stands while anything is compiled, evaluated or saved.

    Args:
      seconds: what the run had used before it was last stopped.
    """

    def __init__(self, seconds: float = 0.0):
        self._before = seconds
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Training seconds so far."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._before + running

    def start(self) -> None:
        """Lets it run."""
        self._since = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stands still within the block. The caller has waited for the devices."""
        self._before, self._since = self.seconds, None
        try:
            yield
        finally:
            self.start()


class StopSignal:
    """SIGTERM and Ctrl-C: the first asks for a stop after the step, the second ends the process at once.

    Attributes:
      insistent: whether the second does; not so where nobody insists, but several pass on one signal.
    """

    insistent = True

    def __init__(self):
        self.received: str | None = None

    def __enter__(self) -> "StopSignal":
        self._previous = {s: signal.signal(s, self._handle) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is not None and self.insistent:
            os._exit(128 + number)
        self.received = signal.Signals(number).name


class Agreement:
    """What all processes must see alike: the seconds spent, and whether one of them was told to stop.

    One process decides by itself after every step. Several meet every `interval` steps, and hold what they agreed
    on in between, so that all take the same steps with the same progress.

    Args:
      interval: steps from one meeting to the next.
    """

    def __init__(self, interval: int):
        self._interval = interval
        self._seconds: float | None = None
        self._stop = False

    def meet(self, step: int, seconds: float, stop: bool) -> tuple[float, bool]:
        """(seconds of the first process, whether any is to stop), as of the last meeting."""
        if jax.process_count() == 1:
            return seconds, stop
        if self._seconds is None or step % self._interval == 0:
            everyone = multihost_utils.process_allgather(np.asarray([seconds, float(stop)]))
            self._seconds, self._stop = float(everyone[0, 0]), bool(everyone[:, 1].any())
        return self._seconds, self._stop
