"""ResNet with pre-activation: He et al., "Identity mappings in deep residual networks", 2016 (arXiv 1603.05027).

Normalisation and ReLU precede each convolution, nothing follows the addition, and one more normalisation with a ReLU
follows the last block. Layers, names and initialisation are timm's `resnetv2_50`: the 3x3 convolution of a bottleneck
has the stride, a projection reads the activated input of its block, and the head is a 1x1 convolution.

In timm's layout the stem is only a convolution and a pooling. `resnetv2_200` also normalises and activates between the
two (as MXNet's `ResNetV2` does), which makes 64,666,280 parameters in place of 64,666,152.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.models.nn.initialisers import constant, kaiming_fan_out, normal
from imagenet_repro.models.nn.layers import (
    BatchNorm,
    Conv,
    DropPath,
    MaxPool,
    Rate,
    Sequential,
    check_images,
    drop_path_rates,
    relu,
    wide_product,
)
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.nn.stack import Stack
from imagenet_repro.models.resnet import conv
from imagenet_repro.models.spec import Preprocessing, Spec


class Projection(nnx.Module):
    """The shortcut where the shape changes: a 1x1 convolution."""

    def __init__(self, in_features: int, out_features: int, **kwargs):
        self.conv = conv(in_features, out_features, 1, **kwargs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Return the projected map."""
        return self.conv(x)


class PreActBottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions, each after a normalisation and a ReLU (fig. 4, e); the last is 4x as wide."""

    def __init__(
        self,
        in_features: int,
        width: int,
        *,
        stride: int,
        drop_path: float,
        zero_init_last: bool,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        out_features = 4 * width
        shape_changes = stride > 1 or in_features != out_features
        self.downsample = Projection(in_features, out_features, stride=stride, **kwargs) if shape_changes else None
        self.norm1 = BatchNorm(in_features, dtype=dtype)
        self.conv1 = conv(in_features, width, 1, **kwargs)
        self.norm2 = BatchNorm(width, dtype=dtype)
        self.conv2 = conv(width, width, 3, stride=stride, **kwargs)
        self.norm3 = BatchNorm(width, dtype=dtype)
        last = constant(0.0) if zero_init_last else kaiming_fan_out
        self.conv3 = Conv(width, out_features, 1, bias=False, init=last, **kwargs)
        self.drop_path = DropPath(drop_path, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], drop_path: Rate | None = None) -> Float[Array, "b oh ow o"]:
        """Return the branch plus the shortcut; in training, stochastic depth drops the branch of some images."""
        active = relu(self.norm1(x))
        y = self.conv1(active)
        y = self.conv2(relu(self.norm2(y)))
        y = self.conv3(relu(self.norm3(y)))
        return self.drop_path(y, drop_path) + (x if self.downsample is None else self.downsample(active))


class Stem(nnx.Module):
    """A 7x7 convolution of stride 2 and a pooling; `normalised` puts a normalisation and a ReLU between them."""

    def __init__(self, features: int, *, normalised: bool, rngs: nnx.Rngs, dtype: DTypeLike):
        self.conv = conv(3, features, 7, stride=2, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(features, dtype=dtype) if normalised else None
        self.pool = MaxPool(3, stride=2, padding=1)

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow o"]:
        """Return a map of a quarter of the side."""
        x = self.conv(images)
        return self.pool(x if self.norm is None else relu(self.norm(x)))


class Stage(nnx.Module):
    """Blocks of one width, the first with the stride.

    `rates` are those of stochastic depth; `compilation` is `scan` and `remat` of `Stack`.
    """

    def __init__(
        self, in_features: int, width: int, *, stride: int, rates: list[float], compilation: dict[str, bool], **kwargs
    ):
        blocks = []
        for index, rate in enumerate(rates):
            features = 4 * width if index else in_features
            block_stride = 1 if index else stride
            blocks.append(PreActBottleneck(features, width, stride=block_stride, drop_path=rate, **kwargs))
        self.blocks = Stack(blocks, **compilation)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Apply every block."""
        return self.blocks(x)


class Head(nnx.Module):
    """A linear layer written as a 1x1 convolution; without classes there is none."""

    def __init__(self, features: int, num_classes: int, **kwargs):
        layer = {"init": normal(0.01), "bias_init": constant(0.0), **kwargs}
        self.fc = Conv(features, num_classes, 1, **layer) if num_classes else None

    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b n"]:
        """Return float32 logits, or the pooled features."""
        if self.fc is None or self.fc.bias is None:
            return x
        return wide_product(x, self.fc.weight[0, 0], self.fc.bias[...], self.fc.dtype)


class ResNetV2(Network):
    """A stem, four stages of `depths` blocks, a last normalisation, the head; images may have any size.

    `stem_norm` is the normalisation in the stem of `resnetv2_200`. `zero_init_last` starts each block's last
    convolution at zero, so that every block without a projection begins as the identity. `drop_path` is the last
    block's rate of stochastic depth (Huang et al. 2016). `scan` and `remat` are those of `Stack`. With `num_classes=0`
    the network returns the pooled features.
    """

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        stem_norm: bool = False,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        zero_init_last: bool = False,
        drop_path: float = 0.0,
        scan: bool = False,
        remat: bool | None = None,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        compilation = {"scan": scan, "remat": remat}
        rates = drop_path_rates(drop_path, sum(depths))
        self.stem = Stem(64, normalised=stem_norm, **kwargs)
        stages, features = [], 64
        for index, depth in enumerate(depths):
            width, start = 64 * 2**index, sum(depths[:index])
            layout = {"stride": 2 if index else 1, "rates": rates[start : start + depth]}
            stages.append(
                Stage(features, width, zero_init_last=zero_init_last, compilation=compilation, **layout, **kwargs)
            )
            features = 4 * width
        self.stages = Sequential(stages)
        self.norm = BatchNorm(features, dtype=dtype)
        self.head_ = Head(features, num_classes, **kwargs)

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow c"]:
        """Return the last, activated map. Raises UserError for images of another shape than [b, h, w, 3]."""
        check_images("ResNet", images)
        return relu(self.norm(self.stages(self.stem(images))))

    def head(self, pooled: Float[Array, "b c"]) -> Float[Array, "b classes"]:
        """Return float32 logits from the linear layer."""
        return widen(self.head_(pooled))


# Of timm's weights `a1h_in1k`.
_TIMM = Preprocessing(crop_ratio=0.95, kernel="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _spec(depth: int, depths: tuple[int, int, int, int]) -> Spec:
    return Spec(reference=f"timm:resnetv2_{depth}", builder=ResNetV2, sizes=(depths,), preprocessing=_TIMM)


VARIANTS = {
    "resnetv2_50": _spec(50, (3, 4, 6, 3)),
    "resnetv2_101": _spec(101, (3, 4, 23, 3)),
    "resnetv2_200": Spec(reference="paper", builder=ResNetV2, sizes=((3, 24, 36, 3), True)),
}
