"""Finished runs as the tables, pictures and the page read them: gathered once, by `runs/collect.py`."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32, Shaped

from imagenet_repro.errors import UserError
from imagenet_repro.scoring.metrics import GUESSES, ErrorRates


@dataclasses.dataclass(frozen=True)
class TopGuesses:
    """The part of stored predictions that error rates follow from, the images in the order of their ids.

    Attributes:
      id: the data set's own name of each image, sorted, unicode.
      label: class index of the ground truth.
      top5: best classes first; -1: none.
    """

    id: Shaped[np.ndarray, " n"]
    label: Int32[np.ndarray, " n"]
    top5: Int32[np.ndarray, "n k"]

    def wrong(self, guesses: int) -> Bool[np.ndarray, " n"]:
        """Whether the label is missing among the first `guesses` (1 or 5)."""
        return ~np.any(self.top5[:, :guesses] == self.label[:, None], axis=1)


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
      path: its workdir.
      seed: of its configuration.
      result: `result.json`.
      rows: of `metrics.jsonl`.
      guesses: on the split that it was scored on.
    """

    path: Path
    seed: int
    result: dict[str, Any]
    rows: Sequence[dict[str, Any]]
    guesses: TopGuesses

    @functools.cached_property
    def rates(self) -> ErrorRates:
        """Both error rates, counted from the guesses."""
        wrong = [int(self.guesses.wrong(k).sum()) for k in (1, GUESSES)]
        return ErrorRates(len(self.guesses.id), *wrong, cross_entropy=float(self.result["rates"]["cross_entropy"]))


@dataclasses.dataclass(frozen=True)
class ComparedSystem:
    """One configuration, trained once for each of several seeds.

    Attributes:
      name: unlike that of every other system of a comparison.
      network: in `models.names()`, or the system of a `story.Entry`, such as `xrce_2011`.
      recipe: which recipe, where a comparison crosses systems with recipes; else empty.
      runs: by rising seed, at least one.
    """

    name: str
    network: str
    recipe: str
    runs: tuple[FinishedRun, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of its runs."""
        return tuple(run.seed for run in self.runs)

    def errors(self, guesses: int) -> list[float]:
        """The error of each run with 1 or 5 guesses, as shares in [0, 1]."""
        return [run.rates.top1_error if guesses == 1 else run.rates.top5_error for run in self.runs]

    def mean_error(self, guesses: int) -> float:
        """The mean over seeds, in [0, 1]."""
        return float(np.mean(self.errors(guesses)))


@dataclasses.dataclass(frozen=True)
class HumanPlayer:
    """A person who guessed some of the images.

    Attributes:
      name: for tables.
      guesses: at most five of each image.
    """

    name: str
    guesses: TopGuesses


@dataclasses.dataclass(frozen=True)
class FailedRun:
    """A planned run without a result."""

    name: str
    seed: int
    why: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Systems that may stand in one table, all on the same images.

    Attributes:
      systems: in the order in which they were given.
      class_names: of the data set, by class index; WordNet ids where it has those.
      budget: given to each run, such as "90ep".
      data: name of the data set.
      train_split, scored_split: in tfds' syntax.
      selection: how settings were chosen, as a sentence for a person; empty: nothing was searched.
      mixed: what differs between the runs, a sentence for each key, where the user allows it; every table says so.
      failures: planned runs that have no result.
      people: who guessed images that all systems were scored on.
    """

    systems: tuple[ComparedSystem, ...]
    class_names: tuple[str, ...]
    budget: str
    data: str
    train_split: str
    scored_split: str
    selection: str = ""
    mixed: tuple[str, ...] = ()
    failures: tuple[FailedRun, ...] = ()
    people: tuple[HumanPlayer, ...] = ()

    def __post_init__(self):
        names = [system.name for system in self.systems]
        if not names:
            raise UserError("there is no finished run to compare")
        if len(set(names)) != len(names):
            raise ValueError(f"two systems of one name among {names}")

    @functools.cached_property
    def same_images(self) -> bool:
        """Whether all runs were scored on the same images and labels; of a mixed comparison they need not be."""
        first, *others = [run.guesses for system in self.systems for run in system.runs]
        return all(np.array_equal(first.id, one.id) and np.array_equal(first.label, one.label) for one in others)

    @property
    def images(self) -> int:
        """How many were scored; by the first run, where they are not the same."""
        return len(self.systems[0].runs[0].guesses.id)
