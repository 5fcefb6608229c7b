"""The gain of each class from one system to another, as a table in Markdown; `plots/dumbbell.py` draws the extremes.

Classes are ordered by their gain in top-5 error if the systems choose between more than 20 classes, otherwise in
top-1 error: with few classes, one of five guesses is right too often for top-5 error to show differences.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from imagenet_repro.errors import UserError
from imagenet_repro.report.records import TopGuesses
from imagenet_repro.report.text import short_names, signed
from imagenet_repro.scoring.metrics import GUESSES, ErrorRates, is_wrong
from imagenet_repro.scoring.predictions import Predictions, format_ids

FEW = 20  # classes; with more of them top-5 error gives the order

GuessCount = Literal[1, 5]
ScoredImages = Predictions | TopGuesses  # both have ids, labels and five guesses


@dataclasses.dataclass(frozen=True)
class ClassGain:
    """The errors of both systems on the images of one class.

    Attributes:
      name: the data set's own name, with its synonyms.
      short: a short name, unique among the classes.
      before, after: error rates of either system.
    """

    name: str
    short: str
    before: ErrorRates
    after: ErrorRates

    def errors(self, guesses: GuessCount) -> tuple[float, float]:
        """Return the errors before and after, in percent."""
        before, after = self._wrong(guesses)
        return 100 * before / self.before.images, 100 * after / self.after.images

    def gain(self, guesses: GuessCount) -> float:
        """Return the points by which the error fell; negative if it rose."""
        before, after = self._wrong(guesses)
        return 100 * (before - after) / self.before.images  # from integers, so that equal gains compare equal

    def _wrong(self, guesses: GuessCount) -> tuple[int, int]:
        before, after = (one.top1_wrong if guesses == 1 else one.top5_wrong for one in (self.before, self.after))
        return before, after


@dataclasses.dataclass(frozen=True)
class Gains:
    """The gains of all classes from one system to another.

    Attributes:
      classes: all classes that have images, the largest gain first.
      overall: both systems over all images.
      guesses: 1 or 5, of the error that gave the order.
    """

    classes: tuple[ClassGain, ...]
    overall: ClassGain
    guesses: GuessCount


def gains(before: ScoredImages, after: ScoredImages, class_names: Sequence[str]) -> Gains:
    """Return the gain of each class from one system to another, whose images may be in different orders.

    Classes are ordered by top-5 error if there are more than 20 names, otherwise by top-1 error; classes of equal
    gain stay in the data set's order. Classes without images are left out.

    Args:
      before: predictions of one system.
      after: predictions of the other system on the same images.
      class_names: names by class index.

    Raises:
      UserError: the predictions differ in their images or labels, some image has no label, or a system chose
        between more or fewer classes than there are names.
    """
    _check_classes(before, "before", class_names)
    _check_classes(after, "after", class_names)
    _check_same_images(before, after)
    counts = [_count_per_class(one, len(class_names)) for one in (before, after)]
    totals = [ErrorRates(*map(sum, zip(*one, strict=True))) for one in counts]
    names = enumerate(zip(class_names, short_names(class_names), strict=True))
    classes = [
        ClassGain(name, short, *(ErrorRates(*one[i]) for one in counts))
        for i, (name, short) in names
        if counts[0][i][0] > 0
    ]
    guesses: GuessCount = GUESSES if len(class_names) > FEW else 1
    classes.sort(key=lambda one: -one.gain(guesses))
    return Gains(tuple(classes), ClassGain("all", "all", *totals), guesses)


def markdown(class_gains: Gains, *, systems: tuple[str, str] = ("before", "after")) -> str:
    """Return a table of all classes in Markdown, the largest gain first, with a final newline.

    Args:
      class_gains: the gains.
      systems: the names of the two systems.
    """
    order: tuple[GuessCount, GuessCount] = (5, 1) if class_gains.guesses == GUESSES else (1, 5)
    headings = [text for k in order for text in (*(f"top-{k} error %, {name}" for name in systems), "gain in points")]
    lines = [["class", "images", *headings], ["---", *["---:"] * (1 + len(headings))]]
    for one in (class_gains.overall, *class_gains.classes):
        name = "**all classes**" if one is class_gains.overall else one.name
        cells = [text for k in order for text in (*(f"{x:.1f}" for x in one.errors(k)), signed(one.gain(k)))]
        lines.append([name, f"{one.before.images:,}", *cells])
    rows = (" | ".join(cell.replace("|", "\\|") for cell in cells) for cells in lines)
    return "\n".join(f"| {row} |" for row in rows) + f"\n\n{noise_note(class_gains)}\n"


def noise_note(class_gains: Gains) -> str:
    """Return one or two sentences on the influence of chance on the numbers of one class."""
    sizes = [one.before.images for one in class_gains.classes]
    low, high = min(sizes), max(sizes)
    images, points = f"{low:,} to {high:,}", f"{100 / high:.3g} to {100 / low:.3g}"
    if low == high:
        images, points = f"{low:,}", f"{100 / low:.3g}"
    unit = "point" if points == "1" else "points"
    text = f"Each class has {images} image{'s' * (high > 1)}, so one image is {points} {unit} of its error."
    if len(sizes) > FEW:
        text += (
            f" The extremes of {len(sizes):,} classes are partly chance, and would be less extreme on other images."
        )
    return text


# --- counting ---------------------------------------------------------------------------------------------------


def _check_classes(one: ScoredImages, which: str, names: Sequence[str]) -> None:
    n_classes = _class_count(one, len(names))
    if n_classes != len(names):
        raise UserError(
            f"the predictions {which} choose between {n_classes:,} classes; there are {len(names):,} names"
        )
    if np.any(one.label < 0):
        raise UserError(f"the predictions {which} have images without labels: {format_ids(one.id[one.label < 0])}")


def _class_count(one: ScoredImages, n_names: int) -> int:
    """Return the number of classes that a system chose between.

    Without its scores, this is the number of names, unless it guessed a class beyond them.
    """
    if isinstance(one, Predictions):
        return one.logits.shape[1]
    return max(n_names, 1 + int(max(guess.max(initial=-1) for guess in (one.top5, one.label))))


def _check_same_images(before: ScoredImages, after: ScoredImages) -> None:
    if before.id is after.id and before.label is after.label:  # as runs of one comparison share them
        return
    only = {"before": np.setdiff1d(before.id, after.id), "after": np.setdiff1d(after.id, before.id)}
    parts = [f"only {which}: {format_ids(ids)}" for which, ids in only.items() if len(ids)]
    if parts:
        raise UserError(f"the predictions before and after are of different images; {'; '.join(parts)}")
    orders = np.argsort(before.id), np.argsort(after.id)
    differ = before.label[orders[0]] != after.label[orders[1]]
    if np.any(differ):
        raise UserError(f"the labels before and after differ for {format_ids(before.id[orders[0]][differ])}")


def _count_per_class(one: ScoredImages, n_classes: int) -> list[tuple[int, int, int]]:
    """Return for each class its images, those wrong by the first guess, and those wrong by the first five."""
    wrong = [is_wrong(one.top5, one.label, k) for k in (1, GUESSES)]
    labels = (one.label, one.label[wrong[0]], one.label[wrong[1]])
    return list(zip(*(np.bincount(chosen, minlength=n_classes).tolist() for chosen in labels), strict=True))
