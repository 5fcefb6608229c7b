"""The schema of a sweep; it is read as strictly as the configuration of a run.

A file such as `configs/sweeps/decade.py` defines `get_config(argument=None)` and returns a dictionary with the keys of
`SweepConfig`. Its `set` holds settings of every run, and a system's `set` holds settings of that system's runs. Both
are nested sections as in the configuration of a run, and take precedence over the system's recipe.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal

from imagenet_repro.config import (
    Amount,
    Config,
    FeatureConfig,
    FrozenConfig,
    bounded,
    build_section,
    crossing,
    flatten_settings,
    read_settings,
)
from imagenet_repro.config.fields import amount
from imagenet_repro.config.text import shown
from imagenet_repro.errors import UserError, nearest

Metric = Literal["top1_error", "top5_error"]
RESERVED = {  # keys of a run's configuration that the sweep sets for all runs, and the sweep's own keys
    "budget": "budget",
    "seed": "seeds",
    "data.train_split": "train_split",
    "data.eval_split": "select_split",
    "data.test_split": "test_split",
}
SCRATCH = "scratch"  # the source of systems that start from random values
SEEDS_OF_TRIALS = 2**30  # trials have seeds from here on, runs lower ones, also those that are added later
RUN_SETTINGS = {"schemas": (Config, FeatureConfig, FrozenConfig)}  # of a field that holds settings of runs
CROSS = {**RUN_SETTINGS, "has_several": True}


@dataclasses.dataclass(frozen=True)
class Axis:
    """One key of a system's configuration that its trials vary: a range, or `choices`."""

    key: str = ""  # dotted, such as optimizer.learning_rate
    low: float = 0.0  # the lowest value
    high: float = 0.0  # both ends included
    log: bool = False  # evenly in the logarithm
    choices: tuple = ()  # in place of a range


@dataclasses.dataclass(frozen=True)
class Target:
    """A data set of a sweep that has several; its systems are compared with each other alone."""

    train_split: str = ""  # in place of the sweep's; empty: the sweep's
    select_split: str = ""  # as train_split
    test_split: str = ""  # as train_split
    # settings of all runs on it, which replace those of the sweep's `set`
    set: dict = dataclasses.field(default_factory=dict, metadata=RUN_SETTINGS)


@dataclasses.dataclass(frozen=True)
class SweptSystem:
    """A system to compare: its recipe, the settings that replace the recipe's, and the keys to search."""

    config: str = ""  # FILE.py[:ARGUMENT]
    base: dict = dataclasses.field(default_factory=dict)  # that file's settings, read once, when the sweep is loaded
    recipe: str = ""  # a label, where systems are crossed with recipes
    target: str = ""  # one of the sweep's `targets`, where it has some
    source: str = ""  # a label, where pretraining is compared: where the weights come from, or `scratch`
    adaptation: str = ""  # a label, where pretraining is compared: what is trained on the target
    # settings over the recipe and the sweep's `set`
    set: dict = dataclasses.field(default_factory=dict, metadata=RUN_SETTINGS)
    # values of more settings than the sweep's `cross` has, or in place of its own; (): this setting is not crossed
    cross: dict = dataclasses.field(default_factory=dict, metadata=CROSS)
    leave_out: tuple = ()  # combinations of crossed values that are not trained, such as {"data.image_size": 128}
    crossed: dict = dataclasses.field(default_factory=dict)  # the values of one combination, set when it is loaded
    search: tuple[Axis, ...] = ()
    seeds: tuple[int, ...] = ()  # of its runs, some of the sweep's; empty: all of them


@dataclasses.dataclass(frozen=True)
class SettingsSearch:
    """The search for each system's settings before its runs, with the same number of trials for every system."""

    trials: int = bounded(0, 0)  # for each system; 0: nothing is searched
    sampler: Literal["quasi_random", "grid", "tpe"] = "quasi_random"  # quasi_random: Sobol
    seed: int = bounded(0, 0, SEEDS_OF_TRIALS - 1)  # of the sampler; trials train with 2**30 more, never a run's seed
    metric: Metric = "top1_error"  # the lowest at the end of a trial is selected
    budget: str = amount("")  # of a trial; empty: that of a run


@dataclasses.dataclass(frozen=True)
class FinishedCheckpoints:
    """The checkpoints that stay when runs of the sweep have finished. It may be changed while the sweep runs."""

    # selected: the best and the last one of each final run and selected trial, none of other trials; all: every one
    keep_finished: Literal["selected", "all"] = "selected"


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """One sweep: every system with every seed under one budget, after a search where one is configured.

    Trials and runs learn from `train_split`. They are evaluated, and settings selected, on `select_split`; the result
    of a run is scored on `test_split`, once, when its budget is spent. Where there are `targets`, every system names
    the one that it is trained on.
    """

    budget: str = amount("90ep")  # of each run
    smaller_budgets: tuple[str, ...] = amount(())  # each with further runs of all systems, for error against budget
    seeds: tuple[int, ...] = (0,)  # of the runs of each system
    train_split: str = "train"  # the images that trials and runs are trained on
    select_split: str = "train[99%:]"  # held out of training
    test_split: str = "validation"  # scored once by each run, when its budget is spent
    # settings of all runs, which replace those of their recipes
    set: dict = dataclasses.field(default_factory=dict, metadata=RUN_SETTINGS)
    targets: dict[str, Target] = dataclasses.field(default_factory=dict, metadata={"may_be_empty": True})
    systems: dict[str, SweptSystem] = dataclasses.field(default_factory=dict, metadata={"names": crossing.NAMES})
    # values of settings by dotted key: every system is trained with every combination, as a system of its own
    cross: dict = dataclasses.field(default_factory=dict, metadata=CROSS)
    search: SettingsSearch = SettingsSearch()
    checkpoint: FinishedCheckpoints = FinishedCheckpoints()


def load_sweep(spec: str, overrides: dict[str, str] | None = None) -> SweepConfig:
    """Return the sweep of `FILE.py[:ARGUMENT]`, with overrides of dotted keys.

    Overrides are texts, such as `{"budget": "2e6img"}`.

    Raises:
      UserError: the file cannot be read, a key or value is not valid, or the systems cannot be compared.
    """
    settings = read_settings(spec, overrides, SweepConfig)
    if not isinstance(settings.get("systems"), dict):
        raise UserError(
            f"--config={spec}: a sweep needs `systems` by name; this file may describe a single run (`main.py train`)"
        )
    for name, system in settings["systems"].items():
        if not isinstance(system, dict):
            raise UserError(f"config.systems.{name}: a section with keys is needed here, not {shown(system)}")
        system["base"] = _recipe(name, system)
    return resolve_sweep(settings)


def _recipe(name: str, system: dict[str, Any]) -> dict[str, Any]:
    """Read the recipe once, so that editing it during the sweep does not change the later runs."""
    if not system.get("config") or not isinstance(system["config"], str):
        raise UserError(f"config.systems.{name}.config: name the recipe, FILE.py[:ARGUMENT]")
    try:
        return read_settings(system["config"])
    except UserError as error:
        raise UserError(f"config.systems.{name}: {error}") from error


def resolve_sweep(settings: Mapping[str, Any]) -> SweepConfig:
    """Return the sweep of nested settings, with what is crossed as systems; raise UserError like `load_sweep`."""
    sweep = build_section(SweepConfig, settings)
    _check_reserved(sweep.cross, "config.cross", ())
    for name, system in sweep.systems.items():
        _check_reserved(system.cross, f"config.systems.{name}.cross", ())
    systems = crossing.expand(sweep.cross, sweep.systems)
    sweep = dataclasses.replace(sweep, systems=systems, cross={})
    _check(sweep)
    return sweep


def _check(sweep: SweepConfig) -> None:
    if not sweep.seeds or len(set(sweep.seeds)) != len(sweep.seeds) or min(sweep.seeds) < 0:
        raise UserError(f"config.seeds: different whole numbers from 0 on are needed, not {sweep.seeds}")
    if max(sweep.seeds) >= SEEDS_OF_TRIALS:
        raise UserError(f"config.seeds: {max(sweep.seeds)} is a seed of trials; runs have seeds below 2**30")
    for name, system in sweep.systems.items():
        for axis in system.search:
            _check_axis(axis, f"config.systems.{name}.search")
        _check_reserved(system.set, f"config.systems.{name}.set", (axis.key for axis in system.search))
        if not set(system.seeds) <= set(sweep.seeds):
            raise UserError(f"config.systems.{name}.seeds: {system.seeds} are not among the sweep's, {sweep.seeds}")
    _check_reserved(sweep.set, "config.set", ())
    _check_smaller_budgets(sweep)
    _check_targets(sweep)
    if sweep.search.trials:
        _check_search(sweep)


def _check_smaller_budgets(sweep: SweepConfig) -> None:
    budget, amounts = Amount.parse(sweep.budget), [Amount.parse(text) for text in sweep.smaller_budgets]
    values = [amount.value for amount in amounts]
    if (
        any(amount.unit != budget.unit for amount in amounts)
        or values != sorted(set(values))
        or budget.value in values
    ):
        raise UserError(
            f"config.smaller_budgets: {sweep.smaller_budgets} are not different rising amounts in the unit of the"
            f" budget, {sweep.budget}"
        )
    if values and values[-1] > budget.value:
        raise UserError(f"config.smaller_budgets: {sweep.smaller_budgets[-1]} is more than the budget, {sweep.budget}")


def _check_targets(sweep: SweepConfig) -> None:
    for name, target in sweep.targets.items():
        _check_reserved(target.set, f"config.targets.{name}.set", ())
    for name, system in sweep.systems.items():
        path = f"config.systems.{name}"
        if system.target and system.target not in sweep.targets:
            targets = nearest(system.target, sweep.targets) if sweep.targets else "the sweep has no targets"
            raise UserError(f"{path}.target: there is no target '{system.target}'; {targets}")
        if sweep.targets and not system.target:
            raise UserError(f"{path}.target: name the target that it is trained on, of {', '.join(sweep.targets)}")
        if bool(system.source) != bool(system.adaptation):
            raise UserError(f"{path}: `source` and `adaptation` belong together; give both, or neither")
    _check_labels(sweep)


def _check_labels(sweep: SweepConfig) -> None:
    """Raise UserError where two systems of a target have one source and adaptation, or one has no labels."""
    labels: dict[tuple[str, ...], str] = {}
    for name, system in sweep.systems.items():
        other = labels.setdefault((system.target, system.source, system.adaptation), name)
        if system.source and other != name:
            raise UserError(
                f"config.systems: {other} and {name} have the same source, adaptation and target"
                f" ({system.source}, {system.adaptation}, {system.target or 'the only one'}); one table cell has one"
                " system"
            )
    if len({bool(system.source) for system in sweep.systems.values()}) > 1:
        without = next(name for name, system in sweep.systems.items() if not system.source)
        raise UserError(f"config.systems.{without}: other systems have a source and an adaptation; give it both")


def _check_axis(axis: Axis, path: str) -> None:
    if not re.fullmatch(r"\w+(\.\w+)*", axis.key):
        raise UserError(f"{path}: {axis.key!r} is not the dotted key of a configuration")
    if any(not isinstance(choice, bool | int | float | str) for choice in axis.choices):
        raise UserError(f"{path}: choices of {axis.key} must be numbers, texts or truth values, not {axis.choices}")
    if axis.choices and (axis.low or axis.high or axis.log):
        raise UserError(f"{path}: {axis.key} has choices and a range; one of the two is needed")
    if not axis.choices and not (axis.low < axis.high and (axis.low > 0 or not axis.log)):
        log = ", above 0 for log," if axis.log else ""
        raise UserError(f"{path}: {axis.key} needs choices or low < high{log} not {axis.low} and {axis.high}")


def _check_reserved(settings: Mapping[str, Any], path: str, searched: Any) -> None:
    for key in (*flatten_settings(settings), *searched):
        if key in RESERVED:
            raise UserError(f"{path}: {key} is the same for all systems; set the sweep's own key {RESERVED[key]}")


def _check_search(sweep: SweepConfig) -> None:
    for name, system in sweep.systems.items():
        if not system.search:
            trials = sweep.search.trials
            raise UserError(f"config.systems.{name}.search: names no key, but every system gets {trials} trials")
        if sweep.search.sampler != "grid":
            continue
        if not all(axis.choices for axis in system.search):
            raise UserError(f"config.systems.{name}.search: a grid needs choices for every key")
        points = 1
        for axis in system.search:
            points *= len(axis.choices)
        if points != sweep.search.trials:
            raise UserError(
                f"config.systems.{name}.search: a grid of {points} points, while every system gets"
                f" {sweep.search.trials} trials; an equal number is needed"
            )
