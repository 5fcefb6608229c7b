"""VGG: Simonyan & Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014 (1409.1556).

Blocks of 3x3 convolutions, with a maximum pooling after each block that halves the map (table 1). Layers, names and
initialisation are torchvision's, which has configurations A, B, D and E, each also with batch normalisation, and pools
adaptively to 7x7 before the classifier. Configuration C, whose blocks 3 to 5 end in a 1x1 convolution, is built alike.

The paper trained A from random values and initialised the deeper networks with it; torchvision's initialisation, after
He et al. 2015, makes that unnecessary.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.models.nn.initialisers import constant, kaiming_fan_out, normal
from imagenet_repro.models.nn.layers import (
    BatchNorm,
    Conv,
    Dropout,
    Linear,
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

WIDTHS = (64, 128, 256, 512, 512)  # of the convolutions of each block
SMALLEST = 32  # pixels that leave one position after five poolings

# Table 1: the kernels of the convolutions of each block.
A = ((3,), (3,), (3, 3), (3, 3), (3, 3))
B = ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3))
C = ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1))
D = ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
E = ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3))


class VGG(Network):
    """Five blocks of convolutions with the given kernels, and three linear layers.

    `dropout` is the share of the units of both hidden linear layers that are dropped. With `num_classes=0` the network
    returns the 4096 units of the second. Images have 32 pixels or more.
    """

    def __init__(
        self,
        blocks: tuple[tuple[int, ...], ...],
        batch_norm: bool,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        dropout: float = 0.5,
    ):
        kwargs = {"bias_init": constant(0.0), "dtype": dtype, "rngs": rngs}
        layers, width = [], 3
        for kernels, out in zip(blocks, WIDTHS, strict=True):
            for kernel in kernels:
                layers.append(Conv(width, out, kernel, padding=kernel // 2, init=kaiming_fan_out, **kwargs))
                layers += [BatchNorm(out, dtype=dtype), relu] if batch_norm else [relu]
                width = out
            layers.append(MaxPool(2, stride=2))
        self.features_ = Sequential(layers)
        classifier = []
        for inputs in (7 * 7 * width, 4096):
            classifier += [Linear(inputs, 4096, init=normal(0.01), **kwargs), relu, Dropout(dropout, rngs=rngs)]
        if num_classes:
            classifier.append(Linear(4096, num_classes, wide=True, init=normal(0.01), **kwargs))
        self.classifier = Sequential(classifier)

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow 512"]:
        """Return the map after the last pooling. Raises UserError for images below 32 pixels."""
        check_images("VGG", images, SMALLEST)
        return self.features_(images)

    def pool(self, features: Float[Array, "b h w 512"]) -> Float[Array, "b 25088"]:
        """Return the map, averaged to 7x7 positions, as one vector."""
        return flatten(adaptive_avg_pool(features, 7))

    def head(self, pooled: Float[Array, "b 25088"]) -> Float[Array, "b classes"]:
        """Return float32 logits from the three linear layers."""
        return widen(self.classifier(pooled))


def _spec(layers: int, blocks: tuple[tuple[int, ...], ...], *, batch_norm: bool = False) -> Spec:
    reference = f"torchvision:vgg{layers}" + ("_bn" if batch_norm else "")
    return Spec(reference=reference, builder=VGG, sizes=(blocks, batch_norm))


VARIANTS = {
    "vgg11": _spec(11, A),
    "vgg13": _spec(13, B),
    "vgg16c": Spec(reference="paper", builder=VGG, sizes=(C, False), preprocessing=Preprocessing(std=LEVELS)),
    "vgg16": _spec(16, D),
    "vgg19": _spec(19, E),
    "vgg11_bn": _spec(11, A, batch_norm=True),
    "vgg13_bn": _spec(13, B, batch_norm=True),
    "vgg16_bn": _spec(16, D, batch_norm=True),
    "vgg19_bn": _spec(19, E, batch_norm=True),
}
