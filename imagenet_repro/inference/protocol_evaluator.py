"""Scores a system on a split by a protocol; for a dense one, images of different shapes have programs of their own."""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from imagenet_repro.data import decode, workers
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import UserError
from imagenet_repro.inference import protocols
from imagenet_repro.inference.evaluator import Evaluator
from imagenet_repro.scoring.metrics import ErrorRates
from imagenet_repro.scoring.predictions import Predictions, merge
from imagenet_repro.training.parallel import Spread
from imagenet_repro.training.state import TrainState

# Width over height of what a dense protocol sees of an image; most photographs are 4:3 or 3:2.
WIDE = (1.0, 5 / 4, 4 / 3, 3 / 2, 16 / 9, 2.0)
Score = Callable[..., Any]
SLACK = 1.01  # an image of 500 x 334 pixels is one of 3:2


class ProtocolEvaluator:
    """Evaluates states of a system by one protocol; what is compiled for one split serves others too.

    Args:
      parts: of the protocol.
      system: what is scored.
      spread: how batches are shared out over devices.
      final: what becomes of the scores of a whole protocol, such as a mask of classes.
      say: told, as one line, of records that cannot be decoded.

    Attributes:
      show: told after every batch how many images it had, over all processes; may be set.
      compilation_seconds: spent on programs until now.

    Raises:
      UserError: the protocol asks for what the system or its size does not allow.
    """

    def __init__(
        self,
        parts: Sequence[protocols.ProtocolPart],
        system: protocols.System,
        spread: Spread,
        final: Callable[[Score], Score] = lambda score: score,
        say: Callable[[str], None] = print,
    ):
        self._parts, self._system, self._spread, self._final, self._say = parts, system, spread, final, say
        self.show: Callable[[int], None] = lambda images: None
        self.compilation_seconds = 0.0
        self._evaluators: dict[float, Evaluator] = {}
        protocols.host_crops(parts, system.config, 1.0)  # a scale that is too small is said before the images are read

    @property
    def description(self) -> dict[str, Any]:
        """Of the protocol, for provenance."""
        return protocols.describe(self._parts, self._system.config)

    @property
    def views(self) -> int:
        """How many of each image are scored."""
        return sum(part.views(self._system.config) for part in self._parts)

    def name_after(self, name: str) -> str:
        """The protocol's name behind a comma, with the number of views; nothing for the system's own."""
        return "" if name == protocols.OWN_PROTOCOL else f", {name} ({self.views} views)"

    def predict(self, split: Split, state: TrainState, provenance: dict[str, Any]) -> tuple[ErrorRates, Predictions]:
        """Both error rates and the predictions of all images: by id, where images were grouped by shape."""
        if not protocols.is_dense(self._parts):
            return self._score(split, 1.0, split, state, provenance)
        found = [self._score(part, aspect, split, state, provenance) for aspect, part in self._groups(split)]
        rates, shares = sum_rates([rates for rates, _ in found]), merge([share for _, share in found])
        self._check_damaged(split, rates.images)
        return rates, shares

    def _score(
        self, part: Split, aspect: float, whole: Split, state: TrainState, provenance: dict[str, Any]
    ) -> tuple[ErrorRates, Predictions]:
        evaluator = self._evaluator(part, aspect, self._allowed(whole))
        compiled = evaluator.compilation_seconds
        found = evaluator.predict(state, provenance)
        self.compilation_seconds += evaluator.compilation_seconds - compiled
        self._evaluators[aspect] = evaluator
        return found

    def _evaluator(self, part: Split, aspect: float, allowed: int) -> Evaluator:
        """Any group may hold all the damaged images that the whole split may have."""
        config = self._system.config
        share = min(1.0, (allowed + 0.5) / part.num_examples)
        batch = config.data.eval_batch_size or self._batch_size(aspect)
        data = dataclasses.replace(config.data, max_bad_share=share, eval_batch_size=batch)
        known = self._evaluators.get(aspect)
        if known is not None:
            return known.on(part, data, self.show)
        score = self._final(protocols.scorer(self._parts, self._system, aspect))
        crop = protocols.host_crops(self._parts, config, aspect)
        config = dataclasses.replace(config, data=data)
        return Evaluator(config, score, self._spread, part, self._say, crop=crop, show=self.show)

    def _batch_size(self, aspect: float) -> int:
        """That of the run, or as many fewer as views or larger images need more memory; all devices have a share."""
        config, devices = self._system.config, self._spread.mesh.size
        memory = max(part.memory(config, aspect) for part in self._parts)
        return max(1, int(config.batch_size / memory) // devices) * devices

    def _groups(self, split: Split) -> list[tuple[float, Split]]:
        threads, _ = workers.reader_counts(self._system.config.data)
        return [(aspect, split.subset(indices)) for aspect, indices in group_by_aspect(split, threads).items()]

    def _allowed(self, split: Split) -> int:
        return int(self._system.config.data.max_bad_share * split.num_examples)

    def _check_damaged(self, split: Split, images: int) -> None:
        damaged, allowed = split.num_examples - images, self._allowed(split)
        if damaged > allowed:
            raise UserError(
                f"{damaged} of the {split.num_examples} records of {split.name} {split.split} cannot be decoded, as"
                f" said above; data.max_bad_share allows {allowed}. Repair and prepare them again, or allow more"
            )


def group_by_aspect(split: Split, threads: int) -> dict[float, list[int]]:
    """Indices of the images by the aspect of `WIDE`, or its inverse, to which a dense protocol cuts them.

    Sizes are read from the images' headers. The aspect is the most elongated one not beyond the image's own, but for
    a hundredth. Damaged images are in the largest group, where they will be found to be damaged.
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


def sum_rates(rates: Sequence[ErrorRates]) -> ErrorRates:
    """The error rates of all images of several groups."""
    if not rates:
        raise UserError("no image was scored: the split is empty")
    images = sum(each.images for each in rates)
    entropy = sum(each.cross_entropy * each.images for each in rates) / images
    wrong = (sum(getattr(each, name) for each in rates) for name in ("top1_wrong", "top5_wrong"))
    return ErrorRates(images, *wrong, cross_entropy=entropy)
