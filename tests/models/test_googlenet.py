"""Both GoogLeNets; test_goldens.py compares the logits of the one with batch norm with the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models import googlenet
from imagenet_repro.models.nn.network import WithAuxiliary
from tests.models import probe

BOTH = ("googlenet", "googlenet_bn")


def test_modules_are_those_of_table_1():
    model = models.abstract("googlenet")
    outputs = [googlenet.outputs(name) for name in googlenet.MODULES]
    assert outputs == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    assert model.inception_4d.conv5x5.weight.shape == (5, 5, 32, 64)


@pytest.mark.parametrize("name", BOTH)
def test_maps_are_those_of_table_1(name):
    sides = [height for height, _, _ in probe.maps(name, 224)]
    assert sides == [112, 56, 56] + 2 * 6 * [28] + 5 * 6 * [14] + 2 * 6 * [7]


def test_the_stem_normalises_after_the_first_pooling_and_before_the_second():
    """Normalise responses with Caffe's constants: alpha 1e-4 over a window of 5 maps, k = 1."""
    (first, after_first), (third, after_third) = probe.between("googlenet", probe.photograph(32), 0, 2)
    expected = probe.responses(probe.maxima(np.maximum(first, 0), 3, 2, ceil=True), 5, 2e-5, 0.75, 1)
    np.testing.assert_allclose(after_first, expected, rtol=1e-4, atol=1e-5)
    expected = probe.maxima(probe.responses(np.maximum(third, 0), 5, 2e-5, 0.75, 1), 3, 2, ceil=True)
    np.testing.assert_allclose(after_third, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "smallest"), [("googlenet", 31), ("googlenet_bn", 15)])
def test_auxiliary_heads_act_in_training_only_with_the_published_weight(name, smallest):
    model = models.abstract(name, 10)
    graphdef, state = nnx.split(model)

    def run(state, images):
        result = nnx.merge(graphdef, state)(images)
        assert isinstance(result, WithAuxiliary)
        assert result.weight == 0.3
        return result.logits, *result.auxiliary

    trained = jax.eval_shape(run, state, jax.ShapeDtypeStruct((2, smallest, smallest, 3), jnp.float32))
    assert [(logits.shape, logits.dtype) for logits in trained] == [((2, 10), jnp.float32)] * 3
    assert probe.shapes(name, (smallest, smallest + 60)) == (2, 10)
    heads = (model.loss1, model.loss2) if name == "googlenet" else (model.aux1, model.aux2)
    assert [head.dropout.rate for head in heads] == [0.7, 0.7]
    assert model.dropout.rate == (0.4 if name == "googlenet" else 0.2)
    with pytest.raises(UserError, match=f"at least {smallest} "):
        probe.shapes(name, (64, smallest - 1))


@pytest.mark.parametrize("name", BOTH)
def test_without_heads(name):
    assert probe.shapes(name, (32, 32), training=True, auxiliary=False) == (2, 10)
    assert probe.shapes(name, (32, 32), num_classes=0, training=True) == (2, 1024)


def test_a_head_pools_five_by_five_where_that_gives_its_map():
    @jax.jit
    def pooled(x):
        head, seen = googlenet.AuxiliaryHead(3, 5, rngs=nnx.Rngs(0), dtype=jnp.float32), []
        head.conv = lambda x: seen.append(x) or jnp.zeros((1, 4, 4, 128))
        head(x)
        return seen[0]

    x = np.random.default_rng(0).normal(size=(1, 14, 14, 3)).astype(np.float32)
    y = pooled(x)
    for i in range(4):
        for j in range(4):
            mean = x[0, 3 * i : 3 * i + 5, 3 * j : 3 * j + 5].mean((0, 1))
            np.testing.assert_allclose(y[0, i, j], mean, atol=1e-6)
    np.testing.assert_allclose(pooled(x[:, :4, :8])[0, 1, 2], x[0, 1, 4:6].mean(0), atol=1e-6)


def test_initial_values():
    def pick(model):
        return model.inception_3b.conv3x3.weight, model.inception_3b.conv3x3.bias, model.loss1.classifier.bias

    weight, bias, last = probe.initial("googlenet", pick)
    np.testing.assert_allclose(np.abs(weight).max(), np.sqrt(3 / (9 * 128)), rtol=1e-3)
    assert (bias == np.float32(0.2)).all()
    assert (last == 0).all()
