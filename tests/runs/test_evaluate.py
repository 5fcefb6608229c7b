"""Tests of the configuration of an evaluation, and of what it says about a selected checkpoint."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from imagenet_repro import models, pretrained
from imagenet_repro.config import Data, replace_keys, resolve_config
from imagenet_repro.errors import UserError
from imagenet_repro.models.spec import Origin, Preprocessing
from imagenet_repro.pretrained import Weights, tensors
from imagenet_repro.runs import evaluate, export
from imagenet_repro.scoring import sets
from imagenet_repro.storage.json_files import write_json
from imagenet_repro.storage.workdir import RESULT, Workdir
from imagenet_repro.training.systems import NetworkSystem
from tests import finished_runs


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


@pytest.fixture
def run(tmp_path):
    """Return the workdir of a run with ten evaluations of the same error; the last is taken as best."""
    run = Workdir(tmp_path)
    run.record_config(resolve_config({"model": {"name": "lenet5"}, "data": {"eval_split": "validation"}}), {})
    write_evaluations(run, 10)
    return run


def write_evaluations(run, count):
    row = {"kind": "eval", "top1_error": 0.25, "top5_error": 0.1, "evaluated": 50_000}
    run.metrics.write_text("".join(f"{json.dumps(row | {'step': step})}\n" for step in range(1, count + 1)))


@pytest.fixture
def share(monkeypatch):
    """Return a function that sets how many of how many scored images chose the checkpoint."""
    counts = [50_000, 50_000]
    monkeypatch.setattr(evaluate.sources, "count_shared", lambda trained, scored: tuple(counts))
    return lambda shared, scored: counts.__setitem__(slice(None), [shared, scored])


@pytest.mark.parametrize(
    ("asked", "shared", "points"),
    [
        (("best", 10), 50_000, 0.149),
        (("10", 10), 50_000, 0.149),
        (("best", 10), 25_000, 0.0745),
        (("best", 10), 0, None),
        (("9", 9), 50_000, None),
        (("last", 10), 50_000, None),
    ],
)
def test_a_checkpoint_that_scored_images_selected_is_called_optimistic(run, share, asked, shared, points):
    share(shared, 50_000)
    selected = evaluate.describe_selection(run, *asked, Data(eval_split="validation[:100%]"))
    if points is None:
        assert selected == {}
        return
    assert (selected["split"], selected["evaluations"], selected["step"]) == ("validation", 10, 10)
    assert 100 * selected["optimism"] == pytest.approx(points, abs=0.001)
    sentence = evaluate.selection_sentence(selected, "validation[:100%]")
    assert f"about {points:.2f} points" in sentence
    assert f"validation[:100%] has {shared:,} images of validation" in sentence
    assert "images of" not in evaluate.selection_sentence(selected, "validation")


@pytest.mark.parametrize("count", [0, 1])
def test_one_evaluation_selects_nothing(run, share, count):
    write_evaluations(run, count)
    assert evaluate.describe_selection(run, "best", count, Data(eval_split="validation")) == {}


def test_the_last_state_of_a_finished_run_is_not_selected_by_its_number(run, share):
    result = finished_runs.one().result
    write_json(run.path / RESULT, result | {"spent": result["spent"] | {"steps": 10}})
    assert evaluate.describe_selection(run, "10", 10, Data(eval_split="validation")) == {}
    assert evaluate.describe_selection(run, "best", 10, Data(eval_split="validation"))


def test_a_data_set_that_is_elsewhere_has_not_selected(run, tmp_path):
    assert evaluate.describe_selection(run, "best", 10, Data(data_dir=str(tmp_path))) == {}
