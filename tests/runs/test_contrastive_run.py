"""Tests of runs on pairs: they learn, are evaluated zero-shot, resume bit for bit, and can be evaluated again."""

import dataclasses
import json

import numpy as np
import pytest

from imagenet_repro.config import resolve_config
from imagenet_repro.errors import UserError
from imagenet_repro.runs import contrastive_run, evaluate, localize, train
from imagenet_repro.scoring import predictions
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import devices
from tests.scoring import synthetic_sets
from tests.training import small_towers

CLASSES = ("red", "green", "black")
COLOURS = (200, 200 * 256, 0)
ROWS = [(f"{i}.png", COLOURS[i % 3] + i % 7, {"label": i % 3}) for i in range(48)]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    synthetic_sets.write(directory, "colours", "train", ROWS, classes=CLASSES)
    return directory


@pytest.fixture
def settings(data_dir, monkeypatch):
    monkeypatch.setattr(devices, "start", lambda: None)
    small_towers.add(monkeypatch)
    data = {"name": "colours", "data_dir": str(data_dir), "train_split": "train[:32]", "eval_split": "train[32:]"}
    return {
        "budget": "40st",
        "batch_size": 16,
        "precision": "float32",
        "model": {"name": small_towers.NAME, "options": {"context": 12}},
        "data": data | {"image_size": small_towers.SIDE, "workers": 0, "threads": 1},
        "captions": {"name": "class_names", "templates": ("{name}", "very {name} things")},
        "loss": {"name": "sigmoid", "bias": -3.0},
        "zeroshot": {"templates": ("{name}", "very {name} things")},
        "optimizer": {"name": "adamw", "learning_rate": 3e-3},
        "evaluate_every": "20st",
        "checkpoint": {"every": "20st"},
        "log_every": 1,
    }


def losses(run):
    rows = map(json.loads, run.metrics.read_text().splitlines())
    return [row["loss"] for row in rows if row["kind"] == "train"]


def stored(run):
    return predictions.load(run.path / run.result()["predictions"])


def test_a_run_learns_and_is_evaluated_zero_shot(settings, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train.curves, "plot_curves", lambda *arguments: None)  # which has its own tests
    train.train(resolve_config(settings | {"evaluate_every": "40st", "checkpoint": {"every": "40st"}}), str(tmp_path))
    said = capsys.readouterr().out
    assert "3 of 6 captions examined are longer than 12 tokens and are cut" in said
    assert "evaluated zero-shot on 3 classes with 2 template(s)" in said
    run = Workdir(tmp_path)
    assert np.mean(losses(run)[-10:]) < np.mean(losses(run)[:10])
    assert run.result()["rates"]["top1_error"] < 0.5  # chance is 0.67
    assert run.result()["captions"] == {"truncated": 3, "examined": 6}


@pytest.mark.slow
def test_a_run_continues_bit_for_bit_and_is_evaluated_again(settings, tmp_path, monkeypatch):
    config = resolve_config(settings)
    train.train(config, str(tmp_path / "one"))
    run = Workdir(tmp_path / "one")
    original = contrastive_run.ContrastiveRun._evaluate
    evaluations = []

    def interrupted(self, state, last):
        evaluations.append(last)
        if len(evaluations) == 2:
            raise KeyboardInterrupt
        return original(self, state, last)

    monkeypatch.setattr(contrastive_run.ContrastiveRun, "_evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.train(config, str(tmp_path / "two"))
    train.train(config, str(tmp_path / "two"))
    other = Workdir(tmp_path / "two")
    assert losses(other)[-20:] == losses(run)[-20:]
    np.testing.assert_array_equal(stored(other).logits, stored(run).logits)

    evaluate.evaluate(str(run.path), which="last", data={}, out=str(tmp_path / "again.npz"))
    again = predictions.load(tmp_path / "again.npz")
    np.testing.assert_array_equal(again.logits, stored(run).logits)
    with pytest.raises(UserError, match=f"holds a run of {small_towers.NAME}"):
        localize.localize(str(run.path), boxes="", which="last", method=None, threshold=0.2, data={})


def test_pairs_without_captions_are_refused(settings, tmp_path):
    config = resolve_config(settings | {"captions": {"name": "stored"}})
    with pytest.raises(UserError, match=r"config\.captions\.feature: .*no text 'captions'; its texts are: file_name"):
        train.train(config, str(tmp_path / "none"))
    named = dataclasses.replace(config, captions=dataclasses.replace(config.captions, data="nothing"))
    with pytest.raises(UserError, match="unknown data set 'nothing'"):
        train.train(named, str(tmp_path / "none"))
