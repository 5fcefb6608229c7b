"""Tests of the cost of a sweep, and of the measurements behind it."""

import dataclasses
import json
import re

import pytest
from rich.console import Console

from imagenet_repro.config import config_to_dict, resolve_config
from imagenet_repro.data import sources
from imagenet_repro.errors import UserError
from imagenet_repro.runs import estimate_cost
from imagenet_repro.runs.estimate_cost import RunCost
from imagenet_repro.runs.network_run import NetworkRun
from imagenet_repro.scoring import terminal
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.sweeps import controller, cost
from imagenet_repro.sweeps.directory import SweepDirectory
from imagenet_repro.sweeps.launch import LocalLauncher
from imagenet_repro.sweeps.plan import build_run_config, plan_runs
from imagenet_repro.training.budget import Meter
from imagenet_repro.training.systems.system import PreparationCost
from tests import feature_recipe
from tests.sweeps import small_sweeps

SEARCH = {"trials": 2, "budget": "4st"}
A = RunCost(
    images=1000, steps=10, flops=3e14, seconds=7200.0, compilation_seconds=60.0, has_compiled=True,
    startup_seconds=30.0, evaluation_seconds=600.0, peak_memory={"bytes": 1_500_000_000, "of": "process"},
    device="1 x cpu", step_memory={},
)  # fmt: skip
B = dataclasses.replace(A, images=2000, flops=5e14, seconds=1800.0, evaluation_seconds=0.0)
ERROR = "the data set is not prepared"


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return LocalLauncher(SweepDirectory(tmp_path), "")


@pytest.fixture
def brief(monkeypatch):
    """Measure as little as possible."""
    for name, value in (("SECONDS", 0.0), ("WARM_UP", 0.0), ("EVALUATED_BATCHES", 1)):
        monkeypatch.setattr(estimate_cost, name, value)


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


def test_a_row_has_the_cost_of_one_run_and_the_time_of_all_runs():
    sweep = small_sweeps.sweep(search=SEARCH, seeds=(0, 1, 2))
    table = lines(cost._table(sweep, plan_runs(sweep), {"a": A, "b": ERROR}))
    assert table[0] == list(cost.HEADINGS)
    # Two trials of a quarter of the budget and three final runs; each starts: 3.5 x (2 h + 10 min) + 2.5 min.
    assert table[2] == [
        "a", "5", "1.00 k", "300 TFLOP", "30 s", "2 h 00 min", "10 min 00 s", "1.50 GB", "7 h 37 min",
    ]  # fmt: skip
    assert table[3] == ["b", "5"]
    features = dataclasses.replace(A, step_memory=None)
    assert lines(cost._table(sweep, plan_runs(sweep), {"a": features}))[2][7] == ">1.50 GB"


def test_the_total_is_over_all_runs_of_the_measured_systems_in_units_that_suit_it():
    sweep = small_sweeps.sweep(systems=4, search=SEARCH, seeds=(0, 1, 2))
    text = cost._total(sweep, plan_runs(sweep), {"a": A, "b": ERROR, "c": B, "d": ERROR}, 3)
    seconds = 3.5 * (7200 + 600 + 1800) + 10 * 30
    assert f"10.5 thousand images, 2.80 PFLOP, {terminal.duration(seconds)} on 1 x cpu, without b and d" in text
    assert f"; {terminal.duration(seconds / 3)} with 3 workers on one such device each" in text
    assert cost._total(sweep, plan_runs(sweep), {"a": ERROR}, 1) == "no system could be measured"
    # with many workers, the longest run counts
    text = cost._total(sweep, plan_runs(sweep), {"a": A, "c": B}, 99)
    assert f"; {terminal.duration(30 + 7200 + 600)} with 99 workers" in text


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (950, "950"),
        (24_000, "24 thousand"),
        (1_281_167, "1.28 million"),
        (115_305_030, "115 million"),
        (2e9, "2 b"),
    ],
)
def test_images_are_counted_in_thousands_and_millions(images, text):
    assert cost.describe_count(images).startswith(text)


def dry_run(sweep, monkeypatch, launcher, workers, *results):
    """Print the cost of a sweep whose systems are measured as `results` say; return the measured configurations."""
    measured = []
    monkeypatch.setattr(cost, "measure_run", lambda config: measured.append(config) or results[len(measured) - 1])
    first_runs = {p.system: build_run_config(sweep, p, {}) for p in reversed(plan_runs(sweep))}
    assert cost.print_cost(sweep, {name: first_runs[name] for name in sweep.systems}, launcher, workers) == 0
    return measured


def test_a_dry_run_measures_final_runs_and_shows_what_will_run(monkeypatch, capsys, launcher):
    sweep = small_sweeps.sweep(search=SEARCH | {"sampler": "tpe"}, seeds=(0, 1))
    sweep.systems["b"].base["batch_size"] = 4
    measured = dry_run(sweep, monkeypatch, launcher, 4, A, ERROR)
    assert [config.budget for config in measured] == ["16st", "16st"]
    out = capsys.readouterr().out
    assert "search/a/000  settings from the sampler\n" in out
    assert [line.split() for line in out.splitlines() if line.startswith(("a ", "b "))][:2] == [
        ["a", "2", "0,", "1", "4"],
        ["b", "2", "0,", "1", "4"],
    ]
    for part in (
        "8 runs, budget 16st, by 4 workers on this machine, each on all of its devices\n",
        "measuring a few steps of each system on this machine:\n",
        f"b: {ERROR}\n",
        "compiling took 1 min 00 s; the programs are kept, and the runs load them\n",
    ):
        assert part in out


def test_what_the_first_measurement_compiles_a_second_one_loads(monkeypatch):
    loaded = dataclasses.replace(B, compilation_seconds=2.0, startup_seconds=9.0, has_compiled=False)
    answers = [A, loaded, loaded, ERROR, A, ERROR]
    monkeypatch.setattr(cost, "_measure", lambda config: answers.pop(0))
    assert cost.measure_run(resolve_config({})) == dataclasses.replace(
        loaded, compilation_seconds=60.0, has_compiled=True
    )
    assert cost.measure_run(resolve_config({})) == loaded
    assert cost.measure_run(resolve_config({})) == ERROR
    assert cost.measure_run(resolve_config({})) == A


def test_systems_that_cost_the_same_are_measured_once(monkeypatch, capsys, launcher):
    cross = {"optimizer.weight_decay": (1e-4, 1e-3), "batch_size": (8, 16), "schedule.name": ("cosine", "linear")}
    sweep = small_sweeps.sweep(systems=1, cross=cross)
    measured = dry_run(sweep, monkeypatch, launcher, 1, A, B)
    assert [config.batch_size for config in measured] == [8, 16]
    out = capsys.readouterr().out
    assert (
        "measuring a few steps of 2 of 8 systems on this machine; the others differ from one of them only in"
        " schedule and optimizer.weight_decay, which changes no cost:\n"
        "  a, weight_decay=0.0001, batch_size=8, schedule=cosine and 3 more …\n"
    ) in out
    assert re.findall(r" (\d+) +([12]\.00 k) ", out) == [("4", "1.00 k"), ("4", "2.00 k")]


def test_a_dry_run_has_no_more_workers_than_runs(monkeypatch, capsys, launcher):
    dry_run(small_sweeps.sweep(), monkeypatch, launcher, 8, A, A)
    out = capsys.readouterr().out
    assert "2 runs, each with a budget of 16st, by 2 workers" in out
    assert (
        "measuring a few steps of 1 of 2 systems on this machine; the others differ from one of them in nothing" in out
    )


def lenet(data_dir, **changes):
    settings = small_sweeps.LENET | {
        "data": small_sweeps.LENET["data"] | {"data_dir": data_dir, "eval_split": "validation"}
    }
    return resolve_config(settings | changes)


def test_the_cost_of_a_network_is_what_its_run_spends(fractal, tmp_path, brief):
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
    times = (estimate.seconds, estimate.compilation_seconds, estimate.startup_seconds, estimate.evaluation_seconds)
    assert min(*times, estimate.peak_memory["bytes"]) > 0
    assert estimate.total_seconds == estimate.startup_seconds + estimate.seconds + estimate.evaluation_seconds
    assert re.fullmatch(r"8 x \w+", estimate.device)


def features(data_dir, **changes):
    settings = feature_recipe.get_config(data_dir).to_dict()
    settings["data"] |= {"name": small_sweeps.DATA, "eval_split": "validation"}
    return resolve_config(settings | changes)


def test_the_cost_of_features_is_their_codes_and_the_steps_of_the_remaining_budget(fractal, brief):
    few = estimate_cost.estimate_cost(features(fractal, budget="5st"))
    assert (few.steps, few.images) == (5, 160)
    budget = 2 * few.flops
    more = estimate_cost.estimate_cost(features(fractal, budget=f"{budget:.0f}flop"))
    step = (more.flops - few.flops) / (more.steps - 5)
    assert 0 < step < few.flops / 6
    assert budget <= more.flops < budget + step  # the budget includes the codes


def test_a_budget_of_seconds_has_as_many_steps_as_fit(fractal):
    config = features(fractal, budget="30s")
    meter = Meter(config.batch_size, 240, 7)
    assert estimate_cost._count_steps(config, meter, 0.125, PreparationCost()) == 240
    assert estimate_cost._count_steps(config, meter, 0.125, PreparationCost(20.0, 9.0)) == 80
    assert estimate_cost._count_steps(config, meter, 0.125, PreparationCost(31.0, 9.0)) == 1


@pytest.mark.parametrize(
    ("evaluate_every", "test_split", "evaluations"),
    [("2ep", "", 1), ("3st", "", 3), ("2st", "validation[50%:]", 4), ("1s", "", 4)],
)
def test_all_evaluations_of_a_run_are_counted(fractal, evaluate_every, test_split, evaluations):
    config = lenet(fractal, budget="7st", evaluate_every=evaluate_every)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, test_split=test_split))
    splits = sources.open_splits(config.data)
    meter = Meter(config.batch_size, splits.train.num_examples, 7)
    scored = splits.scored.num_examples if test_split else 0
    evaluated = estimate_cost._count_evaluated(config, meter, splits, 7, 0.5)
    assert evaluated == evaluations * splits.evaluated.num_examples + scored


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
