"""Tests of `main.py sweep`: a full sweep, and errors that are reported before anything runs."""

import json
import re
import shutil

import pytest

from imagenet_repro.config.sweep import load_sweep, resolve_sweep
from imagenet_repro.errors import EXIT_FINISHED, UserError
from imagenet_repro.sweeps import controller
from imagenet_repro.sweeps.directory import SweepDirectory
from imagenet_repro.sweeps.queue import SweepQueue
from imagenet_repro.sweeps.worker import Worker, worker_name
from main import main
from tests import command_line, finished_runs
from tests.sweeps import full_sweeps, small_sweeps


@pytest.fixture
def file(fractal, tmp_path_factory):
    return full_sweeps.write(tmp_path_factory.mktemp("sweep"), fractal, seeds=(3,))


def test_a_sweep_whose_worker_is_killed_resumes_and_ends_with_its_page(file, start, tmp_path):
    process = start(*full_sweeps.arguments(file, tmp_path))
    killed_run = full_sweeps.kill_worker_of_active_run(tmp_path)
    out, err = process.communicate(timeout=full_sweeps.SECONDS)
    assert process.returncode == 0, out + err
    assert "Traceback" not in err
    assert "2 of 2 runs complete" in out
    assert full_sweeps.resumed_runs(tmp_path) == {killed_run}
    full_sweeps.assert_complete(tmp_path, n_runs=2)
    page = (tmp_path / "report.html").read_text()
    assert "lenet5" in page
    assert all(name in page for name in full_sweeps.result_times(tmp_path))


@pytest.fixture
def settings(fractal):
    data = small_sweeps.LENET["data"] | {"data_dir": fractal}
    nested = small_sweeps.settings(systems=2)
    for system in nested["systems"].values():
        system["base"] = small_sweeps.LENET | {"data": data}
        del system["search"]
    return nested


def test_a_valid_sweep_passes_the_check(settings):
    assert set(controller.check_sweep(resolve_sweep(settings))) == {"a", "b"}


@pytest.mark.parametrize(
    ("settings_of_b", "message"),
    [
        ({"data": {"name": "fractal/c6_n20_v7_s32"}}, "these systems cannot be compared, they differ in data.name"),
        ({"data": {"data_dir": "/elsewhere"}}, r"b: fractal/c6_n40_v7_s32 in /elsewhere"),
        ({"model": {"name": "lenet6"}}, r"config\.systems\.b.*lenet6.*did you mean 'lenet"),
        ({"batch_sise": 3}, r"config\.systems\.b: config\.batch_sise: no such key"),
        ({"evaluate_every": "often"}, r"systems\.b: config\.evaluate_every: 'often' is not an amount"),
    ],
)
def test_systems_that_cannot_be_compared_or_built_are_refused(settings_of_b, message, settings):
    settings["systems"]["b"]["set"] = settings_of_b
    with pytest.raises(UserError, match=f"(?s){message}"):
        controller.check_sweep(resolve_sweep(settings))


def test_a_target_that_is_not_one_is_refused_before_anything_runs(file, tmp_path, capsys):
    assert main(full_sweeps.arguments(file, tmp_path / "sweep", "--target=top3:35")) == 2
    assert "'top3:35' is not a target" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_a_test_split_within_the_training_split_is_refused(settings):
    with pytest.raises(UserError, match="share images; use disjoint parts"):
        controller.check_sweep(resolve_sweep(settings | {"test_split": "train[:10%]"}))


def test_another_sweep_in_the_workdir_is_refused_with_its_differences(settings, fractal, tmp_path, capsys):
    file = full_sweeps.write(tmp_path, fractal, seeds=(0,))
    workdir = tmp_path / "sweep"
    directory = SweepDirectory(workdir)
    directory.record(load_sweep(str(file)), directory.default_storage)
    (workdir / "runs/a/seed0").mkdir(parents=True)
    (workdir / "runs/a/seed0/metrics.jsonl").write_text("{}\n")
    assert main(full_sweeps.arguments(file, workdir, "--config.budget=61st")) == 2
    message = capsys.readouterr().err
    assert "holds another sweep:\n  budget: 60st there, 61st now" in message
    assert json.loads((workdir / "sweep.json").read_text())["sweep"]["budget"] == "60st"


def test_a_storage_that_cannot_be_reached_binds_nothing(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(controller._SweepMonitor, "watch", lambda monitor: 3)
    assert main(full_sweeps.arguments(file, tmp_path, f"--storage=sqlite:///{tmp_path}/missing/trials.db")) == 2
    assert "missing/trials.db cannot be reached" in capsys.readouterr().err
    directory = SweepDirectory(tmp_path)
    assert not directory.exists
    (tmp_path / "workers" / ".jobs.json.0000123.part").touch()
    assert main(full_sweeps.arguments(file, tmp_path)) == 3
    assert directory.storage() == directory.default_storage
    assert not [*tmp_path.rglob("*.part")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--status"], "no sweep was started there"),
        (["--status", "--workers=2"], "--status shows a sweep that has started"),
        (["--status", "--dry_run"], "--status shows a sweep that has started"),
        (["--status", "--config=x.py"], "--status shows a sweep that has started"),
        (["--status", "--config.budget=1ep"], "--status shows a sweep that has started"),
        ([], "which sweep? --config="),
        (["--config=x.py"], "there is no file 'x.py'"),
    ],
)
def test_missing_and_unused_options_are_reported(arguments, message, tmp_path, capsys):
    assert main(["sweep", f"--workdir={tmp_path}", *arguments]) == 2
    assert re.search(re.escape(message), capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


class LauncherHere:
    """A launcher whose workers work in this process until no run waits; only their runs are processes."""

    default_workers, description = 1, "this process"

    def __init__(self, directory, storage):
        self._directory = directory

    def start(self, slots):
        for slot in slots:
            assert Worker(str(self._directory.path), slot)() == EXIT_FINISHED

    def is_alive(self, slot):
        return False

    def stop(self):
        pass


def test_the_failure_of_one_system_leaves_the_others_complete(fractal, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(controller, "LocalLauncher", LauncherHere)
    monkeypatch.setattr(controller, "POLL", 0.0)
    monkeypatch.setenv("XLA_FLAGS", command_line.xla_flags(devices=1))
    file = full_sweeps.write(tmp_path, fractal, seeds=(0,), budget="30st")
    text = file.read_text().replace(
        "'learning_rate': 0.05}", "'learning_rate': 0.05}, 'model': {'options': {'depth': 3}}"
    )
    file.write_text(text)
    workdir = tmp_path / "sweep"
    assert main(full_sweeps.arguments(file, workdir)) == 2
    out = capsys.readouterr().out
    assert re.search(r"runs/b/seed0 failed: .*depth", out)
    assert "1 failed; see output.log in their directories. Run the same command again to retry them" in out
    assert list(full_sweeps.result_times(workdir)) == ["runs/a/seed0"]
    assert main(["compare", str(workdir)]) == 0
    page = (workdir / "report.html").read_text()
    assert re.search(r"depth", page)


def test_a_worker_that_died_and_its_successor_are_said_in_one_line(tmp_path, monkeypatch, capsys):
    """The first worker is killed with a checkpoint at step 1,200; the second one finds its run."""

    def finish(worker, path):
        shutil.copytree(finished_runs.write(tmp_path / "finished", finished_runs.one(0)), path, dirs_exist_ok=True)
        return EXIT_FINISHED, ""

    monkeypatch.setattr(controller, "POLL", 0.0)
    monkeypatch.setattr(Worker, "_run_process", finish)
    sweep = small_sweeps.sweep(systems=1)
    directory = SweepDirectory(tmp_path)
    directory.record(sweep, directory.default_storage)
    queue = SweepQueue(directory.default_storage, sweep, directory.identity())
    queue.fill()
    queue.claim(worker_name(1))
    (tmp_path / "runs/a/seed0/checkpoints/000000001200").mkdir(parents=True)
    monitor = controller._SweepMonitor(directory, queue, LauncherHere(directory, ""), 2)
    assert monitor.watch() == EXIT_FINISHED
    one, two = worker_name(1), worker_name(0)
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if "has ended" in line]
    assert said == [f"worker {one} has ended; worker {two} continued runs/a/seed0 from step 1,200"]
