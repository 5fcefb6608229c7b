"""Which network and which images `evaluate --weights` takes, and what `export` says of them."""

from pathlib import Path

import pytest

from imagenet_repro.config import replace_keys
from imagenet_repro.errors import UserError
from imagenet_repro.models.spec import Origin, Preprocessing
from imagenet_repro.pretrained import Weights
from imagenet_repro.runs import evaluate, export


def stating(name, **options):
    return Weights(Path("file"), {}, origin=Origin(name, 10, options))


@pytest.mark.parametrize(
    ("weights", "name", "options", "expected"),
    [
        (stating("alexnet_owt", stem="small"), "", None, ("alexnet_owt", {"stem": "small"})),
        (stating("alexnet_owt", stem="small"), "alexnet", None, ("alexnet_owt", {"stem": "small"})),
        (
            stating("alexnet_owt", stem="small"),
            "alexnet",
            {"dropout": 0.1},
            ("alexnet_owt", {"stem": "small", "dropout": 0.1}),
        ),
        (stating("alexnet_owt", stem="small"), "resnet18", None, ("resnet18", {})),
        (stating("mine", stem="small"), "resnet18", None, ("resnet18", {})),
        (Weights(Path("file"), {}), "resnet18", {"stem": "small"}, ("resnet18", {"stem": "small"})),
    ],
)
def test_the_network_of_a_file(weights, name, options, expected):
    assert evaluate._network_of(weights, name, options) == expected


def test_a_file_that_names_no_network():
    with pytest.raises(UserError, match="does not say of which network it is"):
        evaluate._network_of(Weights(Path("file"), {}), "", None)


@pytest.mark.parametrize("crop", ["center", "squash"])
def test_images_as_the_file_says_and_back(crop):
    stated = Preprocessing(96, 1.0, "bicubic", (0.5, 0.5, 0.5), (0.2, 0.3, 0.4), antialias=False, crop=crop)
    config = evaluate._evaluation_config("resnet18", {}, stated)
    assert config.eval_crop.name == crop
    assert export._preprocessing_of(config) == stated


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("vit_tiny_patch16", {}, {"image_size": 384}),
        ("vit_tiny_patch16", {"image_size": 224}, {"image_size": 224}),
        ("resnet18", {}, {}),
    ],
)
def test_positions_are_those_of_the_size_that_is_evaluated(name, options, expected):
    config = evaluate._evaluation_config(name, options, Preprocessing())
    config = evaluate._at_its_size(replace_keys(config, {"data.image_size": "384"}))
    assert config.model.options == expected
