"""Images of runs that start from weights: `--preprocess.KEY=VALUE`, and positions of a file that is exported."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models, pretrained
from imagenet_repro.cli.main import main
from imagenet_repro.config import CenterCrop, SquashCrop, load_config
from imagenet_repro.errors import UserError
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.runs import export, train, weights_images
from tests import command_line


def config(**overrides):
    given = {"model.weights": "x.safetensors"} | {key.replace("__", "."): text for key, text in overrides.items()}
    return load_config("configs/resnet.py:18", given)


def test_train_passes_the_given_preprocessing_to_the_run(monkeypatch):
    trained = []
    monkeypatch.setattr(train, "train", lambda config, workdir, extend: trained.append(config) or 0)
    arguments = ["train", "--config=configs/resnet.py:18", "--workdir=x", "--config.model.weights=x.safetensors"]
    given = [
        "--preprocess.mean=0.5",
        "--preprocess.std=0.2,0.3,0.4",
        "--preprocess.size=64",
        "--preprocess.crop=squash",
    ]
    assert main([*arguments, *given, "--preprocess.kernel=bicubic"]) == 0
    (changed,) = trained
    assert (changed.augment.mean, changed.augment.std) == ((0.5,) * 3, (0.2, 0.3, 0.4))
    assert (changed.data.image_size, changed.data.size_evaluated) == (64, 64)
    assert isinstance(changed.eval_crop, SquashCrop)
    assert changed.eval_crop.kernel == changed.train_crop.kernel == "bicubic"


def test_what_is_not_given_stays():
    before = config(data__eval_image_size="288")
    after = weights_images.with_preprocessing(before, {"crop": "0.95"})
    assert after == dataclasses.replace(before, eval_crop=dataclasses.replace(before.eval_crop, ratio=0.95))
    assert isinstance(after.eval_crop, CenterCrop)
    assert weights_images.with_preprocessing(before, {}) is before


def test_a_run_without_weights_has_its_own_keys():
    with pytest.raises(UserError, match=r"--preprocess.mean is for a run that starts from weights.*augment.mean"):
        weights_images.with_preprocessing(config(model__weights=""), {"mean": "0.5"})


def test_the_images_of_the_run_and_of_the_weights_are_said():
    same = weights_images.describe(config(), export.describe_preprocessing(config()))
    assert same.endswith("as those of the weights")
    other = weights_images.describe(config(), Preprocessing(224, 0.95, "bicubic"))
    assert "those of the weights: 224 px, central crop 0.95, bicubic" in other


def test_positions_of_another_size_are_those_that_the_network_computes():
    network = models.create("vit_tiny_patch16", 3, depth=1, image_size=96).eval()
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 64, 64, 3)), jnp.float32)

    def logits():
        graphdef, state = nnx.split(network)
        return np.asarray(jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, images))

    before, note = logits(), export._fit_positions(network, 64)
    assert note == "positions of 64 px, 4 x 4 patches, as the run used them; its own are 6 x 6"
    np.testing.assert_array_equal(logits(), before)
    assert pretrained.to_torch(network)["pos_embed"].shape == (1, 17, 192)
    assert network.known_origin.options["image_size"] == 64
    assert export._fit_positions(network, 64) == ""


@pytest.mark.slow
def test_a_transformer_trained_at_64_pixels_exports_its_positions_and_says_so(tmp_path):
    data, out = command_line.prepare_fractal(tmp_path / "data", train_images=20), tmp_path / "vit.safetensors"
    settings = {
        "model.name": "vit_tiny_patch16", "model.options": "{'depth': 1}", "data.image_size": "64", "budget": "2st",
        "evaluate_every": "2st", "ema_decay": "0", "batch_size": "16",
    }  # fmt: skip
    arguments = [
        *command_line.train_arguments(data, tmp_path / "run"),
        *(f"--config.{k}={v}" for k, v in settings.items()),
    ]
    command_line.call(*arguments)
    said, _ = command_line.call("export", f"--workdir={tmp_path / 'run'}", f"--out={out}")
    assert "positions of 64 px, 4 x 4 patches, as the run used them; its own are 14 x 14" in said
    weights = pretrained.read(out)
    assert weights.tensors["pos_embed"].shape == (1, 17, 192)
    assert (weights.origin.options["image_size"], weights.preprocessing.image_size) == (64, 64)
