"""Tests of dropping the checkpoints of finished runs: what stays, and that a kill leaves no half of one."""

import dataclasses
import os
import shutil

import pytest

from imagenet_repro.config.sweep import resolve_sweep
from imagenet_repro.storage import locks
from imagenet_repro.storage.json_files import write_json
from imagenet_repro.storage.workdir import LOCK, RESULT, Workdir
from imagenet_repro.sweeps.finished_checkpoints import FinishedCheckpoints, drop_checkpoints
from imagenet_repro.sweeps.plan import plan_runs
from imagenet_repro.sweeps.queue import RunStatus
from imagenet_repro.training import seals
from tests.sweeps import small_sweeps

ERRORS = {4: 0.5, 8: 0.1, 12: 0.2}  # of the checkpoints of each run, by step
SIZE = 1000  # bytes of the arrays of a checkpoint


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return the directory of a finished run with sealed checkpoints, 8 being the best and 12 the last."""
    path = tmp_path_factory.mktemp("run")
    for step, error in ERRORS.items():
        checkpoint = path / "checkpoints" / str(step)
        for name, content in {"state/d/0": b"x" * SIZE, "info/metadata": b"{}"}.items():
            (checkpoint / name).parent.mkdir(parents=True)
            (checkpoint / name).write_bytes(content)
        (checkpoint / "metrics").mkdir()
        seals.write(checkpoint)
        seals.write_error(checkpoint, error)
    write_json(path / RESULT, {})
    (path / "metrics.jsonl").write_text("{}\n")
    return path


def steps(path):
    return sorted(int(entry.name) for entry in (path / "checkpoints").iterdir() if entry.name.isdecimal())


@pytest.fixture
def sweep_of(original, tmp_path):
    """Return a function that returns a sweep of two searched systems, the status of its runs, and writes the runs."""

    def create(states=None, **changes):
        sweep = small_sweeps.sweep(search={"trials": 3}, **changes)
        runs = []
        for number, planned in enumerate(plan_runs(sweep)):
            state = (states or {}).get(planned.name, "complete")
            value = 0.1 * (number + 1) if state == "complete" else None
            runs.append(RunStatus(planned, state, {}, value, "", "", None))
            shutil.copytree(original, tmp_path / planned.name)
        return sweep, runs

    return create


def test_trials_that_lost_keep_no_checkpoint_and_other_runs_the_best_and_the_last(sweep_of, tmp_path):
    sweep, runs = sweep_of()
    checkpoints = FinishedCheckpoints(tmp_path, sweep)
    checkpoints.update(runs)
    kept = {run.planned.name: steps(tmp_path / run.planned.name) for run in runs}
    lost = [f"search/{system}/{number}" for system in "ab" for number in ("001", "002")]
    assert {name for name, of_run in kept.items() if not of_run} == set(lost)
    assert all(of_run == [8, 12] for name, of_run in kept.items() if name not in lost)
    assert all((tmp_path / name / file).exists() for name in kept for file in (RESULT, "metrics.jsonl"))
    (line,) = checkpoints.summary()
    assert "4 trials that were not selected and all but the best and the last checkpoint of 4 runs" in line
    checkpoints.update(runs)
    assert checkpoints.summary() == [line]
    again = FinishedCheckpoints(tmp_path, sweep)
    again.update(runs)
    assert again.summary() == []


@pytest.mark.parametrize("state", ["running", "waiting", "failed"])
def test_nothing_of_a_search_is_dropped_before_all_its_trials_are_complete(sweep_of, tmp_path, state):
    sweep, runs = sweep_of({"search/a/002": state, "runs/a/seed0": "waiting", "runs/b/seed0": "running"})
    FinishedCheckpoints(tmp_path, sweep).update(runs)
    untouched = ("search/a/000", "search/a/001", "search/a/002", "runs/a/seed0", "runs/b/seed0")
    assert all(steps(tmp_path / name) == list(ERRORS) for name in untouched)
    assert steps(tmp_path / "search/b/001") == []


def test_a_run_in_use_or_without_a_result_is_left_until_it_is_free(sweep_of, tmp_path):
    sweep, runs = sweep_of()
    (tmp_path / "search/b/001" / RESULT).unlink()
    lock = locks.acquire(tmp_path / "search/a/001" / LOCK)
    checkpoints = FinishedCheckpoints(tmp_path, sweep)
    checkpoints.update(runs)
    assert steps(tmp_path / "search/a/001") == steps(tmp_path / "search/b/001") == list(ERRORS)
    assert lock is not None
    lock.release()
    write_json(tmp_path / "search/b/001" / RESULT, {})
    checkpoints.update(runs)
    assert steps(tmp_path / "search/a/001") == steps(tmp_path / "search/b/001") == []


def test_a_trial_that_diverged_keeps_nothing_although_it_has_no_result(sweep_of, tmp_path):
    sweep, runs = sweep_of()
    (tmp_path / "search/a/002" / RESULT).unlink()
    runs = [dataclasses.replace(run, value=1.0) if run.planned.name == "search/a/002" else run for run in runs]
    FinishedCheckpoints(tmp_path, sweep).update(runs)
    assert steps(tmp_path / "search/a/002") == []


@pytest.mark.parametrize("key", ["source", "teacher", "choice"])
def test_a_run_that_another_system_starts_from_keeps_its_checkpoints(sweep_of, tmp_path, key, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {
        "source": {"set": {"model": {"weights": str(tmp_path / "search/a/002")}}},
        "teacher": {"set": {"distill": {"name": "soft", "teacher": "search/a/002"}}},
        "choice": {"search": [{"key": "model.weights", "choices": ["search/a/001/../002", "x.pth", 3]}]},
    }[key]
    nested = small_sweeps.settings(search={"trials": 3})
    nested["systems"]["b"] |= settings
    _, runs = sweep_of()
    FinishedCheckpoints(tmp_path, resolve_sweep(nested)).update(runs)
    assert steps(tmp_path / "search/a/002") == list(ERRORS)
    assert steps(tmp_path / "search/a/001") == []


def test_all_is_kept_where_the_sweep_says_so(sweep_of, tmp_path):
    sweep, runs = sweep_of(checkpoint={"keep_finished": "all"})
    checkpoints = FinishedCheckpoints(tmp_path, sweep)
    checkpoints.update(runs)
    assert all(steps(tmp_path / run.planned.name) == list(ERRORS) for run in runs)
    assert checkpoints.summary() == []


def test_old_checkpoints_stay_while_the_last_one_is_damaged(sweep_of, tmp_path):
    sweep, runs = sweep_of()
    (tmp_path / "runs/a/seed0/checkpoints/12/state/d/0").write_bytes(b"y")
    checkpoints = FinishedCheckpoints(tmp_path, sweep)
    checkpoints.update(runs)
    assert steps(tmp_path / "runs/a/seed0") == list(ERRORS)
    assert "runs/a/seed0 cannot be dropped: checkpoint" in checkpoints.summary()[1]


class Killed(BaseException):
    """Stands for the end of the process, which no code catches."""


@pytest.mark.parametrize("all_of_them", [True, False])
def test_a_kill_at_any_moment_leaves_whole_checkpoints_and_the_next_call_ends_the_work(
    original, tmp_path, monkeypatch, all_of_them
):
    for number in range(100):
        workdir = Workdir(shutil.copytree(original, tmp_path / str(number)))
        with monkeypatch.context() as patch:
            left = [number]
            for name in ("rename", "replace", "unlink", "rmdir"):
                patch.setattr(os, name, _until_killed(getattr(os, name), left))
            try:
                drop_checkpoints(workdir, all_of_them=all_of_them, reason="for a test")
                break
            except Killed:
                pass
        for step in steps(workdir.path):
            seals.check(workdir.checkpoints / str(step))
        drop_checkpoints(workdir, all_of_them=all_of_them, reason="for a test")
        assert steps(workdir.path) == ([] if all_of_them else [8, 12])
        assert len(list(workdir.checkpoints.iterdir())) == len(steps(workdir.path))
        assert "dropped, for a test" in workdir.explain_dropped("4")
    assert number > 6  # so many operations were interrupted


def _until_killed(call, left):
    def operation(*args, **kwargs):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return call(*args, **kwargs)

    return operation


def test_whoever_asks_for_a_dropped_checkpoint_is_told_why_it_is_gone(sweep_of, tmp_path):
    sweep, runs = sweep_of()
    FinishedCheckpoints(tmp_path, sweep).update(runs)
    why = "the checkpoints of this finished run were dropped, because the search of a selected search/a/000; "
    trial = Workdir(tmp_path / "search/a/001")
    assert all(why in trial.explain_dropped(which) for which in ("4", "13", "best", "last"))
    final = Workdir(tmp_path / "runs/a/seed0")
    dropped = "the checkpoint of step 4 of this finished run was dropped, because only the best"
    assert dropped in final.explain_dropped("4")
    assert not any(map(final.explain_dropped, ("8", "12", "best", "last", "13")))
