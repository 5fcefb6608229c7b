"""Evaluation of a system on a split by a protocol.

For a dense protocol, images of different shapes have their own programs. A group that would be padded by more than an
eighth is scored in smaller batches of one size, so an aspect needs one program, or at most five for many splits.
"""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax

from imagenet_repro.data import image_index, workers
from imagenet_repro.data.image_index import ImageIndex
from imagenet_repro.data.sources import Record, Records, Split
from imagenet_repro.errors import UserError
from imagenet_repro.inference import protocols
from imagenet_repro.inference.evaluator import Evaluator
from imagenet_repro.scoring.metrics import ErrorRates
from imagenet_repro.scoring.predictions import Predictions, merge
from imagenet_repro.training.parallel import Spread
from imagenet_repro.training.state import TrainState

# Width over height of a dense protocol's crops; most photographs are 4:3 or 3:2.
WIDE = (1.0, 5 / 4, 4 / 3, 3 / 2, 16 / 9, 2.0)
Score = Callable[..., Any]
# A batch size is kept if a program for another would score at most an eighth fewer images, padding included.
_PADDING_KEPT = 9 / 8
_MAX_PROGRAMS = 4  # for one aspect besides the full size, since compilation takes seconds to minutes
KEPT_BYTES = 1 << 30  # of encoded images that wait for their second use
SLACK = 1.01  # so that an image of 500 x 334 pixels counts as 3:2


class ProtocolEvaluator:
    """Evaluates states of a system by one protocol; programs compiled for one split are reused for others.

    Args:
      parts: parts of the protocol.
      system: the system that is scored.
      spread: distribution of batches over devices.
      final: transformation of the scores of the complete protocol, such as a mask of classes.
      say: called with one line of text about records that cannot be decoded.

    Attributes:
      show: called after every batch with its number of images, over all processes; may be replaced.
      compilation_seconds: seconds spent on compilation so far.

    Raises:
      UserError: the system or its image size does not allow the protocol.
    """

    def __init__(
        self,
        parts: Sequence[protocols.ProtocolPart],
        system: protocols.ScoredSystem,
        spread: Spread,
        final: Callable[[Score], Score] = lambda score: score,
        say: Callable[[str], None] = print,
    ):
        self._parts, self._system, self._spread, self._final, self._say = parts, system, spread, final, say
        self.show: Callable[[int], None] = lambda images: None
        self.compilation_seconds = 0.0
        self._evaluators: dict[tuple[float, int], Evaluator] = {}  # by aspect and batch size
        protocols.host_crops(parts, system.config, 1.0)  # raises UserError if scales are too small

    @property
    def description(self) -> dict[str, Any]:
        """Description of the protocol for provenance."""
        return protocols.describe(self._parts, self._system.config)

    @property
    def views(self) -> int:
        """Number of views that are scored for each image."""
        return sum(part.views(self._system.config) for part in self._parts)

    def name_after(self, name: str) -> str:
        """Return a comma, the protocol's name and the number of views; nothing for the system's own protocol."""
        return "" if name == protocols.OWN_PROTOCOL else f", {name} ({self.views} views)"

    def predict(self, split: Split, state: TrainState, provenance: dict[str, Any]) -> tuple[ErrorRates, Predictions]:
        """Return both error rates and the predictions for all images, sorted by id if images are grouped by shape."""
        if not protocols.is_dense(self._parts):
            return self._score(split, 1.0, split, state, provenance)
        results = [self._score(part, aspect, split, state, provenance) for aspect, part in self._groups(split)]
        rates, shares = sum_rates([rates for rates, _ in results]), merge([share for _, share in results])
        self._check_damaged(split, rates.images)
        left_out = {"left_out": split.num_examples - rates.images}  # of the split rather than of the first group
        return rates, dataclasses.replace(shares, provenance=shares.provenance | left_out)

    def _score(
        self, part: Split, aspect: float, split: Split, state: TrainState, provenance: dict[str, Any]
    ) -> tuple[ErrorRates, Predictions]:
        evaluator = self._evaluator(part, aspect, self._allowed(split))
        compiled = evaluator.compilation_seconds
        result = evaluator.predict(state, provenance)
        self.compilation_seconds += evaluator.compilation_seconds - compiled
        self._evaluators[aspect, evaluator.batch_size] = evaluator
        return result

    def _evaluator(self, part: Split, aspect: float, allowed: int) -> Evaluator:
        """Return the evaluator of a group; each group may hold all damaged images that are allowed in the split."""
        config = self._system.config
        share = min(1.0, (allowed + 0.5) / part.num_examples)
        batch = self._fitting_batch_size(aspect, part.num_examples)
        data = dataclasses.replace(config.data, max_bad_share=share, eval_batch_size=batch)
        existing = self._evaluators.get((aspect, batch))
        if existing is not None:
            return existing.on(part, data, self.show)
        score = self._final(protocols.scorer(self._parts, self._system, aspect))
        crop = protocols.host_crops(self._parts, config, aspect)
        config = dataclasses.replace(config, data=data)
        return Evaluator(config, score, self._spread, part, self._say, crop=crop, show=self.show)

    def _fitting_batch_size(self, aspect: float, n_images: int) -> int:
        """Return a batch size that pads a group little: the full one, one that has a program, or one that divides it.

        A protocol of one view keeps the full size, in which a run's own scores were made.
        """
        full = self._system.config.data.eval_batch_size or self._batch_size(aspect)
        self._spread.check_batch_size(full, 1, "data.eval_batch_size")
        if self.views == 1:
            return full
        even = even_batch_size(n_images, full, self._spread.mesh.size)
        compiled = [size for other, size in self._evaluators if other == aspect]
        usable = [size for size in compiled if 2 * size >= even]  # smaller batches would leave the devices idle
        best = min((full, *usable), key=lambda size: (padded(n_images, size), -size))
        is_enough = len(compiled) >= _MAX_PROGRAMS or padded(n_images, best) <= _PADDING_KEPT * padded(n_images, even)
        return best if is_enough else even

    def _batch_size(self, aspect: float) -> int:
        """Return the run's batch size, or a smaller one if views or larger images need more memory.

        It is divisible among all devices.
        """
        config, devices = self._system.config, self._spread.mesh.size
        memory = max(part.memory(config, aspect) for part in self._parts)
        return max(1, int(config.batch_size / memory) // devices) * devices

    def _groups(self, split: Split) -> list[tuple[float, Split]]:
        """Return the images of each aspect, whose sizes are known from the index or are read to make it."""
        original, index = split, image_index.find(split)
        if index is None:
            threads, n_workers = workers.reader_counts(self._system.config.data)
            if not n_workers:  # worker processes would not see what this one keeps
                split = dataclasses.replace(split, records=_KeptRecords(split.records))
            index = image_index.read(split, threads)
            if jax.process_index() == 0:
                image_index.store(original, index)
        return [(aspect, split.subset(indices)) for aspect, indices in group_by_aspect(index).items()]

    def _allowed(self, split: Split) -> int:
        return int(self._system.config.data.max_bad_share * split.num_examples)

    def _check_damaged(self, split: Split, images: int) -> None:
        damaged, allowed = split.num_examples - images, self._allowed(split)
        if damaged > allowed:
            raise UserError(
                f"{damaged} of the {split.num_examples} records of {split.name} {split.split} cannot be decoded (see"
                f" above); data.max_bad_share allows {allowed}. Repair them and prepare the data again, or allow more"
            )


def padded(n_images: int, batch_size: int) -> int:
    """Return the number of images that are scored for `n_images` in batches of one size, padding included."""
    return -(-n_images // batch_size) * batch_size


def even_batch_size(n_images: int, largest: int, devices: int) -> int:
    """Return the batch size that shares images evenly among as few batches as `largest` allows.

    It is rounded up, by at most an eighth, so that it divides into parts for the threads that read.

    Args:
        n_images: at least 1.
        largest: size of the largest batch, a multiple of the devices.
        devices: number of devices that share a batch.
    """
    share, most = -(-n_images // devices), largest // devices
    size = -(-share // -(-share // most))
    unit = next(unit for unit in (8, 4, 2, 1) if unit == 1 or 8 * unit <= size)
    return min(most, padded(size, unit)) * devices


def group_by_aspect(index: ImageIndex) -> dict[float, list[int]]:
    """Return the images' positions by the aspect of `WIDE`, or its inverse, to which a dense protocol crops them.

    The aspect is the most elongated one that does not exceed the image's own by more than one per cent. Damaged
    images are added to the largest group, and decoding then reports them.
    """
    groups: dict[float, list[int]] = {}
    damaged = []
    for position, (height, width) in enumerate(index.size.tolist()):
        if min(height, width) < 1:
            damaged.append(position)
        else:
            groups.setdefault(_aspect_of(height, width), []).append(position)
    if damaged:
        largest = max(groups, key=lambda aspect: len(groups[aspect]), default=1.0)
        groups.setdefault(largest, []).extend(damaged)
    return dict(sorted(groups.items()))


def _aspect_of(height: int, width: int) -> float:
    fitting = max(wide for wide in WIDE if wide <= SLACK * max(height, width) / min(height, width))
    return fitting if width >= height else 1 / fitting


class _KeptRecords:
    """Records that are kept in memory from their first reading to their second, as far as they fit in 1 GiB."""

    def __init__(self, records: Records):
        self._records = records
        self._kept: dict[int, Record] = {}
        self._n_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        with self._lock:
            record = self._kept.pop(index, None)
            if record is not None:
                self._n_bytes -= len(record.image)
                return record
        record = self._records[index]
        with self._lock:
            if self._n_bytes + len(record.image) <= KEPT_BYTES:
                self._kept[index] = record
                self._n_bytes += len(record.image)
        return record


def sum_rates(rates: Sequence[ErrorRates]) -> ErrorRates:
    """Return the error rates over all images of several groups."""
    if not rates:
        raise UserError("no image was scored: the split is empty")
    images = sum(each.images for each in rates)
    entropy = sum(each.cross_entropy * each.images for each in rates) / images
    wrong = (sum(getattr(each, name) for each in rates) for name in ("top1_wrong", "top5_wrong"))
    return ErrorRates(images, *wrong, cross_entropy=entropy)
