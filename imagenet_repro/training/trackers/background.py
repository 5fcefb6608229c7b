"""A tracker that is written from a thread of its own, so that training never waits for it."""

import abc
import concurrent.futures
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from imagenet_repro.training.trackers.tracked_run import KINDS, Row

MOST_WAITING = 10_000  # rows; a tracker that is so far behind does not keep up
STARTING_SECONDS = 120.0  # that the start of a run waits for a tracker
CLOSING_SECONDS = 60.0  # that its end waits for it

Result = TypeVar("Result")


class Adapter(abc.ABC):
    """The part of a tracker that knows its library. It may raise any exception.

    Attributes:
      title: the name of the tracker, for messages.
      place: where it records the run, as a phrase for the screen.
    """

    title: str
    place: str

    @abc.abstractmethod
    def sent(self) -> Mapping[str, int] | None:
        """Return the last step of each kind that the tracker has stored; None where it cannot be asked."""

    @abc.abstractmethod
    def write(self, rows: Sequence[Row]) -> None:
        """Record rows, in the order of their steps."""

    @abc.abstractmethod
    def close(self, result: Mapping[str, float] | None) -> None:
        """Record the numbers of the result, if the run is finished, and end the run of the tracker."""


class Background:
    """A tracker with its thread.

    Args:
      adapter: of the tracker.
      sent: the last step of each kind that the tracker has; rows up to it are not written again.
      say: called with one line if the tracker fails.
    """

    def __init__(self, adapter: Adapter, sent: Mapping[str, int], say: Callable[[str], None]):
        self._adapter, self._sent, self._say = adapter, sent, say
        self._waiting: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
        self._result: Mapping[str, float] | None = None
        self._lock = threading.Lock()
        self._is_dropped = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {adapter.title}", daemon=True)
        self._thread.start()

    def write(self, kind: str, step: int, numbers: dict[str, float]) -> None:
        """Pass a row to the thread, unless the tracker has it or does not take such rows."""
        if self._is_dropped or not numbers or kind not in KINDS or step <= self._sent[kind]:
            return
        if self._waiting.qsize() >= MOST_WAITING:
            self._drop(f"it is {MOST_WAITING:,} rows behind")
        else:
            self._waiting.put(Row(step, numbers))

    def close(self, result: Mapping[str, float] | None) -> None:
        """Wait until the tracker has all rows and the result, but no longer than a minute."""
        if self._is_dropped:
            return
        self._result = result
        self._waiting.put(None)
        self._thread.join(CLOSING_SECONDS)
        if self._thread.is_alive():
            self._drop(f"it has not ended after {CLOSING_SECONDS:.0f} s")

    def _drop(self, reason: str) -> None:
        with self._lock:
            if self._is_dropped:
                return
            self._is_dropped = True
        self._say(f"{self._adapter.title}: {reason}; the run goes on without it")

    def _work(self) -> None:
        try:
            is_open = True
            while is_open and not self._is_dropped:
                rows, is_open = self._take()
                if rows:
                    self._adapter.write(rows)
            if not self._is_dropped:
                self._adapter.close(self._result)
        except Exception as error:  # of any library, about a disk, a network or a server
            self._drop(describe(error))

    def _take(self) -> tuple[list[Row], bool]:
        """Return all rows that wait, at least one of them, and whether more may come."""
        rows: list[Row] = []
        item = self._waiting.get()
        while item is not None:
            rows.append(item)
            if self._waiting.empty():
                return rows, True
            item = self._waiting.get()
        return rows, False


def within_limit(function: Callable[[], Result]) -> Result:
    """Return the result of a function that is called in a thread, and that is left alone after two minutes.

    Raises:
      TimeoutError: it has not returned.
      Exception: that of the function.
    """
    future: concurrent.futures.Future[Result] = concurrent.futures.Future()

    def call() -> None:
        try:
            future.set_result(function())
        except Exception as error:  # of any library
            future.set_exception(error)

    threading.Thread(target=call, name="start of a tracker", daemon=True).start()
    try:
        return future.result(STARTING_SECONDS)
    except TimeoutError as error:
        if future.done():  # the function's own
            raise
        raise TimeoutError(f"it has not started after {STARTING_SECONDS:.0f} s") from error


def describe(error: Exception) -> str:
    """Return an error of a library as one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
