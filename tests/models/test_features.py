"""Tests of the features that classifiers read: every network has pooled ones, transformers with a class token more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models

SMALL = ("lenet5", "alexnet_owt", "vgg11", "resnet18")


def widths(name):
    """Return the length of each part of a network's features, and check that its layers consist of these parts."""
    network = models.abstract(name, 0).eval()
    graphdef, state = nnx.split(network)
    side = models.spec(name).preprocessing.image_size
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    parts = jax.eval_shape(lambda state, x: nnx.merge(graphdef, state).feature_parts(x), state, images)
    assert {part for layer in network.feature_layers.values() for part in layer} == set(parts)
    assert all(part.dtype == jnp.float32 and part.ndim == 2 for part in parts.values())
    return {name: part.shape[1] for name, part in parts.items()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SMALL else pytest.mark.slow) for name in models.names()]
)
def test_every_network_has_pooled_features(name):
    layer = models.abstract(name, 0).feature_layers["pooled"]
    assert sum(widths(name)[part] for part in layer) > 0


def call(model, method, images):
    """Return the result of a function of a network and images, compiled."""
    graphdef, state = nnx.split(model)
    return jax.jit(lambda state, x: method(nnx.merge(graphdef, state), x))(state, images)


def outputs_one_by_one(model, images):
    x, outputs = model._embed(images), []
    for block in model.blocks:
        x = block(x)
        outputs.append(model.norm(x))
    return outputs


def test_class_tokens_are_normalised_outputs_of_the_last_blocks():
    model = models.create("vit_small_patch14_reg4_dinov2", image_size=28, depth=6, scan=True).eval()
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 28, 28, 3)), jnp.float32)
    parts = call(model, type(model).feature_parts, images)
    outputs = call(model, outputs_one_by_one, images)
    for number in range(1, 5):
        np.testing.assert_allclose(parts[f"class_token_{number}"], outputs[-number][:, 0], atol=2e-5)
    np.testing.assert_allclose(parts["patch_mean"], outputs[-1][:, 5:].mean(1), atol=2e-5)  # after four registers
    last_four = tuple(f"class_token_{number}" for number in (4, 3, 2, 1))
    assert model.feature_layers["class_tokens_4_patch_mean"] == (*last_four, "patch_mean")


@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [
        ("vit_tiny_patch16", {"pool": "avg", "depth": 2}, {"pooled"}),
        ("vit_tiny_patch16", {"depth": 1}, {"pooled", "class_token", "class_token_patch_mean"}),
    ],
)
def test_layers_that_do_not_exist_are_left_out(name, options, layers):
    assert set(models.abstract(name, 0, **options).feature_layers) == layers


@pytest.mark.slow
def test_a_distilled_network_pools_both_tokens():
    model = models.create("deit_tiny_distilled_patch16", 0, image_size=32, depth=1).eval()
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 32, 3)), jnp.float32)
    parts = call(model, type(model).feature_parts, images)
    tokens = call(model, type(model).features, images)
    np.testing.assert_allclose(parts["pooled"], tokens[:, :2].mean(1), atol=1e-5)
    np.testing.assert_allclose(parts["class_token_1"], tokens[:, 0], atol=1e-5)
    np.testing.assert_allclose(parts["patch_mean"], tokens[:, 2:].mean(1), atol=1e-5)
