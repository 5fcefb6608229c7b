"""Images that one system gets and another misses, that all miss, and that only one gets; by the first guess.

Each system speaks through one run: of the lowest seed that all systems have, or of its own lowest. Examples are taken
in one order of the images, by a checksum of their ids: as good as drawn at random, the same on every call, and the
same images again wherever they fit, so that a page needs few pictures.
"""

import dataclasses
import itertools
import zlib

import numpy as np
from jaxtyping import Bool

from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun
from imagenet_repro.report.sections.class_gains import short_names
from imagenet_repro.report.sections.classes import same_seed
from imagenet_repro.report.sections.leaderboard import ranked
from imagenet_repro.report.tables import Table

EXAMPLES = 6  # of each kind
NONE = "no guess"  # of an image whose scores held NaN


@dataclasses.dataclass(frozen=True)
class ImageExample:
    """An image, its class, and what each system concerned took it for."""

    id: str
    label: str
    guesses: tuple[tuple[str, str], ...]  # system, class


@dataclasses.dataclass(frozen=True)
class ImageGroup:
    """Images that are alike in who gets them: how many there are, and up to six of them."""

    title: str
    count: int
    examples: tuple[ImageExample, ...]


@dataclasses.dataclass(frozen=True)
class Disagreements:
    """Who gets which images.

    Attributes:
      counts: for each pair how many both get, only one, only the other, and neither; None of a single system.
      pairs: for each pair of systems what the first gets and the second misses, and the reverse.
      alone: what one system gets and every other misses, a kind for each system; empty for one and for two systems.
      nobody: what all miss.
      examples: all examples as one table; None where there is none.
    """

    counts: Table | None
    pairs: tuple[tuple[ImageGroup, ImageGroup], ...]
    alone: tuple[ImageGroup, ...]
    nobody: ImageGroup
    examples: Table | None

    @property
    def kinds(self) -> tuple[ImageGroup, ...]:
        """All that have images."""
        every = (self.nobody, *self.alone, *itertools.chain.from_iterable(self.pairs))
        return tuple(kind for kind in every if kind.count)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of all examples, each once."""
        return tuple(dict.fromkeys(example.id for kind in self.kinds for example in kind.examples))


def disagreements(comparison: Comparison) -> Disagreements:
    """Counts and examples; systems in the order of the leaderboard."""
    systems = ranked(comparison)
    looked = _Looked(comparison, systems)
    pairs = list(itertools.combinations(range(len(systems)), 2))
    kinds = tuple((looked.only(i, j), looked.only(j, i)) for i, j in pairs)
    alone = tuple(looked.alone(i) for i in range(len(systems))) if len(systems) > 2 else ()
    rows = tuple(looked.counts(i, j) for i, j in pairs)
    caption = f"How many of the {comparison.images:,} images each of two systems gets by its first guess. {looked.who}"
    headings = ("system", "and", "both right", "only the first", "only the second", "both wrong")
    counts = Table("disagreements", headings, rows, caption) if rows else None
    found = Disagreements(counts, kinds, alone, looked.nobody(), None)
    return dataclasses.replace(found, examples=_table(found.kinds))


class _Looked:
    """One run of each system, and which images it gets."""

    def __init__(self, comparison: Comparison, systems: list[ComparedSystem]):
        runs = same_seed(*systems)
        self._names = [system.name for system in systems]
        self._guesses = [run.guesses for run in runs]
        self._right = np.stack([~guesses.wrong(1) for guesses in self._guesses])  # [systems, images]
        self._classes = short_names(comparison.class_names)
        self._order = np.argsort([zlib.crc32(id.encode()) for id in self._guesses[0].id.tolist()], kind="stable")
        self.who = _who(runs)

    def only(self, right: int, wrong: int) -> ImageGroup:
        """What one system gets and another misses."""
        chosen = self._right[right] & ~self._right[wrong]
        title = f"{self._names[right]} is right, {self._names[wrong]} is wrong"
        return self._kind(title, chosen, [right, wrong])

    def alone(self, right: int) -> ImageGroup:
        """What one system gets and every other misses."""
        chosen = self._right[right] & (self._right.sum(axis=0) == 1)
        return self._kind(f"only {self._names[right]} is right", chosen, range(len(self._names)))

    def nobody(self) -> ImageGroup:
        """What all miss."""
        title = "every system is wrong" if len(self._names) > 1 else f"{self._names[0]} is wrong"
        return self._kind(title, ~self._right.any(axis=0), range(len(self._names)))

    def counts(self, one: int, other: int) -> tuple[str, ...]:
        """The row of a pair."""
        a, b = self._right[one], self._right[other]
        cells = (int(part.sum()) for part in (a & b, a & ~b, b & ~a, ~a & ~b))
        return (self._names[one], self._names[other], *(f"{cell:,}" for cell in cells))

    def _kind(self, title: str, chosen: Bool[np.ndarray, " n"], systems: "list[int] | range") -> ImageGroup:
        images = self._order[chosen[self._order]][:EXAMPLES]
        return ImageGroup(title, int(chosen.sum()), tuple(self._example(int(image), systems) for image in images))

    def _example(self, image: int, systems: "list[int] | range") -> ImageExample:
        first = self._guesses[0]
        said = [(self._names[i], int(self._guesses[i].top5[image, 0])) for i in systems]
        return ImageExample(
            str(first.id[image]),
            self._classes[first.label[image]],
            tuple((name, self._classes[guess] if guess >= 0 else NONE) for name, guess in said),
        )


def _who(runs: tuple[FinishedRun, ...]) -> str:
    numbers = sorted({run.seed for run in runs})
    if len(numbers) == 1:
        return f"Runs of seed {numbers[0]}."
    return "The systems share no seed: the run of each one's lowest."


def _table(kinds: tuple[ImageGroup, ...]) -> Table | None:
    rows = tuple(
        (kind.title, f"{kind.count:,}", example.id, example.label, "; ".join(map(": ".join, example.guesses)))
        for kind in kinds
        for example in kind.examples
    )
    caption = f"Up to {EXAMPLES} examples of each kind, with the first guess of the systems concerned."
    headings = ("images of which", "how many", "image", "label", "first guesses")
    return Table("disagreement_examples", headings, rows, caption) if rows else None
