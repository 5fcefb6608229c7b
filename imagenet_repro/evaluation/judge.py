"""Scores a system on a split by a protocol; for a dense one, images of different shapes have programs of their own."""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from imagenet_repro.data import decode, loader
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import UserError
from imagenet_repro.evaluation import protocols
from imagenet_repro.evaluation.evaluate import Evaluator
from imagenet_repro.evaluation.predictions import Predictions, merge
from imagenet_repro.metrics import ErrorRates
from imagenet_repro.training.parallel import ShardMap
from imagenet_repro.training.state import TrainState

# Width over height of what a dense protocol sees of an image; most photographs are 4:3 or 3:2.
WIDE = (1.0, 5 / 4, 4 / 3, 3 / 2, 16 / 9, 2.0)
SLACK = 1.01  # an image of 500 x 334 pixels is one of 3:2


class Judge:
    """Evaluates states of a system by one protocol.

    Args:
      parts: of the protocol.
      system: what is scored.
      spread: how batches are shared out over devices.
      split: the images.
      say: told, as one line, of records that cannot be decoded.

    Attributes:
      show: told after every batch how many images it had, over all processes; may be set.
      compilation_seconds: spent by `predict` on programs.

    Raises:
      UserError: the protocol asks for what the system or its size does not allow.
    """

    def __init__(
        self,
        parts: Sequence[protocols.Part],
        system: protocols.System,
        spread: ShardMap,
        split: Split,
        say: Callable[[str], None] = print,
    ):
        self._parts, self._system, self._spread, self._split, self._say = parts, system, spread, split, say
        self.show: Callable[[int], None] = lambda images: None
        self.compilation_seconds = 0.0
        protocols.taken(parts, system.config, 1.0)  # a scale that is too small is said before the images are read

    @property
    def images(self) -> int:
        """How many there are to be scored."""
        return self._split.num_examples

    def predict(self, state: TrainState, provenance: dict[str, Any]) -> tuple[ErrorRates, Predictions]:
        """Both error rates and the predictions of all images: by id, where images were grouped by shape."""
        if not protocols.is_dense(self._parts):
            return self._score(self._split, 1.0, state, provenance)
        found = [self._score(part, aspect, state, provenance) for aspect, part in self._groups()]
        rates, shares = added([rates for rates, _ in found]), merge([share for _, share in found])
        self._check_damaged(rates.images)
        return rates, shares

    def _score(
        self, split: Split, aspect: float, state: TrainState, provenance: dict[str, Any]
    ) -> tuple[ErrorRates, Predictions]:
        evaluator = self._evaluator(split, aspect)
        found = evaluator.predict(state, provenance)
        self.compilation_seconds += evaluator.compilation_seconds
        return found

    def _evaluator(self, split: Split, aspect: float) -> Evaluator:
        config = self._system.config
        # Any group may hold all the damaged images that the whole split may have.
        share = min(1.0, (self._allowed + 0.5) / split.num_examples)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, max_bad_share=share))
        score = protocols.scorer(self._parts, self._system, aspect)
        crop = protocols.taken(self._parts, config, aspect)
        return Evaluator(config, score, self._spread, split, self._say, crop=crop, show=self.show)

    def _groups(self) -> list[tuple[float, Split]]:
        threads, _ = loader.readers(self._system.config.data)
        groups = by_aspect(self._split, threads)
        return [(aspect, self._split.part(indices)) for aspect, indices in groups.items()]

    @property
    def _allowed(self) -> int:
        return int(self._system.config.data.max_bad_share * self._split.num_examples)

    def _check_damaged(self, images: int) -> None:
        damaged = self._split.num_examples - images
        if damaged > self._allowed:
            where = f"{self._split.name} {self._split.split}"
            raise UserError(
                f"{damaged} of the {self._split.num_examples} records of {where} cannot be decoded, as said above;"
                f" data.max_bad_share allows {self._allowed}. Repair and prepare them again, or allow more"
            )


def by_aspect(split: Split, threads: int) -> dict[float, list[int]]:
    """Indices of the images by the aspect of `WIDE`, or its inverse, to which a dense protocol cuts them.

    Sizes are read from the images' headers. The aspect is the most elongated one not beyond the image's own, but for a hundredth. Damaged images are in the largest
    group, where they will be found to be damaged.
    """
    found: dict[float, list[int]] = {}
    damaged = []
    with ThreadPoolExecutor(threads) as pool:
        aspects = pool.map(lambda index: _aspect_of(split, index), range(split.num_examples))
        for index, aspect in enumerate(aspects):
            (damaged if aspect is None else found.setdefault(aspect, [])).append(index)
    if damaged:
        largest = max(found, key=lambda aspect: len(found[aspect]), default=1.0)
        found.setdefault(largest, []).extend(damaged)
    return dict(sorted(found.items()))


def _aspect_of(split: Split, index: int) -> float | None:
    try:
        height, width = decode.size(split.records[index].image)
    except decode.DecodeError:
        return None
    fitting = max(wide for wide in WIDE if wide <= SLACK * max(height, width) / min(height, width))
    return fitting if width >= height else 1 / fitting


def added(rates: Sequence[ErrorRates]) -> ErrorRates:
    """The error rates of all images of several groups."""
    if not rates:
        raise UserError("no image was scored: the split is empty")
    images = sum(each.images for each in rates)
    entropy = sum(each.cross_entropy * each.images for each in rates) / images
    wrong = (sum(getattr(each, name) for each in rates) for name in ("top1_wrong", "top5_wrong"))
    return ErrorRates(images, *wrong, cross_entropy=entropy)
