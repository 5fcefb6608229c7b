"""Inception-v4 and Inception-ResNet-v2: Szegedy et al., "Inception-v4, Inception-ResNet and the impact of residual
connections on learning", 2016 (arXiv 1602.07261).

Layers, names and initialisation are timm's `inception_v4` and `inception_resnet_v2`, ports of the released weights.
The released Inception-ResNet-v2 differs from the paper's figures: its stem is Inception-v3's, its first module is like
the one in Inception-v3 with 320 maps, and it has 10, 20 and 10 residual blocks where the paper has 5, 10 and 5. timm's
normalisation decays by 0.9, the original's by 0.9997.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.models.inception import INCEPTION_MEAN, INCEPTION_STD, ConvNorm, Unit, halve
from imagenet_repro.models.nn.layers import AvgPool, Conv, Dropout, Linear, Sequential, check_images, relu
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.spec import Preprocessing, Spec

MIN_IMAGE_SIZE = 75  # pixels that leave one position after the last module

Step = Unit | Callable[[Array], Array]  # a convolution or a pooling
Branch = tuple[Step, ...]


def average(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Return the mean over 3x3; the padding does not count."""
    return AvgPool(3, stride=1, padding=1, count_padding=False)(x)


def chain(in_features: int, steps: Branch, **kwargs: Any) -> tuple[Callable[[Array], Array], int]:
    """Return the layers of a branch, without `Sequential` where there is one, and the number of maps that leave it."""
    layers, features = [], in_features
    for step in steps:
        if not isinstance(step, Unit):
            layers.append(step)
            continue
        layers.append(ConvNorm(features, step, **kwargs))
        features = step.width
    return (layers[0] if len(layers) == 1 else Sequential(layers)), features


class Mixed(nnx.Module):
    """An Inception module: `branch0`, `branch1` and so on, side by side and concatenated."""

    def __init__(self, in_features: int, *branches: Branch, **kwargs: Any):
        self.branches, self.out_features = len(branches), 0
        for index, steps in enumerate(branches):
            layers, features = chain(in_features, steps, **kwargs)
            setattr(self, f"branch{index}", layers)
            self.out_features += features

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Return the maps of all branches."""
        return jnp.concatenate([getattr(self, f"branch{index}")(x) for index in range(self.branches)], -1)


# --- Inception-v4 -------------------------------------------------------------------------------------------------


class StemReduction(nnx.Module):
    """A part of the stem that halves the map: a convolution with stride 2 beside a pooling (fig. 3)."""

    def __init__(self, in_features: int, width: int, *, pool_first: bool, **kwargs: Any):
        self.conv = ConvNorm(in_features, Unit(width, 3, 2), **kwargs)
        self.pool_first = pool_first

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Return both maps, in the order of the released weights."""
        pooled, convolved = halve(x), self.conv(x)
        return jnp.concatenate([pooled, convolved] if self.pool_first else [convolved, pooled], -1)


class InceptionC(nnx.Module):
    """The module for 8x8 maps (fig. 6): two of its four branches end in a 1x3 and a 3x1 convolution side by side."""

    def __init__(self, in_features: int, **kwargs: Any):
        across, down = Unit(256, (1, 3)), Unit(256, (3, 1))
        self.branch0 = ConvNorm(in_features, Unit(256), **kwargs)
        self.branch1_0 = ConvNorm(in_features, Unit(384), **kwargs)
        self.branch1_1a = ConvNorm(384, across, **kwargs)
        self.branch1_1b = ConvNorm(384, down, **kwargs)
        self.branch2_0 = ConvNorm(in_features, Unit(384), **kwargs)
        self.branch2_1 = ConvNorm(384, Unit(448, (3, 1)), **kwargs)
        self.branch2_2 = ConvNorm(448, Unit(512, (1, 3)), **kwargs)
        self.branch2_3a = ConvNorm(512, across, **kwargs)
        self.branch2_3b = ConvNorm(512, down, **kwargs)
        self.branch3, _ = chain(in_features, (average, Unit(256)), **kwargs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        """Return the maps of all branches."""
        y = self.branch1_0(x)
        z = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        maps = [self.branch0(x), self.branch1_1a(y), self.branch1_1b(y), self.branch2_3a(z), self.branch2_3b(z)]
        return jnp.concatenate([*maps, self.branch3(x)], -1)


# Figures 3 to 8 of the paper; the first reduction's widths are in its table 1.
V4_STEM_FORK = (
    (Unit(64), Unit(96, 3, valid=True)),
    (Unit(64), Unit(64, (1, 7)), Unit(64, (7, 1)), Unit(96, 3, valid=True)),
)
V4_A = (
    (Unit(96),),
    (Unit(64), Unit(96, 3)),
    (Unit(64), Unit(96, 3), Unit(96, 3)),
    (average, Unit(96)),
)
V4_REDUCTION_A = (
    (Unit(384, 3, 2),),
    (Unit(192), Unit(224, 3), Unit(256, 3, 2)),
    (halve,),
)
V4_B = (
    (Unit(384),),
    (Unit(192), Unit(224, (1, 7)), Unit(256, (7, 1))),
    (Unit(192), Unit(192, (7, 1)), Unit(224, (1, 7)), Unit(224, (7, 1)), Unit(256, (1, 7))),
    (average, Unit(128)),
)
V4_REDUCTION_B = (
    (Unit(192), Unit(192, 3, 2)),
    (Unit(256), Unit(256, (1, 7)), Unit(320, (7, 1)), Unit(320, 3, 2)),
    (halve,),
)


class InceptionV4(Network):
    """A stem to 35x35, 4 modules A, 7 B, 3 C with reductions between them, pooling, dropout, one linear layer.

    `dropout` is the share of features dropped before the linear layer; the paper keeps 0.8. With `num_classes=0` the
    network returns the 1536 pooled features.
    """

    def __init__(
        self,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        dropout: float = 0.2,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.features_ = Sequential(
            [
                ConvNorm(3, Unit(32, 3, 2), **kwargs),
                ConvNorm(32, Unit(32, 3, valid=True), **kwargs),
                ConvNorm(32, Unit(64, 3), **kwargs),
                StemReduction(64, 96, pool_first=True, **kwargs),
                Mixed(160, *V4_STEM_FORK, **kwargs),
                StemReduction(192, 192, pool_first=False, **kwargs),
                *(Mixed(384, *V4_A, **kwargs) for _ in range(4)),
                Mixed(384, *V4_REDUCTION_A, **kwargs),
                *(Mixed(1024, *V4_B, **kwargs) for _ in range(7)),
                Mixed(1024, *V4_REDUCTION_B, **kwargs),
                *(InceptionC(1536, **kwargs) for _ in range(3)),
            ]
        )
        self.dropout = Dropout(dropout, rngs=rngs)
        self.last_linear = Linear(1536, num_classes, wide=True, **kwargs) if num_classes else None

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow 1536"]:
        """Return the last module's map. Raises UserError for images below 75 pixels."""
        check_images("Inception-v4", images, MIN_IMAGE_SIZE)
        return self.features_(images)

    def head(self, pooled: Float[Array, "b 1536"]) -> Float[Array, "b classes"]:
        """Return float32 logits from dropout and the linear layer."""
        x = self.dropout(pooled)
        return widen(x if self.last_linear is None else self.last_linear(x))


# --- Inception-ResNet-v2 ------------------------------------------------------------------------------------------

RESNET_5B = (
    (Unit(96),),
    (Unit(48), Unit(64, 5)),
    (Unit(64), Unit(96, 3), Unit(96, 3)),
    (average, Unit(64)),
)
RESNET_6A = (
    (Unit(384, 3, 2),),
    (Unit(256), Unit(256, 3), Unit(384, 3, 2)),
    (halve,),
)
RESNET_7A = (
    (Unit(256), Unit(384, 3, 2)),
    (Unit(256), Unit(288, 3, 2)),
    (Unit(256), Unit(288, 3), Unit(320, 3, 2)),
    (halve,),
)
BLOCK_35 = (
    (Unit(32),),
    (Unit(32), Unit(32, 3)),
    (Unit(32), Unit(48, 3), Unit(64, 3)),
)
BLOCK_17 = (
    (Unit(192),),
    (Unit(128), Unit(160, (1, 7)), Unit(192, (7, 1))),
)
BLOCK_8 = (
    (Unit(192),),
    (Unit(192), Unit(224, (1, 3)), Unit(256, (3, 1))),
)


class ResidualBlock(Mixed):
    """An Inception module, a 1x1 convolution with bias and without normalisation, and the shortcut (figs. 16, 17, 19).

    The residual is scaled down before it is added, without which training dies (sec. 3.3).
    """

    def __init__(self, features: int, *branches: Branch, scale: float, last: bool = False, **kwargs: Any):
        super().__init__(features, *branches, **kwargs)
        self.conv2d = Conv(self.out_features, features, 1, **kwargs)
        self.scale, self.last = scale, last

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Return the sum, after a ReLU except in the `last` block."""
        y = x + self.scale * self.conv2d(super().__call__(x))
        return y if self.last else relu(y)


class InceptionResNetV2(Network):
    """Inception-v3's stem, 10 + 20 + 10 residual blocks with reductions between them, a 1x1 convolution to 1536 maps,
    pooling, dropout, one linear layer.

    `dropout` is the share of features dropped before the linear layer; the paper keeps 0.8. With `num_classes=0` the
    network returns the 1536 pooled features.
    """

    def __init__(
        self,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        dropout: float = 0.2,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.conv2d_1a = ConvNorm(3, Unit(32, 3, 2), **kwargs)
        self.conv2d_2a = ConvNorm(32, Unit(32, 3, valid=True), **kwargs)
        self.conv2d_2b = ConvNorm(32, Unit(64, 3), **kwargs)
        self.conv2d_3b = ConvNorm(64, Unit(80), **kwargs)
        self.conv2d_4a = ConvNorm(80, Unit(192, 3, valid=True), **kwargs)
        self.mixed_5b = Mixed(192, *RESNET_5B, **kwargs)
        self.repeat = Sequential([ResidualBlock(320, *BLOCK_35, scale=0.17, **kwargs) for _ in range(10)])
        self.mixed_6a = Mixed(320, *RESNET_6A, **kwargs)
        self.repeat_1 = Sequential([ResidualBlock(1088, *BLOCK_17, scale=0.1, **kwargs) for _ in range(20)])
        self.mixed_7a = Mixed(1088, *RESNET_7A, **kwargs)
        self.repeat_2 = Sequential([ResidualBlock(2080, *BLOCK_8, scale=0.2, **kwargs) for _ in range(9)])
        # As in timm, the last block does not scale its residual.
        self.block8 = ResidualBlock(2080, *BLOCK_8, scale=1.0, last=True, **kwargs)
        self.conv2d_7b = ConvNorm(2080, Unit(1536), **kwargs)
        self.dropout = Dropout(dropout, rngs=rngs)
        self.classif = Linear(1536, num_classes, wide=True, **kwargs) if num_classes else None

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow 1536"]:
        """Return the map of the last convolution. Raises UserError for images below 75 pixels."""
        check_images("Inception-ResNet-v2", images, MIN_IMAGE_SIZE)
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(images)))
        x = halve(self.conv2d_4a(self.conv2d_3b(halve(x))))
        x = self.repeat(self.mixed_5b(x))
        x = self.repeat_1(self.mixed_6a(x))
        x = self.block8(self.repeat_2(self.mixed_7a(x)))
        return self.conv2d_7b(x)

    def head(self, pooled: Float[Array, "b 1536"]) -> Float[Array, "b classes"]:
        """Return float32 logits from dropout and the linear layer."""
        x = self.dropout(pooled)
        return widen(x if self.classif is None else self.classif(x))


VARIANTS = {
    "inception_v4": Spec(
        reference="timm:inception_v4",
        builder=InceptionV4,
        preprocessing=Preprocessing(299, 0.875, "bicubic", INCEPTION_MEAN, INCEPTION_STD),
    ),
    "inception_resnet_v2": Spec(
        reference="timm:inception_resnet_v2",
        builder=InceptionResNetV2,
        preprocessing=Preprocessing(299, 0.8975, "bicubic", INCEPTION_MEAN, INCEPTION_STD),
    ),
}
