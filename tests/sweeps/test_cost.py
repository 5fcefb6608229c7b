"""Tests of the cost of a sweep, and of the measurements behind it."""

import json
import re

import pytest
from rich.console import Console

from imagenet_repro.config import config_to_dict, resolve_config
from imagenet_repro.data import sources
from imagenet_repro.errors import EXIT_FINISHED, UserError
from imagenet_repro.runs import estimate_cost
from imagenet_repro.runs.network_run import NetworkRun
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.sweeps import controller, cost
from imagenet_repro.sweeps.directory import SweepDirectory
from imagenet_repro.sweeps.launch import LocalLauncher
from imagenet_repro.sweeps.plan import build_run_config, plan_runs
from imagenet_repro.training.systems.system import PreparationCost
from tests import feature_recipe
from tests.sweeps import small_sweeps

SEARCH = {"trials": 2, "budget": "4st"}
A = {
    "images": 1000, "steps": 10, "flops": 3e14, "seconds": 7200.0, "compilation_seconds": 60.0,
    "peak_memory": {"bytes": 3 * 2**29, "of": "process"}, "device": "1 x cpu",
}  # fmt: skip
B = A | {"images": 2000, "flops": 5e14, "seconds": 1800.0}
ERROR = "the data set is not prepared"


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return LocalLauncher(SweepDirectory(tmp_path), "")


def lines(renderable):
    console = Console(width=160, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return [re.split(r"\s{2,}", line.strip()) for line in capture.get().splitlines()]


@pytest.mark.parametrize(
    ("budget", "trial_budget", "fraction"),
    [("16st", "4st", 0.25), ("16st", "", 1.0), ("2e6img", "2.5e5img", 0.125), ("90ep", "1e5img", 1.0)],
)
def test_a_trial_costs_the_fraction_of_a_final_runs_budget(budget, trial_budget, fraction):
    sweep = small_sweeps.sweep(budget=budget, search={"trials": 1, "budget": trial_budget})
    assert {p.is_trial: cost.budget_fraction(sweep, p) for p in plan_runs(sweep)} == {True: fraction, False: 1.0}


def test_a_row_has_the_cost_of_one_run_and_the_time_of_all_runs(monkeypatch):
    sweep = small_sweeps.sweep(search=SEARCH, seeds=(0, 1, 2))
    table = lines(cost._table(sweep, plan_runs(sweep), {"a": A, "b": ERROR}))
    assert table[0] == list(cost.HEADINGS)
    # Two trials of a quarter of the budget and three final runs; each compiles: 3.5 x 2 h + 5 min.
    assert table[2] == ["a", "5", "1.00 k", "300.0", "1.0 min", "2.0 h", "1.5 GiB", "7.1 h"]
    assert table[3] == ["b", "5"]


def test_the_total_is_over_all_runs_of_the_measured_systems():
    sweep = small_sweeps.sweep(systems=4, search=SEARCH, seeds=(0, 1, 2))
    text = cost._total(sweep, plan_runs(sweep), {"a": A, "b": ERROR, "c": B, "d": ERROR}, 3)
    seconds = 3.5 * (7200 + 1800) + 10 * 60
    assert f"{3.5 * 3000 / 1e3:.1f} k images, {3.5 * 0.8:.2f} PFLOP, {seconds / 3600:.1f} hours on 1 x cpu" in text
    assert f", without b, d; {seconds / 3600 / 3:.1f} hours with 3 workers" in text
    assert cost._total(sweep, plan_runs(sweep), {"a": ERROR}, 1) == "no system could be measured"


def test_a_dry_run_measures_final_runs_and_lists_every_run(monkeypatch, capsys, launcher):
    sweep = small_sweeps.sweep(search=SEARCH | {"sampler": "tpe"})
    measured = []
    monkeypatch.setattr(
        cost, "_measure", lambda config: measured.append(config) or (A if len(measured) == 1 else ERROR)
    )
    trials = {p.system: build_run_config(sweep, p, {}) for p in plan_runs(sweep) if p.is_trial}
    assert {config.budget for config in trials.values()} == {"4st"}
    assert cost.print_cost(sweep, trials, launcher, 4) == EXIT_FINISHED
    assert [config.budget for config in measured] == ["16st", "16st"]
    out = capsys.readouterr().out
    for part in (
        "search/a/000  settings from the sampler\n",
        "runs/b/seed0  selected settings\n",
        "6 runs by 4 workers on this machine, each on all of its devices\n",
        f"b: {ERROR}\n",
    ):
        assert part in out


def test_a_dry_run_has_no_more_workers_than_runs(monkeypatch, capsys, launcher):
    sweep = small_sweeps.sweep()
    monkeypatch.setattr(cost, "_measure", lambda config: A)
    cost.print_cost(sweep, {p.system: build_run_config(sweep, p, {}) for p in plan_runs(sweep)}, launcher, 8)
    assert "2 runs by 2 workers" in capsys.readouterr().out


def lenet(data_dir, **changes):
    settings = small_sweeps.LENET | {
        "data": small_sweeps.LENET["data"] | {"data_dir": data_dir, "eval_split": "validation"}
    }
    return resolve_config(settings | changes)


def test_the_cost_of_a_network_is_what_its_run_spends(fractal, tmp_path):
    config = lenet(fractal, budget="2ep", batch_size=80, evaluate_every="2ep", checkpoint={"every": "2ep"})
    estimate = estimate_cost.estimate_cost(config)
    run = NetworkRun(config, Workdir(tmp_path), sources.open_splits(config.data))
    budget = run._budget(run.system.initial_state())
    spent = budget.meter.spent(budget.total_steps, 0.0)
    assert (
        (estimate.steps, estimate.images, estimate.flops)
        == (6, 480, spent.flops)
        == (spent.steps, spent.images, spent.flops)
    )
    assert min(estimate.seconds, estimate.compilation_seconds, estimate.peak_memory["bytes"]) > 0
    assert re.fullmatch(r"8 x \w+", estimate.device)


@pytest.mark.parametrize(
    ("first", "later", "expected"),
    [(0.01, 0.005, (0.005, 10)), (1.0, 0.5, (0.5, 3)), (2.9, 2.0, (2.0, 1)), (60.0, 50.0, (60.0, 0))],
)
def test_as_many_steps_are_timed_as_fit_into_seconds(first, later, expected):
    clock, taken = [0.0], []

    def take_steps(count):
        clock[0] += count * later if taken else first
        taken.append(count)

    assert estimate_cost._time_steps(take_steps, lambda: clock[0]) == pytest.approx(expected)
    assert taken == [1, *([expected[1]] if expected[1] else [])]


def features(data_dir, **changes):
    settings = feature_recipe.get_config(data_dir).to_dict()
    settings["data"] |= {"name": small_sweeps.DATA, "eval_split": "validation"}
    return resolve_config(settings | changes)


def test_the_cost_of_features_is_their_codes_and_the_steps_of_the_remaining_budget(fractal):
    few = estimate_cost.estimate_cost(features(fractal, budget="5st"))
    assert (few.steps, few.images) == (5, 160)
    budget = 2 * few.flops
    more = estimate_cost.estimate_cost(features(fractal, budget=f"{budget:.0f}flop"))
    step = (more.flops - few.flops) / (more.steps - 5)
    assert 0 < step < few.flops / 6
    assert budget <= more.flops < budget + step  # the budget includes the codes


def test_a_budget_of_seconds_has_as_many_steps_as_fit(fractal):
    config = features(fractal, budget="30s")
    split = sources.open_split(config.data, "train")
    assert estimate_cost._count_steps(config, split, 7, 0.125, PreparationCost()) == 240
    assert estimate_cost._count_steps(config, split, 7, 0.125, PreparationCost(20.0, 9.0)) == 80
    assert estimate_cost._count_steps(config, split, 7, 0.125, PreparationCost(31.0, 9.0)) == 1


def test_a_failed_measurement_reports_the_message_of_the_run(tmp_path, capsys):
    config = lenet(str(tmp_path))
    with pytest.raises(UserError) as error:
        estimate_cost.estimate_cost(config)
    assert "main.py prepare" in str(error.value)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config_to_dict(config)))
    assert estimate_cost.main(str(file)) == error.value.exit_code
    assert capsys.readouterr().err == f"\n{error.value}\n"
    assert cost._measure(config) == str(error.value)


def test_an_invalid_sweep_is_refused_before_anything_is_measured(tmp_path):
    sweep = small_sweeps.sweep(set={"data": {"data_dir": str(tmp_path)}})
    with pytest.raises(UserError, match=r"main\.py prepare"):
        controller.dry_run(sweep, str(tmp_path / "w"), controller.SweepOptions())
    assert not (tmp_path / "w").exists()
