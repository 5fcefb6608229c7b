"""Dense evaluation: windows against crops, and linear layers against convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models import dense
from imagenet_repro.models.nn import layers
from imagenet_repro.models.nn.network import Network


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def compiled(function, model, x):
    """Return `function(model, x)`, compiled with the parameters as arguments; as constants they take XLA seconds."""
    graphdef, state = nnx.split(model)
    return jax.jit(lambda state, x: function(nnx.merge(graphdef, state), x))(state, x)


def class_map(model, x, image_size):
    return compiled(lambda model, x: dense.class_map(model, x, image_size), model, x)


class TwoLayers(Network):
    """A convolution and two linear layers, like networks before 2014."""

    def __init__(self, rngs):
        kwargs = {"dtype": jnp.float32, "rngs": rngs}
        self.conv = layers.Conv(3, 4, 3, stride=2, padding=1, **kwargs)
        self.fc1, self.fc2 = layers.Linear(3 * 3 * 4, 8, **kwargs), layers.Linear(8, 5, **kwargs)

    def features(self, images):
        return layers.relu(self.conv(images))

    def pool(self, features):
        return layers.flatten(layers.adaptive_avg_pool(features, 3))

    def head(self, pooled):
        return self.fc2(layers.relu(self.fc1(pooled)))


def as_convolutions(model, x):
    """Return the output of the network with its linear layers turned into convolutions of XLA."""
    form = ("NHWC", "HWIO", "NHWC")
    first = model.fc1.weight[...].reshape(4, 3, 3, 8).transpose(1, 2, 0, 3)
    x = layers.relu(model.conv(x))
    x = layers.relu(lax.conv_general_dilated(x, first, (1, 1), "VALID", dimension_numbers=form) + model.fc1.bias[...])
    return x @ model.fc2.weight[...] + model.fc2.bias[...]


def test_windows_are_the_linear_layers_as_convolutions():
    model = TwoLayers(nnx.Rngs(0))
    x = images(2, 10, 14, 3)
    logits = class_map(model, x, 6)
    assert logits.shape == (2, 3, 5, 5)
    np.testing.assert_allclose(logits, as_convolutions(model, x), atol=1e-5)


def test_dense_scores_of_a_network_without_padding_equal_those_of_crops():
    model = models.create("lenet5", num_classes=10, seed=1).eval()
    x = images(2, 40, 48, 3)
    logits = class_map(model, x, 32)
    assert logits.shape == (2, 3, 5, 10)
    for i in range(3):
        for j in range(5):
            crop = x[:, 4 * i : 4 * i + 32, 4 * j : 4 * j + 32]
            np.testing.assert_allclose(logits[:, i, j], model(crop), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "alexnet", pytest.param("mobile", marks=pytest.mark.slow)])
def test_at_its_own_size_the_class_map_is_the_networks_output(name):
    options = {"stem": "small"} if name == "alexnet" else {}
    name = "efficientnet_b0" if name == "mobile" else name
    model = models.create(name, num_classes=7, seed=0, **options).eval()
    x = images(1, 64, 64, 3)
    logits = class_map(model, x, 64)
    np.testing.assert_allclose(logits[:, 0, 0], compiled(lambda model, x: model(x), model, x), rtol=1e-4, atol=1e-5)


def test_windows_of_a_mean_are_means_of_windows():
    model = models.create("resnet18", num_classes=7, seed=0).eval()
    x = images(1, 96, 128, 3)
    final = compiled(lambda model, x: model.features(x), model, x)  # [1, 3, 4, 512]
    means = np.stack([[final[0, i : i + 2, j : j + 2].mean((0, 1)) for j in range(3)] for i in range(2)])
    expected = means @ model.fc.weight[...] + model.fc.bias[...]
    np.testing.assert_allclose(class_map(model, x, 64)[0], expected, rtol=1e-4, atol=1e-5)


def test_a_transformer_has_no_map_of_a_convolution():
    model = models.create("vit_tiny_patch16", num_classes=5, image_size=32, depth=2).eval()
    with pytest.raises(UserError, match="VisionTransformer does not end in the map of a convolution"):
        class_map(model, images(2, 32, 32, 3), 32)


def test_a_window_larger_than_the_map_is_refused():
    model = TwoLayers(nnx.Rngs(0))
    with pytest.raises(UserError, match=r"a map of 2 x 5 at 4 x 10 pixels, and its head reads 3 x 3"):
        class_map(model, images(1, 4, 10, 3), 6)
