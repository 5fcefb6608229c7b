"""What systems take images for when their first guess is wrong, and how far off that is along the WordNet tree.

All numbers of a system are means over its seeds. Where classes are no WordNet ids there is no tree, and the confusions
alone remain. `confusion_plots.py` draws the tree's part.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from imagenet_repro.report.records import Comparison
from imagenet_repro.report.sections.class_gains import Scored, short_names
from imagenet_repro.scoring import wordnet

MOST = 20  # confusions in the table
NONE = -1  # in place of a guess: a score was not a number


@dataclasses.dataclass(frozen=True)
class WrongGuesses:
    """The wrong first guesses of all systems, counted by pairs of classes, each pair that occurs once.

    Attributes:
      systems: names.
      several_seeds: whether some system has more than one run, so that counts are means and no whole numbers.
      class_names: short, for people, all unlike.
      images: of each class.
      label: class of a pair's images.
      guess: what they were taken for; -1: there was no guess.
      counts: images of each system and pair.
    """

    systems: tuple[str, ...]
    several_seeds: bool
    class_names: tuple[str, ...]
    images: Int[np.ndarray, " c"]
    label: Int[np.ndarray, " p"]
    guess: Int[np.ndarray, " p"]
    counts: Float[np.ndarray, "s p"]

    @property
    def guessed(self) -> Bool[np.ndarray, " p"]:
        """Whether there was a guess."""
        return self.guess != NONE


@dataclasses.dataclass(frozen=True)
class ConfusionTree:
    """Wrong first guesses along the WordNet tree.

    Attributes:
      wrong: the guesses.
      wnids: ids of the classes.
      costs: hierarchical cost of taking one class (row) for another; `wordnet.costs`.
      cost: of each pair of `wrong`; without a guess as much as the root.
      groups: names of the super-classes that there are, in the order of `wordnet.SUPER_CLASSES`.
      group: index into `groups` of each class.
    """

    wrong: WrongGuesses
    wnids: tuple[str, ...]
    costs: Int32[np.ndarray, "c c"]
    cost: Int[np.ndarray, " p"]
    groups: tuple[str, ...]
    group: Int[np.ndarray, " c"]

    @property
    def inside(self) -> Bool[np.ndarray, " p"]:
        """Whether the guess of a pair is of the label's super-class: a dog, but which dog."""
        return self.wrong.guessed & (self.group[self.wrong.label] == self.group[self.wrong.guess])

    def per_group(self, counts: Float[np.ndarray, "s p"]) -> Float[np.ndarray, "s g"]:
        """Images of each super-class by system, from those of each pair."""
        of_pair = self.group[self.wrong.label]
        return np.stack([np.bincount(of_pair, row, minlength=len(self.groups)) for row in counts])

    def images(self) -> Float[np.ndarray, " g"]:
        """Of each super-class."""
        return np.bincount(self.group, self.wrong.images, minlength=len(self.groups))

    def mean_cost(self) -> Float[np.ndarray, " s"]:
        """Mean hierarchical cost of a first guess over all images, right ones costing nothing."""
        return self.wrong.counts @ self.cost / self.wrong.images.sum()

    def share_inside(self) -> Float[np.ndarray, " s"]:
        """Share in [0, 1] of a system's wrong first guesses that stay inside the super-class; NaN without any."""
        return _share(self.wrong.counts @ self.inside, self.wrong.counts.sum(axis=1))


@dataclasses.dataclass(frozen=True)
class Rows:
    """A table as text: a heading for each column, cells, and a sentence or two below."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str


def wrong_guesses(comparison: Comparison) -> WrongGuesses:
    """Counts the wrong first guesses of every system."""
    of_each = {system.name: [run.guesses for run in system.runs] for system in comparison.systems}
    return counted(of_each, comparison.class_names)


def counted(guesses: Mapping[str, Sequence[Scored]], class_names: Sequence[str]) -> WrongGuesses:
    """Counts wrong first guesses.

    Args:
      guesses: by the name of a system those of each of its runs, all on the same images.
      class_names: by class index.
    """
    classes = len(class_names)
    codes = [_codes(runs, classes) for runs in guesses.values()]
    pairs = np.unique(np.concatenate(codes))
    counts = [
        np.bincount(np.searchsorted(pairs, code), minlength=len(pairs)) / len(runs)
        for code, runs in zip(codes, guesses.values(), strict=True)
    ]
    return WrongGuesses(
        systems=tuple(guesses),
        several_seeds=any(len(runs) > 1 for runs in guesses.values()),
        class_names=tuple(short_names(wordnet.readable_names(class_names))),
        images=np.bincount(next(iter(guesses.values()))[0].label, minlength=classes),
        label=pairs // (classes + 1),
        guess=pairs % (classes + 1) - 1,
        counts=np.stack(counts),
    )


def along_tree(wrong: WrongGuesses, class_names: Sequence[str]) -> ConfusionTree | None:
    """The guesses along the WordNet tree; None where a name of a class is no WordNet id, or there is one class.

    Args:
      wrong: the guesses.
      class_names: those of the comparison, by class index.
    """
    if len(class_names) < 2 or not all(map(wordnet.is_wordnet_id, class_names)):
        return None
    costs = wordnet.costs(class_names)
    of_each = list(map(wordnet.super_class, class_names))
    groups = [name for name in (*wordnet.SUPER_CLASSES, wordnet.OTHER) if name in of_each]
    return ConfusionTree(
        wrong=wrong,
        wnids=tuple(class_names),
        costs=costs,
        cost=np.where(wrong.guessed, costs[wrong.label, wrong.guess], wordnet.height(wordnet.ROOT)),
        groups=tuple(groups),
        group=np.array([groups.index(name) for name in of_each]),
    )


def _codes(runs: Sequence[Scored], classes: int) -> Int[np.ndarray, " w"]:
    """A number for the label and the guess of each wrong image, over all runs."""
    every = [(run.label.astype(np.int64), run.top5[:, 0]) for run in runs]
    return np.concatenate([(label * (classes + 1) + guess + 1)[guess != label] for label, guess in every])


# --- tables -----------------------------------------------------------------------------------------------------


def most_confused(wrong: WrongGuesses, tree: ConfusionTree | None) -> Rows:
    """The most frequent confusions, by their sum over systems; with a tree also what label and guess are."""
    totals = np.where(wrong.guessed, wrong.counts.sum(axis=0), 0.0)
    order = [pair for pair in np.argsort(-totals, kind="stable")[:MOST].tolist() if totals[pair] > 0]
    rows = [_confusion(wrong, tree, pair) for pair in order]
    caption = "Of so many images of the class, so many were taken for the other class by each system's first guess"
    caption += ", on average over its seeds." if wrong.several_seeds else "."
    headings = ("class", "taken for", *(["both are"] if tree else []), "images", "all systems", *wrong.systems)
    return Rows(headings, tuple(rows), caption)


def _confusion(wrong: WrongGuesses, tree: ConfusionTree | None, pair: int) -> tuple[str, ...]:
    label, guess = wrong.label[pair], wrong.guess[pair]
    digits = 1 if wrong.several_seeds else 0
    counts = [f"{count:,.{digits}f}" for count in (wrong.counts[:, pair].sum(), *wrong.counts[:, pair])]
    both = [_shared(tree.wnids[label], tree.wnids[guess])] if tree else []
    return (wrong.class_names[label], wrong.class_names[guess], *both, f"{wrong.images[label]:,}", *counts)


def _shared(label: str, guess: str) -> str:
    return wordnet.words(wordnet.lowest_common_ancestor(label, guess))[0]


def distances(tree: ConfusionTree) -> Rows:
    """How far off each system's first guesses are; the last row is that of guessing at random."""
    wrong, images = tree.wrong, tree.wrong.images
    error, cost = wrong.counts.sum(axis=1) / images.sum(), tree.mean_cost()
    columns = zip(wrong.systems, error, tree.share_inside(), _share(cost, error), cost, strict=True)
    others = 1 - 1 / len(images)  # a random guess is wrong as often
    random_cost = images @ tree.costs.mean(axis=1) / images.sum()
    random = ("guessing at random", others, inside_by_chance(tree), random_cost / others, random_cost)
    rows = [
        (name, _percent(err), _percent(inside), _number(height), _number(mean))
        for name, err, inside, height, mean in (*columns, random)
    ]
    headings = ("system", "top-1 error %", "inside the super-class, % of errors", "mean height of an error", "cost")
    caption = (
        "The cost of a first guess is that of the challenge of 2010: the height in WordNet of the nearest kind that"
        " label and guess share (dog 5, bird 7, mammal 9, animal 13, entity 19), and 0 where it is right; it is a mean"
        " over all images, the height of an error over wrong guesses alone."
    )
    return Rows(headings, tuple(rows), caption)


def errors_by_group(tree: ConfusionTree) -> Rows:
    """The top-1 error within each super-class, by system."""
    caption = (
        "Top-1 error in % of the super-class's images. A class is of the first of these groups that holds it or one of"
        " its ancestors in WordNet."
    )
    return _group_rows(tree, _share(tree.per_group(tree.wrong.counts), tree.images()), caption)


def inside_by_group(tree: ConfusionTree) -> Rows:
    """The share of each super-class's errors that stay inside it, by system."""
    counts = tree.wrong.counts
    shares = _share(tree.per_group(counts * tree.inside), tree.per_group(counts))
    shares[:, np.bincount(tree.group) == 1] = np.nan
    caption = (
        "Of the wrong first guesses at images of the super-class, % that are another class of the same super-class;"
        " empty where there is no other class, or no error. Over all super-classes, of random wrong guesses"
        f" {_percent(inside_by_chance(tree))} % would be."
    )
    return _group_rows(tree, shares, caption)


def inside_by_chance(tree: ConfusionTree) -> float:
    """The share in [0, 1] of random wrong guesses that would stay inside the super-class."""
    classes = len(tree.wnids)
    siblings = np.bincount(tree.group)[tree.group] - 1
    return float(tree.wrong.images @ siblings / (classes - 1) / tree.wrong.images.sum())


def _group_rows(tree: ConfusionTree, values: Float[np.ndarray, "s g"], caption: str) -> Rows:
    classes = np.bincount(tree.group)
    rows = [
        (name, f"{count:,}", f"{number:,.0f}", *map(_percent, of_group))
        for name, count, number, of_group in zip(tree.groups, classes, tree.images(), values.T, strict=True)
    ]
    return Rows(("super-class", "classes", "images", *tree.wrong.systems), tuple(rows), caption)


def _share(part: Float[np.ndarray, "*s"], whole: Float[np.ndarray, "*t"]) -> Float[np.ndarray, "*s"]:
    """Their ratio, NaN where there is nothing to take a share of."""
    with np.errstate(invalid="ignore"):
        return np.divide(part, whole)


def _percent(share: float) -> str:
    return _number(100 * share, digits=1)


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else ""
