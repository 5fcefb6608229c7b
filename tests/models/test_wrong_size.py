"""Images of a size that a network is not built for: the error names the network, its size and the options."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.config import Config, Data, Model
from imagenet_repro.errors import UserError
from imagenet_repro.models import registry, wrong_size
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.spec import Origin, Spec
from imagenet_repro.training.functional import FunctionalNetwork
from imagenet_repro.training.systems.network import NetworkSystem, with_image_size


class PixelNetwork(Network):
    """A linear layer on all pixels, so that the size is fixed; `is_broken` adds a layer that never fits."""

    def __init__(self, *, rngs, num_classes=1000, dtype=jnp.float32, image_size=32, is_broken=False):
        del dtype
        self.linear = nnx.Linear(3 * image_size**2, num_classes, rngs=rngs)
        self.broken = nnx.Linear(num_classes + 1, 1, rngs=rngs) if is_broken else None

    def features(self, images):
        return images.reshape(len(images), -1)

    def pool(self, features):
        return features

    def head(self, pooled):
        logits = self.linear(pooled)
        return self.broken(logits) if self.broken else logits


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(registry.SPECS, "pixels", Spec("paper", PixelNetwork))


def trace(side, training=False, **options):
    network = FunctionalNetwork(models.abstract("pixels", 10, **options))
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    if training:
        return jax.eval_shape(network.train, network.params, network.stats, key, images)
    return jax.eval_shape(network.evaluate, network.params, network.stats, images)


@pytest.mark.parametrize("training", [False, True])
def test_a_wrong_size_is_an_error_with_the_network_its_size_and_the_options(training):
    with pytest.raises(UserError) as error:
        trace(48, training)
    assert str(error.value).startswith("pixels cannot take images of 48 x 48 pixels, since it is built for 32 x 32")
    assert "config.data.image_size=32" in str(error.value)
    assert "config.model.options.image_size=48" in str(error.value)
    assert trace(48, image_size=48).shape == (2, 10)


def test_a_defect_keeps_its_own_error():
    with pytest.raises(TypeError, match="dot_general"):
        trace(48, is_broken=True)
    with pytest.raises(TypeError, match="dot_general"):
        trace(32, is_broken=True)


def test_a_network_without_the_option_names_its_published_size():
    expected = r"since it is built for 32 x 32 \(no\)\. Set config\.data\.image_size=32 and [^,]*$"
    with pytest.raises(UserError, match=expected), wrong_size.explained(Origin("lenet5", 10, {}), (1, 5, 5, 3)):
        raise ValueError("no")


def config(size, name="pixels", **model):
    return Config(precision="float32", batch_size=8, model=Model(name, **model), data=Data(image_size=size))


def test_a_run_builds_its_network_for_its_images():
    assert with_image_size(config(48)).model.options == {"image_size": 48}
    assert with_image_size(config(48, options={"image_size": 32})).model.options == {"image_size": 32}
    for unchanged in (config(32), config(48, "resnet18"), config(48, weights="file.safetensors")):
        assert with_image_size(unchanged) is unchanged


def test_an_evaluated_size_that_does_not_fit_is_found_before_training():
    fixed = Config(
        precision="float32", batch_size=8, model=Model("pixels"), data=Data(image_size=32, eval_image_size=48)
    )
    with pytest.raises(UserError, match="pixels cannot take images of 48 x 48"):
        NetworkSystem.abstract(fixed, 10, jax.devices()).check_evaluated_size()
    NetworkSystem.abstract(config(32), 10, jax.devices()).check_evaluated_size()


@pytest.mark.slow
@pytest.mark.parametrize("side", [9, 37, 100])
@pytest.mark.parametrize("name", models.names())
def test_every_network_takes_a_size_or_refuses_it_by_name(name, side):
    options = {"depth": 1} if "depth" in models.spec(name).options else {}
    network = FunctionalNetwork(models.abstract(name, 10, **options))
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    message = ""
    try:
        logits = jax.eval_shape(network.evaluate, network.params, network.stats, images)
    except UserError as error:
        message = str(error)
    assert f"{side} x {side}" in message or logits.shape == (1, 10)
