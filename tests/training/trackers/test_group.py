"""Tests of trackers as a group and in the background, with an invented adapter that fails, waits or counts."""

import threading

import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.training.trackers import background, group, tracked_run
from tests.training.trackers import runs


class Fake(background.Adapter):
    """An adapter whose methods do what a test asks for."""

    title, place = "Fake", "in memory"

    def __init__(self, stored=None, write=None, close=None):
        self.rows, self.result = [], "open"
        self.stored, self._write, self._close = stored, write, close

    def sent(self):
        return self.stored

    def write(self, rows):
        if self._write:
            self._write(rows)
        self.rows += rows

    def close(self, result):
        if self._close:
            self._close()
        self.result = result


def steps(fake, tag="train/loss"):
    return [row.step for row in fake.rows if tag in row.numbers]


@pytest.fixture
def fakes(monkeypatch):
    """Replace W&B by the adapters that a test puts into this list, one for each process."""
    adapters = []
    monkeypatch.setitem(group.ADAPTERS, "wandb", lambda run: adapters.pop(0))
    return adapters


def test_a_resume_writes_no_step_twice_where_the_tracker_cannot_be_asked(tmp_path, fakes):
    processes = [Fake() for _ in range(3)]
    fakes += processes
    runs.train(tmp_path, ["wandb"], 1, 6)
    runs.train(tmp_path, ["wandb"], 3, 4)  # stopped before it comes to the steps that the first one sent
    runs.train(tmp_path, ["wandb"], 3, 7, finished=True)
    assert [steps(fake) for fake in processes] == [[1, 2, 3, 4, 5, 6], [], [7]]
    assert [steps(fake, "eval/top1_error") for fake in processes] == [[3, 6], [], []]
    assert [fake.result is None for fake in processes] == [True, True, False]


def test_an_evaluation_that_a_stop_postponed_is_written_after_the_resume(tmp_path, fakes):
    processes = [Fake(), Fake()]
    fakes += processes
    runs.train(tmp_path, ["wandb"], 1, 2)
    run_log = runs.log.RunLog(tmp_path, 2, runs.config("wandb"))
    run_log.write("eval", 2, top1_error=0.5)
    run_log.close()
    assert steps(processes[1], "eval/top1_error") == [2]


def test_a_tracker_that_is_added_or_lost_rows_gets_the_earlier_ones(tmp_path, fakes):
    processes = [Fake(), Fake(stored={"train": 2, "eval": 0})]
    fakes += processes
    runs.train(tmp_path, [], 1, 3)
    runs.train(tmp_path, ["wandb"], 4, 4)
    assert steps(processes[0]) == [1, 2, 3, 4]
    runs.train(tmp_path, ["wandb"], 5, 5)
    assert (steps(processes[1]), steps(processes[1], "eval/top1_error")) == ([3, 4, 5], [3])


def test_all_processes_of_a_run_have_one_id_and_other_runs_another(tmp_path):
    one, again, other = (
        tracked_run.update_record(tmp_path / place, {"train": 0, "eval": 0}) for place in ("a", "a", "b")
    )
    assert one.id == again.id != other.id
    (tmp_path / "a" / "trackers.json").write_text("{")
    assert tracked_run.update_record(tmp_path / "a", {"train": 5, "eval": 0}).steps == {"train": 5, "eval": 0}


def test_a_tracker_that_fails_while_training_is_said_once_and_dropped(tmp_path, fakes, capsys):
    def fail(rows):
        raise OSError(28, "No space left\non device")

    fakes.append(Fake(write=fail))
    runs.train(tmp_path, ["wandb"], 1, 6, finished=True)
    out = capsys.readouterr().out
    assert out.count("Fake: [Errno 28] No space left on device; the run goes on without it") == 1
    assert len((tmp_path / "metrics.jsonl").read_bytes().splitlines()) == 14


def test_a_tracker_that_hangs_delays_neither_training_nor_its_end(tmp_path, fakes, capsys, monkeypatch):
    monkeypatch.setattr(background, "MOST_WAITING", 3)
    monkeypatch.setattr(background, "CLOSING_SECONDS", 0.01)
    forever = threading.Event()
    fakes += [Fake(write=lambda rows: forever.wait()), Fake(close=forever.wait)]
    runs.train(tmp_path, ["wandb"], 1, 12)
    assert "Fake: it is 3 rows behind; the run goes on without it" in capsys.readouterr().out
    runs.train(tmp_path, ["wandb"], 13, 13)
    assert "Fake: it has not ended after 0 s; the run goes on without it" in capsys.readouterr().out
    forever.set()


def test_a_tracker_that_does_not_start_does_not_stop_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(background, "STARTING_SECONDS", 0.01)
    forever = threading.Event()
    monkeypatch.setitem(group.ADAPTERS, "wandb", lambda run: forever.wait())
    runs.train(tmp_path, ["wandb"], 1, 2)
    assert "wandb: it has not started after 0 s; the run goes on without it" in capsys.readouterr().out
    forever.set()


def test_a_record_that_cannot_be_written_leaves_training_alone(tmp_path, fakes, capsys):
    (tmp_path / "trackers.json").mkdir()
    runs.train(tmp_path, ["wandb"], 1, 1)
    assert "the run goes on without wandb" in capsys.readouterr().out


def test_other_processes_write_nothing(tmp_path, fakes, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    runs.train(tmp_path, ["wandb", "tensorboard"], 1, 3, finished=True)
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_is_missing_is_an_error_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(group.importlib.util, "find_spec", lambda name: None)
    group.require_installed(["tensorboard"])
    with pytest.raises(UserError, match=r"config\.log\.to: mlflow is not installed; pip install .*\[mlflow\]"):
        group.require_installed(["tensorboard", "mlflow"])
    monkeypatch.undo()
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trackio").mkdir()  # a directory of that name is no library
    if not _is_library("trackio"):
        with pytest.raises(UserError, match="trackio is not installed"):
            group.require_installed(["trackio"])


def _is_library(name):
    import importlib.metadata

    return any(name in found for found in importlib.metadata.packages_distributions().get(name, []))
