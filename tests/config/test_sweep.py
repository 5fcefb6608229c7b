"""Tests of the schema of sweeps."""

import json
import re
from pathlib import Path

import pytest

from imagenet_repro.config import config_to_dict
from imagenet_repro.config.sweep import load_sweep, resolve_sweep
from imagenet_repro.errors import UserError
from imagenet_repro.sweeps.plan import build_run_config, plan_runs
from tests.sweeps import small_sweeps

FILES = sorted(Path("configs/sweeps").glob("*.py"))


def test_json_holds_a_sweep():
    sweep = small_sweeps.sweep(search={"trials": 2})
    assert resolve_sweep(json.loads(json.dumps(config_to_dict(sweep)))) == sweep


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_plans_valid_trainings_of_one_budget(file):
    sweep = load_sweep(str(file))
    planned = plan_runs(sweep)
    configs = [build_run_config(sweep, one, one.settings or {}) for one in planned]
    budgets = {one.budget for one, p in zip(configs, planned, strict=True) if not p.is_trial}
    assert budgets == {sweep.budget, *sweep.smaller_budgets}
    assert {one.data.test_split for one, p in zip(configs, planned, strict=True) if p.is_trial} <= {""}


@pytest.mark.parametrize("size", ["small", "laptop"])
def test_the_decade_at_64_px_differs_from_the_full_one_only_in_data_and_budget(size):
    full, part = load_sweep("configs/sweeps/decade.py"), load_sweep(f"configs/sweeps/decade.py:{size}")
    assert list(full.systems) == list(part.systems)
    assert full.seeds == part.seeds


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": "fast"}, "config.budget: 'fast' is not an amount"),
        ({"bugdet": "1ep"}, "config.bugdet: no such key; did you mean 'budget'"),
        ({"seeds": (0, 0)}, "config.seeds: different whole numbers"),
        ({"seeds": ()}, "config.seeds: different whole numbers"),
        ({"search": {"trials": 3, "sampler": "random"}}, "config.search.sampler: 'random' is not valid"),
        ({"search": {"trials": 3, "sampler": "grid"}}, "a grid needs choices for every key"),
        ({"set": {"budget": "1ep"}}, "config.set: budget is the same for all systems; set the sweep's own key budget"),
        ({"set": {"data": {"train_split": "train"}}}, "set the sweep's own key train_split"),
    ],
)
def test_invalid_sweeps_are_refused_by_name(changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        small_sweeps.sweep(**changes)


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ({"key": "optimizer.learning_rate", "low": 1.0, "high": 0.1}, "needs choices or low < high"),
        ({"key": "optimizer.learning_rate", "low": 0.0, "high": 0.1, "log": True}, "above 0 for log"),
        ({"key": "", "low": 0.0, "high": 1.0}, "is not the dotted key"),
        ({"key": "seed", "choices": [1, 2]}, "set the sweep's own key seeds"),
        ({"key": "x", "low": 1.0, "high": 2.0, "choices": [1]}, "has choices and a range"),
        ({"key": "x", "choices": [[1]]}, "must be numbers, texts or truth values"),
    ],
)
def test_invalid_searches_are_refused(axis, message):
    systems = {"a": {"config": "lenet.py", "base": small_sweeps.LENET, "search": [axis]}}
    with pytest.raises(UserError, match=re.escape(message)):
        resolve_sweep(small_sweeps.settings() | {"systems": systems})


def test_a_sweep_needs_systems():
    with pytest.raises(UserError, match="sections by name are needed"):
        resolve_sweep(small_sweeps.settings() | {"systems": {}})


def test_all_systems_get_the_same_number_of_trials():
    uneven = small_sweeps.settings(search={"trials": 2, "sampler": "grid"})
    for name, choices in (("a", [0.1, 0.2]), ("b", [0.1, 0.2, 0.3])):
        uneven["systems"][name] = uneven["systems"][name] | {
            "search": [{"key": "optimizer.learning_rate", "choices": choices}]
        }
    with pytest.raises(UserError, match="a grid of 3 points, while every system gets 2 trials"):
        resolve_sweep(uneven)
    without = small_sweeps.settings(search={"trials": 2})
    without["systems"]["b"] = without["systems"]["b"] | {"search": []}
    with pytest.raises(UserError, match=r"systems\.b\.search: names no key, but every system gets 2 trials"):
        resolve_sweep(without)


def test_files_of_single_runs_and_missing_recipes_are_refused_as_sweeps(tmp_path):
    with pytest.raises(UserError, match="a sweep needs `systems` by name"):
        load_sweep("configs/resnet.py:50")
    file = tmp_path / "sweep.py"
    file.write_text("def get_config():\n    return {'systems': {'a': {'config': 'configs/resnett.py'}}}\n")
    with pytest.raises(UserError, match=r"config\.systems\.a: .*there is no file 'configs/resnett.py'"):
        load_sweep(str(file))
    file.write_text("def get_config():\n    return {'systems': {'a': {}}}\n")
    with pytest.raises(UserError, match=r"config\.systems\.a\.config: name the recipe"):
        load_sweep(str(file))
