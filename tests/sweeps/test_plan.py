"""Tests of the plan of a sweep: its runs, their settings and their configurations."""

import math

import numpy as np
import pytest
from scipy.stats import qmc

from imagenet_repro.config import Data
from imagenet_repro.config.sweep import resolve_sweep
from imagenet_repro.errors import UserError
from imagenet_repro.sweeps.plan import build_run_config, check_splits, merge_settings, plan_runs
from tests.sweeps import small_sweeps


def test_final_runs_are_ordered_by_seed_then_system():
    names = [run.name for run in plan_runs(small_sweeps.sweep(seeds=(3, 5)))]
    assert names == ["runs/a/seed3", "runs/b/seed3", "runs/a/seed5", "runs/b/seed5"]


def test_a_system_may_have_fewer_seeds():
    settings = small_sweeps.settings(seeds=(3, 5))
    settings["systems"]["b"] = settings["systems"]["b"] | {"seeds": (5,)}
    names = [run.name for run in plan_runs(resolve_sweep(settings))]
    assert names == ["runs/a/seed3", "runs/a/seed5", "runs/b/seed5"]
    settings["systems"]["b"] = settings["systems"]["b"] | {"seeds": (4,)}
    with pytest.raises(UserError, match=r"config.systems.b.seeds: \(4,\) are not among the sweep's, \(3, 5\)"):
        resolve_sweep(settings)


def test_quasi_random_trials_map_one_sequence_to_the_ranges_of_each_system():
    settings = small_sweeps.settings(search={"trials": 5, "seed": 7})
    decay = {"key": "optimizer.weight_decay", "low": 0.0, "high": 1.0}
    settings["systems"]["b"] = settings["systems"]["b"] | {
        "search": [small_sweeps.RATE | {"low": 1e-2, "high": 1.0}, decay]
    }
    planned = plan_runs(resolve_sweep(settings))
    a, b = ([run.settings for run in planned if run.is_trial and run.system == name] for name in "ab")
    assert len(a) == len(b) == 5
    points = qmc.Sobol(2, seed=7).random_base2(3)[:5]
    fractions = [math.log(x["optimizer.learning_rate"] / 1e-3) / math.log(100) for x in a]
    np.testing.assert_allclose(fractions, points[:, 0], atol=1e-12)
    np.testing.assert_allclose([10 * x["optimizer.learning_rate"] for x in a],
                               [x["optimizer.learning_rate"] for x in b])  # fmt: skip
    np.testing.assert_allclose([x["optimizer.weight_decay"] for x in b], points[:, 1])


def test_a_grid_has_every_combination_of_choices_once():
    settings = small_sweeps.settings(systems=1, search={"trials": 4, "sampler": "grid"})
    axes = [
        {"key": "optimizer.learning_rate", "choices": [0.1, 0.2]},
        {"key": "optimizer.name", "choices": ["sgd", "adamw"]},
    ]
    settings["systems"]["a"] = settings["systems"]["a"] | {"search": axes}
    sweep = resolve_sweep(settings)
    trials = [run for run in plan_runs(sweep) if run.is_trial]
    configs = [build_run_config(sweep, run, run.settings) for run in trials]
    assert sorted((run.optimizer.learning_rate, run.optimizer.name) for run in configs) == [
        (0.1, "adamw"), (0.1, "sgd"), (0.2, "adamw"), (0.2, "sgd"),
    ]  # fmt: skip


def test_a_trial_never_reads_the_test_split():
    sweep = small_sweeps.sweep(search={"trials": 2, "seed": 4, "budget": "8st"}, seeds=(0, 1))
    for planned in plan_runs(sweep):
        config = build_run_config(sweep, planned, planned.settings or {})
        assert (config.data.train_split, config.data.eval_split) == ("train", "validation[:50%]")
        assert config.data.test_split == ("" if planned.is_trial else "validation[50%:]")
        assert config.data.scored_split == ("validation[:50%]" if planned.is_trial else "validation[50%:]")
        assert (config.budget, config.seed) == (("8st", 2**30 + 4) if planned.is_trial else ("16st", planned.seed))


def test_no_trial_has_the_seed_of_a_run():
    planned = plan_runs(small_sweeps.sweep(search={"trials": 3}, seeds=(0, 1, 2**30 - 1)))
    seeds = {is_trial: {run.seed for run in planned if run.is_trial is is_trial} for is_trial in (True, False)}
    assert [len(seeds[True]), len(seeds[False])] == [1, 3]
    assert seeds[True].isdisjoint(seeds[False])
    with pytest.raises(UserError, match=r"config\.seeds: 1073741824 is a seed of trials; runs have seeds below 2"):
        small_sweeps.sweep(seeds=(0, 2**30))


def test_searched_settings_override_the_systems_which_override_the_sweeps():
    settings = small_sweeps.settings(
        systems=1, set={"batch_size": 4, "optimizer": {"learning_rate": 0.3, "momentum": 0.5}}
    )
    settings["systems"]["a"] = settings["systems"]["a"] | {"set": {"optimizer": {"learning_rate": 0.2}}}
    sweep = resolve_sweep(settings)
    run = build_run_config(sweep, plan_runs(sweep)[0], {})
    assert (run.batch_size, run.optimizer.learning_rate, run.optimizer.momentum) == (4, 0.2, 0.5)
    assert (
        build_run_config(sweep, plan_runs(sweep)[0], {"optimizer.learning_rate": 0.1}).optimizer.learning_rate == 0.1
    )


def test_a_section_whose_name_changes_loses_its_other_keys():
    settings = {"optimizer": {"name": "sgd", "nesterov": True}, "data": {"name": "a", "image_size": 8}}
    merge_settings(settings, {"optimizer": {"name": "adamw"}, "data": {"name": "b"}})
    assert settings == {"optimizer": {"name": "adamw"}, "data": {"name": "b", "image_size": 8}}


def test_an_invalid_setting_names_its_system():
    sweep = small_sweeps.sweep(systems=1, set={"batch_sise": 3})
    with pytest.raises(UserError, match=r"config\.systems\.a: config\.batch_sise: no such key"):
        build_run_config(sweep, plan_runs(sweep)[0], {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"select_split": "train[90%:]"}, "config.train_split=train and config.select_split"),
        (
            {"test_split": "validation", "search": {"trials": 2}},
            "config.select_split=validation.* and config.test_split",
        ),
        ({"test_split": "train[:5]"}, "config.train_split=train and config.test_split"),
        (
            {"select_split": "validation", "test_split": "validation"},
            "config.select_split=validation and config.test_split=validation",
        ),
        (
            {"select_split": "validation[:1]+validation[1:]", "test_split": "validation"},
            "config.select_split=validation.* and config.test_split=validation",
        ),
    ],
)
def test_splits_that_share_images_are_refused(fractal, changes, message):
    with pytest.raises(UserError, match=message):
        check_splits(small_sweeps.sweep(**changes), Data(name=small_sweeps.DATA, data_dir=fractal))


def test_disjoint_splits_are_accepted(fractal):
    disjoint = {"train_split": "train[:90%]", "select_split": "train[90%:]", "search": {"trials": 2}}
    check_splits(small_sweeps.sweep(**disjoint), Data(name=small_sweeps.DATA, data_dir=fractal))


def transfer_settings(**changes):
    settings = small_sweeps.settings(search={}, **changes)
    labels = {"a": ("scratch", "full", "fractals"), "b": ("file", "linear", "others")}
    for name, (source, adaptation, target) in labels.items():
        settings["systems"][name] |= {"source": source, "adaptation": adaptation, "target": target}
    target = {"set": {"data": {"name": "others"}}, "select_split": "train[90%:]", "train_split": "train[:90%]"}
    return settings | {"targets": {"fractals": {}, "others": target}}


def test_a_target_has_its_own_data_and_splits():
    sweep = resolve_sweep(transfer_settings())
    ours, theirs = (build_run_config(sweep, run, {}).data for run in plan_runs(sweep))
    assert (ours.name, ours.train_split, ours.eval_split) == (small_sweeps.DATA, "train", "validation[:50%]")
    assert (theirs.name, theirs.train_split, theirs.eval_split) == ("others", "train[:90%]", "train[90%:]")
    assert theirs.test_split == "validation[50%:]"


def test_smaller_budgets_have_their_own_runs_after_all_others():
    sweep = small_sweeps.sweep(smaller_budgets=("4st", "8st"), seeds=(0, 1))
    planned = plan_runs(sweep)
    assert [run.name for run in planned[4:8]] == [f"smaller/{s}/4st_seed{n}" for n in (0, 1) for s in "ab"]
    assert [build_run_config(sweep, run, {}).budget for run in planned[::2]] == ["16st"] * 2 + ["4st"] * 2 + [
        "8st"
    ] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"smaller_budgets": ("32st",)}, "32st is more than the budget, 16st"),
        ({"smaller_budgets": ("8st", "4st")}, "not different rising amounts"),
        ({"smaller_budgets": ("8img",)}, "in the unit of the budget, 16st"),
        ({"targets": {"fractal": {}}}, "there is no target 'fractals'"),
        ({"targets": {}}, "there is no target 'fractals'; the sweep has no targets"),
        ({"targets": {"fractals": {}, "others": {"set": {"data": {"eval_split": "x"}}}}}, "same for all systems"),
    ],
)
def test_targets_and_budgets_that_do_not_fit_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        resolve_sweep(transfer_settings() | change)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"adaptation": ""}, "belong together"),
        ({"source": "", "adaptation": ""}, "other systems have a source"),
        ({"source": "scratch", "adaptation": "full", "target": "fractals"}, "a and b have the same source"),
        ({"target": ""}, "name the target that it is trained on"),
    ],
)
def test_labels_of_sources_that_do_not_fit_are_refused(labels, message):
    settings = transfer_settings()
    settings["systems"]["b"] |= labels
    with pytest.raises(UserError, match=message):
        resolve_sweep(settings)
