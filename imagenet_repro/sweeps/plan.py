"""The trials of a sweep: their names, settings and configurations, known before anything runs."""

import copy
import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from imagenet_repro.config import AnyConfig, Data, resolve_config, set_key
from imagenet_repro.config.sweep import Axis, SweepConfig
from imagenet_repro.data import sources
from imagenet_repro.errors import UserError

SEARCH, RUNS = "search", "runs"


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One training of a sweep.

    Attributes:
      name: also its workdir below the sweep's, such as `runs/resnet50/seed0` or `search/resnet50/003`.
      system: a key of the sweep's systems.
      search: whether it is a trial that settings are selected by; else a run whose result counts.
      seed: of the training.
      settings: values by dotted key where they are known ahead; None: a sampler or the selected trial gives them.
    """

    name: str
    system: str
    is_trial: bool
    seed: int
    settings: dict[str, Any] | None


def plan_runs(sweep: SweepConfig) -> list[PlannedRun]:
    """Every training of a sweep: first the trials of all systems in turn, then the runs, seed by seed."""
    trials = [list(_trials(sweep, name)) for name in sweep.systems] if sweep.search.trials else []
    first = [trial for together in zip(*trials, strict=True) for trial in together]
    return first + list(_runs(sweep))


def _trials(sweep: SweepConfig, name: str) -> Iterator[PlannedRun]:
    for number, settings in enumerate(_points(sweep, name)):
        yield PlannedRun(f"{SEARCH}/{name}/{number:03d}", name, True, sweep.search.seed, settings)


def _runs(sweep: SweepConfig) -> Iterator[PlannedRun]:
    for seed, name in itertools.product(sweep.seeds, sweep.systems):
        yield PlannedRun(f"{RUNS}/{name}/seed{seed}", name, False, seed, None if sweep.search.trials else {})


def _points(sweep: SweepConfig, name: str) -> list[dict[str, Any] | None]:
    axes = sweep.systems[name].search
    if sweep.search.sampler == "tpe":
        return [None] * sweep.search.trials
    if sweep.search.sampler == "grid":
        products = itertools.product(*(axis.choices for axis in axes))
        return [dict(zip((axis.key for axis in axes), values, strict=True)) for values in products]
    return [
        {axis.key: _at(axis, share) for axis, share in zip(axes, point[: len(axes)], strict=True)}
        for point in _sequence(sweep)
    ]


def _sequence(sweep: SweepConfig) -> np.ndarray:
    """Points [trials, most axes] of one scrambled Sobol sequence in [0, 1), the same for every system."""
    from scipy.stats import qmc

    axes = max(len(system.search) for system in sweep.systems.values())
    exponent = max(0, (sweep.search.trials - 1).bit_length())  # Sobol's points are balanced in powers of two
    return qmc.Sobol(axes, seed=sweep.search.seed).random_base2(exponent)[: sweep.search.trials]


def _at(axis: Axis, share: float) -> Any:
    """The value of a key at a share in [0, 1) of its range."""
    if axis.choices:
        return axis.choices[int(share * len(axis.choices))]
    if axis.log:
        return float(axis.low * (axis.high / axis.low) ** share)
    return float(axis.low + (axis.high - axis.low) * share)


def build_run_config(sweep: SweepConfig, planned: PlannedRun, settings: Mapping[str, Any]) -> AnyConfig:
    """What a planned training runs with, given the values by dotted key that were searched.

    Raises:
      UserError: a key or value is not valid; the message names the system.
    """
    system = sweep.systems[planned.system]
    try:
        merged = copy.deepcopy(system.base)
        for part in (sweep.set, system.set):
            merge_settings(merged, part)
        for key in sorted(settings, key=lambda key: not key.endswith(".name")):  # a new name drops other keys
            set_key(merged, key, settings[key])
        budget = sweep.search.budget if planned.is_trial and sweep.search.budget else sweep.budget
        merged |= {"budget": budget, "seed": planned.seed}
        merge_settings(merged, {"data": _splits(sweep, planned)})
        return resolve_config(merged)
    except UserError as error:
        raise UserError(f"config.systems.{planned.system}: {error}") from error


def _splits(sweep: SweepConfig, planned: PlannedRun) -> dict[str, str]:
    """A trial never sees the split that results are scored on."""
    splits = {"train_split": sweep.train_split, "eval_split": sweep.select_split}
    return splits | {"test_split": "" if planned.is_trial else sweep.test_split}


def merge_settings(settings: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Puts nested settings over others; a section whose `name` changes loses its other keys."""
    for key, value in part.items():
        old = settings.get(key)
        if not isinstance(value, Mapping) or not isinstance(old, dict):
            settings[key] = dict(value) if isinstance(value, Mapping) else value
            continue
        if key not in ("data", "model") and "name" in value and value["name"] != old.get("name"):
            old.clear()
        merge_settings(old, value)


def check_splits(sweep: SweepConfig, data: Data) -> None:
    """Raises UserError where a split that judges shares images with one that it must not."""
    pairs = [("train_split", "select_split"), ("train_split", "test_split")]
    pairs += [("select_split", "test_split")] if sweep.search.trials else []
    for one, other in pairs:
        a, b = getattr(sweep, one), getattr(sweep, other)
        if sources.overlap(data, a, b):
            raise UserError(f"config.{one}={a} and config.{other}={b} of {data.name} share images; hold some out")
