"""Plan the training runs of a sweep: names, settings and configurations, all known before anything runs.

A sweep has two kinds of runs. Trials belong to a search: their results only select settings. Final runs use the
selected settings, once for each seed, and their results are the ones that are compared. Where the sweep has smaller
budgets, each of them has further final runs, from which error is shown against budget.
"""

import copy
import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from imagenet_repro.config import AnyConfig, Data, crossing, resolve_config, set_key
from imagenet_repro.config.sweep import SEEDS_OF_TRIALS, Axis, SweepConfig, Target
from imagenet_repro.data import sources
from imagenet_repro.errors import UserError

SEARCH, RUNS, SMALLER = "search", "runs", "smaller"
SPLITS = ("train_split", "select_split", "test_split")


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One training run of a sweep.

    Attributes:
      name: the run's directory relative to the sweep's, such as `runs/resnet50/seed0` or `search/resnet50/003`.
      system: a key of the sweep's systems.
      is_trial: True for a trial of the search, False for a final run.
      seed: the seed of the training run.
      settings: searched values by dotted key; None if they are not known ahead, because a sampler suggests them or
        the best trial determines them.
      budget: a smaller budget than the sweep's; empty: that of the sweep, or of its search for a trial.
    """

    name: str
    system: str
    is_trial: bool
    seed: int
    settings: dict[str, Any] | None
    budget: str = ""


def plan_runs(sweep: SweepConfig) -> list[PlannedRun]:
    """Return every run of a sweep in order: the trials, alternating between systems, then the final runs by seed.

    Those of the smaller budgets come last.
    """
    trials_by_system = [list(_trials(sweep, name)) for name in sweep.systems] if sweep.search.trials else []
    trials = [trial for trials_of_turn in zip(*trials_by_system, strict=True) for trial in trials_of_turn]
    smaller = [run for budget in sweep.smaller_budgets for run in _final_runs(sweep, budget)]
    return trials + list(_final_runs(sweep)) + smaller


def _trials(sweep: SweepConfig, system: str) -> Iterator[PlannedRun]:
    for number, settings in enumerate(_points(sweep, system)):
        yield PlannedRun(f"{SEARCH}/{system}/{number:03d}", system, True, _trial_seed(sweep), settings)


def _trial_seed(sweep: SweepConfig) -> int:
    """Return the seed of every trial, which no final run has: settings must not be chosen for a run's own seed."""
    return SEEDS_OF_TRIALS + sweep.search.seed


def _final_runs(sweep: SweepConfig, budget: str = "") -> Iterator[PlannedRun]:
    searched = None if sweep.search.trials else {}
    for seed, (system, settings) in itertools.product(sweep.seeds, sweep.systems.items()):
        if settings.seeds and seed not in settings.seeds:
            continue
        name = f"{SMALLER}/{system}/{budget}_seed{seed}" if budget else f"{RUNS}/{system}/seed{seed}"
        yield PlannedRun(name, system, False, seed, searched, budget)


def _points(sweep: SweepConfig, system: str) -> list[dict[str, Any] | None]:
    """Return the settings of each trial of a system; None where the sampler suggests them later."""
    axes = sweep.systems[system].search
    if sweep.search.sampler == "tpe":
        return [None] * sweep.search.trials
    if sweep.search.sampler == "grid":
        products = itertools.product(*(axis.choices for axis in axes))
        return [dict(zip((axis.key for axis in axes), values, strict=True)) for values in products]
    return [
        {axis.key: _value_at(axis, fraction) for axis, fraction in zip(axes, point[: len(axes)], strict=True)}
        for point in _sobol_points(sweep)
    ]


def _sobol_points(sweep: SweepConfig) -> np.ndarray:
    """Return the points of one scrambled Sobol sequence, the same for every system.

    Returns:
      float64 array [trials, largest number of searched keys] in [0, 1).
    """
    from scipy.stats import qmc

    n_axes = max(len(system.search) for system in sweep.systems.values())
    exponent = max(0, (sweep.search.trials - 1).bit_length())  # Sobol points are balanced in powers of two
    # `seed` and not the newer `rng`, which gives other points; SciPy's decorator hides `seed` from type checkers.
    sobol = qmc.Sobol(n_axes, seed=sweep.search.seed)  # pyright: ignore[reportCallIssue]
    return sobol.random_base2(exponent)[: sweep.search.trials]


def _value_at(axis: Axis, fraction: float) -> Any:
    """Return the value at a fraction in [0, 1) of an axis's range or list of choices."""
    if axis.choices:
        return axis.choices[int(fraction * len(axis.choices))]
    if axis.log:
        return float(axis.low * (axis.high / axis.low) ** fraction)
    return float(axis.low + (axis.high - axis.low) * fraction)


def build_run_config(sweep: SweepConfig, planned: PlannedRun, settings: Mapping[str, Any]) -> AnyConfig:
    """Return the configuration of a planned run.

    Args:
      sweep: the sweep that the run belongs to.
      planned: the run.
      settings: the searched values by dotted key.

    Raises:
      UserError: a key or value is not valid; the message names the system.
    """
    system = sweep.systems[planned.system]
    try:
        return _resolve(sweep, planned, {**system.crossed, **settings})
    except UserError as error:
        _blame_cross(sweep, planned, settings)
        raise UserError(f"config.systems.{planned.system}: {error}") from error


def _resolve(sweep: SweepConfig, planned: PlannedRun, settings: Mapping[str, Any]) -> AnyConfig:
    """Return the configuration of a run whose system's own settings are replaced by crossed and searched values."""
    system = sweep.systems[planned.system]
    merged = copy.deepcopy(system.base)
    target = sweep.targets.get(system.target, Target())
    for overrides in (sweep.set, target.set, system.set):
        merge_settings(merged, overrides)
    # Names first, because a section whose `name` changes loses its other keys.
    for key in sorted(settings, key=lambda key: not key.endswith(".name")):
        set_key(merged, key, copy.deepcopy(settings[key]))
    budget = planned.budget or (planned.is_trial and sweep.search.budget) or sweep.budget
    merged |= {"budget": budget, "seed": planned.seed}
    merge_settings(merged, {"data": _splits(sweep, planned)})
    return resolve_config(merged)


def _blame_cross(sweep: SweepConfig, planned: PlannedRun, settings: Mapping[str, Any]) -> None:
    """Raise UserError about the first crossed setting that a system cannot have, if it is valid without it."""
    before: dict[str, Any] = {}
    crossed = sweep.systems[planned.system].crossed
    for key in ("", *sorted(crossed, key=lambda key: not key.endswith(".name"))):
        try:
            before |= {key: crossed[key]} if key else {}
            _resolve(sweep, planned, {**before, **settings})
        except UserError as error:
            if not key:
                return
            name = crossing.original_name(planned.system)
            raise UserError(
                f"config.cross.{key}: {name} cannot have the value {crossed[key]!r} ({error}). If other systems can,"
                f" leave the key out for this one: config.systems.{name}.cross = {{'{key}': ()}}"
            ) from error


def _splits(sweep: SweepConfig, planned: PlannedRun) -> dict[str, str]:
    """Return the splits of a run; a trial never sees the split on which results are scored."""
    splits = target_splits(sweep, sweep.systems[planned.system].target)
    evaluated = {"train_split": splits["train_split"], "eval_split": splits["select_split"]}
    return evaluated | {"test_split": "" if planned.is_trial else splits["test_split"]}


def target_splits(sweep: SweepConfig, target: str) -> dict[str, str]:
    """Return `train_split`, `select_split` and `test_split` of a target; of "", those of a sweep without targets."""
    own = sweep.targets.get(target, Target())
    return {key: getattr(own, key) or getattr(sweep, key) for key in SPLITS}


def merge_settings(settings: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Merge nested overrides into settings in place; a section whose `name` changes loses its other keys."""
    for key, value in overrides.items():
        old = settings.get(key)
        if not isinstance(value, Mapping) or not isinstance(old, dict):
            settings[key] = dict(value) if isinstance(value, Mapping) else value
            continue
        if key not in ("data", "model") and "name" in value and value["name"] != old.get("name"):
            old.clear()
        merge_settings(old, value)


def check_splits(sweep: SweepConfig, data: Data, target: str = "") -> None:
    """Check that no two splits of a sweep, or of one of its targets, share an image, however they are spelled.

    This holds without a search as well: the best checkpoint of a run and its early end are chosen on `select_split`.

    Raises:
      UserError: two splits share images; the message names both.
    """
    splits = target_splits(sweep, target)
    for first_key, second_key in itertools.combinations(SPLITS, 2):
        first, second = splits[first_key], splits[second_key]
        if sources.overlap(data, first, second):
            raise UserError(
                f"config.{first_key}={first} and config.{second_key}={second} of {data.name} share images; use"
                " disjoint parts, such as 'train[:99%]' and 'train[99%:]'"
            )
