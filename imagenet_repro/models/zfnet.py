"""ZFNet: Zeiler & Fergus, "Visualizing and understanding convolutional networks", 2013 (arXiv 1311.2901).

AlexNet with a finer first layer (7x7, stride 2), a second layer of stride 2, and no groups (fig. 3). Layers have the
names of our AlexNet of 2012. The paper normalises contrast "across feature maps" and refers to Krizhevsky et al. 2012
without giving constants; we use their response normalisation with their constants. The renormalisation of filters
during training is part of the training, not of the network.

Paddings and roundings are those that give the maps of fig. 3 (110, 55, 26, 13, 6 from 224 pixels). Before fc6 we pool
adaptively to 6x6, which changes nothing at 224 pixels and allows other sizes.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.models.nn.initialisers import constant, normal
from imagenet_repro.models.nn.layers import (
    Conv,
    Dropout,
    Linear,
    LocalResponseNorm,
    MaxPool,
    adaptive_avg_pool,
    check_images,
    flatten,
    relu,
)
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.spec import LEVELS, Preprocessing, Spec

SMALLEST = 63  # pixels that leave one position after the last pooling


class ZFNet(Network):
    """Five convolutions and three linear layers; `widths` are those of conv3, conv4 and conv5.

    Weights start from N(0, 0.01^2), biases from 0 (sec. 3). `dropout` is the share of units of fc6 and fc7 that are
    dropped. With `num_classes=0` the network returns the 4096 units of fc7.
    """

    def __init__(
        self,
        widths: tuple[int, int, int],
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        dropout: float = 0.5,
    ):
        kwargs = {"init": normal(0.01), "bias_init": constant(0.0), "dtype": dtype, "rngs": rngs}
        third, fourth, fifth = widths
        self.conv1 = Conv(3, 96, 7, stride=2, padding=1, **kwargs)
        self.conv2 = Conv(96, 256, 5, stride=2, **kwargs)
        self.conv3 = Conv(256, third, 3, padding=1, **kwargs)
        self.conv4 = Conv(third, fourth, 3, padding=1, **kwargs)
        self.conv5 = Conv(fourth, fifth, 3, padding=1, **kwargs)
        self.fc6 = Linear(fifth * 6 * 6, 4096, **kwargs)
        self.fc7 = Linear(4096, 4096, **kwargs)
        self.fc8 = Linear(4096, num_classes, wide=True, **kwargs) if num_classes else None
        self.ceil_pool, self.last_pool = MaxPool(3, stride=2, ceil=True), MaxPool(3, stride=2)
        self.norm = LocalResponseNorm()
        self.dropout = Dropout(dropout, rngs=rngs)

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow c"]:
        """Return the map after the last pooling. Raises UserError for images below 63 pixels."""
        check_images("ZFNet", images, SMALLEST)
        x = self.norm(self.ceil_pool(relu(self.conv1(images))))
        x = self.norm(self.ceil_pool(relu(self.conv2(x))))
        x = relu(self.conv4(relu(self.conv3(x))))
        return self.last_pool(relu(self.conv5(x)))

    def pool(self, features: Float[Array, "b h w c"]) -> Float[Array, "b n"]:
        """Return the map, averaged to 6x6 positions, as one vector."""
        return flatten(adaptive_avg_pool(features, 6))

    def head(self, pooled: Float[Array, "b n"]) -> Float[Array, "b classes"]:
        """Return float32 logits from the three linear layers."""
        x = self.dropout(relu(self.fc6(pooled)))
        x = self.dropout(relu(self.fc7(x)))
        return widen(x if self.fc8 is None else self.fc8(x))


def _spec(*widths: int) -> Spec:
    return Spec(reference="paper", builder=ZFNet, sizes=(widths,), preprocessing=Preprocessing(std=LEVELS))


VARIANTS = {
    "zfnet": _spec(384, 384, 256),
    "zfnet_wide": _spec(512, 1024, 512),
}
