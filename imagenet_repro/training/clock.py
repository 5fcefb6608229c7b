"""A clock that measures only training time, and the signals that end a run."""

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
    """A clock of training: it runs while steps run and is paused while the run compiles, evaluates or saves.

    Args:
      seconds: training time of the run before it was last stopped.
    """

    def __init__(self, seconds: float = 0.0):
        self._before = seconds
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._before + running

    def start(self) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the clock within the block. The caller must have waited for the devices."""
        self._before, self._since = self.seconds, None
        try:
            yield
        finally:
            self.start()


class StopSignal:
    """A handler of SIGTERM and Ctrl-C: the first asks for a stop after the step, the second ends the process at once.

    Attributes:
      insistent: whether the second signal ends the process; False where several processes pass on the same signal.
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
    """The values on which all processes agree: the seconds spent, and whether one of them received a stop signal.

    A single process decides after every step. Several processes communicate every `interval` steps and keep the values
    in between, so that all take the same steps with the same progress.

    Args:
      interval: steps from one communication to the next.
    """

    def __init__(self, interval: int):
        self._interval = interval
        self._seconds: float | None = None
        self._stop = False

    def meet(self, step: int, seconds: float, stop: bool) -> tuple[float, bool]:
        """Return the seconds of the first process and whether any process is to stop, as last communicated."""
        if jax.process_count() == 1:
            return seconds, stop
        if self._seconds is None or step % self._interval == 0:
            everyone = multihost_utils.process_allgather(np.asarray([seconds, float(stop)]))
            self._seconds, self._stop = float(everyone[0, 0]), bool(everyone[:, 1].any())
        return self._seconds, self._stop
