"""Images behind confusions, which a page shows where a reader clicks one."""

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int

from imagenet_repro.report.records import ComparedSystem, TopGuesses
from imagenet_repro.report.sections.confusions import ConfusionTree, WrongGuesses

EXAMPLES = 4  # of each confusion
Key = TypeVar("Key")
Image = tuple[str, str, str]  # the id, the name of its class, and that of the first guess


class ConfusionExamples:
    """Finds wrongly guessed images of one system, in the run of its lowest seed.

    Images with a thumbnail come first, then the others, in the order of their ids.

    Args:
      system: the system.
      wrong: the wrong guesses of all systems, for the names of classes.
      pictured_ids: ids of images that can be shown.
    """

    def __init__(self, system: ComparedSystem, wrong: WrongGuesses, pictured_ids: Collection[str] = ()):
        self._guesses: TopGuesses = system.runs[0].guesses
        self._names = wrong.class_names
        pictured = list(pictured_ids)
        self._is_pictured: Bool[np.ndarray, " n"] = (
            np.isin(self._guesses.id, pictured) if pictured else np.zeros(len(self._guesses.id), bool)
        )

    def of_pairs(self, pairs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], tuple[Image, ...]]:
        """Return images by class indices of label and guess, for each of the pairs that has any."""
        size = len(self._names)
        codes = {label * size + guess: (label, guess) for label, guess in pairs}
        return self._examples(self._guesses.label.astype(np.int64) * size + self._guesses.top5[:, 0], codes)

    def of_super_classes(self, tree: ConfusionTree) -> dict[tuple[str, str], tuple[Image, ...]]:
        """Return images by the super-classes of label and guess, for all pairs of super-classes that have any."""
        groups, size = tree.groups, len(tree.groups)
        codes = {row * size + column: (groups[row], groups[column]) for row in range(size) for column in range(size)}
        part = tree.group[self._guesses.label] * size + tree.group[self._guesses.top5[:, 0]]
        return self._examples(part, codes)

    def _examples(self, part: Int[np.ndarray, " n"], codes: Mapping[int, Key]) -> dict[Key, tuple[Image, ...]]:
        """Return the first images of each part, by the key of its code, among those that were guessed wrongly."""
        first = self._guesses.top5[:, 0]
        wrong = np.flatnonzero((first != self._guesses.label) & (first >= 0))
        order = wrong[np.lexsort((~self._is_pictured[wrong], part[wrong]))]
        ordered = part[order]
        starts, ends = (np.searchsorted(ordered, list(codes), side=side) for side in ("left", "right"))
        return {
            key: tuple(map(self._image, order[start : min(end, start + EXAMPLES)].tolist()))
            for key, start, end in zip(codes.values(), starts.tolist(), ends.tolist(), strict=True)
            if end > start
        }

    def _image(self, index: int) -> Image:
        guesses = self._guesses
        return (
            str(guesses.id[index]),
            self._names[guesses.label[index]],
            self._names[guesses.top5[index, 0]],
        )
