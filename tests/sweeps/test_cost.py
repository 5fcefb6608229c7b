"""What a sweep would cost."""

import json
import re

import pytest
from rich.console import Console

from imagenet_repro.config import config_to_dict, resolve_config
from imagenet_repro.data import sources
from imagenet_repro.errors import EXIT_FINISHED, UserError
from imagenet_repro.runs import probe
from imagenet_repro.runs.network_run import NetworkRun
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.sweeps import controller, cost
from imagenet_repro.sweeps.directory import SweepDirectory
from imagenet_repro.sweeps.launch import LocalLauncher
from imagenet_repro.sweeps.plan import build_run_config, plan_runs
from tests import feature_recipe
from tests.sweeps import small_sweeps

SEARCH = {"trials": 2, "budget": "4st"}
A = {
    "images": 1000, "steps": 10, "flops": 3e14, "seconds": 7200.0, "compilation_seconds": 60.0,
    "peak_memory": {"bytes": 3 * 2**29, "of": "process"}, "device": "1 x cpu",
}  # fmt: skip
B = A | {"images": 2000, "flops": 5e14, "seconds": 1800.0}
WRONG = "the data set is not prepared"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return LocalLauncher(SweepDirectory(tmp_path), "")


def lines(renderable):
    console = Console(width=160, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return [re.split(r"\s{2,}", line.strip()) for line in capture.get().splitlines()]


@pytest.mark.parametrize(
    ("budget", "of_trial", "share"),
    [("16st", "4st", 0.25), ("16st", "", 1.0), ("2e6img", "2.5e5img", 0.125), ("90ep", "1e5img", 1.0)],
)
def test_a_trial_takes_its_budgets_share_of_a_run(budget, of_trial, share):
    one = small_sweeps.sweep(budget=budget, search={"trials": 1, "budget": of_trial})
    assert {p.is_trial: cost._share(one, p) for p in plan_runs(one)} == {True: share, False: 1.0}


def test_a_row_has_what_a_run_costs_and_the_time_of_all(monkeypatch):
    one = small_sweeps.sweep(search=SEARCH, seeds=(0, 1, 2))
    found = lines(cost._table(one, plan_runs(one), {"a": A, "b": WRONG}))
    assert found[0] == list(cost.HEADINGS)
    # two trials of a quarter and three runs, each of which compiles: 3.5 x 2 h + 5 min
    assert found[2] == ["a", "5", "1.00 k", "300.0", "1.0 min", "2.0 h", "1.5 GiB", "7.1 h"]
    assert found[3] == ["b", "5"]


def test_the_sum_is_over_trials_and_runs_of_all_that_could_be_measured():
    one = small_sweeps.sweep(systems=4, search=SEARCH, seeds=(0, 1, 2))
    text = cost._sum(one, plan_runs(one), {"a": A, "b": WRONG, "c": B, "d": WRONG}, 3)
    seconds = 3.5 * (7200 + 1800) + 10 * 60
    assert f"{3.5 * 3000 / 1e3:.1f} k images, {3.5 * 0.8:.2f} PFLOP, {seconds / 3600:.1f} hours on 1 x cpu" in text
    assert f", without b, d; {seconds / 3600 / 3:.1f} hours with 3 workers" in text
    assert cost._sum(one, plan_runs(one), {"a": WRONG}, 1) == "no system could be measured"


def test_a_dry_run_measures_runs_and_names_every_training(monkeypatch, capsys, here):
    one = small_sweeps.sweep(search=SEARCH | {"sampler": "tpe"})
    asked = []
    monkeypatch.setattr(cost, "_measured", lambda config: asked.append(config) or (A if len(asked) == 1 else WRONG))
    trials = {p.system: build_run_config(one, p, {}) for p in plan_runs(one) if p.is_trial}
    assert {config.budget for config in trials.values()} == {"4st"}
    assert cost.show(one, trials, here, 4) == EXIT_FINISHED
    assert [config.budget for config in asked] == ["16st", "16st"]
    out = capsys.readouterr().out
    for part in (
        "search/a/000  as the sampler says\n",
        "runs/b/seed0  as selected\n",
        "6 trainings by 4 workers on this machine, all devices each\n",
        f"b: {WRONG}\n",
    ):
        assert part in out


def test_a_dry_run_has_no_more_workers_than_trainings(monkeypatch, capsys, here):
    one = small_sweeps.sweep()
    monkeypatch.setattr(cost, "_measured", lambda config: A)
    cost.show(one, {p.system: build_run_config(one, p, {}) for p in plan_runs(one)}, here, 8)
    assert "2 trainings by 2 workers" in capsys.readouterr().out


def lenet(data_dir, **changes):
    settings = small_sweeps.LENET | {
        "data": small_sweeps.LENET["data"] | {"data_dir": data_dir, "eval_split": "validation"}
    }
    return resolve_config(settings | changes)


def test_a_network_costs_what_its_run_is_charged(fractal, tmp_path):
    config = lenet(fractal, budget="2ep", batch_size=80, evaluate_every="2ep", checkpoint={"every": "2ep"})
    found = probe.probe(config)
    run = NetworkRun(config, Workdir(tmp_path), sources.open_splits(config.data))
    budget = run._budget(run.system.initial_state())
    spent = budget.meter.spent(budget.total_steps, 0.0)
    assert (
        (found.steps, found.images, found.flops) == (6, 480, spent.flops) == (spent.steps, spent.images, spent.flops)
    )
    assert min(found.seconds, found.compilation_seconds, found.peak_memory["bytes"]) > 0
    assert re.fullmatch(r"8 x \w+", found.device)


def features(data_dir, **changes):
    settings = feature_recipe.get_config(data_dir).to_dict()
    settings["data"] |= {"name": small_sweeps.DATA, "eval_split": "validation"}
    return resolve_config(settings | changes)


def test_features_cost_their_codes_and_the_steps_that_are_left_of_the_budget(fractal):
    few = probe.probe(features(fractal, budget="5st"))
    assert (few.steps, few.images) == (5, 160)
    budget = 2 * few.flops
    more = probe.probe(features(fractal, budget=f"{budget:.0f}flop"))
    step = (more.flops - few.flops) / (more.steps - 5)
    assert 0 < step < few.flops / 6
    assert budget <= more.flops < budget + step  # the codes are within the budget


def test_of_a_budget_of_seconds_as_many_steps_as_fit(fractal):
    config = features(fractal, budget="30s")
    split = sources.open_split(config.data, "train")
    assert probe._steps(config, split, 7, 0.125) == 240
    assert probe._steps(config, split, 7, 0.125, (20.0, 9)) == 80
    assert probe._steps(config, split, 7, 0.125, (31.0, 9)) == 1


def test_what_cannot_be_measured_is_told_in_the_runs_words(tmp_path, capsys):
    config = lenet(str(tmp_path))
    with pytest.raises(UserError) as error:
        probe.probe(config)
    assert "main.py prepare" in str(error.value)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config_to_dict(config)))
    assert probe.main(str(file)) == error.value.exit_code
    assert capsys.readouterr().err == f"\n{error.value}\n"
    assert cost._measured(config) == str(error.value)


def test_a_sweep_that_cannot_be_is_refused_before_anything_is_measured(tmp_path):
    one = small_sweeps.sweep(set={"data": {"data_dir": str(tmp_path)}})
    with pytest.raises(UserError, match=r"main\.py prepare"):
        controller.dry_run(one, str(tmp_path / "w"), controller.SweepOptions())
    assert not (tmp_path / "w").exists()
