"""The trainings of a sweep."""

import math

import numpy as np
import pytest
from scipy.stats import qmc

from imagenet_repro.config import Data
from imagenet_repro.config.sweep import resolve_sweep
from imagenet_repro.errors import UserError
from imagenet_repro.sweeps.plan import build_run_config, check_splits, merge_settings, plan_runs
from tests.sweeps import small_sweeps


def test_systems_times_seeds_are_run_seed_by_seed():
    names = [one.name for one in plan_runs(small_sweeps.sweep(seeds=(3, 5)))]
    assert names == ["runs/a/seed3", "runs/b/seed3", "runs/a/seed5", "runs/b/seed5"]


def test_trials_of_all_systems_are_points_of_one_sequence_over_their_own_ranges():
    settings = small_sweeps.settings(search={"trials": 5, "seed": 7})
    decay = {"key": "optimizer.weight_decay", "low": 0.0, "high": 1.0}
    settings["systems"]["b"] = settings["systems"]["b"] | {
        "search": [small_sweeps.RATE | {"low": 1e-2, "high": 1.0}, decay]
    }
    planned = plan_runs(resolve_sweep(settings))
    a, b = ([one.settings for one in planned if one.is_trial and one.system == name] for name in "ab")
    assert len(a) == len(b) == 5
    points = qmc.Sobol(2, seed=7).random_base2(3)[:5]
    share = [math.log(x["optimizer.learning_rate"] / 1e-3) / math.log(100) for x in a]
    np.testing.assert_allclose(share, points[:, 0], atol=1e-12)
    np.testing.assert_allclose([10 * x["optimizer.learning_rate"] for x in a],
                               [x["optimizer.learning_rate"] for x in b])  # fmt: skip
    np.testing.assert_allclose([x["optimizer.weight_decay"] for x in b], points[:, 1])


def test_a_grid_has_every_product_of_choices_once():
    settings = small_sweeps.settings(systems=1, search={"trials": 4, "sampler": "grid"})
    axes = [
        {"key": "optimizer.learning_rate", "choices": [0.1, 0.2]},
        {"key": "optimizer.name", "choices": ["sgd", "adamw"]},
    ]
    settings["systems"]["a"] = settings["systems"]["a"] | {"search": axes}
    sweep = resolve_sweep(settings)
    trials = [one for one in plan_runs(sweep) if one.is_trial]
    configs = [build_run_config(sweep, one, one.settings) for one in trials]
    assert sorted((one.optimizer.learning_rate, one.optimizer.name) for one in configs) == [
        (0.1, "adamw"), (0.1, "sgd"), (0.2, "adamw"), (0.2, "sgd"),
    ]  # fmt: skip


def test_a_trial_never_reads_the_split_that_results_are_scored_on():
    sweep = small_sweeps.sweep(search={"trials": 2, "seed": 4, "budget": "8st"}, seeds=(0, 1))
    for one in plan_runs(sweep):
        run = build_run_config(sweep, one, one.settings or {})
        assert (run.data.train_split, run.data.eval_split) == ("train", "validation[:50%]")
        assert run.data.test_split == ("" if one.is_trial else "validation[50%:]")
        assert run.data.scored_split == ("validation[:50%]" if one.is_trial else "validation[50%:]")
        assert (run.budget, run.seed) == (("8st", 4) if one.is_trial else ("16st", one.seed))


def test_a_systems_own_settings_stand_over_those_of_all_and_searched_ones_over_both():
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


def test_a_section_whose_name_changes_loses_the_other_ones_keys():
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
    ],
)
def test_a_split_that_judges_shares_no_image_with_one_that_it_must_not_see(fractal, changes, message):
    with pytest.raises(UserError, match=message):
        check_splits(small_sweeps.sweep(**changes), Data(name=small_sweeps.DATA, data_dir=fractal))


def test_splits_that_lie_apart_are_taken(fractal):
    apart = {"train_split": "train[:90%]", "select_split": "train[90%:]", "search": {"trials": 2}}
    check_splits(small_sweeps.sweep(**apart), Data(name=small_sweeps.DATA, data_dir=fractal))
    # without a search nothing is selected, and the curves may be of the scored split
    check_splits(
        small_sweeps.sweep(select_split="validation", test_split="validation"),
        Data(name=small_sweeps.DATA, data_dir=fractal),
    )
