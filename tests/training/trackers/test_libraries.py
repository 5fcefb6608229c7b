"""Tests of W&B, MLflow and Trackio with the real libraries, offline; skipped where a library is not installed."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.training.trackers import runs

STEPS = [1, 2, 3, 4, 5, 6, 7]


@pytest.fixture(autouse=True)
def _own_environment(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")  # undone afterwards, as are the two below
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")  # with which Trackio would ask the Hub for a name


def train_in_three_processes(workdir, name):
    """Log a run that is stopped twice, each time beyond its last checkpoint, and that is extended in between."""
    runs.train(workdir, [name], 1, 4)
    runs.train(workdir, [name], 3, 5)
    runs.train(workdir, [name], 4, 7, finished=True, budget="100ep")


def check(train, evaluated, settings, result):
    """Check what the reader of a library returns: pairs of step and number, settings, numbers of the result."""
    assert [step for step, _ in train] == STEPS
    assert [loss for _, loss in train] == pytest.approx([runs.loss(step) for step in STEPS])
    assert [step for step, _ in evaluated] == [3, 6]
    assert settings["system"] == "mine"
    assert settings["optimizer.name"] == "sgd"
    assert result["result/top1_error"] == 0.25
    assert result["result/parameters"] == 1000


def test_mlflow_has_the_run_once(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    train_in_three_processes(tmp_path, "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("imagenet_repro").experiment_id])
    assert run.info.run_name == "mine, seed 3"
    assert run.info.status == "FINISHED"
    assert run.data.tags["system"] == "mine"
    assert (run.data.params["budget"], run.data.tags["changed.budget"]) == ("90ep", "100ep")

    def history(tag):
        return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, tag)]

    check(history("train/loss"), history("eval/top1_error"), run.data.params, run.data.metrics)
    assert "event/scale" not in run.data.metrics


def test_mlflow_gets_earlier_rows_when_it_is_added_later(tmp_path):
    pytest.importorskip("mlflow")
    from imagenet_repro.training.trackers.mlflow_store import MlflowStore
    from imagenet_repro.training.trackers.tracked_run import TrackedRun

    runs.train(tmp_path, [], 1, 3)
    runs.train(tmp_path, ["mlflow"], 4, 4)
    record = json.loads((tmp_path / "trackers.json").read_text())
    store = MlflowStore(TrackedRun(tmp_path, 4, runs.config("mlflow"), record["id"]))
    assert store.sent() == {"train": 4, "eval": 3}


def test_wandb_has_the_run_once_and_offline(tmp_path):
    pytest.importorskip("wandb")
    train_in_three_processes(tmp_path, "wandb")
    train, evaluated, settings, summary = [], [], {}, {}
    run_id = json.loads((tmp_path / "trackers.json").read_text())["id"]
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    assert [path.name for path in files] == [f"run-{run_id}.wandb"] * 3
    for path in files:
        for record in _wandb_records(path):
            if record.HasField("run"):
                assert (record.run.run_id, record.run.display_name) == (run_id, "mine, seed 3")
                assert (record.run.project, record.run.run_group) == ("imagenet_repro", "mine")
                settings |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            row = _wandb_values(record.history.item)
            train += [(record.history.step.num, row["train/loss"])] if "train/loss" in row else []
            evaluated += [(record.history.step.num, row["eval/top1_error"])] if "eval/top1_error" in row else []
            summary |= _wandb_values(record.summary.update)
    check(train, evaluated, settings, summary)


def test_wandb_gets_again_what_a_kill_has_lost(tmp_path):
    pytest.importorskip("wandb")
    runs.train(tmp_path, ["wandb"], 1, 4)
    (path,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    content = path.read_bytes()
    end = len(content) // 2
    path.write_bytes(content[:end])
    kept = [record.history.step.num for record in _wandb_records(path) if record.history.item]
    runs.train(tmp_path, ["wandb"], 5, 5)
    steps = [
        record.history.step.num
        for path in sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
        for record in _wandb_records(path)
        if "train/loss" in _wandb_values(record.history.item)
    ]
    assert max(kept, default=0) < 4
    assert steps == [1, 2, 3, 4, 5]


def _wandb_values(items):
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def _wandb_records(path):
    """Yield the records of an offline run: W&B's messages in LevelDB's log format, which no reader of its own opens.

    A file has blocks of 32 KiB, the first with 7 bytes of W&B's. A record, or its first, middle or last part, has its
    checksum (4 bytes), its length (2) and its type (1: complete, 2: first, 3: middle, 4: last).
    """
    from wandb.proto import wandb_internal_pb2

    content, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        if 32_768 - position % 32_768 < 7:  # too few bytes of the block for another record
            position += 32_768 - position % 32_768
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if position > len(content):
            return
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def test_trackio_has_the_run_once(tmp_path):
    """In a process of its own, since Trackio reads TRACKIO_DIR when it is imported."""
    pytest.importorskip("trackio")
    script = f"""
import json, pathlib
from tests.training.trackers import runs, test_libraries
test_libraries.train_in_three_processes(pathlib.Path({str(tmp_path)!r}), "trackio")
import trackio
from trackio.sqlite_storage import SQLiteStorage
(run,) = trackio.Api().runs("imagenet_repro")
rows = SQLiteStorage.get_logs("imagenet_repro", run.name, run_id=run.id)
print(json.dumps([run.name, run.config, rows], default=str))
"""
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "store"), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    name, settings, rows = json.loads(done.stdout.splitlines()[-1])
    assert name.startswith("mine, seed 3, ")
    train = [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]
    evaluated = [(row["step"], row["eval/top1_error"]) for row in rows if "eval/top1_error" in row]
    check(train, evaluated, settings, next(row for row in rows if "result/top1_error" in row))
    assert "trackio show" not in done.stdout


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_place_that_cannot_be_written_ends_the_tracker_alone(tmp_path, name, capsys):
    pytest.importorskip(name)
    (tmp_path / name).touch()  # where a directory should be
    runs.train(tmp_path, [name], 1, 3, finished=True)
    assert capsys.readouterr().out.count("the run goes on without it") == 1
    assert len((tmp_path / "metrics.jsonl").read_bytes().splitlines()) == 7
