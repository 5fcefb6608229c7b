"""AlexNet in one tower: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.

Layers, names and initialisation are torchvision's `alexnet`: no groups, no response normalisation, and an adaptive
pooling before the classifier, so that any size of image fits that leaves one pixel after the last pooling.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.errors import UserError, nearest
from imagenet_repro.models.layers import (
    Conv,
    Dropout,
    Linear,
    MaxPool,
    Network,
    Sequential,
    adaptive_avg_pool,
    check_image_size,
    flatten,
    relu,
)
from imagenet_repro.models.spec import Spec

# (stride, padding) of the first convolution. Neither changes a parameter. "small" leaves a map of 3x3 from 64 pixels,
# where "imagenet" leaves a single pixel.
STEMS = {"imagenet": (4, 2), "small": (2, 5)}


class AlexNet(Network):
    """Five convolutions and three linear layers.

    `stem="small"` suits images from 29 pixels on: the first convolution moves by 2 pixels, not 4. `dropout` is the
    share of units dropped before each of the two hidden linear layers. With `num_classes=0` the 4096 units of the last
    hidden layer are returned.
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
        self.features = Sequential(
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
            classifier.append(Linear(4096, num_classes, **kwargs))
        self.classifier = Sequential(classifier)
        self.min_image_size = 14 * stride + 11 - 2 * padding  # three poolings leave 1 pixel of 15

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b classes"]:
        """float32 logits. Raises UserError where the images are too small for one pixel to remain."""
        hint = "" if self.min_image_size == 29 else " (or from 29 pixels on, with stem='small')"
        check_image_size("AlexNet", images, self.min_image_size, hint)
        x = flatten(adaptive_avg_pool(self.features(images), 6))
        return self.classifier(x).astype(jnp.float32)


VARIANTS = {
    "alexnet_owt": Spec(
        year=2014,
        title="AlexNet, one tower",
        paper="Krizhevsky 2014, arXiv 1404.5997",
        reference="torchvision:alexnet",
        builder=AlexNet,
        aliases=("alexnet",),
    ),
}
