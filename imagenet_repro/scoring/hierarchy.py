"""The hierarchical cost of guesses along WordNet's tree, and error rates by super-class.

The hierarchical cost of the challenge of 2010 (readme of its development kit): a guess costs the height of the lowest
common ancestor of guess and label in the complete WordNet, without normalization, and a right guess costs nothing. An
image costs as much as the cheapest of its guesses, and an entry costs the mean over images. A missing guess costs the
height of the root, 19.

Super-classes are those of `wordnet.SUPER_CLASSES`.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from rich.table import Table

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import wordnet
from imagenet_repro.scoring.metrics import format_rate
from imagenet_repro.scoring.terminal import score_table
from imagenet_repro.statistics.intervals import NORMAL_95
from imagenet_repro.statistics.populations import NEW_IMAGES, interval_heading, terminal_heading

TABLE_NOTE = (
    "Errors of first guesses. Elsewhere: guess of another super-class. Inside: wrong guess of the right super-class."
)


@dataclasses.dataclass(frozen=True)
class HierarchicalCost:
    """The mean over all images of the cost of the cheapest of the first `guesses` guesses."""

    guesses: int
    mean: float
    standard_error: float

    @property
    def interval(self) -> tuple[float, float]:
        """Normal 95 % interval, for new images and these checkpoints."""
        return max(0.0, self.mean - NORMAL_95 * self.standard_error), self.mean + NORMAL_95 * self.standard_error

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.mean:.2f} [{low:.2f}, {high:.2f}] with {self.guesses} guess{'es' * (self.guesses > 1)}"


@dataclasses.dataclass(frozen=True)
class SuperClassErrors:
    """Errors of the first guess on the images of one super-class."""

    name: str
    classes: int
    images: int
    wrong: int
    outside: int  # guesses of another super-class, which are all wrong

    @property
    def inside(self) -> int:
        """Number of wrong guesses within the right super-class, such as a dog of another breed."""
        return self.wrong - self.outside


@dataclasses.dataclass(frozen=True)
class Hierarchy:
    """Costs with 1, 2, … guesses, and super-classes in the order of `wordnet.SUPER_CLASSES`."""

    costs: tuple[HierarchicalCost, ...]
    groups: tuple[SuperClassErrors, ...]

    @property
    def whole(self) -> SuperClassErrors:
        """Sum over all super-classes."""
        counts = [(one.classes, one.images, one.wrong, one.outside) for one in self.groups]
        return SuperClassErrors("all", *map(sum, zip(*counts, strict=True)))


def score_hierarchy(top5: Int[np.ndarray, "n k"], labels: Int[np.ndarray, " n"], wnids: Sequence[str]) -> Hierarchy:
    """Return costs of guesses and errors by super-class.

    Args:
      top5: class indices, the best first; -1: no guess.
      labels: class indices.
      wnids: WordNet ids of the classes. Super-classes without an image are left out.

    Raises:
      UserError: there are no images, a label is not among the classes, or an id is not in WordNet.
    """
    if not len(labels) or labels.min() < 0 or max(labels.max(), top5.max()) >= len(wnids):
        raise UserError(f"labels and guesses are needed among {len(wnids):,} classes, of at least one image")
    return Hierarchy(_costs(top5, labels, _cost_matrix(tuple(wnids))), _groups(top5[:, 0], labels, wnids))


def has_wordnet_ids(class_names: Sequence[str]) -> bool:
    """Return whether all classes are named by WordNet ids."""
    return len(class_names) > 0 and all(map(wordnet.is_wordnet_id, class_names))


@functools.lru_cache(maxsize=2)
def _cost_matrix(wnids: tuple[str, ...]) -> Int[np.ndarray, "c d"]:
    """Return the cost by label and guess; the last column is for no guess, so that index -1 selects it."""
    costs = wordnet.costs(wnids)
    return np.pad(costs, ((0, 0), (0, 1)), constant_values=wordnet.height(wordnet.ROOT))


def _costs(
    top5: Int[np.ndarray, "n k"], labels: Int[np.ndarray, " n"], matrix: Int[np.ndarray, "c d"]
) -> tuple[HierarchicalCost, ...]:
    cheapest: Float[np.ndarray, "n k"] = np.minimum.accumulate(matrix[labels[:, None], top5], axis=1)
    errors = cheapest.std(axis=0, ddof=1 if len(labels) > 1 else 0) / math.sqrt(len(labels))
    pairs = zip(cheapest.mean(axis=0), errors, strict=True)
    return tuple(HierarchicalCost(k, float(mean), float(error)) for k, (mean, error) in enumerate(pairs, start=1))


def _groups(
    best: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], wnids: Sequence[str]
) -> tuple[SuperClassErrors, ...]:
    order = [*wordnet.SUPER_CLASSES, wordnet.OTHER]
    of_class = np.array([order.index(wordnet.super_class(wnid)) for wnid in wnids])
    group = of_class[labels]
    wrong = best != labels
    outside = (best < 0) | (of_class[best] != group)
    counts = [np.bincount(group, which, len(order)) for which in (np.ones(len(group)), wrong, outside)]
    classes = np.bincount(of_class, minlength=len(order))
    rows = zip(order, classes, *counts, strict=True)
    return tuple(SuperClassErrors(name, *map(int, numbers)) for name, *numbers in rows if numbers[1])


# --- words ------------------------------------------------------------------------------------------------------


def sentences(result: Hierarchy) -> list[str]:
    """Describe the costs with one guess and with all, and the share of guesses within the right super-class."""
    costs = [result.costs[0], *result.costs[1:][-1:]]
    tree = result.whole
    shares = (format_rate(count, tree.images) for count in (tree.outside, tree.inside))
    outside, inside = (f"{share} % {low_to_high}" for share, low_to_high in shares)
    of_errors = f", {100 * tree.inside / tree.wrong:.0f} % of the errors" if tree.wrong else ""
    return [
        f"hierarchical cost (challenge of 2010): {', '.join(map(str, costs))}",
        f"first guess of another super-class: {outside}; of the right one, but another class: {inside}{of_errors}",
    ]


def terminal_table(result: Hierarchy) -> Table:
    """Return a table with a row for each super-class and one for all; `TABLE_NOTE` explains its columns."""
    interval = terminal_heading(interval_heading(NEW_IMAGES))
    headings = ("super-class", "images", "error %", interval, "elsewhere %", "inside %")
    rows = []
    for group in (*result.groups, result.whole):
        shares = [format_rate(count, group.images)[0] for count in (group.outside, group.inside)]
        rows.append((group.name, f"{group.images:,}", *format_rate(group.wrong, group.images), *shares))
    return score_table(headings, rows)
