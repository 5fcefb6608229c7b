"""Dropout reaches the logits of every network that has it, and stochastic depth the blocks of a transformer."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.interpreters import partial_eval

from imagenet_repro import models
from imagenet_repro.models.nn.attention import Block
from imagenet_repro.models.nn.layers import Dropout
from tests.models import probe
from tests.models.residual import apply

# Side of the images, how many layers of dropout an image passes, and options that make the network small.
NETWORKS = {
    "alexnet_2012": (67, 2, {}),
    "alexnet_owt": (63, 2, {}),
    "zfnet": (63, 2, {}),
    "vgg11": (32, 2, {}),
    "googlenet": (31, 1, {"auxiliary": False}),
    "googlenet_bn": (15, 1, {"auxiliary": False}),
    "bn_inception": (7, 1, {}),
    "inception_v3": (75, 1, {"auxiliary": False}),
    "inception_v4": (75, 1, {}),
    "inception_resnet_v2": (75, 1, {}),
    "resnet18": (1, 1, {}),
    "seresnet50": (3, 1, {}),
    "efficientnet_b0": (1, 1, {"drop_path": 0}),
    "vit_tiny_patch16": (32, 7, {"depth": 2, "image_size": 32}),  # after the positions, and three in each block
    "vit_giant_patch14_dinov2": (28, 4, {"depth": 1, "image_size": 28}),
}


def keys_used(model, size):
    """Return whether the logits depend on the keys of random streams, and the number of layers that dropped units."""
    keys, rest = nnx.split_state(nnx.state(model), nnx.RngKey, ...)
    graphdef, acting, original = nnx.graphdef(model), [], Dropout.__call__

    def call(layer, x):
        if layer.rate and not layer.deterministic:
            acting.append(layer.rate)
        return original(layer, x)

    def logits(keys, rest, images):
        return nnx.merge(graphdef, keys, rest)(images)

    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    with mock.patch.object(Dropout, "__call__", call):
        traced = jax.make_jaxpr(logits)(keys, rest, images)
    _, used = partial_eval.dce_jaxpr(traced.jaxpr, [True])
    return any(used[: len(jax.tree.leaves(keys))]), len(acting)


SLOW = (
    "inception_v3",
    "inception_v4",
    "inception_resnet_v2",
    "bn_inception",
    "googlenet_bn",
    "seresnet50",
)  # to trace


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in NETWORKS]
)
def test_logits_depend_on_the_dropped_units(name):
    size, layers, options = NETWORKS[name]
    assert keys_used(models.abstract(name, 10, dropout=0.9, **options), size) == (True, layers)


def test_nothing_is_dropped_in_evaluation():
    for name in ("resnet18", "vit_tiny_patch16"):
        size, _, options = NETWORKS[name]
        assert keys_used(models.abstract(name, 10, dropout=0.9, **options).eval(), size) == (False, 0)


def test_a_transformer_block_drops_branches_of_images_in_training_only():
    kwargs = {"gated": False, "layer_scale": None, "dropout": 0.0, "dtype": jnp.float32}
    block = Block(8, 2, 16, drop_path=0.5, rngs=nnx.Rngs(0), **kwargs)
    for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
        layer.weight.set_value(20 * layer.weight[...])  # so that a branch is more than rounding
    x = jnp.asarray(np.random.default_rng(0).standard_normal((64, 3, 8)), jnp.float32)

    def after(attention, mlp):
        y = x + attention * block.attn(block.norm1(x))
        return y + mlp * block.mlp(block.norm2(y))

    np.testing.assert_allclose(apply(block, x, training=False), after(1, 1), rtol=1e-4, atol=1e-4)
    y = apply(block, x)
    cases = [
        after(*factors) for factors in ((0, 0), (0, 2), (2, 0), (2, 2))
    ]  # a branch that is not dropped is doubled
    images = [np.isclose(y, case, rtol=1e-4, atol=1e-4).all((1, 2)).sum() for case in cases]
    assert sum(images) == 64
    assert min(images) > 4


@pytest.mark.parametrize(("name", "value"), [("vit_small_patch14_dinov2", 1e-5), ("deit3_small_patch16", 1e-6)])
def test_layer_scale_starts_from_the_papers_value(name, value):
    def pick(model):
        return [scale.gamma for scale in (model.blocks[0].ls1, model.blocks[0].ls2)]

    for gamma in probe.initial(name, pick, depth=1):
        np.testing.assert_array_equal(gamma, np.full(384, value, np.float32))
