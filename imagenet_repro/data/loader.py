"""Batches of cropped uint8 images from a split, in an order that is arithmetic.

Position p of a run, counted from its first image over all hosts, is place p % N of epoch p // N, in a permutation
that follows from (seed, epoch). The crop's randomness follows from (seed, epoch, index). So the batch of a step
depends on the configuration and the step alone: not on where a run was stopped, nor on how many hosts, worker
processes or threads read it.

With `data.repeats` = r > 1 (repeated augmentation, Hoffer et al. 2020, arXiv 1901.09335), positions come in rounds of
r x D with D = batch_size // r: the next D images of the permutation, then the same D again, r times in all, each time
with another crop and augmentation. So the repeats of an image are in one batch, or in two that follow each other, and
never next to each other. An epoch of a budget still is N images seen, as DeiT counts: N / r different ones. DeiT's
sampler takes these from the front of a new permutation in each epoch; here every permutation is used to its end.

Grain runs the threads and processes; what an element is, is said here.
"""

import atexit
import contextlib
import dataclasses
import functools
import math
import multiprocessing
import os
import queue
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypedDict

import grain
import numpy as np
from absl import flags, logging
from jaxtyping import Float32, Int32, UInt8

from imagenet_repro.config import Data
from imagenet_repro.data import crops
from imagenet_repro.data.crops import Taken
from imagenet_repro.data.decode import DecodeError, decode
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import UserError

# Images that are decoded ahead of the batch being put together; one of 224 px takes 150 kB.
_MAX_AHEAD = 1024
# Above this many cores the interpreter lock, held for about 0.1 ms of an image, costs more than processes do.
_CORES_PER_PROCESS = 16
_MAX_PIECE = 8  # images
_SHARED_MEMORY = "/dev/shm"  # where Linux keeps what Python's multiprocessing shares
_MIN_SHARED = 2**16  # bytes
_BATCHES_PER_WORKER = 4  # being filled, waiting on either side of the queue, being copied
_ENDLESS = 2**40  # steps


class Batch(TypedDict):
    """One process's share of a batch; the axis b has batch_size / process_count elements."""

    image: UInt8[np.ndarray, "b ..."]  # RGB [b, s, s, 3], or what another form of crop makes (data/crops.py)
    label: Int32[np.ndarray, " b"]
    epoch: Int32[np.ndarray, " b"]  # with repeats: epoch x repeats + which repeat; names the image's randomness
    index: Int32[np.ndarray, " b"]  # in the split; -1 for padding
    weight: Float32[np.ndarray, " b"]  # 1; in evaluation 0 for padding and for records that cannot be decoded
    replaced: Int32[np.ndarray, " b"]  # index of the record that could not be decoded, else -1


@dataclasses.dataclass(frozen=True)
class _Pieces:
    """Grain's random-access source: element k is a piece of a batch, some images decoded and cropped by one thread.

    Pieces, because Grain spends 0.07 ms on an element and decoding takes 1 to 2. With n worker processes, Grain gives
    worker w the elements w, w + n, w + 2n, … and then takes one batch of each worker in turn. `_first` undoes that:
    batches come out in one order for any n.
    """

    split: Split
    spec: Taken
    size: int
    batch_size: int  # over all processes
    share: int  # of this process
    offset: int  # of this process's share in the batch
    threads: int
    workers: int  # 0: this process reads
    max_bad: int  # records that may be undecodable before a run stops
    repeats: int = 1  # of each image in training
    seed: int | None = None  # None: evaluation
    start_step: int = 0
    num_steps: int = 0

    @property
    def piece(self) -> int:
        """Images of a piece: a divisor of the share."""
        return next(size for size in range(_MAX_PIECE, 0, -1) if self.share % size == 0)

    def __len__(self) -> int:
        workers = max(1, self.workers)
        rounds = -(-self.num_steps // workers)
        return rounds * workers * (self.share // self.piece)

    def __getitem__(self, k: int) -> Batch:
        first = self._first(k)
        piece = self._blank(self.piece)
        for place in range(self.piece):
            position = first + place
            if self.seed is not None:
                self._train(piece, place, position)
            elif position < self.split.num_examples:
                self._evaluate(piece, place, position)
        return piece

    def _first(self, k: int) -> int:
        """The position in the run, counted over all processes, of the first image of piece k."""
        workers = max(1, self.workers)
        turn, worker = divmod(k, workers)
        batch, place = divmod(turn, self.share // self.piece)
        step = self.start_step + batch * workers + worker
        return step * self.batch_size + self.offset + place * self.piece

    def _blank(self, count: int) -> Batch:
        """Images that are padding until they are filled in."""
        return Batch(
            image=np.zeros((count, *crops.shape(self.spec, self.size)), np.uint8),
            label=np.zeros(count, np.int32),
            epoch=np.zeros(count, np.int32),
            index=np.full(count, -1, np.int32),
            weight=np.zeros(count, np.float32),
            replaced=np.full(count, -1, np.int32),
        )

    def _train(self, piece: Batch, place: int, position: int) -> None:
        """Fills in the image of a position, or the next one of the split that can be decoded."""
        count = self.split.num_examples
        epoch, index = self._shuffled(position)
        for candidate in range(index, index + min(self.max_bad + 1, count)):
            chosen = candidate % count
            if self._fill(piece, place, epoch, chosen):
                piece["replaced"][place] = -1 if chosen == index else index
                return
        raise UserError(_too_many(self.split, range(index, candidate + 1), self.max_bad))

    def _evaluate(self, piece: Batch, place: int, index: int) -> None:
        if not self._fill(piece, place, 0, index):
            piece["replaced"][place] = index

    def _fill(self, piece: Batch, place: int, epoch: int, index: int) -> bool:
        """Whether the image could be decoded; if not, all but the image and its weight is filled in."""
        record = self.split.records[index]
        piece["label"][place], piece["epoch"][place], piece["index"][place] = record.label, epoch, index
        try:
            image = decode(record.image)
        except DecodeError:
            return False
        rng = _randomness.keyed((self.seed or 0) << 32 | epoch, index)
        piece["image"][place] = crops.crop(image, self.spec, self.size, rng)
        piece["weight"][place] = 1
        return True

    def _shuffled(self, position: int) -> tuple[int, int]:
        """The epoch, as a batch has it, and the index of the image at a position of the run."""
        distinct = self.batch_size // self.repeats
        turn, within = divmod(position, self.repeats * distinct)
        repeat, place = divmod(within, distinct)
        epoch, place = divmod(turn * distinct + place, self.split.num_examples)
        with _order_lock:  # of threads that meet a new epoch together, one shuffles
            order = epoch_order(self.seed, epoch, self.split.num_examples)
        return epoch * self.repeats + repeat, int(order[place])


class _Randomness(threading.local):
    """A thread's generator, set to any place in 1.5 us; making a new one takes 12."""

    def __init__(self):
        self._philox = np.random.Philox(key=(0, 0))
        self._generator = np.random.Generator(self._philox)
        self._start = self._philox.state

    def keyed(self, high: int, low: int) -> np.random.Generator:
        """The generator that `Philox(key=(high, low))` would start."""
        self._start["state"]["key"][:] = high, low
        self._philox.state = self._start
        return self._generator


_randomness = _Randomness()
_order_lock = threading.Lock()


@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The indices of a split in the order of an epoch: 4 bytes and 15 ns an image, once an epoch.

    NumPy's legacy generator, because its stream is frozen for good (NEP 19) and so is the order of a published run.
    Grain's `index_shuffle` needs no memory, but walks cycles: 24 ms an index of a split of 2 images, 0.7 ms of 83.
    """
    return np.random.RandomState((seed, epoch)).permutation(count).astype(np.int32)


def train_batches(
    split: Split,
    data: Data,
    spec: Taken,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_steps: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """This process's share of the batches from `start_step` on, shuffled anew in each epoch.

    A batch may end one epoch and begin the next, so that no image is dropped. A record that cannot be decoded is
    replaced by the next index of the split, whose own crop and augmentation it gets; `replaced` names it.

    Args:
        split: what to read.
        data: image_size, repeats, threads, workers and max_bad_share are used.
        spec: the crop.
        batch_size: images of a step over all processes.
        seed: of order and crops, in [0, 2^31).
        start_step: of the first batch.
        num_steps: how many batches; None: without end.
        process_index: this process among those that train together.
        process_count: how many these are.

    Raises:
        UserError: the batch size is not a multiple of the number of processes or less than two repeated images,
            the crop does not fit, or more records in a row cannot be decoded than the whole split may have.
    """
    if data.repeats > 1 and batch_size < 2 * data.repeats:
        raise UserError(
            f"data.repeats = {data.repeats} needs batches of at least {2 * data.repeats} images, not {batch_size}"
        )
    pieces = _pieces(
        split,
        data,
        spec,
        size=data.image_size,
        batch_size=batch_size,
        process_index=process_index,
        process_count=process_count,
    )
    steps = _ENDLESS if num_steps is None else num_steps
    return _read(dataclasses.replace(pieces, repeats=data.repeats, seed=seed, start_step=start_step, num_steps=steps))


def in_turn(parts: Sequence[Iterator[Batch]]) -> Iterator[Batch]:
    """The batches of one part after another; threads and processes of a part start when the one before has ended."""
    for part in parts:
        _open.discard(part)  # what follows will close it
    return _closed_at_exit(_in_turn(parts))


def _in_turn(parts: Sequence[Iterator[Batch]]) -> Iterator[Batch]:
    for part in parts:
        yield from part


def eval_batches(
    split: Split,
    data: Data,
    spec: Taken,
    *,
    batch_size: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Every image of the split once over all processes, in the split's order; each process gets as many batches.

    The batches before `start_step` are left out.

    The last batch is filled up with weight 0, index -1 and label 0. A record that cannot be decoded is black, keeps
    its label and index, and has weight 0 too; `replaced` names it.

    Raises:
        UserError: as `train_batches`.
    """
    size = data.size_evaluated
    pieces = _pieces(
        split,
        data,
        spec,
        size=size,
        batch_size=batch_size,
        process_index=process_index,
        process_count=process_count,
    )
    batches = -(-split.num_examples // batch_size)
    return _read(dataclasses.replace(pieces, start_step=start_step, num_steps=batches - start_step))


def _pieces(
    split: Split, data: Data, spec: Taken, *, size: int, batch_size: int, process_index: int, process_count: int
) -> _Pieces:
    if batch_size % process_count:
        raise UserError(f"a batch of {batch_size} images cannot be shared equally by {process_count} processes")
    crops.check(spec, size)
    share = batch_size // process_count
    threads, workers = readers(data, batch_bytes=share * math.prod(crops.shape(spec, size)))
    return _Pieces(
        split=split,
        spec=spec,
        size=size,
        batch_size=batch_size,
        share=share,
        offset=process_index * share,
        threads=threads,
        workers=workers,
        max_bad=_allowed(split, data),
    )


def _read(pieces: _Pieces) -> Iterator[Batch]:
    ahead = max(2 * pieces.threads, min(pieces.share, _MAX_AHEAD) // pieces.piece)
    dataset = grain.MapDataset.source(pieces).to_iter_dataset(grain.ReadOptions(pieces.threads, ahead))
    dataset = dataset.batch(pieces.share // pieces.piece, batch_fn=_join)
    if pieces.workers:
        if not flags.FLAGS.is_parsed():  # Grain reads its own flags, also where no absl application parsed any
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=pieces.workers, per_worker_buffer_size=1)
        dataset = dataset.mp_prefetch(options, worker_init_fn=_start_worker)
        # Images go through shared memory, the few numbers beside them not.
        shared = grain.experimental.DatasetOptions(min_shm_size=_MIN_SHARED)
        dataset = grain.experimental.WithOptionsIterDataset(dataset, shared)
    return _closed_at_exit(_until(pieces.num_steps, dataset, in_shared_memory=pieces.workers > 0))


def _until(num_steps: int, dataset: grain.IterDataset, in_shared_memory: bool) -> Iterator[Batch]:
    iterator = iter(dataset)
    try:
        for _ in range(num_steps):
            yield _out_of_shared_memory(next(iterator)) if in_shared_memory else next(iterator)
    finally:
        iterator.close()


def _out_of_shared_memory(batch: Batch) -> Batch:
    """A copy, so that shared memory goes back at once: there is little of it, and consumers may keep batches."""
    return Batch(**{name: np.array(array) for name, array in batch.items()})


_open: weakref.WeakSet = weakref.WeakSet()


def _closed_at_exit(batches: Iterator[Any]) -> Iterator[Any]:
    """A generator that a program may leave suspended when it ends, on whatever error."""
    _open.add(batches)
    return batches


@atexit.register
def _close_open() -> None:
    """Ends threads and processes while the interpreter is whole; later, Grain's own cleaning fails noisily."""
    for batches in list(_open):
        with contextlib.suppress(ValueError):  # a thread is in it
            batches.close()


def _join(pieces: Sequence[Batch]) -> Batch:
    return Batch(**{name: np.concatenate([piece[name] for piece in pieces]) for name in Batch.__annotations__})


def readers(data: Data, batch_bytes: int = 0) -> tuple[int, int]:
    """Threads per process, and worker processes (0: none, the threads are this process's own).

    From the configuration, else from the cores this process may use: three threads to two cores, so that reading and
    decoding overlap, and above 16 cores a process to 16 of them, since threads share Python's lock.

    Raises:
        UserError: the worker processes that `data` names need more shared memory for batches than there is. A number
            chosen here is then none.
    """
    cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
    workers = data.workers
    if workers < 0:
        workers = cores // _CORES_PER_PROCESS if cores > _CORES_PER_PROCESS else 0
    problem = _shared_memory_problem(workers, batch_bytes)
    if problem and data.workers > 0:
        raise UserError(f"data.workers = {workers}: {problem}")
    if problem:
        logging.warning("images are read by threads of one process: %s", problem)
        workers = 0
    return data.threads or 1 + 3 * (cores // max(1, workers)) // 2, workers


def _shared_memory_problem(workers: int, batch_bytes: int) -> str:
    """Why there is too little for the batches of the workers: a process that runs out of it dies without a word."""
    if not workers or not os.path.isdir(_SHARED_MEMORY):
        return ""
    system = os.statvfs(_SHARED_MEMORY)
    free, needed = system.f_bavail * system.f_frsize, _BATCHES_PER_WORKER * workers * batch_bytes
    if needed <= free:
        return ""
    return (
        f"{workers} worker processes need {needed / 1e6:.0f} MB of shared memory for batches, and {_SHARED_MEMORY} "
        f"has {free / 1e6:.0f} MB free. Enlarge it (docker run --shm-size), or set data.workers to less"
    )


def _start_worker(worker: int, workers: int) -> None:
    """Makes a reading process a good citizen, before it reads."""
    # Ctrl-C reaches every process of a terminal; the training process finishes its step and ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "jax" in sys.modules:  # Grain imports it; a reader must not claim an accelerator
        sys.modules["jax"].config.update("jax_platforms", "cpu")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed training process ends its readers no more; they see it by themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _allowed(split: Split, data: Data) -> int:
    return int(data.max_bad_share * split.num_examples)


def _too_many(split: Split, bad: Iterable[int], allowed: int) -> str:
    bad = [index % split.num_examples for index in bad]
    names = [f"  {_describe(split, index)}" for index in bad[:20]]
    if len(bad) > len(names):
        names.append(f"  … and {len(bad) - len(names)} more")
    return (
        f"{len(bad)} of the {split.num_examples} records of {split.name} {split.split} cannot be decoded; "
        f"data.max_bad_share allows {allowed}. Repair and prepare them again, or allow more:\n" + "\n".join(names)
    )


def _describe(split: Split, index: int) -> str:
    """A record's id and what is wrong with it."""
    record = split.records[index]
    try:
        decode(record.image)
    except DecodeError as error:
        return f"{record.id}: {error}"
    return f"{record.id}: can be decoded now"


class BadRecords:
    """The records of a split that could not be decoded, each counted once however often it was drawn.

    Every process counts what its own batches held; `data.max_bad_share` is a share of the split's records.

    Attributes:
        names: the ids of the records, in the order in which they were met.
    """

    def __init__(self, split: Split, data: Data, report: Callable[[str], None] | None = None):
        """Counts records of `split`; `report` is called with one line for each record when it is first met."""
        self.names: list[str] = []
        self._split = split
        self._allowed = _allowed(split, data)
        self._report = report
        self._seen: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def update(self, batch: Batch) -> None:
        """Takes down the undecodable records behind a batch."""
        for index in batch["replaced"][batch["replaced"] >= 0].tolist():
            if index in self._seen:
                continue
            self._seen[index] = None
            self.names.append(self._split.records[index].id)
            if self._report:
                self._report(f"cannot decode {_describe(self._split, index)}")

    def check(self) -> None:
        """Raises `UserError`, naming the records, where they are more than `data.max_bad_share` of the split."""
        if len(self) > self._allowed:
            raise UserError(_too_many(self._split, self._seen, self._allowed))


def prefetch_to_device(
    batches: Iterator[Batch], put: Callable[[Batch], Any], depth: int = 2
) -> Iterator[tuple[Batch, Any]]:
    """Runs `put` on the batches ahead of the consumer, in a thread, so that transfer and computation overlap.

    Args:
        batches: host batches; closed, where it can be, when this ends.
        put: starts the transfer of a batch to the devices and returns the arrays there.
        depth: how many batches may lie on the devices beside the one in use.

    Returns:
        (host batch, what `put` returned), in order. What `batches` or `put` raises is raised here.
    """
    _open.discard(batches)  # this will close them
    return _closed_at_exit(_ahead(batches, put, depth))


def _ahead(batches: Iterator[Batch], put: Callable[[Batch], Any], depth: int) -> Iterator[tuple[Batch, Any]]:
    room = threading.Semaphore(depth)
    ready: queue.SimpleQueue = queue.SimpleQueue()
    stop = threading.Event()
    thread = threading.Thread(target=_run_ahead, args=(batches, put, room, ready, stop), daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            room.release()
            yield item
    finally:
        stop.set()
        room.release()
        thread.join(timeout=5)


def _run_ahead(
    batches: Iterator[Batch],
    put: Callable[[Batch], Any],
    room: threading.Semaphore,
    ready: queue.SimpleQueue,
    stop: threading.Event,
) -> None:
    """The thread of `prefetch_to_device`: puts ((host, device), None), at the end (None, None) or (None, error)."""
    error = None
    try:
        while room.acquire() and not stop.is_set():
            batch = next(batches, None)
            if batch is None:
                break
            ready.put(((batch, put(batch)), None))
    except BaseException as raised:  # the consumer's to handle
        error = raised
    finally:
        close = getattr(batches, "close", None)
        if close:
            close()
        ready.put((None, error))
