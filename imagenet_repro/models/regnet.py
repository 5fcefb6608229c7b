"""RegNet: Radosavovic et al., "Designing network design spaces", 2020 (arXiv 2003.13678).

A rule with five numbers gives the depth and the width of each stage (sec. 3.3). The Y form has squeeze-and-excitation
in each block (sec. 4). Names are those of timm's `regnety_*`, in which the teacher of DeiT was published; layers and
initialisation are torchvision's `regnet_y_*`, which computes the same.
"""

import math
from collections import Counter
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.models.nn.initialisers import constant, normal
from imagenet_repro.models.nn.layers import (
    BatchNorm,
    Dropout,
    DropPath,
    Linear,
    Rate,
    check_images,
    drop_path_rates,
    relu,
)
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.nn.stack import Stack
from imagenet_repro.models.resnet import conv
from imagenet_repro.models.senet import SEModule
from imagenet_repro.models.spec import Preprocessing, Spec

STEM = 32  # channels


class Rule(NamedTuple):
    """The numbers that give the stages of a network (sec. 3.3)."""

    depth: int  # blocks
    width: int  # w_0, channels at the start of the line
    slope: float  # w_a, channels for each block
    ratio: float  # w_m, of the widths of two stages that follow one another
    group: int  # channels of a group of the 3x3 convolutions

    def stages(self) -> list[tuple[int, int]]:
        """Return width and depth of each stage.

        The widths of the blocks are those of a line, rounded to powers of the ratio (eq. 2 to 4) and to multiples of
        8; blocks of equal width are a stage. A stage's width is rounded to a multiple of the group, as in the authors'
        code.
        """
        line = [self.width + self.slope * block for block in range(self.depth)]
        powers = [round(math.log(width / self.width) / math.log(self.ratio)) for width in line]
        widths = [round(self.width * self.ratio**power / 8) * 8 for power in powers]
        return [(_multiple(width, min(self.group, width)), depth) for width, depth in Counter(widths).items()]


def _multiple(width: int, divisor: int) -> int:
    """Return the nearest multiple, or the next one where that is below nine tenths of the width."""
    rounded = max(divisor, (width + divisor // 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


class ConvNorm(nnx.Module):
    """A convolution and its normalisation."""

    def __init__(
        self, in_features: int, out_features: int, kernel: int, *, dtype: DTypeLike, rngs: nnx.Rngs, **kwargs
    ):
        scale = kwargs.pop("scale_init", 1.0)
        self.conv = conv(in_features, out_features, kernel, dtype=dtype, rngs=rngs, **kwargs)
        self.bn = BatchNorm(out_features, scale_init=scale, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b oh ow o"]:
        """Return the normalised map."""
        return self.bn(self.conv(x))

    def rectified(self, x: Float[Array, "b h w i"]) -> Float[Array, "b oh ow o"]:
        """Return the normalised map after a ReLU."""
        return self.bn.rectified(self.conv(x))


class Block(nnx.Module):
    """1x1, grouped 3x3 and 1x1 convolutions of one width, with squeeze-and-excitation before the last (sec. 4).

    The bottleneck of squeeze-and-excitation has a quarter of the channels of the block's input.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        group: int,
        *,
        stride: int,
        last_scale: float,
        drop_path: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        groups = features // min(group, features)
        self.conv1 = ConvNorm(in_features, features, 1, **kwargs)
        self.conv2 = ConvNorm(features, features, 3, stride=stride, groups=groups, **kwargs)
        self.se = SEModule(features, round(in_features / 4), **kwargs)
        self.conv3 = ConvNorm(features, features, 1, scale_init=last_scale, **kwargs)
        changes = stride > 1 or in_features != features
        self.downsample = ConvNorm(in_features, features, 1, stride=stride, **kwargs) if changes else None
        self.drop_path = DropPath(drop_path, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], drop_path: Rate | None = None) -> Float[Array, "b oh ow o"]:
        """Return the branch plus the shortcut, after a ReLU."""
        y = self.conv3(self.se(self.conv2.rectified(self.conv1.rectified(x))))
        return relu(self.drop_path(y, drop_path) + (x if self.downsample is None else self.downsample(x)))


class Stage(nnx.Module):
    """Blocks of one width; the first halves the map."""

    def __init__(self, blocks: list[Block], *, scan: bool, remat: bool | None):
        self.b_from_1 = Stack(blocks, scan=scan, remat=remat)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Return the last block's map."""
        return self.b_from_1(x)


class Head(nnx.Module):
    """One linear layer."""

    def __init__(self, features: int, num_classes: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kwargs = {"init": normal(0.01), "bias_init": constant(0.0), "dtype": dtype, "rngs": rngs}
        self.fc = Linear(features, num_classes, wide=True, **kwargs)


class RegNet(Network):
    """A 3x3 stem of stride 2, stages of blocks, global average pooling, one linear layer; images may have any size.

    `zero_init_last` starts the scale of each block's last normalisation at zero, so that every block begins as the
    identity. `drop_path` is the last block's rate of stochastic depth (Huang et al. 2016), `dropout` the share of
    features dropped before the linear layer; the paper uses none of the three. `scan` and `remat` are those of
    `Stack`. With `num_classes=0` the network returns the pooled features.
    """

    def __init__(
        self,
        rule: Rule,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        zero_init_last: bool = False,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        scan: bool = False,
        remat: bool | None = None,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.stem = ConvNorm(3, STEM, 3, stride=2, **kwargs)
        stages, features = rule.stages(), STEM
        rates = iter(drop_path_rates(drop_path, sum(depth for _, depth in stages)))
        self.depth = len(stages)
        for number, (width, depth) in enumerate(stages, start=1):
            blocks = []
            for index in range(depth):
                options = {"stride": 1 if index else 2, "last_scale": 0.0 if zero_init_last else 1.0}
                blocks.append(Block(features, width, rule.group, drop_path=next(rates), **options, **kwargs))
                features = width
            setattr(self, f"s{number}", Stage(blocks, scan=scan, remat=remat))
        self.dropout = Dropout(dropout, rngs=rngs) if dropout else None
        self.head_ = Head(features, num_classes, **kwargs) if num_classes else None

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow c"]:
        """Return the last stage's map. Raises UserError for images of another shape than [batch, height, width, 3]."""
        check_images("RegNet", images)
        x = self.stem.rectified(images)
        for number in range(1, self.depth + 1):
            x = getattr(self, f"s{number}")(x)
        return x

    def head(self, pooled: Float[Array, "b c"]) -> Float[Array, "b classes"]:
        """Return float32 logits from dropout and the linear layer."""
        x = pooled if self.dropout is None else self.dropout(pooled)
        return widen(x if self.head_ is None else self.head_.fc(x))


VARIANTS = {
    "regnet_y_16gf": Spec(
        reference="timm:regnety_160",
        builder=RegNet,
        sizes=(Rule(depth=18, width=200, slope=106.23, ratio=2.48, group=112),),
        preprocessing=Preprocessing(crop_ratio=0.95, kernel="bicubic"),  # as timm evaluates the teacher of DeiT
    ),
}
