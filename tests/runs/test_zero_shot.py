"""Zero-shot evaluation from files to stored predictions."""

import json

import numpy as np
import pytest
from PIL import Image

import main
from imagenet_repro.runs.zero_shot import evaluate_zero_shot
from imagenet_repro.scoring import predictions
from tests.goldens.formula import photograph
from tests.pretrained.test_image_text import GOLDENS, arrays_of, save

OPTIONS = {"activation": "quick_gelu"}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Return the keys of a data set of two classes with two photographs each."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for index in range(4):
        path = tmp_path / "photographs" / "validation" / ("hot_dog", "sail_boat")[index // 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(60, 80, index)).save(path)
    place = f"--data_dir={tmp_path / 'data'}"
    assert main.main(["prepare", f"folder:{tmp_path / 'photographs'}", "--name=photographs", place]) == 0
    return {
        "name": "photographs",
        "data_dir": str(tmp_path / "data"),
        "eval_split": "validation",
        "eval_batch_size": "8",
    }


@pytest.mark.slow
def test_predictions_are_those_of_the_texts_and_are_stored_with_them(data, tmp_path, capsys):
    weights = save(tmp_path / "clip.safetensors", arrays_of(np.load(GOLDENS / "openai.npz")))
    common = {"options": OPTIONS, "data": data, "out": str(tmp_path / "out.npz")}
    evaluate_zero_shot(str(weights), **common)
    first, out = predictions.load(tmp_path / "out.npz"), capsys.readouterr().out
    assert "2 class names: the data set's own" in out
    assert "computed, and kept in" in out
    assert first.provenance["zero_shot"]["class_names"] == ["hot dog", "sail boat"]
    assert first.provenance["protocol"]["name"] == "zeroshot"
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"sail_boat": "hot dog", "hot_dog": "sail boat"}))
    templates = tmp_path / "templates.txt"
    templates.write_text(f"{first.provenance['zero_shot']['templates'][0]}\n")
    evaluate_zero_shot(str(weights), classnames=str(names), templates=str(templates), **common)
    second = predictions.load(tmp_path / "out.npz")
    np.testing.assert_allclose(first.logits, second.logits[:, ::-1], atol=1e-4)  # the names changed places
    evaluate_zero_shot(str(weights), **common)
    assert "read from" in capsys.readouterr().out
