"""A clock that measures only training time, and the signals that end a run."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import jax
import numpy as np
from jax.experimental import multihost_utils

HOSTS = "hosts"  # the entry of a batch, and the measure of a step, through which processes agree


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


SIGNALS = (signal.SIGTERM, signal.SIGINT)
# `timeout`, shells and process managers send one signal to a process and to its group, so that it arrives twice.
ECHO_SECONDS = 1.0  # after the first signal, in which another one counts as the same


class StopSignal:
    """A handler of SIGTERM and Ctrl-C: the first asks for a stop after the step, the second ends the process at once.

    Python runs a handler only between two of its instructions, and a step keeps the main thread for as long as it
    takes. A thread therefore reads the signals as they arrive (`signal.set_wakeup_fd`), says on stderr what happens
    next, and ends the process at the second one. Signals within `ECHO_SECONDS` of the first are the same request.

    Args:
      announcement: what a first signal says, after its name, on the first process; empty: nothing.

    Attributes:
      received: the name of the first signal; None before it.
      insistent: whether the second signal ends the process; False where several processes pass on the same signal.
    """

    insistent = True

    def __init__(self, announcement: str = ""):
        self.received: str | None = None
        self._announcement = announcement

    def __enter__(self) -> "StopSignal":
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        again = "; a second one ends at once, without saving" if self.insistent else ""
        text = f"{self._announcement}{again}" if self._announcement and jax.process_index() == 0 else ""
        self._listener = threading.Thread(target=_listen, args=(reader, text, self.insistent), daemon=True)
        self._listener.start()
        self._previous_writer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_writer)
        os.close(self._writer)  # the thread reads what is left, and ends
        self._listener.join()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is None:
            self.received = signal.Signals(number).name


# A forked child would write its own signals, which reach the whole group of processes, into its parent's pipe.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


def _listen(reader: int, announcement: str, insistent: bool) -> None:
    """Read the numbers of signals from a pipe until it is closed; announce the first, and end at the second."""
    first: float | None = None
    with open(reader, "rb", buffering=0) as pipe:
        while numbers := pipe.read(64):
            for number in filter(SIGNALS.__contains__, numbers):
                now = time.monotonic()
                if first is None:
                    first = now
                    _announce(number, announcement)
                elif insistent and now - first >= ECHO_SECONDS:
                    os._exit(128 + number)


def _announce(number: int, announcement: str) -> None:
    if announcement:
        with contextlib.suppress(OSError):
            os.write(2, f"\n{signal.Signals(number).name}: {announcement}\n".encode())


class Agreement:
    """The values on which all processes agree: the seconds spent, and whether one of them received a stop signal.

    A process that is alone decides by itself after every step. Several processes pass their values along with the
    batch (`entry`), and the step returns the sums with its measures (`hear`), so agreeing costs no communication of
    its own and no wait. All processes act on the measures that all have read, which lag behind by the steps in flight.
    Where no step is in flight, they ask one another directly.

    Args:
      put: places this process's rows of an array on its devices, as `Spread.put_batch`; None: the process is alone.
      rows: this process's images in a batch.
      timed: whether the run depends on the seconds spent. If not, the entry of a step needs no transfer.
      seconds: training time of the run before it was last stopped.
    """

    def __init__(
        self,
        put: Callable[[dict[str, np.ndarray]], dict[str, jax.Array]] | None = None,
        rows: int = 0,
        *,
        timed: bool = False,
        seconds: float = 0.0,
    ):
        self._put, self._rows, self._timed, self._seconds = put, rows, timed, seconds
        self._stop = False
        self._constant = {} if put is None or timed else {stop: self._entry(0.0, stop) for stop in (False, True)}

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self._put is None

    def entry(self, seconds: float, stop: bool) -> dict[str, jax.Array]:
        """Return what this process adds to the batch of a step: float32 [b, 3] over all devices; alone nothing."""
        if self.alone:
            return {}
        return self._constant[stop] if self._constant else self._entry(seconds, stop)

    def hear(self, values: np.ndarray) -> None:
        """Take in the sums over all processes that a step returned, float32 [3]."""
        self._stop |= bool(values[0] > 0)
        if self._timed:
            self._seconds = float(values[1]) + float(values[2]) / 1e6

    def meet(self, seconds: float, stop: bool, *, in_flight: int) -> tuple[float, bool]:
        """Return the seconds of the first process, and whether any process is to stop.

        Args:
          seconds: seconds on the clock of this process.
          stop: whether this process received a stop signal.
          in_flight: steps whose measures were not read, the same number in every process.
        """
        if self.alone:
            return seconds, stop
        if in_flight == 0:
            everyone = multihost_utils.process_allgather(np.asarray(self._row(seconds, stop), np.float32))
            self.hear(everyone.sum(0))
        return self._seconds if self._timed else seconds, self._stop

    def _entry(self, seconds: float, stop: bool) -> dict[str, jax.Array]:
        rows = np.zeros((self._rows, 3), np.float32)
        rows[0] = self._row(seconds, stop)
        assert self._put is not None
        return self._put({HOSTS: rows})

    def _row(self, seconds: float, stop: bool) -> tuple[float, float, float]:
        """Return the flag, and on the first process its seconds in two numbers that float32 holds exactly."""
        shown = seconds if jax.process_index() == 0 else 0.0
        return float(stop), float(int(shown)), float(round(shown % 1 * 1e6))
