"""Images on which systems disagree, by the first guess: right for one system only, wrong for one only, wrong for all.

One run stands for each system: that of the lowest seed that all systems have, otherwise of the system's own lowest
seed. Examples are taken in the order of a checksum of the images' ids, which is as good as random and always the
same. Images with a thumbnail come first, and the same images are used again if they fit, so that a page needs few.

Every pair is counted. Examples are shown of neighbours on the leaderboard and of the best system with each other one,
so that their number grows as that of the systems, not of the pairs.
"""

import dataclasses
import itertools
import zlib
from collections.abc import Collection, Iterable

import numpy as np
from jaxtyping import Bool

from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun
from imagenet_repro.report.sections.classes import same_seed
from imagenet_repro.report.sections.leaderboard import ALL_PAIRS, TELLING, ranked, telling_pairs
from imagenet_repro.report.tables import Table
from imagenet_repro.report.text import short_names
from imagenet_repro.statistics.joint_counts import joint_counts

EXAMPLES = 6  # of each group
NAMED = 12  # systems whose guess on an example is shown, at most
NO_GUESS = "no guess"  # for an image whose scores held NaN


@dataclasses.dataclass(frozen=True)
class ImageExample:
    """One image.

    Attributes:
      id: the data set's own name of the image.
      label: name of its class.
      guesses: pairs of a system's name and the class of its first guess.
    """

    id: str
    label: str
    guesses: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class ImageGroup:
    """Images for which the same systems are right.

    Attributes:
      title: the systems that are right.
      count: number of images.
      examples: up to six of the images.
    """

    title: str
    count: int
    examples: tuple[ImageExample, ...]


@dataclasses.dataclass(frozen=True)
class Disagreements:
    """The images of a comparison, grouped by which systems are right.

    Attributes:
      counts: for each pair, the images on which both are right, only the first, only the second, and neither; None if
        there is one system.
      pairs: for neighbours on the leaderboard, and for the best system with each other one, the images on which only
        the first is right, and those on which only the second is.
      only_one_right: for each system, the images on which every other one is wrong; empty for one or two systems.
      all_wrong: the images on which all systems are wrong.
      examples: all examples as one table; None if there is none.
    """

    counts: Table | None
    pairs: tuple[tuple[ImageGroup, ImageGroup], ...]
    only_one_right: tuple[ImageGroup, ...]
    all_wrong: ImageGroup
    examples: Table | None

    @property
    def groups(self) -> tuple[ImageGroup, ...]:
        """Return all groups that have images."""
        every = (self.all_wrong, *self.only_one_right, *itertools.chain.from_iterable(self.pairs))
        return tuple(group for group in every if group.count)

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids of all examples, each once."""
        return tuple(dict.fromkeys(example.id for group in self.groups for example in group.examples))


def disagreements(comparison: Comparison, pictured_ids: Collection[str] = ()) -> Disagreements:
    """Return counts and examples, with the systems in the order of the leaderboard.

    Args:
      comparison: systems scored on the same images.
      pictured_ids: ids of images that are preferred as examples, because they can be shown.
    """
    grouper = _ImageGrouper(comparison, ranked(comparison), pictured_ids)
    n_systems = len(comparison.systems)
    pairs = list(itertools.combinations(range(n_systems), 2))
    telling = telling_pairs(range(n_systems))
    groups = tuple((grouper.only_first_right(i, j), grouper.only_first_right(j, i)) for i, j in telling)
    only_one_right = tuple(grouper.only_right(i) for i in range(n_systems)) if n_systems > 2 else ()
    rows = tuple(grouper.counts(i, j) for i, j in pairs)
    caption = (
        f"Of the {comparison.n_images:,} images, those on which the first guess of both systems, of one, or of neither"
        f" is right. {grouper.seeds_note}"
    )
    headings = ("system", "and", "both right", "only the first", "only the second", "both wrong")
    is_telling = frozenset(telling)
    shown = tuple(at for at, pair in enumerate(pairs) if pair in is_telling) if n_systems > ALL_PAIRS else None
    counts = Table("disagreements", headings, rows, caption, excerpt=shown, chosen=TELLING) if rows else None
    without_examples = Disagreements(counts, groups, only_one_right, grouper.all_wrong(), None)
    return dataclasses.replace(without_examples, examples=_examples_table(without_examples.groups))


class _ImageGrouper:
    """Groups images by which systems are right, with one run for each system."""

    def __init__(self, comparison: Comparison, systems: list[ComparedSystem], pictured_ids: Collection[str]):
        runs = same_seed(*systems)
        self._names = [system.name for system in systems]
        self._guesses = [run.guesses for run in runs]
        self._classes = short_names(comparison.class_names)
        self._n_right = sum(map(self._is_right, range(len(runs))), np.zeros(comparison.n_images, np.int32))
        self._both_right = joint_counts(map(self._is_right, range(len(runs))))  # [systems, systems]
        ids = self._guesses[0].id.tolist()
        pictured = frozenset(pictured_ids)
        self._order = np.lexsort(([zlib.crc32(id.encode()) for id in ids], [id not in pictured for id in ids]))
        self.seeds_note = _seeds_note(runs)

    def only_first_right(self, right: int, wrong: int) -> ImageGroup:
        """Return the images on which one system is right and another is wrong."""
        chosen = self._is_right(right) & ~self._is_right(wrong)
        title = f"{self._names[right]} is right, {self._names[wrong]} is wrong"
        return self._group(title, chosen, [right, wrong])

    def only_right(self, right: int) -> ImageGroup:
        """Return the images on which one system is right and every other is wrong."""
        chosen = self._is_right(right) & (self._n_right == 1)
        others = [system for system in range(len(self._names)) if system != right][: NAMED - 1]
        return self._group(f"only {self._names[right]} is right", chosen, sorted([right, *others]))

    def all_wrong(self) -> ImageGroup:
        """Return the images on which every system is wrong."""
        title = "every system is wrong" if len(self._names) > 1 else f"{self._names[0]} is wrong"
        return self._group(title, self._n_right == 0, range(len(self._names))[:NAMED])

    def counts(self, one: int, other: int) -> tuple[str, ...]:
        """Return the row of a pair in the table of counts."""
        both, *of_each = (int(self._both_right[pair]) for pair in ((one, other), (one, one), (other, other)))
        only = [right - both for right in of_each]
        cells = (both, *only, len(self._n_right) - both - sum(only))
        return (self._names[one], self._names[other], *(f"{cell:,}" for cell in cells))

    def _is_right(self, system: int) -> Bool[np.ndarray, " images"]:
        return ~self._guesses[system].wrong(1)

    def _group(self, title: str, chosen: Bool[np.ndarray, " n"], systems: Iterable[int]) -> ImageGroup:
        images = self._order[chosen[self._order]][:EXAMPLES]
        systems = list(systems)
        examples = tuple(self._example(int(image), systems) for image in images)
        return ImageGroup(title, int(np.count_nonzero(chosen)), examples)

    def _example(self, image: int, systems: list[int]) -> ImageExample:
        first = self._guesses[0]
        guesses = [(self._names[i], int(self._guesses[i].top5[image, 0])) for i in systems]
        return ImageExample(
            str(first.id[image]),
            self._classes[first.label[image]],
            tuple((name, self._classes[guess] if guess >= 0 else NO_GUESS) for name, guess in guesses),
        )


def _seeds_note(runs: tuple[FinishedRun, ...]) -> str:
    seeds = sorted({run.seed for run in runs})
    if len(seeds) == 1:
        return f"Each system's run of seed {seeds[0]}."
    return "The systems share no seed; each one's run of its lowest seed."


def _examples_table(groups: tuple[ImageGroup, ...]) -> Table | None:
    rows = tuple(
        (group.title, f"{group.count:,}", example.id, example.label, "; ".join(map(": ".join, example.guesses)))
        for group in groups
        for example in group.examples
    )
    caption = (
        f"Up to {EXAMPLES} examples of each group, with the first guesses of its systems, {NAMED} at most. Of pairs:"
        " neighbours on the leaderboard, and the best system with each other one."
    )
    headings = ("group", "images in the group", "image", "label", "first guesses")
    return Table("disagreement_examples", headings, rows, caption) if rows else None
