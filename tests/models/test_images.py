"""Invalid images: every network refuses them with the same message."""

import re

import jax
import jax.numpy as jnp
import jaxtyping
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models.nn.layers import check_images

# The smallest network of each class, and its name in the message.
NETWORKS = {
    "lenet5_1998": "LeNet-5",
    "lenet5": "LeNet-5",
    "alexnet_2012": "AlexNet of 2012",
    "alexnet_owt": "AlexNet",
    "zfnet": "ZFNet",
    "vgg11": "VGG",
    "googlenet": "GoogLeNet",
    "googlenet_bn": "GoogLeNet",
    "bn_inception": "BN-Inception",
    "inception_v3": "Inception-v3",
    "inception_v4": "Inception-v4",
    "inception_resnet_v2": "Inception-ResNet-v2",
    "resnet18": "ResNet",
    "resnet20_cifar": "ResNet",
    "resnetv2_50": "ResNet",
    "seresnet50": "SENet",
    "efficientnet_b0": "EfficientNet",
    "convnext_tiny": "ConvNeXt",
    "vit_tiny_patch16": "ViT",
    "deit_tiny_distilled_patch16": "ViT",
    "eva02_tiny_patch14": "ViT",
    "maxvit_tiny": "MaxViT",
}
SHAPES = [(1, 96, 96, 4), (1, 3, 96, 96), (96, 96, 3), (1, 0, 96, 3)]


@pytest.fixture
def unchecked(monkeypatch):
    """Disable the check of annotations, as in a user's program."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_refuses_invalid_images(unchecked, name):
    graphdef, state = nnx.split(models.abstract(name, 10, **({"depth": 1} if "tiny_" in name else {})))
    for shape in SHAPES:
        with pytest.raises(UserError, match=f"^{NETWORKS[name]} "):
            jax.eval_shape(lambda state, x: nnx.merge(graphdef, state)(x), state, jax.ShapeDtypeStruct(shape, "f4"))


@pytest.mark.parametrize("shape", [(1, 64, 64, 1), (64, 64, 3), (1, 3, 64, 64), (3,)])
def test_the_message_names_the_expected_and_the_given_shape(shape):
    message = f"ResNet takes images [batch, height, width, 3], these are {list(shape)}"
    with pytest.raises(UserError, match=re.escape(message)):
        check_images("ResNet", jnp.zeros(shape))


def test_the_smallest_size():
    check_images("VGG", jnp.zeros((1, 32, 40, 3)), 32)
    with pytest.raises(UserError, match=r"VGG cannot take 40 x 31 pixels: it needs at least 32 on each side \(hint\)"):
        check_images("VGG", jnp.zeros((1, 40, 31, 3)), 32, hint=" (hint)")
    check_images("LeNet-5", jnp.zeros((1, 1, 1, 7)), channels=None)
    with pytest.raises(UserError, match="at least 1 "):
        check_images("ResNet", jnp.zeros((1, 8, 0, 3)))
