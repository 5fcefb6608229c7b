"""AlexNet: the network that won in 2012, and its later form in one tower.

`alexnet_2012`: Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", NIPS
2012. Two towers on two GPUs, which only conv3 and the linear layers join, so a convolution within the towers has two
groups. The paper's 224 pixels do not give its 55 positions; 227 without padding do, as in Caffe, whose layer names we
use.

`alexnet_owt`: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014 (arXiv 1404.5997).
Layers, names and initialisation are torchvision's `alexnet`: no groups, no response normalisation.

Both pool adaptively to 6x6 before the first linear layer, so that every image size that leaves one position after the
last pooling fits. torchvision does so. In the network of 2012 it is our addition, which changes nothing at 227 pixels.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.errors import UserError, nearest
from imagenet_repro.models.nn.initialisers import Initialiser, constant, normal
from imagenet_repro.models.nn.layers import (
    Conv,
    Dropout,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Sequential,
    adaptive_avg_pool,
    check_images,
    flatten,
    relu,
)
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.spec import LEVELS, Preprocessing, Spec

ZERO, ONE = constant(0.0), constant(1.0)


class AlexNet2012(Network):
    """Five convolutions and three linear layers (sec. 3.5), for images from 67 pixels on.

    Weights start from N(0, 0.01^2), biases from 1 in conv2, conv4, conv5, fc6 and fc7 and from 0 elsewhere (sec. 5).
    `groups=1` joins the towers everywhere (62,378,344 parameters for 1000 classes). `dropout` is the share of units of
    fc6 and fc7 that are dropped. With `num_classes=0` the network returns the 4096 units of fc7.
    """

    def __init__(
        self,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        dropout: float = 0.5,
        groups: int = 2,
    ):
        if groups not in (1, 2):
            raise UserError(f"AlexNet of 2012 has groups=2 (two towers) or groups=1, not groups={groups!r}")
        kwargs = {"init": normal(0.01), "dtype": dtype, "rngs": rngs}

        def conv(*args: int, bias: Initialiser, **options: int) -> Conv:
            return Conv(*args, bias_init=bias, **options, **kwargs)

        self.conv1 = conv(3, 96, 11, stride=4, bias=ZERO)
        self.conv2 = conv(96, 256, 5, padding=2, groups=groups, bias=ONE)
        self.conv3 = conv(256, 384, 3, padding=1, bias=ZERO)
        self.conv4 = conv(384, 384, 3, padding=1, groups=groups, bias=ONE)
        self.conv5 = conv(384, 256, 3, padding=1, groups=groups, bias=ONE)
        self.fc6 = Linear(256 * 6 * 6, 4096, bias_init=ONE, **kwargs)
        self.fc7 = Linear(4096, 4096, bias_init=ONE, **kwargs)
        self.fc8 = Linear(4096, num_classes, wide=True, bias_init=ZERO, **kwargs) if num_classes else None
        self.norm, self.max_pool = LocalResponseNorm(), MaxPool(3, stride=2)
        self.dropout = Dropout(dropout, rngs=rngs)

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow 256"]:
        """Return the map after the last pooling. Raises UserError where the images leave no position there."""
        check_images("AlexNet of 2012", images, 67)
        x = self.max_pool(self.norm(relu(self.conv1(images))))
        x = self.max_pool(self.norm(relu(self.conv2(x))))
        x = relu(self.conv4(relu(self.conv3(x))))
        return self.max_pool(relu(self.conv5(x)))

    def pool(self, features: Float[Array, "b h w 256"]) -> Float[Array, "b 9216"]:
        """Return the map, averaged to 6x6 positions, as one vector."""
        return flatten(adaptive_avg_pool(features, 6))

    def head(self, pooled: Float[Array, "b 9216"]) -> Float[Array, "b classes"]:
        """Return float32 logits from the three linear layers."""
        x = self.dropout(relu(self.fc6(pooled)))
        x = self.dropout(relu(self.fc7(x)))
        return widen(x if self.fc8 is None else self.fc8(x))


# (stride, padding) of the first convolution, which change no parameter. From 64 pixels "small" leaves a map of 3x3,
# "imagenet" a single position.
STEMS = {"imagenet": (4, 2), "small": (2, 5)}


class AlexNet(Network):
    """One tower of five convolutions and three linear layers.

    `stem="small"` is for images from 29 pixels on: the first convolution has stride 2 in place of 4. `dropout` is the
    share of units dropped before each of the two hidden linear layers. With `num_classes=0` the network returns the
    4096 units of the last hidden layer.
    """

    def __init__(
        self,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        dropout: float = 0.5,
        stem: str = "imagenet",
    ):
        if stem not in STEMS:
            raise UserError(f"AlexNet has no stem '{stem}': {nearest(stem, STEMS)}")
        stride, padding = STEMS[stem]
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.features_ = Sequential(
            [
                Conv(3, 64, 11, stride=stride, padding=padding, **kwargs),
                relu,
                MaxPool(3, stride=2),
                Conv(64, 192, 5, padding=2, **kwargs),
                relu,
                MaxPool(3, stride=2),
                Conv(192, 384, 3, padding=1, **kwargs),
                relu,
                Conv(384, 256, 3, padding=1, **kwargs),
                relu,
                Conv(256, 256, 3, padding=1, **kwargs),
                relu,
                MaxPool(3, stride=2),
            ]
        )
        classifier = [
            Dropout(dropout, rngs=rngs),
            Linear(256 * 6 * 6, 4096, **kwargs),
            relu,
            Dropout(dropout, rngs=rngs),
            Linear(4096, 4096, **kwargs),
            relu,
        ]
        if num_classes:
            classifier.append(Linear(4096, num_classes, wide=True, **kwargs))
        self.classifier = Sequential(classifier)
        self.min_image_size = 14 * stride + 11 - 2 * padding  # three poolings leave 1 position of 15

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow 256"]:
        """Return the map after the last pooling. Raises UserError where the images leave no position there."""
        hint = "" if self.min_image_size == 29 else " (or from 29 pixels on, with stem='small')"
        check_images("AlexNet", images, self.min_image_size, hint=hint)
        return self.features_(images)

    def pool(self, features: Float[Array, "b h w 256"]) -> Float[Array, "b 9216"]:
        """Return the map, averaged to 6x6 positions, as one vector."""
        return flatten(adaptive_avg_pool(features, 6))

    def head(self, pooled: Float[Array, "b 9216"]) -> Float[Array, "b classes"]:
        """Return float32 logits from the linear layers."""
        return widen(self.classifier(pooled))


VARIANTS = {
    "alexnet_2012": Spec(
        reference="paper",
        builder=AlexNet2012,
        preprocessing=Preprocessing(image_size=227, crop_ratio=227 / 256, std=LEVELS),
    ),
    "alexnet_owt": Spec(reference="torchvision:alexnet", builder=AlexNet, aliases=("alexnet",)),
}
