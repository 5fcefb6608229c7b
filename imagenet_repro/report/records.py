"""The records that tables, figures and pages read: finished runs, grouped into the systems that are compared.

`report/collect.py` creates them from the workdirs of runs.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Int32, Shaped

from imagenet_repro.errors import UserError
from imagenet_repro.report import run_settings
from imagenet_repro.scoring.metrics import GUESSES, ErrorRates, is_wrong
from imagenet_repro.scoring.predictions import are_of_other_data


@dataclasses.dataclass(frozen=True)
class TopGuesses:
    """The part of stored predictions that error rates are counted from, with the images in the order of their ids.

    Attributes:
      id: the data set's own name of each image, sorted, unicode.
      label: class index of the ground truth.
      top5: class indices of the guesses, best first; -1: no guess. `collect` keeps them as int16 where the classes
        allow it, since they are most of what a comparison holds of a run.
    """

    id: Shaped[np.ndarray, " n"]
    label: Int32[np.ndarray, " n"]
    top5: Int[np.ndarray, "n k"]

    def wrong(self, guesses: int) -> Bool[np.ndarray, " n"]:
        """Return whether the label of each image is missing among the first `guesses` (1 or 5) guesses."""
        return is_wrong(self.top5, self.label, guesses)


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run whose budget is spent.

    Attributes:
      path: the workdir.
      seed: the seed in the run's configuration.
      result: the content of `result.json`.
      rows: the rows of `metrics.jsonl`.
      guesses: the guesses on the images that the comparison scores.
      predictions: path of the file that `guesses` were read from, below the workdir; empty: the result's own file.
      optimism: estimate, in [0, 1], of by how much the top-1 error is too low because the scored images selected the
        checkpoint; 0 where they did not.
    """

    path: Path
    seed: int
    result: dict[str, Any]
    rows: Sequence[dict[str, Any]]
    guesses: TopGuesses
    predictions: str = ""
    optimism: float = 0.0

    @functools.cached_property
    def rates(self) -> ErrorRates:
        """Top-1 and top-5 error rates, counted from the guesses."""
        top1_wrong, top5_wrong = (int(self.guesses.wrong(k).sum()) for k in (1, GUESSES))
        return ErrorRates(len(self.guesses.id), top1_wrong, top5_wrong)

    @property
    def left_out(self) -> int:
        """Scored records that could not be decoded; 0 where other predictions than the run's own are compared."""
        return 0 if self.predictions else self.result.get("left_out", {}).get("scored", 0)


@dataclasses.dataclass(frozen=True)
class ComparedSystem:
    """One configuration, trained once for each of several seeds.

    Attributes:
      name: unique within a comparison.
      network: a name in `models.names()`, or the system of an entry of the challenge, such as `xrce_2011`.
      recipe: the recipe's name, if a comparison crosses networks with recipes; otherwise empty.
      runs: at least one, by rising seed.
    """

    name: str
    network: str
    recipe: str
    runs: tuple[FinishedRun, ...]

    @functools.cached_property
    def settings(self) -> Mapping[str, Any]:
        """The settings that may change the system's numbers, by dotted key."""
        source = self.runs[0].result["provenance"]
        return run_settings.of_run(source["config"], source)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds of the runs, in rising order."""
        return tuple(run.seed for run in self.runs)

    def errors(self, guesses: int) -> list[float]:
        """Return the error rate of each run with 1 or 5 guesses, in [0, 1]."""
        return [run.rates.top1_error if guesses == 1 else run.rates.top5_error for run in self.runs]

    def wrong(self, guesses: int) -> Bool[np.ndarray, "seeds n"]:
        """Return whether each run is wrong on each image with 1 or 5 guesses."""
        return np.stack([run.guesses.wrong(guesses) for run in self.runs])

    def mean_error(self, guesses: int) -> float:
        """Return the mean error rate over seeds with 1 or 5 guesses, in [0, 1]."""
        return float(np.mean(self.errors(guesses)))


@dataclasses.dataclass(frozen=True)
class HumanPlayer:
    """A person who guessed some of the images.

    Attributes:
      name: the name in tables.
      guesses: at most five guesses for each image.
    """

    name: str
    guesses: TopGuesses


@dataclasses.dataclass(frozen=True)
class FailedRun:
    """A planned run without a result.

    Attributes:
      name: the system's name.
      seed: the seed that was planned.
      reason: why there is no result.
    """

    name: str
    seed: int
    reason: str


@dataclasses.dataclass(frozen=True)
class RunningRun:
    """A run whose budget is not spent.

    Attributes:
      name: the system's name.
      network: as in `ComparedSystem`.
      path: the workdir.
      seed: the seed in the run's configuration.
      budget: the budget in the run's configuration.
      settings: those that may change the system's numbers, by dotted key.
      rows: the rows of `metrics.jsonl` so far.
      is_active: whether a process trains there.
    """

    name: str
    network: str
    path: Path
    seed: int
    budget: str
    settings: Mapping[str, Any]
    rows: Sequence[dict[str, Any]]
    is_active: bool

    @property
    def progress(self) -> float:
        """The share of the budget that was spent at the last logged step, in [0, 1]."""
        return max((row["progress"] for row in self.rows if row.get("progress") is not None), default=0.0)

    @property
    def state(self) -> str:
        """Whether the run goes on, and how far it is, such as "running, 43 %"."""
        return f"{'running' if self.is_active else 'stopped'}, {100 * self.progress:.0f} %"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Systems that may stand in one table.

    Attributes:
      systems: in the order in which they were given.
      class_names: names by class index; WordNet ids if the data set has those.
      budget: the budget of each run, such as "90ep".
      data: name of the data set that the runs were trained on.
      train_split: the training split, in the syntax of tfds.
      scored_split: the split that the errors were counted on, in the syntax of tfds.
      selection: how settings were chosen, as a sentence; empty: nothing was searched.
      mixed: one sentence for each setting in which the runs differ, if the user allows it; every table shows them.
      failures: planned runs that have no result.
      people: people who guessed images that all systems were scored on.
      protocol: the evaluation protocol of the errors, a name of `evaluate`; empty: each run's own.
      evaluation_set: title of the evaluation set of the errors; empty: the scored split of the runs' data set.
      evaluation_data: name of the evaluation set's data set; empty if there is no set.
      running: runs that have not ended, which no table but their own includes.
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
    protocol: str = ""
    evaluation_set: str = ""
    evaluation_data: str = ""
    running: tuple[RunningRun, ...] = ()

    def __post_init__(self):
        names = [system.name for system in self.systems]
        if not names and not self.running:
            raise UserError("there is no finished run to compare")
        if len(set(names)) != len(names):
            raise ValueError(f"two systems have the same name: {names}")

    @functools.cached_property
    def same_images(self) -> bool:
        """Whether all runs were scored on the same images and labels; the runs of a mixed comparison may not be."""
        first, *others = [run for system in self.systems for run in system.runs]
        return all(self._same_images(first, one) for one in others)

    def _same_images(self, one: FinishedRun, other: FinishedRun) -> bool:
        first, second = one.guesses, other.guesses
        if not (_are_equal(first.id, second.id) and _are_equal(first.label, second.label)):
            return False
        sources = (run.result["provenance"] for run in (one, other))
        return bool(self.evaluation_data) or not are_of_other_data(first.id, *sources)

    @property
    def has_several_seeds(self) -> bool:
        """Whether a system has two runs or more, whose difference on several images shows how much seeds matter."""
        runs = [system.runs for system in self.systems]
        return max(map(len, runs)) > 1 and all(len(run.guesses.id) > 1 for of_system in runs for run in of_system)

    @property
    def n_images(self) -> int:
        """Return the number of scored images; that of the first run if the runs differ."""
        return len(self.systems[0].runs[0].guesses.id)

    @property
    def scored_data(self) -> str:
        """Return the name of the data set that the errors were counted on."""
        return self.evaluation_data or self.data

    @property
    def scores_own_result(self) -> bool:
        """Whether the errors are those of each run's own result, and not of another protocol or set."""
        return not (self.protocol or self.evaluation_set)


def _are_equal(one: Shaped[np.ndarray, " n"], other: Shaped[np.ndarray, " m"]) -> bool:
    return one is other or np.array_equal(one, other)


@dataclasses.dataclass(frozen=True)
class TransferTarget:
    """Systems that start from several sources and are adapted to one data set in several ways, by budget.

    Attributes:
      name: of the target.
      labels: source and adaptation by the name of a system.
      by_budget: the comparison of the systems under each budget, by rising budget; the last one is the sweep's own.
    """

    name: str
    labels: Mapping[str, tuple[str, str]]
    by_budget: Mapping[str, Comparison]

    @property
    def whole(self) -> Comparison:
        """The comparison under the sweep's own budget."""
        return list(self.by_budget.values())[-1]


@dataclasses.dataclass(frozen=True)
class TransferStudy:
    """A comparison of sources of weights and of adaptations, on one target or several.

    Attributes:
      targets: at least one.
      scratch: the source of the systems that start from random values.
    """

    targets: tuple[TransferTarget, ...]
    scratch: str
