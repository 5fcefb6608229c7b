"""Parts of batches: the elements that Grain's threads and processes decode and crop."""

import dataclasses
import threading

import numpy as np

from imagenet_repro.data import batch, crops, order
from imagenet_repro.data.bad_records import too_many_error
from imagenet_repro.data.batch import Batch
from imagenet_repro.data.captions import Captioner
from imagenet_repro.data.crops import CropSpec
from imagenet_repro.data.decode import DecodeError, decode
from imagenet_repro.data.sources import Record, Split

_MAX_PART = 8  # images
_CAPTIONS = 1 << 63  # in the key of a caption's draw; a seed leaves this bit free


@dataclasses.dataclass(frozen=True)
class BatchParts:
    """A random-access source for Grain; an element is a part of a batch, some images that one thread reads.

    An element is more than one image because Grain spends 0.07 ms on an element, and decoding takes 1 to 2 ms.

    With n worker processes, Grain gives worker w the elements w, w + n, w + 2n, … and then takes one batch of each
    worker in turn. `_first_position` undoes that, so the batches come out in the same order for any n.
    """

    split: Split
    crop: CropSpec
    image_size: int
    batch_size: int  # over all processes
    share: int  # images of a batch that this process reads
    offset: int  # of this process's share in the batch
    threads: int
    workers: int  # 0: this process reads
    max_bad: int  # records that may be undecodable before a run stops
    repeats: int = 1  # times that training uses each image
    seed: int | None = None  # None: evaluation
    start_step: int = 0
    num_steps: int = 0
    captioner: Captioner | None = None  # of the training images; None: they have no captions

    @property
    def part_size(self) -> int:
        """Images of a part: the largest divisor of the share up to 8."""
        return next(size for size in range(_MAX_PART, 0, -1) if self.share % size == 0)

    def __len__(self) -> int:
        workers = max(1, self.workers)
        rounds = -(-self.num_steps // workers)
        return rounds * workers * (self.share // self.part_size)

    def __getitem__(self, index: int) -> Batch:
        first = self._first_position(index)
        n_tokens = self.captioner.length if self.captioner else 0
        part = batch.padding(self.part_size, crops.output_shape(self.crop, self.image_size), n_tokens)
        if self.seed is None:
            return self._read_evaluation_images(part, first)
        for row in range(self.part_size):
            self._read_training_image(part, row, first + row, self.seed)
        return part

    def _first_position(self, index: int) -> int:
        """Return the position in the run, counted over all processes, of the first image of a part."""
        workers = max(1, self.workers)
        turn, worker = divmod(index, workers)
        batch_number, part_number = divmod(turn, self.share // self.part_size)
        step = self.start_step + batch_number * workers + worker
        return step * self.batch_size + self.offset + part_number * self.part_size

    def _read_training_image(self, part: Batch, row: int, position: int, seed: int) -> None:
        """Fill in the image of a position, or the next one of the split that can be decoded."""
        count = self.split.num_examples
        epoch, index = order.image_at(
            position, seed=seed, count=count, batch_size=self.batch_size, repeats=self.repeats
        )
        last = index + min(self.max_bad, count - 1)
        for candidate in range(index, last + 1):
            chosen = candidate % count
            if self._read_image(part, row, epoch, chosen):
                part["replaced"][row] = -1 if chosen == index else index
                return
        raise too_many_error(self.split, range(index, last + 1), self.max_bad)

    def _read_evaluation_images(self, part: Batch, first: int) -> Batch:
        """Fill in the images from index `first` on, as far as the split has any, and their ids."""
        ids = [""] * self.part_size
        for row in range(min(self.part_size, self.split.num_examples - first)):
            record = self.split.records[first + row]
            ids[row] = record.id
            if not self._fill(part, row, 0, first + row, record):
                part["replaced"][row] = first + row
        part["id"] = np.array(ids)
        return part

    def _read_image(self, part: Batch, row: int, epoch: int, index: int) -> bool:
        """Read a record; return whether the image could be decoded."""
        return self._fill(part, row, epoch, index, self.split.records[index])

    def _fill(self, part: Batch, row: int, epoch: int, index: int, record: Record) -> bool:
        """Return whether the image could be decoded; if not, the row gets all but the image and its weight."""
        part["label"][row], part["epoch"][row], part["index"][row] = record.label, epoch, index
        try:
            image = decode(record.image)
        except DecodeError:
            return False
        part["size"][row] = image.shape[:2]
        key = (self.seed or 0) << 32 | epoch
        part["image"][row] = crops.crop(image, self.crop, self.image_size, _generator.keyed(key, index))
        if self.captioner:
            part["tokens"][row] = self.captioner.tokens(record, _generator.keyed(_CAPTIONS | key, index))
        part["weight"][row] = 1
        return True


class _KeyedGenerator(threading.local):
    """Each thread's generator, set to any key in 1.5 us; creating a new one takes 12 us."""

    def __init__(self):
        self._philox = np.random.Philox(key=(0, 0))
        self._generator = np.random.Generator(self._philox)
        self._start = self._philox.state

    def keyed(self, high: int, low: int) -> np.random.Generator:
        """Return the generator that `Philox(key=(high, low))` would start."""
        self._start["state"]["key"][:] = high, low
        self._philox.state = self._start
        return self._generator


_generator = _KeyedGenerator()
