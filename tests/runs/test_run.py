"""Tests of the end of a run (`runs/run.py`) with a loop that trains nothing."""

import json
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest

from imagenet_repro.config import resolve_config
from imagenet_repro.data.sources import Record, Split, Splits
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.inference import evaluator
from imagenet_repro.runs import run
from imagenet_repro.scoring import predictions
from imagenet_repro.scoring.metrics import ErrorRates
from imagenet_repro.scoring.predictions import Predictions
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import loop
from imagenet_repro.training.budget import Spent
from imagenet_repro.training.state import TrainState

IMAGES = {"train": 5, "eval": 4, "test": 3}
STATE = mock.Mock(spec=TrainState)
SPENT = Spent(steps=7, images=56, epochs=1.0, flops=1e9, seconds=2.0)


class Seen(list):
    """Records that log every read."""

    def __init__(self, name, read):
        super().__init__(Record(b"", 0, f"{name}/{i}") for i in range(IMAGES[name]))
        self._name, self._read = name, read

    def __getitem__(self, index):
        self._read.append(self._name)
        return super().__getitem__(index)


class Evaluator(evaluator.Evaluator):
    """An evaluator that reads its split and reports every guess as wrong."""

    def __init__(self, config, score, spread, split, say=print):
        self.score, self.spread, self.say, self.split = score, spread, say, split

    def predict(self, state, provenance):
        ids = [self.split.records[i].id for i in range(len(self.split.records))]
        n = len(ids)
        actual = Predictions(
            np.array(ids), np.zeros(n, np.int32), np.ones((n, 2), np.int32), np.zeros((n, 2), np.float16)
        )
        return ErrorRates(n, n, n, cross_entropy=1.0), actual

    def rates(self, state):
        return evaluator.metrics_row(self.predict(state, {})[0], 0.1, self.split)


class Made(run.Run):
    system = mock.Mock(scoring_state=lambda state: state)

    def _job(self):
        self.evaluator = Evaluator(self.config, "score", "spread", self.eval_split)
        job = mock.Mock(spec=loop.TrainingJob)
        job.evaluate, job.log = self._evaluate, mock.Mock()
        job.bad_records = mock.Mock(indices=[1, 3])
        return job

    def _summary(self):
        return {"system": "made_up", "parameters": 1, "multiply_adds": 1}


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Run with a test split; return the order of reads, with "end" for the end of the loop, and the workdir."""

    def go(test_split, name="run"):
        read = []

        def run(job):
            rows = [job.evaluate(STATE, last) for last in (False, True)]
            assert [row["evaluated"] for row in rows] == [IMAGES["eval"]] * 2
            read.append("end")
            return loop.Outcome(STATE, SPENT, None)

        monkeypatch.setattr(loop, "run", run)
        monkeypatch.setattr("imagenet_repro.runs.run.Evaluator", Evaluator)
        settings = {"train_split": "train", "eval_split": "eval", "test_split": test_split}
        config = resolve_config({"data": {"name": "made_up", **settings}})
        workdir = Workdir(tmp_path / name)
        workdir.lock()
        workdir.record_config(config, {})
        parts = {part: Split("made_up", part, "1.0.0", ("a", "b"), n, Seen(part, read)) for part, n in IMAGES.items()}
        Made(config, workdir, Splits(parts["train"], parts["eval"], parts[test_split or "eval"])).go()
        return read, workdir

    return go


def test_the_result_is_of_the_test_split_which_is_read_only_at_the_end(trained):
    read, workdir = trained("test")
    assert read == ["eval"] * 8 + ["end"] + ["test"] * 3
    result = workdir.result()
    assert result["rates"]["images"] == 3
    assert Path(result["predictions"]).name == "made_up_test.npz"
    stored = predictions.load(workdir.path / result["predictions"])
    assert stored.id.tolist() == ["test/0", "test/1", "test/2"]
    assert stored.provenance["step"] == 7


def test_without_one_the_last_evaluation_is_the_result_and_nothing_is_read_again(trained):
    read, workdir = trained("")
    assert read == ["eval"] * 8 + ["end"]
    assert workdir.result()["rates"]["images"] == 4
    assert predictions.load(workdir.path / workdir.result()["predictions"]).id.tolist() == [
        f"eval/{i}" for i in range(4)
    ]


def test_a_damaged_test_split_fails_at_the_end_without_a_result(trained, monkeypatch, tmp_path):
    def damaged(self, index):
        if self._name == "test":
            raise UserError("record test/0 cannot be read")
        return list.__getitem__(self, index)

    monkeypatch.setattr(Seen, "__getitem__", damaged)
    with pytest.raises(UserError, match="record test/0"):
        trained("test")
    assert not (tmp_path / "run/result.json").exists()
    assert not (tmp_path / "run/predictions").exists()


def test_error_rates_are_on_the_screen_if_they_cannot_be_saved(trained, monkeypatch, capsys):
    def full(path, predicted):
        raise SaveError("could not write predictions")

    monkeypatch.setattr(predictions, "save", full)
    with pytest.raises(SaveError):
        trained("test")
    assert "made_up test: top-1 error 100.00 %, top-5 error 100.00 % of 3 images" in capsys.readouterr().out


def test_the_result_has_every_key_that_a_page_needs(trained):
    _, workdir = trained("test")
    result = json.loads((workdir.path / "result.json").read_text())
    assert result["classes"] == ["a", "b"]
    assert result["peak_memory"]["of"] == "process"
    assert result["left_out"] == {"training": 2, "scored": 0}
    assert result["spent"] == {"steps": 7, "images": 56, "epochs": 1.0, "flops": 1e9, "seconds": 2.0}
    assert result["provenance"]["config"]["data"]["test_split"] == "test"


def test_only_the_first_of_several_processes_writes(trained, monkeypatch, tmp_path):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    trained("test")
    assert not (tmp_path / "run/result.json").exists()
