"""Maps for localization: Grad-CAM against the class activation map, and a map of every family."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.inference import maps
from imagenet_repro.models.nn.network import Network


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# Compiled as a whole, since each operation on its own takes longer to compile than to compute.
localization_map = nnx.jit(maps.localization_map)
activation_map = nnx.jit(maps.activation)


def test_grad_cam_is_the_class_activation_map_over_the_number_of_positions():
    model = models.create("resnet18", num_classes=7, seed=0).eval()
    x, classes = images(2, 96, 64, 3), jnp.asarray([[3, 0], [6, 3]])
    final = np.asarray(localization_map(model, x))
    weights = np.asarray(model.fc.weight[...])
    expected = np.stack([np.moveaxis(final[b] @ weights[:, classes[b]], -1, 0) for b in range(2)]) / (3 * 2)
    activation = activation_map(model, x, classes)
    np.testing.assert_allclose(activation, expected, rtol=1e-4, atol=1e-5)


def test_a_transformer_has_a_map_of_its_patches():
    model = models.create("vit_tiny_patch16", num_classes=5, image_size=32, depth=2).eval()
    x = images(2, 32, 32, 3)
    assert localization_map(model, x).shape == (2, 2, 2, 192)
    activation = activation_map(model, x, jnp.asarray([[0], [1]]))
    assert activation.shape == (2, 1, 2, 2)
    assert np.all(np.isfinite(activation))


def test_reading_the_map_does_not_change_the_network():
    model = models.create("vit_tiny_patch16", num_classes=5, image_size=32, depth=2).eval()
    x = images(1, 32, 32, 3)
    network = nnx.jit(lambda model, x: model(x))
    before = network(model, x)
    localization_map(model, x)
    np.testing.assert_array_equal(network(model, x), before)


class Tokens(Network):
    """A network whose features are the tokens of a square of patches, with channels that identify them."""

    def __init__(self, rows, columns):
        self.rows, self.columns = rows, columns

    def features(self, images):
        return images[:, :: 8 // self.rows, :: 8 // self.columns].reshape(len(images), -1, 3)

    def pool(self, features):
        return features.mean(1)

    def head(self, pooled):
        return pooled


def test_a_square_of_tokens_is_a_map():
    x = images(2, 8, 8, 3)
    last_map, logits = Tokens(4, 4).split_at_map(x)
    np.testing.assert_array_equal(last_map, x[:, ::2, ::2])
    np.testing.assert_array_equal(logits(last_map), Tokens(4, 4)(x))
    with pytest.raises(UserError, match=r"Tokens has features of shape .8, 3., which are no map"):
        Tokens(4, 2).split_at_map(x)


FAMILIES = {models.spec(name).builder: name for name in reversed(models.names())}


@pytest.mark.parametrize("name", sorted({getattr(b, "func", b): name for b, name in FAMILIES.items()}.values()))
def test_every_family_has_a_map(name):
    graphdef, state = nnx.split(models.abstract(name, 10).eval())
    size = models.spec(name).preprocessing.image_size
    blank = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    shape = jax.eval_shape(lambda s, images: maps.localization_map(nnx.merge(graphdef, s), images), state, blank).shape
    assert shape[0] == 2
    assert min(shape[1:3]) >= 1
