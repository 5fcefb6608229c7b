"""Both AlexNets: sizes, maps and initial values; test_goldens.py compares logits with the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.errors import UserError
from tests.models import probe


@pytest.mark.parametrize(("stem", "smallest"), [("imagenet", 63), ("small", 29)])
def test_any_size_that_leaves_a_position_is_valid(stem, smallest):
    assert probe.shapes("alexnet", (smallest, smallest + 40), stem=stem) == (2, 10)
    with pytest.raises(UserError, match=f"at least {smallest} "):
        probe.shapes("alexnet", (smallest + 40, smallest - 1), stem=stem)


def test_features_without_a_head():
    assert probe.shapes("alexnet", (64, 64), num_classes=0) == (2, 4096)


def test_dropout_acts_in_training_only():
    images = jnp.asarray(np.random.default_rng(0).standard_normal((2, 64, 64, 3)), jnp.float32)
    state = nnx.state(models.create("alexnet", 10))

    def run(model):
        graphdef = nnx.graphdef(model)
        return jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))(state, images)

    quiet = run(models.abstract("alexnet", 10, dropout=0.9).eval())
    assert np.abs(run(models.abstract("alexnet", 10, dropout=0.9)) - quiet).max() > 1e-3
    np.testing.assert_allclose(run(models.abstract("alexnet", 10, dropout=0.0)), quiet, atol=1e-5)


# --- the network of 2012 ----------------------------------------------------------------------------------------


def test_maps_of_2012():
    expected = [(55, 55, 96), (27, 27, 256), (13, 13, 384), (13, 13, 384), (13, 13, 256)]
    assert probe.maps("alexnet_2012", 227) == expected
    model = models.abstract("alexnet_2012")
    inputs = [getattr(model, f"conv{i}").weight.shape[2] for i in range(1, 6)]
    assert inputs == [3, 48, 256, 192, 192]


def test_responses_are_normalised_before_the_overlapping_pooling():
    for y, after in probe.between("alexnet_2012", probe.photograph(67), 0, 1):
        expected = probe.maxima(probe.responses(np.maximum(y, 0), 5, 1e-4, 0.75, 2), 3, 2)
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)


def test_initial_values_of_2012():
    layers = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    biases = probe.initial("alexnet_2012", lambda m: [getattr(m, layer).bias for layer in layers])
    assert [set(bias.tolist()) for bias in biases] == [{0}, {1}, {0}, {1}, {1}, {1}, {1}, {0}]
    (weight,) = probe.initial("alexnet_2012", lambda m: [m.conv3.weight])
    np.testing.assert_allclose(weight.std(), 0.01, rtol=0.01)


def test_sizes_and_features_of_2012():
    assert probe.shapes("alexnet_2012", (67, 224)) == (2, 10)
    assert probe.shapes("alexnet_2012", (227, 227), num_classes=0) == (2, 4096)
    with pytest.raises(UserError, match="at least 67 "):
        probe.shapes("alexnet_2012", (100, 66))
    with pytest.raises(UserError, match="groups"):
        models.abstract("alexnet_2012", groups=3)
