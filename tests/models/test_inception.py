"""BN-Inception and Inception-v3; test_goldens.py compares logits with the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models import inception
from imagenet_repro.models.nn.initialisers import initialise
from imagenet_repro.models.nn.layers import MaxPool
from imagenet_repro.models.nn.network import WithAuxiliary
from tests.models import probe


@pytest.fixture(scope="module")
def v3():
    """Inception-v3 for ten classes in training mode, as shapes."""
    return models.abstract("inception_v3", 10)


def maps_of_v3(monkeypatch, v3, size):
    """Return (class, height, width, maps) after each convolution and each module, in order."""
    seen = []
    for kind in ("ConvNorm", "Mixed"):
        call = getattr(inception, kind).__call__

        def record(self, x, call=call, kind=kind):
            y = call(self, x)
            seen.append((kind, *y.shape[1:]))
            return y

        monkeypatch.setattr(getattr(inception, kind), "__call__", record)
    probe.shapes_of(nnx.clone(v3).eval(), (size, size))
    return seen


def test_maps_of_bn_inception_are_the_papers(monkeypatch):
    seen, module = {}, inception.BNInception._module

    def record(self, name, x, widths):
        y = module(self, name, x, widths)
        seen[name.removeprefix("inception_")] = y.shape[1:]
        return y

    monkeypatch.setattr(inception.BNInception, "_module", record)
    probe.shapes("bn_inception", (224, 224))
    assert seen == {
        "3a": (28, 28, 256),
        "3b": (28, 28, 320),
        "3c": (14, 14, 576),
        "4a": (14, 14, 576),
        "4b": (14, 14, 576),
        "4c": (14, 14, 608),
        "4d": (14, 14, 608),
        "4e": (7, 7, 1056),
        "5a": (7, 7, 1024),
        "5b": (7, 7, 1024),
    }


def test_maps_of_inception_v3_are_the_papers(monkeypatch, v3):
    seen = maps_of_v3(monkeypatch, v3, 299)
    stem = [[149, 149, 32], [147, 147, 32], [147, 147, 64], [73, 73, 80], [71, 71, 192]]
    assert [shape for _, *shape in seen[:5]] == stem
    a, c, e = [[35, 35, 288]], [[17, 17, 768]], [[8, 8, 2048]]
    modules = [[35, 35, 256], *a * 2, *c * 5, [8, 8, 1280], *e * 2]
    assert [shape for kind, *shape in seen if kind == "Mixed"] == modules


def test_the_smallest_image_of_inception_v3_leaves_one_position(monkeypatch, v3):
    assert maps_of_v3(monkeypatch, v3, 75)[-1] == ("Mixed", 1, 1, 2048)
    with pytest.raises(UserError, match="at least 75 "):
        probe.shapes_of(v3, (90, 74))


def test_bn_inception_accepts_any_size_that_leaves_a_position():
    model = models.abstract("bn_inception", 10).eval()
    for size in ((7, 7), (225, 113)):
        assert probe.shapes_of(model, size) == (2, 10)
    with pytest.raises(UserError, match="at least 7 "):
        probe.shapes_of(model, (40, 6))


def test_the_auxiliary_head_acts_in_training_only(v3):
    model = nnx.clone(v3)
    trained = probe.shapes_of(model, (75, 75))
    assert isinstance(trained, WithAuxiliary)
    assert trained[:2] == ((2, 10), ((2, 10),))
    assert probe.shapes_of(model.eval(), (75, 75)) == (2, 10)


@pytest.mark.parametrize(("side", "places"), [(17, 5), (19, 5), (20, 6), (16, 5), (3, 5)])
def test_the_auxiliary_head_always_has_room_for_its_convolution(monkeypatch, side, places):
    seen, call = [], inception.ConvNorm.__call__
    monkeypatch.setattr(inception.ConvNorm, "__call__", lambda self, x: seen.append(x.shape) or call(self, x))
    head = nnx.eval_shape(lambda: inception.AuxiliaryHead(8, 10, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(head)
    features = jax.ShapeDtypeStruct((2, side, side, 8), jnp.float32)
    jax.eval_shape(lambda state, x: nnx.merge(graphdef, state)(x), state, features)
    assert seen[0] == (2, places, places, 8)


def test_networks_without_a_head_return_features_in_training_too():
    assert probe.shapes("inception_v3", (96, 80), 0, training=True) == (2, 2048)
    assert probe.shapes("bn_inception", (96, 80), 0, training=True) == (2, 1024)


def test_halving_of_an_even_map_is_the_released_models():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 14, 6, 3)), jnp.float32)
    ours, released = MaxPool(3, stride=2, padding="same"), MaxPool(3, stride=2, ceil=True)
    np.testing.assert_array_equal(ours(x), released(x))


def test_initial_values_of_the_auxiliary_head():
    head = initialise(lambda rngs: inception.AuxiliaryHead(64, 100, dtype=jnp.float32, rngs=rngs), jax.random.key(0))
    cut = 0.8796  # deviation of a standard normal truncated at 2
    for layer, std in ((head.conv0.conv, 0.1), (head.conv1.conv, 0.01), (head.fc, 0.001)):
        weight = np.asarray(layer.weight[...])
        np.testing.assert_allclose(np.std(weight), cut * std, rtol=0.03)
        assert np.abs(weight).max() <= 2 * std
