"""ResNet: He et al., "Deep residual learning for image recognition", 2015 (arXiv 1512.03385).

Layers, names and initialisation are torchvision's: in a bottleneck that halves the map the 3x3 convolution has the
stride (v1.5), and a shortcut is projected where its shape changes (option B). The networks whose names end in `_v1`
have the stride in the first 1x1, as the paper does; the parameters are the same. `resnet200` is the deep network
of the next paper (arXiv 1603.05027, table 5) with the blocks of this one.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.errors import UserError, nearest
from imagenet_repro.models.nn.initialisers import kaiming_fan_out
from imagenet_repro.models.nn.layers import (
    BatchNorm,
    Conv,
    Dropout,
    DropPath,
    Linear,
    MaxPool,
    Rate,
    Sequential,
    check_images,
    drop_path_rates,
    relu,
)
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.nn.stack import Stack
from imagenet_repro.models.spec import LEVELS, Preprocessing, Spec

STEMS = ("imagenet", "small")
SHORTCUTS = ("A", "A_symmetric", "B", "C")


def conv(in_features: int, out_features: int, kernel: int, **kwargs) -> Conv:
    """Return a convolution without bias, padded so that stride 1 keeps the size of the map."""
    return Conv(in_features, out_features, kernel, padding=kernel // 2, bias=False, init=kaiming_fan_out, **kwargs)


class PaddedIdentity(nnx.Module):
    """The shortcut of option A: every `stride`-th pixel, and zeros for the new channels.

    The zeros are behind the channels that enter, or half of them before and half behind ("symmetric").
    """

    def __init__(self, stride: int, new_channels: int, *, symmetric: bool = False):
        self.stride = stride
        before = new_channels // 2 if symmetric else 0
        self.new_channels = (before, new_channels - before)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Return the smaller map with more channels."""
        return jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), self.new_channels))


def make_shortcut(
    in_features: int, out_features: int, *, stride: int, option: str, kernel: int = 1, rngs: nnx.Rngs, dtype: DTypeLike
) -> nnx.Module | None:
    """Return a shortcut of sec. 3.3; None is the identity.

    Where the shape changes, option A pads with zeros and option B projects; option C projects everywhere. The paper
    does not say where option A's new channels are: "A" has them all behind, "A_symmetric" half before and half behind.
    Raises UserError for any other option.
    """
    if option not in SHORTCUTS:
        raise UserError(f"ResNet has no shortcut '{option}': {nearest(option, SHORTCUTS)}")
    if option != "C" and stride == 1 and in_features == out_features:
        return None
    if option in ("A", "A_symmetric"):
        return PaddedIdentity(stride, out_features - in_features, symmetric=option == "A_symmetric")
    projection = conv(in_features, out_features, kernel, stride=stride, dtype=dtype, rngs=rngs)
    return Sequential([projection, BatchNorm(out_features, dtype=dtype)])


class ResidualBlock(nnx.Module):
    """A residual branch plus a shortcut, then a ReLU (eq. 1 and 2)."""

    out_features: int
    downsample: nnx.Module | None
    drop_path: DropPath

    def branch(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Return the output of the residual branch, which each kind of block defines."""
        raise NotImplementedError

    def __call__(self, x: Float[Array, "b h w c"], drop_path: Rate | None = None) -> Float[Array, "b oh ow o"]:
        """Return the branch plus the shortcut; in training, stochastic depth drops the branch of some images."""
        y = self.drop_path(self.branch(x), drop_path)
        return relu(y + (x if self.downsample is None else self.downsample(x)))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (fig. 5, left)."""

    def __init__(
        self,
        in_features: int,
        width: int,
        *,
        stride: int,
        shortcut: str,
        last_scale: float,
        drop_path: float,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.out_features = width
        self.conv1 = conv(in_features, width, 3, stride=stride, **kwargs)
        self.bn1 = BatchNorm(width, dtype=dtype)
        self.conv2 = conv(width, width, 3, **kwargs)
        self.bn2 = BatchNorm(width, scale_init=last_scale, dtype=dtype)
        self.downsample = make_shortcut(in_features, width, stride=stride, option=shortcut, **kwargs)
        self.drop_path = DropPath(drop_path, rngs=rngs)

    def branch(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Apply convolution, norm, ReLU, convolution, norm."""
        y = self.bn1.rectified(self.conv1(x))
        return self.bn2(self.conv2(y))


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions; the last has four times the `width` (fig. 5, right).

    The 3x3 convolution has `groups` groups of `base_width` channels for every 64 of `width`.
    `v1` puts the stride into the first 1x1 convolution.
    """

    # SENet-154 changes these: the channels of the 3x3 over those of the first 1x1, and the kernel of a projection that
    # halves the map.
    narrowing, halving_kernel = 1, 1

    def __init__(
        self,
        in_features: int,
        width: int,
        *,
        groups: int = 1,
        base_width: int = 64,
        v1: bool = False,
        stride: int,
        shortcut: str,
        last_scale: float,
        drop_path: float,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        inner, self.out_features = width * base_width // 64 * groups, width * 4
        first = inner // self.narrowing
        self.conv1 = conv(in_features, first, 1, stride=stride if v1 else 1, **kwargs)
        self.bn1 = BatchNorm(first, dtype=dtype)
        self.conv2 = conv(first, inner, 3, stride=1 if v1 else stride, groups=groups, **kwargs)
        self.bn2 = BatchNorm(inner, dtype=dtype)
        self.conv3 = conv(inner, self.out_features, 1, **kwargs)
        self.bn3 = BatchNorm(self.out_features, scale_init=last_scale, dtype=dtype)
        kernel = 1 if stride == 1 else self.halving_kernel
        self.downsample = make_shortcut(
            in_features, self.out_features, stride=stride, option=shortcut, kernel=kernel, **kwargs
        )
        self.drop_path = DropPath(drop_path, rngs=rngs)

    def branch(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Apply convolution, norm and ReLU twice, then convolution and norm."""
        y = self.bn1.rectified(self.conv1(x))
        y = self.bn2.rectified(self.conv2(y))
        return self.bn3(self.conv3(y))


Block = Callable[..., ResidualBlock]


def make_stages(
    block: Block, features: int, *, widths: Sequence[int], depths: Sequence[int], drop_path: float, **kwargs
) -> list[Stack]:
    """Return stages of blocks; every stage but the first halves the map in its first block.

    The rates of stochastic depth rise linearly over all blocks up to `drop_path`.

    Args:
      block: makes one block.
      features: channels that enter the first stage.
      widths: of each stage.
      depths: of each stage, in blocks.
      drop_path: rate of the last block.
      kwargs: `scan` and `remat` of `Stack`, and the rest for `block`.
    """
    compilation = {key: kwargs.pop(key) for key in ("scan", "remat")}
    rates = iter(drop_path_rates(drop_path, sum(depths)))
    stages = []
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        blocks = []
        for index in range(depth):
            stride = 2 if stage and not index else 1
            blocks.append(block(features, width, stride=stride, drop_path=next(rates), **kwargs))
            features = blocks[-1].out_features
        stages.append(Stack(blocks, **compilation))
    return stages


class ResNet(Network):
    """A stem, four stages of `depths` blocks, global average pooling, one linear layer; images may have any size.

    `zero_init_last` starts the scale of each block's last normalisation at zero, so that every block begins as the
    identity (Goyal et al. 2017, sec. 5.1); off by default, as in torchvision. `stem="small"` is the usual stem for
    images of 32 to 64 pixels: a 3x3 convolution of stride 1 without pooling, in place of 7x7 of stride 2 with pooling.
    It has 7,680 fewer parameters, maps of four times the side, and so about 16 times the multiply-adds. `shortcut` is
    the paper's option A, B or C (`make_shortcut`). `drop_path` is the last block's rate of stochastic depth (Huang et
    al. 2016), `dropout` the share of features dropped before the linear layer. `scan` compiles a run of equal blocks
    once, and `remat` computes the inside of every block again in the backward pass (`Stack`). With `num_classes=0` the
    network returns the pooled features.
    """

    def __init__(
        self,
        block: Block,
        depths: tuple[int, int, int, int],
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        zero_init_last: bool = False,
        stem: str = "imagenet",
        shortcut: str = "B",
        drop_path: float = 0.0,
        dropout: float = 0.0,
        scan: bool = False,
        remat: bool | None = None,
    ):
        if stem not in STEMS:
            raise UserError(f"ResNet has no stem '{stem}': {nearest(stem, STEMS)}")
        kernel, stride = (3, 1) if stem == "small" else (7, 2)
        self.conv1 = conv(3, 64, kernel, stride=stride, dtype=dtype, rngs=rngs)
        self.bn1 = BatchNorm(64, dtype=dtype)
        self.maxpool = MaxPool(3, stride=2, padding=1) if stem == "imagenet" else None
        self.layer1, self.layer2, self.layer3, self.layer4 = make_stages(
            block,
            64,
            widths=(64, 128, 256, 512),
            depths=depths,
            drop_path=drop_path,
            shortcut=shortcut,
            last_scale=0.0 if zero_init_last else 1.0,
            scan=scan,
            remat=remat,
            rngs=rngs,
            dtype=dtype,
        )
        self.dropout = Dropout(dropout, rngs=rngs) if dropout else None
        features = self.layer4[-1].out_features
        self.fc = Linear(features, num_classes, wide=True, dtype=dtype, rngs=rngs) if num_classes else None

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow c"]:
        """Return the last stage's map. Raises UserError for images of another shape than [batch, height, width, 3]."""
        check_images("ResNet", images)
        x = self.bn1.rectified(self.conv1(images))
        if self.maxpool is not None:
            x = self.maxpool(x)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x

    def head(self, pooled: Float[Array, "b c"]) -> Float[Array, "b classes"]:
        """Return float32 logits from dropout and the linear layer."""
        x = pooled if self.dropout is None else self.dropout(pooled)
        return widen(x if self.fc is None else self.fc(x))


def _resnet(depth: int, block: Block, depths: tuple[int, int, int, int]) -> Spec:
    return Spec(reference=f"torchvision:resnet{depth}", builder=ResNet, sizes=(block, depths))


def _v1(depths: tuple[int, int, int, int]) -> Spec:
    return Spec(
        reference="paper",
        builder=ResNet,
        sizes=(partial(Bottleneck, v1=True), depths),
        preprocessing=Preprocessing(std=LEVELS),
    )


VARIANTS = {
    "resnet18": _resnet(18, BasicBlock, (2, 2, 2, 2)),
    "resnet34": _resnet(34, BasicBlock, (3, 4, 6, 3)),
    "resnet50": _resnet(50, Bottleneck, (3, 4, 6, 3)),
    "resnet101": _resnet(101, Bottleneck, (3, 4, 23, 3)),
    "resnet152": _resnet(152, Bottleneck, (3, 8, 36, 3)),
    "resnet50_v1": _v1((3, 4, 6, 3)),
    "resnet101_v1": _v1((3, 4, 23, 3)),
    "resnet152_v1": _v1((3, 8, 36, 3)),
    "resnet200": Spec(
        reference="timm:resnet200",
        builder=ResNet,
        sizes=(Bottleneck, (3, 24, 36, 3)),
        preprocessing=Preprocessing(kernel="bicubic"),
    ),
}
