"""Inception-v4 and Inception-ResNet-v2; test_goldens.py compares their logits with the reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models.inception_v4 import BLOCK_8, ResidualBlock, average
from imagenet_repro.zoo import counting
from tests.models import probe

NAMES = ("inception_v4", "inception_resnet_v2")


@pytest.fixture(scope="module")
def networks():
    """Graph and state of both networks in evaluation mode, as shapes, built once."""
    return {name: nnx.split(models.abstract(name, 10).eval()) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_an_image_that_leaves_no_position_is_refused(networks, name):
    with pytest.raises(UserError, match="at least 75 "):
        probe.shapes_of(nnx.merge(*networks[name]), (96, 74))


def test_maps_of_inception_v4_are_the_papers(networks):
    def features(state, x, seen):
        for layer in nnx.merge(networks["inception_v4"][0], state).features_:
            x = layer(x)
            seen.append(x.shape[1:])

    for size, last in ((299, 8), (75, 1)):
        seen = []
        images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        jax.eval_shape(lambda state, x, seen=seen: features(state, x, seen), networks["inception_v4"][1], images)
        assert seen[-1] == (last, last, 1536)
        if size == 299:
            stem = [(149, 149, 32), (147, 147, 32), (147, 147, 64), (73, 73, 160), (71, 71, 192)]
            a, b, c = [(35, 35, 384)], [(17, 17, 1024)], [(8, 8, 1536)]
            assert seen == [*stem, *a * 5, *b * 8, *c * 4]


@pytest.mark.parametrize("name", NAMES)
def test_features_without_a_head_of_the_smallest_image(networks, name):
    features = models.abstract(name, 0).eval()
    assert probe.shapes_of(features, (75, 80)) == (2, 1536)
    head = 10 * (1536 + 1)
    assert counting.parameter_count(features) == counting.parameter_count(nnx.merge(*networks[name])) - head


def test_average_pooling_does_not_count_the_padding():
    np.testing.assert_allclose(average(jnp.ones((1, 4, 5, 2))), 1, rtol=1e-6)


@pytest.mark.parametrize(("last", "lowest"), [(False, 0), (True, -1)])
def test_the_last_residual_block_ends_without_relu(last, lowest):
    make = functools.partial(ResidualBlock, 16, *BLOCK_8, scale=1.0, last=last, dtype=jnp.float32)
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)  # so the residual is zero
    x = -jnp.ones((1, 3, 3, 16))
    np.testing.assert_array_equal(jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, x), lowest)
