"""EVA-02: tokens, initial values and features; test_goldens.py compares its logits with timm's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from tests.models import probe

TINY = {"num_classes": 7, "depth": 2, "image_size": 28}


def test_the_head_reads_the_normalised_mean_over_the_patches():
    model = models.create("eva02_tiny_patch14", **TINY).eval()
    graphdef, state = nnx.split(model)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 28, 42, 3)), jnp.float32)

    @jax.jit
    def outputs(state, images):
        model = nnx.merge(graphdef, state)
        return model(images), model.features(images)

    logits, tokens = outputs(state, images)
    assert tokens.shape == (2, 1 + 2 * 3, 192)
    mean = np.asarray(tokens, np.float64)[:, 1:].mean(1)
    normalised = (mean - mean.mean(-1, keepdims=True)) / np.sqrt(mean.var(-1, keepdims=True) + 1e-6)
    expected = normalised @ np.asarray(model.head_.weight[...], np.float64)
    np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_features_are_those_that_the_head_reads():
    assert models.abstract("eva02_tiny_patch14", **TINY).feature_layers == {"pooled": ("pooled",)}
    assert probe.shapes("eva02_tiny_patch14", (28, 28), **TINY | {"num_classes": 0}) == (2, 192)


def test_the_last_layers_of_branches_start_smaller_with_depth_and_the_head_a_thousandth():
    model = models.create("eva02_tiny_patch14", **TINY)
    for number, block in enumerate(model.blocks):
        for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
            assert np.std(weight[...]) == pytest.approx(0.02 / np.sqrt(2 * (number + 1)), rel=0.05)
        assert np.std(block.mlp.fc1.weight[...]) == pytest.approx(0.02, rel=0.05)
    assert np.std(model.head_.weight[...]) == pytest.approx(2e-5, rel=0.1)


def test_layers_for_layer_wise_decay():
    layer = models.spec("eva02_tiny_patch14").layers(models.abstract("eva02_tiny_patch14"))
    assert {layer(name) for name in ("patch_embed.proj.weight", "cls_token", "pos_embed")} == {0}
    assert [layer(name) for name in ("blocks.0.attn.q_bias", "blocks.11.mlp.fc2.bias")] == [1, 12]
    assert {layer(name) for name in ("fc_norm.weight", "head.bias")} == {13}
