"""Confusions: the classes of wrong first guesses, and their distance from the label in the WordNet tree.

All numbers of a system are means over its seeds. If the classes are not WordNet ids, there is no tree, and only the
table of confusions remains. `plots/wordnet_confusions.py` draws the figures of the tree.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Shaped

from imagenet_repro.report.records import Comparison
from imagenet_repro.report.sections.class_gains import ScoredImages
from imagenet_repro.report.tables import Table
from imagenet_repro.report.text import short_names
from imagenet_repro.scoring import wordnet

MOST = 20  # confusions in the table
MOST_CODES = 1 << 26  # pairs of classes, of 8,000 classes; more are sorted, and not looked up in a table of all
NO_GUESS = -1  # stands for the guess on an image whose scores held NaN


@dataclasses.dataclass(frozen=True)
class WrongGuesses:
    """The wrong first guesses of all systems by pairs of classes; each pair that occurs is listed once.

    Each guess is stored and not the number of each pair: with 1,000 classes most pairs occur once or never, and a
    table of all systems and pairs would take most of the memory of a comparison.

    Attributes:
      systems: names of the systems.
      seeds: number of runs of each system; with more than one, numbers of images are means and not integers.
      class_names: short names, all different.
      images: number of images of each class.
      label: class index of each pair's label.
      guess: class index of each pair's guess; -1: there was no guess.
      guessed: for each system the pair of each wrong first guess, over all its runs.
    """

    systems: tuple[str, ...]
    seeds: tuple[int, ...]
    class_names: tuple[str, ...]
    images: Int[np.ndarray, " c"]
    label: Int[np.ndarray, " p"]
    guess: Int[np.ndarray, " p"]
    guessed: tuple[Int32[np.ndarray, " _"], ...]

    @property
    def has_several_seeds(self) -> bool:
        """Whether some system has more than one run, so that numbers of images are means and not integers."""
        return max(self.seeds) > 1

    @property
    def has_guess(self) -> Bool[np.ndarray, " p"]:
        """Whether there was a guess, for each pair."""
        return self.guess != NO_GUESS

    def counts(self) -> Iterator[Float[np.ndarray, " p"]]:
        """Yield the number of images of each pair, system by system."""
        for pairs, seeds in zip(self.guessed, self.seeds, strict=True):
            yield np.bincount(pairs, minlength=len(self.label)) / seeds

    def sums(self, values: Shaped[np.ndarray, " p"]) -> Float[np.ndarray, " s"]:
        """Return each system's sum of a value of the pair over its wrong guesses, as a mean over its seeds."""
        each = zip(self.guessed, self.seeds, strict=True)
        return np.array([values[pairs].sum() / seeds for pairs, seeds in each], np.float64)

    def images_by(
        self, part: Int[np.ndarray, " p"], n_parts: int, chosen: Bool[np.ndarray, " p"] | None = None
    ) -> Float[np.ndarray, "s q"]:
        """Return the number of images by system and by the part that their pair belongs to.

        Args:
          part: the part of each pair, from 0.
          n_parts: number of parts.
          chosen: whether a pair counts; None: all do.
        """
        guessed = self.guessed if chosen is None else [pairs[chosen[pairs]] for pairs in self.guessed]
        counts = [np.bincount(part[pairs], minlength=n_parts) for pairs in guessed]
        return np.stack(counts) / np.array(self.seeds)[:, None]

    @property
    def total(self) -> Float[np.ndarray, " s"]:
        """Number of wrong first guesses of each system, as a mean over its seeds."""
        return np.array([len(pairs) for pairs in self.guessed]) / np.array(self.seeds)


@dataclasses.dataclass(frozen=True)
class ConfusionTree:
    """Wrong first guesses in the WordNet tree.

    Attributes:
      wrong: the guesses.
      wnids: WordNet ids of the classes.
      costs: hierarchical cost of guessing one class (column) for another (row), from `wordnet.costs`.
      cost: hierarchical cost of each pair of `wrong`; without a guess it is the height of the root.
      groups: names of the super-classes that occur, in the order of `wordnet.SUPER_CLASSES`.
      group: index into `groups` of each class.
    """

    wrong: WrongGuesses
    wnids: tuple[str, ...]
    costs: Int32[np.ndarray, "c c"]
    cost: Int[np.ndarray, " p"]
    groups: tuple[str, ...]
    group: Int[np.ndarray, " c"]

    @property
    def is_inside(self) -> Bool[np.ndarray, " p"]:
        """Whether each pair's guess is of the label's super-class, such as another breed of dog."""
        return self.wrong.has_guess & (self.group[self.wrong.label] == self.group[self.wrong.guess])

    def per_group(self, chosen: Bool[np.ndarray, " p"] | None = None) -> Float[np.ndarray, "s g"]:
        """Return the wrongly guessed images of each super-class by system, of all pairs or of the chosen ones."""
        return self.wrong.images_by(self.group[self.wrong.label], len(self.groups), chosen)

    def images(self) -> Float[np.ndarray, " g"]:
        """Return the number of images of each super-class."""
        return np.bincount(self.group, self.wrong.images, minlength=len(self.groups))

    def mean_cost(self) -> Float[np.ndarray, " s"]:
        """Return each system's mean hierarchical cost of a first guess over all images; right guesses cost 0."""
        return self.wrong.sums(self.cost) / self.wrong.images.sum()

    def share_inside(self) -> Float[np.ndarray, " s"]:
        """Return the share in [0, 1] of each system's wrong first guesses inside the super-class; NaN without any."""
        return _ratio(self.wrong.sums(self.is_inside), self.wrong.total)


def wrong_guesses(comparison: Comparison) -> WrongGuesses:
    """Count the wrong first guesses of every system of a comparison."""
    guesses = {system.name: [run.guesses for run in system.runs] for system in comparison.systems}
    return count_wrong(guesses, comparison.class_names)


def count_wrong(guesses: Mapping[str, Sequence[ScoredImages]], class_names: Sequence[str]) -> WrongGuesses:
    """Count wrong first guesses.

    Args:
      guesses: by the name of a system the guesses of each of its runs, all on the same images.
      class_names: names by class index.
    """
    n_classes = len(class_names)
    codes = [_pair_codes(runs, n_classes) for runs in guesses.values()]
    pairs, numbers = _number_codes(codes, n_classes * (n_classes + 1))
    return WrongGuesses(
        systems=tuple(guesses),
        seeds=tuple(map(len, guesses.values())),
        class_names=tuple(short_names(wordnet.readable_names(class_names))),
        images=np.bincount(next(iter(guesses.values()))[0].label, minlength=n_classes),
        label=pairs // (n_classes + 1),
        guess=pairs % (n_classes + 1) - 1,
        guessed=tuple(numbers),
    )


def place_in_tree(wrong: WrongGuesses, class_names: Sequence[str]) -> ConfusionTree | None:
    """Place wrong guesses in the WordNet tree.

    Args:
      wrong: the guesses.
      class_names: the comparison's own names, by class index.

    Returns:
      The guesses in the tree, or None if a name is not a WordNet id or there is only one class.
    """
    if len(class_names) < 2 or not all(map(wordnet.is_wordnet_id, class_names)):
        return None
    costs = wordnet.costs(class_names)
    super_classes = list(map(wordnet.super_class, class_names))
    groups = [name for name in (*wordnet.SUPER_CLASSES, wordnet.OTHER) if name in super_classes]
    return ConfusionTree(
        wrong=wrong,
        wnids=tuple(class_names),
        costs=costs,
        cost=np.where(wrong.has_guess, costs[wrong.label, wrong.guess], wordnet.height(wordnet.ROOT)),
        groups=tuple(groups),
        group=np.array([groups.index(name) for name in super_classes]),
    )


def _pair_codes(runs: Sequence[ScoredImages], n_classes: int) -> Int[np.ndarray, " w"]:
    """Return one number for label and guess of each wrong image, over all runs."""
    kind = np.int32 if n_classes * (n_classes + 1) <= np.iinfo(np.int32).max else np.int64
    pairs = [(run.label.astype(kind), run.top5[:, 0]) for run in runs]
    return np.concatenate([(label * (n_classes + 1) + guess + 1)[guess != label] for label, guess in pairs])


def _number_codes(
    codes: Sequence[Int[np.ndarray, " _"]], n_codes: int
) -> tuple[Int[np.ndarray, " p"], list[Int32[np.ndarray, " _"]]]:
    """Return the codes that occur, in rising order, and for each array the places of its codes among them."""
    if n_codes > MOST_CODES:
        occurring = np.unique(np.concatenate(codes))
        return occurring, [np.searchsorted(occurring, one).astype(np.int32) for one in codes]
    occurs = np.zeros(n_codes, bool)
    for one in codes:
        occurs[one] = True
    place = np.cumsum(occurs, dtype=np.int32) - 1
    return np.flatnonzero(occurs), [place[one] for one in codes]


# --- tables -----------------------------------------------------------------------------------------------------


def most_confused(wrong: WrongGuesses, tree: ConfusionTree | None) -> Table:
    """Return the most frequent confusions, by their sum over systems; with a tree also the kinds of both classes."""
    totals = np.zeros(len(wrong.label))
    for counts in wrong.counts():
        totals += counts
    totals[~wrong.has_guess] = 0.0
    order = [pair for pair in np.argsort(-totals, kind="stable")[:MOST].tolist() if totals[pair] > 0]
    columns = np.stack([counts[order] for counts in wrong.counts()])
    rows = [_confusion_row(wrong, tree, pair, columns[:, at]) for at, pair in enumerate(order)]
    mean = ", as a mean over its seeds" if wrong.has_several_seeds else ""
    caption = f"The number of images of the class for which each system's first guess was the other class{mean}."
    headings = ("class", "guessed as", *(["both are"] if tree else []), "images", "all systems", *wrong.systems)
    return Table("confusions", headings, tuple(rows), caption)


def _confusion_row(
    wrong: WrongGuesses, tree: ConfusionTree | None, pair: int, of_systems: Float[np.ndarray, " s"]
) -> tuple[str, ...]:
    label, guess = wrong.label[pair], wrong.guess[pair]
    digits = 1 if wrong.has_several_seeds else 0
    counts = [f"{count:,.{digits}f}" for count in (of_systems.sum(), *of_systems)]
    shared = [_shared_kind(tree.wnids[label], tree.wnids[guess])] if tree else []
    return (wrong.class_names[label], wrong.class_names[guess], *shared, f"{wrong.images[label]:,}", *counts)


def _shared_kind(label: str, guess: str) -> str:
    return wordnet.words(wordnet.lowest_common_ancestor(label, guess))[0]


def distances(tree: ConfusionTree) -> Table:
    """Return the distance of each system's first guesses from the labels; the last row is that of random guessing."""
    wrong, images = tree.wrong, tree.wrong.images
    error, cost = wrong.total / images.sum(), tree.mean_cost()
    columns = zip(wrong.systems, error, tree.share_inside(), _ratio(cost, error), cost, strict=True)
    random_error = 1 - 1 / len(images)
    random_cost = images @ tree.costs.mean(axis=1) / images.sum()
    random = ("guessing at random", random_error, inside_by_chance(tree), random_cost / random_error, random_cost)
    rows = [
        (name, _percent(err), _percent(inside), _number(height), _number(mean))
        for name, err, inside, height, mean in (*columns, random)
    ]
    headings = (
        "system",
        "top-1 error %",
        "inside the super-class, % of errors",
        "mean height of an error",
        "mean cost of a guess",
    )
    caption = (
        "The cost of a first guess is the hierarchical cost of the challenge of 2010: 0 where the guess is right,"
        " otherwise the height in WordNet of the nearest kind that label and guess share (dog 5, bird 7, mammal 9,"
        " animal 13, entity 19). The mean cost is over all images, the mean height over wrong guesses only."
    )
    return Table("tree_distances", headings, tuple(rows), caption)


def errors_by_group(tree: ConfusionTree) -> Table:
    """Return the top-1 error within each super-class, by system."""
    caption = (
        "Top-1 error in % of the super-class's images. A class belongs to the first of these super-classes that"
        " contains it or one of its ancestors in WordNet."
    )
    errors = _ratio(tree.per_group(), tree.images())
    return _group_table("super_class_errors", tree, errors, caption)


def inside_by_group(tree: ConfusionTree) -> Table:
    """Return the share of each super-class's errors that stay inside it, by system."""
    shares = _ratio(tree.per_group(tree.is_inside), tree.per_group())
    shares[:, np.bincount(tree.group) == 1] = np.nan
    caption = (
        "Wrong first guesses that name another class of the same super-class, in % of the wrong first guesses on its"
        " images; empty where there is no other class, or no error. Over all super-classes,"
        f" {_percent(inside_by_chance(tree))} % of random wrong guesses would stay inside."
    )
    return _group_table("super_class_inside", tree, shares, caption)


def inside_by_chance(tree: ConfusionTree) -> float:
    """Return the share in [0, 1] of random wrong guesses that would stay inside the super-class."""
    n_classes = len(tree.wnids)
    siblings = np.bincount(tree.group)[tree.group] - 1
    return float(tree.wrong.images @ siblings / (n_classes - 1) / tree.wrong.images.sum())


def _group_table(name: str, tree: ConfusionTree, shares: Float[np.ndarray, "s g"], caption: str) -> Table:
    n_classes = np.bincount(tree.group)
    rows = [
        (group, f"{count:,}", f"{n_images:,.0f}", *map(_percent, of_group))
        for group, count, n_images, of_group in zip(tree.groups, n_classes, tree.images(), shares.T, strict=True)
    ]
    return Table(name, ("super-class", "classes", "images", *tree.wrong.systems), tuple(rows), caption)


def _ratio(part: Float[np.ndarray, "*s"], whole: Float[np.ndarray, "*t"]) -> Float[np.ndarray, "*s"]:
    """Return the ratio; NaN if both are zero."""
    with np.errstate(invalid="ignore"):
        return np.divide(part, whole)


def _percent(share: float) -> str:
    return _number(100 * share, digits=1)


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else ""
