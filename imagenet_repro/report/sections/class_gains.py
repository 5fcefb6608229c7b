"""Which classes gained from one system to another, and a table of all of them; `dumbbell.py` draws the extremes.

Classes stand in the order of their gain in top-5 error where the systems choose between more than 20 classes, else in
top-1 error: five guesses among a few classes are right too often to tell systems apart.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Shaped

from imagenet_repro.errors import UserError
from imagenet_repro.report import records
from imagenet_repro.scoring.metrics import GUESSES, ErrorRates
from imagenet_repro.scoring.predictions import Predictions

FEW = 20  # classes, up to which top-1 error gives the order
NAME_LENGTH = 34  # letters
MAX_NAMED = 3  # images in one message

GuessCount = Literal[1, 5]
Scored = Predictions | records.TopGuesses  # what has ids, labels and five guesses


@dataclasses.dataclass(frozen=True)
class ClassGain:
    """One class, and what both systems made of its images."""

    name: str  # as the data set has it, with its synonyms
    short: str  # unlike that of every other class
    before: ErrorRates
    after: ErrorRates

    def errors(self, guesses: GuessCount) -> tuple[float, float]:
        """Before and after, in percent."""
        before, after = self._wrong(guesses)
        return 100 * before / self.before.images, 100 * after / self.after.images

    def gain(self, guesses: GuessCount) -> float:
        """How many points the error fell; negative where it rose."""
        before, after = self._wrong(guesses)
        return 100 * (before - after) / self.before.images  # of whole numbers, so that equal gains are equal

    def _wrong(self, guesses: GuessCount) -> tuple[int, int]:
        before, after = (one.top1_wrong if guesses == 1 else one.top5_wrong for one in (self.before, self.after))
        return before, after


@dataclasses.dataclass(frozen=True)
class Gains:
    """All classes that have images, the largest gain first, and both systems over all images."""

    classes: tuple[ClassGain, ...]
    overall: ClassGain
    guesses: GuessCount  # of the error that gave the order


def gains(before: Scored, after: Scored, class_names: Sequence[str]) -> Gains:
    """The gain of each class from one system to another; their images may stand in different orders.

    The order is that of top-5 error where there are more than 20 names, else of top-1 error; classes of equal gain
    stand as the data set has them. Classes without images are left out.

    Args:
      before: of one system; predictions, or the part of them that a comparison keeps.
      after: of another, on the same images.
      class_names: the name of each class, by the index that labels use.

    Raises:
      UserError: the predictions differ in their images or labels, some image has no label, or a system chose
        between more or fewer classes than there are names.
    """
    _check_classes(before, "before", class_names)
    _check_classes(after, "after", class_names)
    _check_same(before, after)
    counts = [_counts(one, len(class_names)) for one in (before, after)]
    whole = [ErrorRates(*map(sum, zip(*one, strict=True))) for one in counts]
    names = enumerate(zip(class_names, short_names(class_names), strict=True))
    classes = [ClassGain(*both, *(ErrorRates(*one[i]) for one in counts)) for i, both in names if counts[0][i][0] > 0]
    guesses = GUESSES if len(class_names) > FEW else 1
    classes.sort(key=lambda one: -one.gain(guesses))
    return Gains(tuple(classes), ClassGain("all", "all", *whole), guesses)


def short_names(names: Sequence[str]) -> list[str]:
    """Each name up to its first comma; where two classes share that, more of the name or the class's number."""
    heads = [clipped(name.split(",")[0].strip()) for name in names]
    stages = [heads, list(map(clipped, names)), [f"{head} (class {i})" for i, head in enumerate(heads)]]
    seen = list(map(Counter, stages))
    of_each = zip(*stages, strict=True)
    return [next(name for name, count in zip(one, seen, strict=True) if count[name] == 1) for one in of_each]


def markdown(found: Gains, *, systems: tuple[str, str] = ("before", "after")) -> str:
    """All classes as a table in Markdown, the largest gain first, with a final newline.

    Args:
      found: the gains.
      systems: what the two are called.
    """
    order = (5, 1) if found.guesses == GUESSES else (1, 5)
    heads = [text for k in order for text in (*(f"top-{k} error %, {name}" for name in systems), "gain in points")]
    lines = [["class", "images", *heads], ["---", *["---:"] * (1 + len(heads))]]
    for one in (found.overall, *found.classes):
        name = "**all classes**" if one is found.overall else one.name
        cells = [text for k in order for text in (*(f"{x:.1f}" for x in one.errors(k)), signed(one.gain(k)))]
        lines.append([name, f"{one.before.images:,}", *cells])
    rows = (" | ".join(cell.replace("|", "\\|") for cell in cells) for cells in lines)
    return "\n".join(f"| {row} |" for row in rows) + f"\n\n{noise(found)}\n"


# --- counting ---------------------------------------------------------------------------------------------------


def _check_classes(one: Scored, which: str, names: Sequence[str]) -> None:
    classes = _classes(one, len(names))
    if classes != len(names):
        raise UserError(f"the predictions {which} choose between {classes:,} classes; there are {len(names):,} names")
    if np.any(one.label < 0):
        raise UserError(f"the predictions {which} hold images without labels: {_some(one.id[one.label < 0])}")


def _classes(one: Scored, names: int) -> int:
    """How many a system chose between; without its scores as many as there are names, unless it guessed others."""
    if isinstance(one, Predictions):
        return one.logits.shape[1]
    return max(names, 1 + int(max(guess.max(initial=-1) for guess in (one.top5, one.label))))


def _check_same(before: Scored, after: Scored) -> None:
    only = {"before": np.setdiff1d(before.id, after.id), "after": np.setdiff1d(after.id, before.id)}
    parts = [f"only {which}: {_some(ids)}" for which, ids in only.items() if len(ids)]
    if parts:
        raise UserError(f"the predictions before and after are of different images; {'; '.join(parts)}")
    orders = np.argsort(before.id), np.argsort(after.id)
    differ = before.label[orders[0]] != after.label[orders[1]]
    if np.any(differ):
        raise UserError(f"the labels before and after differ for {_some(before.id[orders[0]][differ])}")


def _counts(one: Scored, classes: int) -> list[tuple[int, int, int]]:
    """Images, wrong by the first guess and wrong by the first five, of each class."""
    right = one.top5 == one.label[:, None]
    wrong = [~np.any(right[:, :k], axis=1) for k in (1, GUESSES)]
    chosen = (one.label, one.label[wrong[0]], one.label[wrong[1]])
    return list(zip(*(np.bincount(labels, minlength=classes).tolist() for labels in chosen), strict=True))


def _some(ids: Shaped[np.ndarray, " n"]) -> str:
    more = f" and {len(ids) - MAX_NAMED:,} more" if len(ids) > MAX_NAMED else ""
    return ", ".join(map(str, ids[:MAX_NAMED])) + more


# --- words ------------------------------------------------------------------------------------------------------


def clipped(name: str) -> str:
    """The name, or its beginning where it is too long for a picture."""
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1].rstrip() + "…"


def signed(points: float) -> str:
    """A gain with its sign and one decimal."""
    text = f"{points:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def noise(found: Gains) -> str:
    """A sentence or two on how far the numbers of a class can be trusted."""
    sizes = [one.before.images for one in found.classes]
    low, high = min(sizes), max(sizes)
    images, points = f"{low:,} to {high:,}", f"{100 / high:.3g} to {100 / low:.3g}"
    if low == high:
        images, points = f"{low:,}", f"{100 / low:.3g}"
    text = f"Each class has {images} image{'s' * (high > 1)}: one image is {points} points of its error."
    if len(sizes) > FEW:
        text += f" The extremes of {len(sizes):,} classes are partly luck, and would be milder on other images."
    return text
