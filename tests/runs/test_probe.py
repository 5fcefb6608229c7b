"""Tests of the judgement of frozen features: all methods on a small network, what is stored, and bad input."""

import dataclasses
import json

import numpy as np
import pytest

from imagenet_repro import models
from imagenet_repro.config import resolve_config
from imagenet_repro.errors import UserError
from imagenet_repro.inference.feature_extractor import FeatureExtractor
from imagenet_repro.probes import head_checkpoint, stored_head
from imagenet_repro.probes.head_checkpoint import HeadCheckpoint
from imagenet_repro.runs import probe, probe_methods
from imagenet_repro.runs.probe import Frozen
from imagenet_repro.scoring import predictions
from imagenet_repro.training.functional import FunctionalNetwork
from tests.data import memory_split

NETWORK, TRAIN, SCORED = "lenet5", 120, 35
SETTINGS = {
    "held_out": "0.25",
    "linear.steps": "4",
    "linear.batch_size": "32",
    "linear.learning_rates": "0.01,0.1",
    "knn.k": "5,20",
    "logistic.max_iterations": "20",
    "logistic.weakest": "1e-2",
    "logistic.strongest": "1e2",
    "logistic.per_decade": "1",
    "fewshot.shots": "1,5",
}
CONFIG = resolve_config(
    {
        "model": {"name": NETWORK},
        "precision": "float32",
        "data": {"image_size": 32, "threads": 1, "workers": 0, "eval_split": "validation"},
        "batch_size": 64,
    }
)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    network = FunctionalNetwork(models.create(NETWORK, num_classes=0))
    out = tmp_path_factory.mktemp("probe")
    return Frozen(CONFIG, network.params, network.stats, "LeNet", {"step": 3}, out)


@pytest.fixture(autouse=True)
def splits(monkeypatch):
    train, scored = memory_split.make_split(TRAIN), memory_split.make_split(SCORED)
    monkeypatch.setattr(probe, "_open_splits", lambda config: (train, scored))


def judge(frozen, methods="linear,knn,logistic,fewshot", features=None, **changes):
    settings = SETTINGS | {key.replace("__", "."): value for key, value in changes.items()}
    assert probe.judge(frozen, methods=methods, out=None, features=features, settings=settings) == 0
    return json.loads((frozen.directory / "memory_train" / "probe.json").read_text())


@pytest.fixture(scope="module")
def result(frozen):
    with pytest.MonkeyPatch.context() as patch:
        train, scored = memory_split.make_split(TRAIN), memory_split.make_split(SCORED)
        patch.setattr(probe, "_open_splits", lambda config: (train, scored))
        return judge(frozen)


def test_every_classifier_has_rates_intervals_and_predictions(frozen, result):
    rows = [(name, row) for name, method in result["methods"].items() for row in method["rows"]]
    assert [row["setting"] for _, row in rows if _ != "logistic"] == [
        f"rate {result['methods']['linear']['rows'][0]['setting'].split()[1]}",
        *("k = 5", "k = 20", "1 shot", "5 shots"),
    ]
    for name, row in rows:
        low, high = row["top1_interval"]
        assert low <= row["top1_error"] <= high
        files = [predictions.load(frozen.directory / "memory_train" / file) for file in row["predictions"]]
        assert len(files) == (3 if name == "fewshot" else 1)
        assert sum(one.error_rates().top1_wrong for one in files) == row["top1_wrong"]
        assert all(np.array_equal(one.label, np.arange(SCORED) % 5) for one in files)
        assert all(one.id.tolist() == [f"img_{number:02d}" for number in range(SCORED)] for one in files)
        assert files[0].provenance["protocol"] == {"name": f"probe_{name}"}
        assert files[0].provenance["config"]["model"]["name"] == NETWORK
    assert result["provenance"]["step"] == 3
    assert result["passes"]["train"]["images"] == TRAIN


def test_the_result_says_what_selecting_on_the_scored_images_would_have_claimed(result):
    for name in ("linear", "knn", "logistic"):
        method = result["methods"][name]
        assert method["claimed_wrong"] <= method["selected_wrong"]
        assert method["tried"] > 1
    heads = result["methods"]["linear"]["heads"]
    assert min(head["wrong"] for head in heads) == result["methods"]["linear"]["claimed_wrong"]
    best = min(head["held_out_wrong"] for head in heads)
    assert result["methods"]["linear"]["rows"][0]["held_out_wrong"] == best
    assert result["methods"]["linear"]["rows"][0]["held_out_images"] == 30


def test_a_second_call_computes_nothing_again(frozen, result, monkeypatch, capsys):
    def forbidden(*arguments, **options):
        raise AssertionError("computed again")

    monkeypatch.setattr(FeatureExtractor, "_batches_of_rows", forbidden)
    monkeypatch.setattr(probe, "RUN", dict.fromkeys(probe_methods.METHODS, forbidden))
    again = judge(frozen)
    assert again["methods"] == result["methods"]
    text = capsys.readouterr().out
    assert "features of memory train: stored in" in text
    assert "selecting among 2 on the scored images themselves would have claimed" in text


def test_another_setting_computes_only_its_method(frozen, result, monkeypatch):
    monkeypatch.setattr(FeatureExtractor, "_batches_of_rows", None)
    changed = judge(frozen, methods="knn,fewshot", knn__k="7")
    assert [row["setting"] for row in changed["methods"]["knn"]["rows"]] == ["k = 7"]
    assert changed["methods"]["fewshot"] == result["methods"]["fewshot"]
    assert changed["methods"]["linear"] == result["methods"]["linear"]


@pytest.mark.parametrize("crops", ["center", pytest.param("random", marks=pytest.mark.slow)])
def test_an_interrupted_training_of_heads_continues_with_the_same_bits(frozen, monkeypatch, capsys, tmp_path, crops):
    changes = {"linear__steps": "5", "linear__crops": crops, "seed": "7"}
    features = str(frozen.directory / "features")
    cut, whole = (dataclasses.replace(frozen, directory=tmp_path / name) for name in ("cut", "whole"))
    save = HeadCheckpoint.save_if_due

    def save_and_stop(checkpoint, state):
        save(checkpoint, state)
        if state.step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(head_checkpoint, "SECONDS", 0.0)
        patch.setattr(HeadCheckpoint, "save_if_due", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            judge(cut, methods="linear", features=features, **changes)
    judge(cut, methods="linear", features=features, **changes)
    assert "linear: continues after step 3 of 5" in capsys.readouterr().out
    assert not list(frozen.directory.rglob("heads_in_training*"))
    judge(whole, methods="linear", features=features, **changes)
    assert "continues" not in capsys.readouterr().out
    heads = [stored_head.load(one.directory / "memory_train" / "linear_head.npz") for one in (cut, whole)]
    np.testing.assert_array_equal(heads[0].weight, heads[1].weight)
    np.testing.assert_array_equal(heads[0].bias, heads[1].bias)


@pytest.mark.parametrize(
    ("methods", "changes", "message"),
    [
        ("linear,nearest", {}, r"--method=linear,nearest: there is no 'nearest'"),
        ("knn", {"knn__k": "5,91"}, r"--probe\.knn\.k=91: there are 90 training images"),
        ("fewshot", {"fewshot__shots": "25"}, r"class 'a' has 24 training image\(s\) with features, and 25 are to be"),
        ("knn", {"layer": "class_token"}, r"--probe\.layer=class_token: lenet5 has no such features.*pooled"),
        ("knn", {"held_out": "0.001"}, r"--probe\.held_out=0\.001 of 120 training images is 0"),
        ("knn", {"knn__neighbours": "3"}, r"neighbours"),
        ("linear", {"linear__steps": "0"}, r"probe\.linear\.steps"),
    ],
)
def test_bad_settings_are_refused(frozen, methods, changes, message):
    with pytest.raises(UserError, match=message):
        judge(frozen, methods=methods, **changes)


def test_other_features_in_the_directory_are_refused(frozen, result):
    directory = next((frozen.directory / "features").iterdir())
    described = json.loads((directory / "features.json").read_text())
    try:
        (directory / "features.json").write_text(json.dumps(described | {"parameters": "other"}))
        with pytest.raises(UserError, match=r"holds features of lenet5 on memory train, .*differ in parameters"):
            judge(frozen, methods="knn")
    finally:
        (directory / "features.json").write_text(json.dumps(described))


def test_a_stored_head_scores_as_when_it_was_selected(frozen, result, tmp_path):
    head = frozen.directory / "memory_train" / "linear_head.npz"
    settings = SETTINGS | {"linear.head": str(head)}
    features = str(frozen.directory / "features")
    assert probe.judge(frozen, methods="linear", out=str(tmp_path), features=features, settings=settings) == 0
    again = json.loads((tmp_path / "memory_train" / "probe.json").read_text())["methods"]["linear"]
    before = result["methods"]["linear"]
    assert again["rows"][0]["top1_wrong"] == before["rows"][0]["top1_wrong"]
    assert again["layer"] == before["layer"]
    assert "selected" not in again


def test_heads_are_on_the_layers_that_exist():
    assert probe_methods.grid_layers({"pooled": ("pooled",)}) == ({"pooled": ("pooled",)}, ("pooled",))
    tokens = tuple(f"class_token_{number}" for number in (4, 3, 2, 1))
    layers = {
        "pooled": ("pooled",),
        "class_token": tokens[-1:],
        "class_token_patch_mean": (tokens[-1], "patch_mean"),
        "class_tokens_4": tokens,
        "class_tokens_4_patch_mean": (*tokens, "patch_mean"),
    }
    chosen, parts = probe_methods.grid_layers(layers)
    assert list(chosen) == list(layers)[1:]
    assert parts == (*tokens, "patch_mean")
