"""Tests of the configuration of an evaluation, and of what it says about a selected checkpoint."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from imagenet_repro import models, pretrained
from imagenet_repro.config import replace_keys, resolve_config
from imagenet_repro.errors import UserError
from imagenet_repro.models.spec import Origin, Preprocessing
from imagenet_repro.pretrained import Weights, tensors
from imagenet_repro.runs import evaluate, export
from imagenet_repro.scoring import sets
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training.systems import NetworkSystem


def weights_of(name, **options):
    return Weights(Path("file"), {}, origin=Origin(name, 10, options))


@pytest.mark.parametrize(
    ("weights", "name", "options", "expected"),
    [
        (weights_of("alexnet_owt", stem="small"), "", None, ("alexnet_owt", {"stem": "small"})),
        (weights_of("alexnet_owt", stem="small"), "alexnet", None, ("alexnet_owt", {"stem": "small"})),
        (
            weights_of("alexnet_owt", stem="small"),
            "alexnet",
            {"dropout": 0.1},
            ("alexnet_owt", {"stem": "small", "dropout": 0.1}),
        ),
        (weights_of("alexnet_owt", stem="small"), "resnet18", None, ("resnet18", {})),
        (weights_of("mine", stem="small"), "resnet18", None, ("resnet18", {})),
        (Weights(Path("file"), {}), "resnet18", {"stem": "small"}, ("resnet18", {"stem": "small"})),
    ],
)
def test_the_network_is_the_one_that_the_file_states(weights, name, options, expected):
    selection = pretrained.select(weights, name, options)
    assert (selection.name, selection.options) == expected


def test_a_file_that_states_no_network_is_refused():
    with pytest.raises(UserError, match="does not state its network"):
        pretrained.select(Weights(Path("file"), {}))


@pytest.mark.parametrize("crop", ["center", "squash"])
def test_preprocessing_is_read_from_the_file_and_exported(crop):
    stated = Preprocessing(96, 1.0, "bicubic", (0.5, 0.5, 0.5), (0.2, 0.3, 0.4), antialias=False, crop=crop)
    config = evaluate.configure_evaluation("resnet18", {}, stated)
    assert config.eval_crop.name == crop
    assert export.describe_preprocessing(config) == stated


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("vit_tiny_patch16", {}, {"image_size": 384}),
        ("vit_tiny_patch16", {"image_size": 224}, {"image_size": 224}),
        ("resnet18", {}, {}),
    ],
)
def test_position_embeddings_have_the_evaluated_size(name, options, expected):
    config = evaluate.configure_evaluation(name, options, Preprocessing())
    config = evaluate.with_evaluated_size(replace_keys(config, {"data.image_size": "384"}))
    assert config.model.options == expected


def test_the_batch_size_is_rounded_up_to_the_number_of_devices():
    config = resolve_config({"batch_size": 12, "model": {"name": "lenet5"}, "data": {"image_size": 32}})
    assert jax.device_count() == 8
    assert NetworkSystem.create(config, 10).network.params
    assert evaluate.with_divisible_batch(config).data.eval_batch_size == 16
    assert evaluate.with_divisible_batch(resolve_config({"batch_size": 16})).data.eval_batch_size == 0
    stated = resolve_config({"batch_size": 12, "data": {"eval_batch_size": 3}})
    assert evaluate.with_divisible_batch(stated) == stated


@pytest.mark.parametrize("in_file", [1_000, pytest.param(3, marks=pytest.mark.slow)])
def test_weights_without_names_are_for_imagenet_if_the_data_can_be(in_file):
    wnids = sets.imagenet_wnids()
    shapes = tensors.shapes(models.abstract("lenet5", in_file))
    weights = Weights(Path("file"), {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    config = resolve_config({"model": {"name": "lenet5"}, "data": {"image_size": 32}, "batch_size": 8})
    loaded = evaluate._load_weights(config, weights, wnids[7:10], drop_background=False)
    expected = {1_000: (wnids, pretrained.IMAGENET_ORDER), 3: (("0", "1", "2"), "")}[in_file]
    assert ((loaded.classes, loaded.note), loaded.report.replaced) == (expected, ())


@pytest.mark.parametrize(("evaluations", "expected"), [(0, None), (1, None), (10, 0.149)])
def test_a_selected_checkpoint_is_called_optimistic(tmp_path, evaluations, expected):
    row = {"kind": "eval", "step": 1, "top1_error": 0.25, "top5_error": 0.1, "evaluated": 50_000}
    (tmp_path / "metrics.jsonl").write_text((json.dumps(row) + "\n") * evaluations)
    selected = evaluate.describe_selection(Workdir(tmp_path), "validation")
    if expected is None:
        assert selected == {}
        return
    assert (selected["split"], selected["evaluations"]) == ("validation", evaluations)
    assert 100 * selected["optimism"] == pytest.approx(expected, abs=0.001)
    assert "about 0.15 points" in evaluate.selection_sentence(selected)
