"""Batches of cropped uint8 images from a split, for training and for evaluation.

The order of the images is arithmetic (data/order.py), and the randomness of a crop follows from (seed, epoch, index).
So the batch of a step depends on the configuration and the step alone: not on where a run was stopped, nor on how many
hosts, worker processes or threads read it.

Grain runs the threads and processes; data/batch_parts.py defines their work.
"""

import dataclasses
import math
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from imagenet_repro.config import Data
from imagenet_repro.data import closing, crops, workers
from imagenet_repro.data.bad_records import max_bad_records
from imagenet_repro.data.batch import Batch
from imagenet_repro.data.batch_parts import BatchParts
from imagenet_repro.data.captions import Captioner
from imagenet_repro.data.crops import CropSpec
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import UserError

if TYPE_CHECKING:
    import grain

# Images that are decoded ahead of the batch being put together; one of 224 px takes 150 kB.
_MAX_AHEAD = 1024
_MIN_SHARED = 2**16  # bytes
_ENDLESS = 2**40  # steps


def train_batches(
    split: Split,
    data: Data,
    crop: CropSpec,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_steps: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    captioner: Captioner | None = None,
) -> Iterator[Batch]:
    """Return this process's share of the batches from `start_step` on, shuffled anew in each epoch.

    A batch may end one epoch and begin the next, so that no image is dropped. A record that cannot be decoded is
    replaced by the next index of the split, with that index's own crop and augmentation; `replaced` names the record.

    Args:
        split: the images.
        data: image_size, repeats, threads, workers and max_bad_share are used.
        crop: the crop of each image.
        batch_size: images of a step over all processes.
        seed: of order and crops, in [0, 2^31).
        start_step: step of the first batch.
        num_steps: number of batches; None: without end.
        process_index: number of this process among those that train together.
        process_count: number of processes that train together.
        captioner: of the images; None: they have no captions.

    Raises:
        UserError: the batch size is not a multiple of the number of processes or less than two repeated images,
            the crop does not fit, or more records in a row cannot be decoded than the whole split may have.
        LostProcessError: a worker process was killed.
    """
    if data.repeats > 1 and batch_size < 2 * data.repeats:
        raise UserError(
            f"data.repeats = {data.repeats} needs batches of at least {2 * data.repeats} images, not {batch_size}"
        )
    process = process_index, process_count
    parts = _batch_parts(split, data, crop, data.image_size, batch_size=batch_size, process=process)
    steps = _ENDLESS if num_steps is None else num_steps
    parts = dataclasses.replace(parts, repeats=data.repeats, seed=seed, start_step=start_step, num_steps=steps)
    return _read(dataclasses.replace(parts, captioner=captioner))


def eval_batches(
    split: Split,
    data: Data,
    crop: CropSpec,
    *,
    batch_size: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Return batches with every image of the split once over all processes, in the split's order.

    Each process gets the same number of batches. The last batch is padded with weight 0, index -1 and label 0. A
    record that cannot be decoded is black, keeps its label and index, and has weight 0 too; `replaced` names it.

    Args:
        split: the images.
        data: the evaluated image size, threads, workers and max_bad_share are used.
        crop: the crop of each image.
        batch_size: images of a batch over all processes.
        start_step: number of the first batch; those before it are left out.
        process_index: number of this process among those that evaluate together.
        process_count: number of processes that evaluate together.

    Raises:
        UserError: as `train_batches`.
    """
    process = process_index, process_count
    parts = _batch_parts(split, data, crop, data.size_evaluated, batch_size=batch_size, process=process)
    batches = -(-split.num_examples // batch_size)
    return _read(dataclasses.replace(parts, start_step=start_step, num_steps=batches - start_step))


def chain_batches(parts: Sequence[Iterator[Batch]]) -> Iterator[Batch]:
    """Return the batches of one iterator after another; each starts its threads when the one before has ended."""
    if len(parts) == 1:
        return parts[0]
    closing.hand_over(parts)
    return closing.close_at_exit(_chain(parts))


def _chain(parts: Sequence[Iterator[Batch]]) -> Generator[Batch, None, None]:
    for part in parts:
        yield from part


def _batch_parts(
    split: Split, data: Data, crop: CropSpec, image_size: int, *, batch_size: int, process: tuple[int, int]
) -> BatchParts:
    """Return the parts that one process reads, `process` being its index and the number of processes."""
    process_index, process_count = process
    if batch_size % process_count:
        raise UserError(f"a batch of {batch_size} images cannot be shared equally by {process_count} processes")
    crops.check_fits(crop, image_size)
    share = batch_size // process_count
    batch_bytes = share * math.prod(crops.output_shape(crop, image_size))
    n_threads, n_workers = workers.reader_counts(data, batch_bytes)
    return BatchParts(
        split=split,
        crop=crop,
        image_size=image_size,
        batch_size=batch_size,
        share=share,
        offset=process_index * share,
        threads=n_threads,
        workers=n_workers,
        max_bad=max_bad_records(split, data),
    )


def _read(parts: BatchParts) -> Iterator[Batch]:
    import grain
    from absl import flags

    ahead = max(2 * parts.threads, min(parts.share, _MAX_AHEAD) // parts.part_size)
    dataset = grain.MapDataset.source(parts).to_iter_dataset(grain.ReadOptions(parts.threads, ahead))
    dataset = dataset.batch(parts.share // parts.part_size, batch_fn=_join)
    if parts.workers:
        if not flags.FLAGS.is_parsed():  # Grain reads its own flags, also where no absl application parsed any
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=parts.workers, per_worker_buffer_size=1)
        dataset = dataset.mp_prefetch(options, worker_init_fn=workers.initialize_worker)
        # Images go through shared memory; the few numbers beside them do not.
        shared = grain.experimental.DatasetOptions(min_shm_size=_MIN_SHARED)
        dataset = grain.experimental.WithOptionsIterDataset(dataset, shared)
    return closing.close_at_exit(_take(parts.num_steps, dataset, in_shared_memory=parts.workers > 0))


def _take(num_steps: int, dataset: "grain.IterDataset", in_shared_memory: bool) -> Generator[Batch, None, None]:
    iterator = iter(dataset)
    with workers.WorkerProcesses() as processes:
        try:
            for _ in range(num_steps):
                yield _lend(_next(iterator, processes)) if in_shared_memory else next(iterator)
        except RuntimeError as error:  # of Grain, if a process has ended
            if lost := processes.lost():
                raise lost from error
            raise
        finally:
            iterator.close()


def _next(iterator: Iterator[Batch], processes: workers.WorkerProcesses) -> Batch:
    batch = next(iterator)
    processes.are_started()
    return batch


def _lend(batch: Batch) -> Batch:
    """Return a batch of ordinary arrays; their memory may be shared, and is then freed with the last of its arrays.

    On a CPU, an array of JAX keeps the memory of NumPy's array for as long as it lives, and there is little shared
    memory; so the batch is copied.
    """
    import jax  # not in worker processes, which import this module

    own = np.array if jax.default_backend() == "cpu" else np.asarray
    return Batch(**{name: own(array) for name, array in batch.items()})


def _join(parts: Sequence[Batch]) -> Batch:
    return Batch(**{name: np.concatenate([part[name] for part in parts]) for name in Batch.__annotations__})
