"""The other processes of a run on several hosts, and the end of this process when one of them is lost.

JAX ends a process from C++, with a stack and SIGABRT, when another process of its run is lost: at once if that was the
first process, whose coordination service the others use, and otherwise after 100 seconds without a heartbeat. Until
then an operation over all devices fails or waits, depending on the devices. So each process shows every few seconds
that it is alive, in the key-value store of the coordination service, and a thread looks for the others. A run whose
process is lost ends on every host with a sentence and with the exit code after which the same commands resume.
"""

import atexit
import contextlib
import ctypes
import dataclasses
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from jax._src import distributed  # JAX has no public name for the client of its coordination service

from imagenet_repro.errors import EXIT_STOPPED, InterruptedRunError, SaveError, UserError

INTERVAL = 4.0  # seconds between two signs of life
SILENCE = 40.0  # seconds without a sign of life after which a process is lost
FAREWELL = 8.0  # seconds that a process waits for its own error after another process has ended with one
ENDED = "ended"  # the last sign of life of a process that ends with an error
PREFIX = "imagenet_repro/alive/"
CAUSE = "its host or the system's out-of-memory killer may have ended it"
KNOCKS, PAUSE = 10, 0.3  # attempts to reach the first process, and seconds between them


class Watch:
    """The signs of life of this process and of the others.

    Args:
      client: the client of the coordination service, with `key_value_set` and `key_value_dir_get`.
      index: number of this process.
      count: number of processes.
      coordinator: address of the coordination service, HOST:PORT.
    """

    def __init__(self, client: Any, index: int, count: int, coordinator: str):
        self._client, self._index, self._count, self._coordinator = client, index, count, coordinator
        self._beats = itertools.count()
        self._seen = {peer: ("", time.monotonic()) for peer in range(count) if peer != index}
        self._looked = time.monotonic()
        self._code: int | None = None  # the exit code of this process, once it ends with an error of its own
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peers", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for it as long as a look may take."""
        self._stopped.set()
        self._thread.join(timeout=2 * INTERVAL)

    def _run(self) -> None:
        while distributed.global_state.client is not None and not self._stopped.is_set():
            with contextlib.suppress(Exception):  # the service has ended: `handle_abort` or the end of this process
                if lost := self.look():
                    self._leave(lost)
            self._stopped.wait(INTERVAL)

    def look(self) -> str:
        """Show that this process is alive, and return which other process is lost, or "".

        Raises:
          Exception: the coordination service does not answer.
        """
        sign = ENDED if self._code is not None else str(next(self._beats))
        self._client.key_value_set(f"{PREFIX}{self._index}", sign, allow_overwrite=True)
        return self._silent(dict(self._client.key_value_dir_get(PREFIX)), time.monotonic())

    def _silent(self, signs: Mapping[str, str], now: float) -> str:
        if now - self._looked > SILENCE / 2:  # this process was suspended, and may have missed the signs of others
            self._seen = {peer: (sign, now) for peer, (sign, _) in self._seen.items()}
        self._looked = now
        for peer, (sign, since) in self._seen.items():
            new = signs.get(f"{PREFIX}{peer}", "")
            if new != sign:
                self._seen[peer] = (new, now)
            elif new == ENDED and now - since > FAREWELL:
                return f"process {peer} of {self._count} has ended with an error, which its own output shows"
            elif new != ENDED and now - since > SILENCE:
                return (
                    f"process {peer} of {self._count} was lost: it has shown no sign of life for {SILENCE:.0f} s;"
                    f" {CAUSE}"
                )
        return ""

    def end_with(self, code: int) -> None:
        """Tell the others that this process ends with an error; its exit code is `code`, even if they end first."""
        self._code = code
        with contextlib.suppress(Exception):
            self.look()

    def handle_abort(self) -> None:
        """Leave with a sentence if JAX is aborting this process because the first process is lost; else return."""
        if self._code is not None:
            self._leave("")
        if self._index != 0 and not self._reaches_first():
            self._leave(f"process 0 of {self._count} was lost: {self._coordinator} does not answer; {CAUSE}")

    def _reaches_first(self) -> bool:
        """Return whether the first process answers for a few seconds: its sockets may outlive it for an instant."""
        host, _, port = self._coordinator.rpartition(":")
        for _ in range(KNOCKS):
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            except OSError:
                return False
            time.sleep(PAUSE)
        return True

    def _leave(self, message: str) -> None:
        """End this process at once: its main thread may wait for the lost process, and for ever."""
        if self._code is None:
            _say(f"{message}. Checkpoints are kept; the same commands resume")
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(EXIT_STOPPED if self._code is None else self._code)


@dataclasses.dataclass
class _Joined:
    """The state of this process.

    Attributes:
      watch: the watch; None before the processes have joined, and where there is one process.
      handler: the C function that handles SIGABRT, which must live as long as the process.
    """

    watch: Watch | None = None
    handler: Any = None


_joined = _Joined()


def join(address: str | None = None, count: int | None = None, index: int | None = None) -> None:
    """Join the other processes of a run by `jax.distributed.initialize`, and watch them from then on.

    Args:
      address: address of the first process, HOST:PORT; None: JAX finds address, count and index.
      count: number of processes.
      index: number of this process.
    """
    import jax

    _handle_aborts()
    jax.distributed.initialize(address, count, index)
    _start_watch()
    atexit.register(_stop_watch)


def _start_watch() -> None:
    state = distributed.global_state
    if state.num_processes > 1 and state.client is not None and state.coordinator_address is not None:
        _joined.watch = Watch(state.client, state.process_id, state.num_processes, state.coordinator_address)
        _joined.watch.start()


def _stop_watch() -> None:
    """End the watch before the interpreter ends.

    A thread that returns from C++ to an interpreter that has ended is ended in a way that C++ answers with SIGABRT.
    A handler in Python would then be called without an interpreter, again and again.
    """
    if _joined.watch is not None:
        _joined.watch.stop()
    _libc().signal(signal.SIGABRT, None)  # SIG_DFL


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Blame an error within the block on a lost process, if one was lost; tell the other processes of other errors.

    An operation over all devices, or a checkpoint that all write, may fail before the loss is noticed. So the error
    waits for that long; if a process was lost, the watch ends this process.
    """
    try:
        yield
    except InterruptedRunError:  # all processes agreed to stop
        raise
    except Exception as error:
        if _joined.watch is not None:
            if isinstance(error, SaveError) or not isinstance(error, UserError):
                time.sleep(SILENCE + 3 * INTERVAL)
            _joined.watch.end_with(error.exit_code if isinstance(error, UserError) else 1)
        raise


def _handle_aborts() -> None:
    """Handle SIGABRT in this process, also where the thread that aborts is not Python's."""

    def handle(_number: int) -> None:
        if _joined.watch is not None:
            _joined.watch.handle_abort()
        else:
            _say(
                "the processes of this run did not all join: COORDINATOR_ADDRESS, NUM_PROCESSES and PROCESS_ID may be"
                " wrong, or a process ended first. The same commands start the run again"
            )
            os._exit(EXIT_STOPPED)

    _joined.handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(handle)
    _libc().signal(signal.SIGABRT, ctypes.cast(_joined.handler, ctypes.c_void_p))


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    return libc


def _say(message: str) -> None:
    with contextlib.suppress(Exception):
        sys.stderr.write(f"\n{message}\n")
        sys.stderr.flush()
