"""The amounts that runs needed to reach an error, read from the evaluations in their logs.

A run has reached a target at its first evaluation with that error or less. Nothing is interpolated between
evaluations: the true amount is above that of the evaluation before it and at most that of this one.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from imagenet_repro.config.text import parse_float
from imagenet_repro.errors import UserError
from imagenet_repro.report import energy
from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun
from imagenet_repro.statistics import performance_profiles

Measure = Literal["images", "flops", "seconds", "joules"]
MEASURES: dict[Measure, str] = {
    "images": "images",
    "flops": "operations",
    "seconds": "seconds",
    "joules": "energy",
}
ERRORS = ("top1", "top5")


@dataclasses.dataclass(frozen=True)
class Target:
    """An error rate to reach.

    Attributes:
      guesses: "top1" or "top5".
      percent: the error rate in percent.
    """

    guesses: str
    percent: float

    def __str__(self) -> str:
        return f"{self.guesses.replace('top', 'top-')} error {self.percent:g} %"


def parse_targets(text: str) -> tuple[Target, ...]:
    """Return the targets in a text such as "top1:35,top5:15".

    Raises:
      UserError: a part of it is not a target, or is there twice.
    """
    targets = []
    for part in filter(None, map(str.strip, text.split(","))):
        guesses, colon, number = part.partition(":")
        if guesses not in ERRORS or not colon:
            raise UserError(f"--target={text}: {part!r} is not a target; write top1:35 or top5:15, in percent")
        percent = parse_float(number, "--target")
        if not 0 <= percent < 100:
            raise UserError(f"--target={text}: {percent:g} is not an error rate in percent, from 0 to below 100")
        targets.append(Target(guesses, percent))
    if len(set(targets)) != len(targets):
        raise UserError(f"--target={text}: a target is named twice")
    return tuple(targets)


@dataclasses.dataclass(frozen=True)
class Reached:
    """One run and one target.

    Attributes:
      run: the run.
      amounts: what it had used at its first evaluation at or below the target; infinite if there is none, NaN where
        the log does not say (energy).
      before: the images at the evaluation before that, 0 if there is none; NaN if the target was never reached.
      error: the error there in percent; if the target was never reached, the lowest error of the run.
      evaluations: the number of evaluations.
      back_above: the number of later evaluations above the target.
      is_complete: whether the log has the beginning of the run; otherwise the target may have been reached before.
    """

    run: FinishedRun
    amounts: Mapping[Measure, float]
    before: float
    error: float
    evaluations: int
    back_above: int
    is_complete: bool

    @property
    def is_reached(self) -> bool:
        """Whether the run has reached the target."""
        return math.isfinite(self.amounts["images"])


def reach(run: FinishedRun, target: Target) -> Reached:
    """Return what a run needed to reach a target. Where a resumed run repeated a step, its last row counts."""
    rows = {row["step"]: row for row in run.rows if row.get("kind") == "eval" and _error(row, target) is not None}
    evaluations = [rows[step] for step in sorted(rows)]
    errors = [_error(row, target) or 0.0 for row in evaluations]
    is_complete = has_beginning(run)
    # Rounded, so that 35.0 % reaches 35 % whatever the sum of its binary digits.
    first = next((i for i, error in enumerate(errors) if round(error, 9) <= target.percent), None)
    if first is None:
        never = dict.fromkeys(MEASURES, math.inf)
        return Reached(run, never, math.nan, min(errors, default=math.nan), len(errors), 0, is_complete)
    amounts: dict[Measure, float] = {measure: float(evaluations[first].get(measure, math.nan)) for measure in MEASURES}
    before = float(evaluations[first - 1]["images"]) if first else 0.0
    above = sum(round(error, 9) > target.percent for error in errors[first:])
    return Reached(run, amounts, before, errors[first], len(errors), above, is_complete)


def _error(row: Mapping[str, Any], target: Target) -> float | None:
    """Return an evaluation's error in percent; None if it has none, or lacks what was spent."""
    value = row.get(f"{target.guesses}_error")
    if value is None or not math.isfinite(value) or not row.keys() >= {"images", "flops", "seconds"}:
        return None
    return 100 * value


def has_beginning(run: FinishedRun) -> bool:
    """Return whether a run's log begins with the run: its first row of training is no later than rows are apart."""
    training = sorted({row["step"] for row in run.rows if row.get("kind") == "train"})
    if len(training) < 2:
        return True
    return training[0] <= max(later - earlier for earlier, later in itertools.pairwise(training))


@dataclasses.dataclass(frozen=True)
class Workload:
    """A target on a data set: all systems that were trained for it.

    Attributes:
      target: the error to reach.
      data: name of the data set.
      split: the split that was evaluated during training.
      runs: one for each seed, by the name of their line in a profile.
    """

    target: Target
    data: str
    split: str
    runs: Mapping[str, tuple[Reached, ...]]

    def median(self, line: str, measure: Measure) -> float:
        """Return the median over seeds; infinite if half of them or more never got there, or none was trained."""
        if line not in self.runs:
            return math.inf
        return performance_profiles.median(self.values(line, measure))

    def values(self, line: str, measure: Measure) -> np.ndarray:
        """Return the amount of each seed."""
        return np.array([one.amounts[measure] for one in self.runs[line]])


def workloads(comparison: Comparison, targets: Sequence[Target]) -> list[Workload]:
    """Return every target on every data set of a comparison; more than one data set only where it is mixed."""
    names = line_names(comparison)
    places = dict.fromkeys(map(_place, comparison.systems))
    return [
        Workload(
            target,
            *place,
            {
                names[system.name]: tuple(reach(run, target) for run in system.runs)
                for system in comparison.systems
                if _place(system) == place
            },
        )
        for place in places
        for target in targets
    ]


def line_names(comparison: Comparison) -> dict[str, str]:
    """Return the name of each system's line in profiles, by the system's name.

    A network under one recipe that was trained on several data sets is one line, with one system on each of them.
    Systems keep their own names where a data set has several of a kind.
    """
    kinds: dict[tuple[str, str], list[ComparedSystem]] = {}
    for system in comparison.systems:
        kinds.setdefault((system.network, system.recipe), []).append(system)
    names = {}
    for (network, recipe), systems in kinds.items():
        is_one_line = len(systems) > 1 and len({*map(_place, systems)}) == len(systems)
        common = f"{network} {recipe}".strip()
        names |= {system.name: common if is_one_line else system.name for system in systems}
    return names


def known_measures(all_workloads: Sequence[Workload]) -> list[Measure]:
    """Return the measures that are known of every run that reached a target; energy only where its parts are equal."""
    reached = [one for each in all_workloads for runs in each.runs.values() for one in runs if one.is_reached]
    known: list[Measure] = [
        measure for measure in MEASURES if not any(math.isnan(one.amounts[measure]) for one in reached)
    ]
    has_one_scope = len({energy.parts(one.run.result) for one in reached}) == 1
    return [measure for measure in known if reached and (measure != "joules" or has_one_scope)]


def _place(system: ComparedSystem) -> tuple[str, str]:
    data = system.runs[0].result["provenance"]["config"]["data"]
    return data["name"], data["eval_split"]
