"""The threads and processes that read: their numbers, and the behaviour of a process."""

import functools
import math
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
from typing import ClassVar

from imagenet_repro.config import Data
from imagenet_repro.data.cores import available_cores
from imagenet_repro.errors import LostProcessError, UserError

# Above this number of cores, the interpreter lock, held for about 0.1 ms of an image, costs more than processes do.
_CORES_PER_PROCESS = 16
_SHARED_MEMORY = "/dev/shm"  # the directory of Python's shared memory on Linux
_BATCHES_PER_WORKER = 4  # being filled, waiting on either side of the queue, being transferred
_BATCHES_RELEASED = 1  # whose arrays JAX has yet to drop


def reader_counts(data: Data, batch_bytes: int = 0) -> tuple[int, int]:
    """Return the threads of each process and the number of worker processes (0: the threads of this process read).

    The numbers are those of the configuration. Where it leaves them open, they follow from the cores that this process
    may use: three threads to two cores, so that reading and decoding overlap, and above 16 cores a process to 16 of
    them, since threads share Python's lock.

    Args:
        data: threads and workers are used.
        batch_bytes: size of one process's share of a batch.

    Raises:
        UserError: the worker processes that `data` names need more shared memory for batches than there is. Where
            `data` leaves the number open, it becomes 0 instead.
    """
    cores = available_cores()
    workers = data.workers
    if workers < 0:
        workers = cores // _CORES_PER_PROCESS if cores > _CORES_PER_PROCESS else 0
    problem = _shared_memory_problem(workers, batch_bytes)
    if problem and data.workers > 0:
        raise UserError(f"data.workers = {workers}: {problem}")
    if problem:
        _say_once(f"data.workers = 0 instead of {workers}, so threads of one process read all images: {problem}")
        workers = 0
    return data.threads or 1 + 3 * (cores // max(1, workers)) // 2, workers


def _shared_memory_problem(workers: int, batch_bytes: int) -> str:
    """Return why the workers' batches do not fit into shared memory, or "" where they do.

    A process that runs out of shared memory is killed without a message.
    """
    if not workers or not os.path.isdir(_SHARED_MEMORY):
        return ""
    system = os.statvfs(_SHARED_MEMORY)
    free = system.f_bavail * system.f_frsize
    needed = (_BATCHES_PER_WORKER * workers + _BATCHES_RELEASED) * batch_bytes
    if needed <= free:
        return ""
    gigabytes = math.ceil((needed + system.f_blocks * system.f_frsize - free) / 2**30)
    return (
        f"{workers} worker processes need {needed / 1e6:.0f} MB of shared memory for batches, and {_SHARED_MEMORY} "
        f"has {free / 1e6:.0f} MB free. Enlarge it (docker run --shm-size={gigabytes}g; elsewhere mount -o "
        f"remount,size={gigabytes}G {_SHARED_MEMORY}), or set data.workers to less"
    )


@functools.cache
def _say_once(message: str) -> None:
    """Print a message where a user sees it; absl's warnings are off in commands (training/devices.py)."""
    print(message, file=sys.stderr, flush=True)


def initialize_worker(worker: int, workers: int) -> None:
    """Set up a worker process before it reads: it leaves Ctrl-C, the accelerator and its end to its parent."""
    del worker, workers
    if "jax" in sys.modules:  # Grain imports it; a reader must not claim an accelerator
        sys.modules["jax"].config.update("jax_platforms", "cpu")
    follow_parent()


def follow_parent() -> None:
    """Make this worker process ignore Ctrl-C, and end when its parent is killed."""
    # Ctrl-C reaches every process of a terminal; the parent finishes its work and then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


_CAUSES = {
    signal.SIGKILL: "probably by the system because memory ran out (fewer data.workers and data.threads need less)",
    signal.SIGBUS: f"probably because {_SHARED_MEMORY} is full; enlarge it, or lower data.workers",
}
_OTHER_CAUSE = "perhaps by a fault in a library that decodes images"


class WorkerProcesses:
    """The worker processes of one iterator, from before their start until the iterator is closed.

    Grain reports a killed worker where batches are read. But one that is killed while it hands over a batch leaves the
    reader waiting for the rest of it, so the consumer of the batches asks `lost_worker` from time to time.
    """

    _open: ClassVar[set["WorkerProcesses"]] = set()

    def __init__(self):
        self._others = set(multiprocessing.active_children())
        self._own: set[multiprocessing.process.BaseProcess] = set()
        self._are_starting = True

    def __enter__(self) -> "WorkerProcesses":
        self._open.add(self)
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.discard(self)

    def are_started(self) -> None:
        """Note that all processes run: what starts later belongs to another iterator."""
        if self._are_starting:
            self._look()
            self._are_starting = False

    def lost(self) -> LostProcessError | None:
        """Return the error of a process that a signal has ended; None if there is none."""
        if self._are_starting:
            self._look()
        for process in self._own:
            if process.exitcode is not None and process.exitcode < 0:
                return LostProcessError(_describe_loss(process.pid, signal.Signals(-process.exitcode)))
        return None

    def _look(self) -> None:
        self._own |= set(multiprocessing.active_children()) - self._others


def lost_worker() -> LostProcessError | None:
    """Return the error of a worker process of any open iterator that a signal has ended; None if there is none."""
    return next((error for one in list(WorkerProcesses._open) if (error := one.lost())), None)


def _describe_loss(pid: int | None, number: signal.Signals) -> str:
    cause = _CAUSES.get(number, _OTHER_CAUSE)
    return f"process {pid}, which reads images, was ended by {number.name}, {cause}; run the same command again"


def _exit_with_parent() -> None:
    """Wait for the end of the parent, which cannot end its workers when it is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
