"""Tests of model cards: what they claim, and that the recipe beside them is the run's."""

import dataclasses
import json

import pytest

from imagenet_repro.config import Config, Data, Log, Sgd, config_to_dict, load_config, resolve_config
from imagenet_repro.config.model import Model as ModelConfig
from imagenet_repro.pretrained.hub import Repository
from imagenet_repro.report import model_card
from imagenet_repro.report.model_card import Measurement, Model

CONFIG = Config(
    name="mine",
    seed=4,
    log=Log(("wandb",)),
    data=Data(name="folder", data_dir="/home/me/data"),
    model=ModelConfig(weights="/home/me/pre.safetensors"),
    optimizer=Sgd(nesterov=True),
)
MEASURED = Measurement("folder", "test", images=200, top1_wrong=50, top5_wrong=10)
MODEL = Model(
    config=CONFIG,
    options={"stem": "small"},
    parameters=1_234_567,
    classes=tuple(f"class {number}" for number in range(12)),
    step=90,
    weights="averaged weights",
    images=None,
    measurement=MEASURED,
    spent={"images": 900, "epochs": 4.5, "seconds": 60.0},
    provenance={
        "commit": "abc",
        "devices": {"platform": "gpu", "H200": 2},
        "weights": {"path": "/home/me/pre.safetensors", "sha256": "0f"},
    },
    sha256="1e",
)
REPOSITORY = Repository("me/net")


def card(license_id="mit", **changes):
    return model_card.card(dataclasses.replace(MODEL, **changes), REPOSITORY, license_id)


def metadata(text):
    lines = text.split("---\n")[1].splitlines()
    return {key: json.loads(value) for key, _, value in (line.partition(": ") for line in lines)}


def test_a_card_states_the_result_with_its_interval_images_and_training():
    text = card()
    assert "| top-1 | 200 | 25.00 | [19.51, 31.43] |" in text  # SciPy's binomtest(50, 200), method "wilson"
    assert "Data set `folder`, split `test`. One training, seed 4." in text
    assert "optimistic" not in text
    assert "1.23 M parameters, 12 classes" in text
    assert "It saw 900 images (4.5 epochs) in 60.0 s" in text
    assert "started from `pre.safetensors` (SHA-256 0f)" in text
    assert "on 2 x H200" in text
    entries = metadata(text)
    assert (entries["license"], entries["library_name"]) == ("mit", "imagenet_repro")
    errors = {m["name"]: m["value"] for m in entries["model-index"][0]["results"][0]["metrics"]}
    assert errors == {"top-1 error": 0.25, "top-5 error": 0.05}


def test_a_card_claims_nothing_that_was_not_measured():
    text = card(license_id="unknown", measurement=None, spent=None, classes=("a", "b"))
    assert "None was measured on the checkpoint of step 90." in text
    assert "%" not in text
    assert "It saw" not in text
    assert "model-index" not in metadata(text)
    assert "The author has not stated a license." in text
    assert "top-5" not in card(classes=("a", "b"))
    assert "Training evaluated 7 times on these images." in card(
        measurement=dataclasses.replace(MEASURED, evaluations=7)
    )


@pytest.mark.parametrize("write", [card, lambda: model_card.model_json(MODEL), lambda: model_card.recipe(MODEL)])
def test_no_file_names_a_directory_of_the_author(write):
    assert "/home" not in write()


def test_the_description_has_the_network_and_its_classes():
    content = json.loads(model_card.model_json(MODEL))
    assert (content["network"], content["options"]) == ("resnet50", {"stem": "small"})
    assert (content["classes"][:2], content["sha256"]) == (["class 0", "class 1"], "1e")
    assert content["result"]["top1_wrong"] == 50


def test_the_recipe_is_the_configuration_without_directories_and_trackers(tmp_path):
    (tmp_path / "recipe.py").write_text(model_card.recipe(MODEL))
    again = config_to_dict(load_config(str(tmp_path / "recipe.py")))
    expected = config_to_dict(CONFIG)
    expected["data"]["data_dir"], expected["model"]["weights"] = "", "pre.safetensors"
    expected["log"] = config_to_dict(Log())
    assert again == expected
    assert resolve_config(again)
