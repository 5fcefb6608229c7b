"""Transfer of batches to the devices ahead of the computation that uses them."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeVar

import jax

from imagenet_repro.data import closing, workers

PATIENCE = 5.0  # seconds without a batch after which the worker processes are looked at

BatchT = TypeVar("BatchT", bound=Mapping[str, Any])  # a host batch: of images, or of codes


def prefetch_to_device(
    batches: Iterator[BatchT], put: Callable[[BatchT], Any], depth: int = 2
) -> Iterator[tuple[BatchT, Any]]:
    """Run `put` on the batches ahead of the consumer, in a thread, so that transfer and computation overlap.

    Args:
        batches: host batches; closed, if they can be, when this iterator ends.
        put: starts the transfer of a batch to the devices and returns the arrays there.
        depth: number of batches that may be on the devices besides the one in use.

    Returns:
        An iterator of (host batch, result of `put`), in order. Images are no longer in the host batch: their transfer
        has ended, and their memory, which may be shared memory (data/loader.py), is free. An exception of `batches`
        or `put` is raised from this iterator.
    """
    closing.hand_over([batches])
    return closing.close_at_exit(_receive(batches, put, depth))


def _receive(
    batches: Iterator[BatchT], put: Callable[[BatchT], Any], depth: int
) -> Generator[tuple[BatchT, Any], None, None]:
    free_slots = threading.Semaphore(depth)
    ready: queue.SimpleQueue = queue.SimpleQueue()
    stop = threading.Event()
    thread = threading.Thread(target=_send, args=(batches, put, free_slots, ready, stop), daemon=True)
    thread.start()
    try:
        while True:
            item, error = _wait(ready)
            if error is not None:
                raise error
            if item is None:
                return
            free_slots.release()
            yield item
    finally:
        stop.set()
        free_slots.release()
        thread.join(timeout=PATIENCE)


def _wait(ready: queue.SimpleQueue) -> tuple[Any, BaseException | None]:
    """Return what the thread has queued; an error if it waits in vain for a worker process that was killed."""
    lost = None
    while True:
        try:
            return ready.get(timeout=PATIENCE)
        except queue.Empty:
            if lost is not None:
                return None, lost
            lost = workers.lost_worker()  # the thread may notice it too; then its own error comes


def _send(
    batches: Iterator[BatchT],
    put: Callable[[BatchT], Any],
    free_slots: threading.Semaphore,
    ready: queue.SimpleQueue,
    stop: threading.Event,
) -> None:
    """Run in the thread: queue ((host, device), None) for each batch, at the end (None, None) or (None, error)."""
    error = None
    try:
        while free_slots.acquire() and not stop.is_set():
            batch = next(batches, None)
            if batch is None:
                break
            arrays = put(batch)
            if "image" in batch:
                jax.block_until_ready(arrays)
            ready.put((({name: array for name, array in batch.items() if name != "image"}, arrays), None))
            del batch, arrays  # otherwise they would live until the next batch is there
    except BaseException as raised:  # the consumer handles it
        error = raised
    finally:
        close = getattr(batches, "close", None)
        if close:
            close()
        ready.put((None, error))
