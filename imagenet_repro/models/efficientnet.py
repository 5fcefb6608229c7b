"""EfficientNet and EfficientNetV2: Tan & Le 2019 (arXiv 1905.11946) and 2021 (arXiv 2104.00298).

Layers and names are timm's `tf_efficientnet_*` and `tf_efficientnetv2_*`, which pad as TensorFlow does. Settings that
timm leaves to the user follow Google's code (tensorflow/tpu for V1, google/automl for V2): the momentum of the running
statistics, the dropout of each variant, and stochastic depth. The initial values are the same in both.

timm's `efficientnet_*`, which it trained itself, pad the same number of zeros on both sides and have another epsilon
in batch normalisation: the options `padding="symmetric"` and `norm_epsilon=1e-5`. Their tensors have the same names
and shapes.

B1 to B7 are B0 scaled: width times w, rounded to a multiple of 8, depth times d, rounded up (2019, sec. 3.3). The
Lite networks (tensorflow/tpu, models/official/efficientnet/lite) suit processors without fast gates and exponentials:
no squeeze-and-excitation, ReLU6 in place of swish, and a stem, a head and a depth of the first and the last stage that
scaling leaves alone.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.errors import UserError, nearest
from imagenet_repro.models.nn.initialisers import Initialiser, constant, fan_out, kaiming_fan_out
from imagenet_repro.models.nn.layers import (
    BatchNorm,
    Conv,
    Dropout,
    DropPath,
    Linear,
    Padding,
    Rate,
    Sequential,
    check_images,
    global_avg_pool,
    relu6,
    swish,
)
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.nn.stack import Stack
from imagenet_repro.models.spec import Preprocessing, Spec

PADDINGS = ("same", "symmetric")  # TensorFlow's, with the odd zero after the map; PyTorch's, equal on both sides

zeros = constant(0.0)
# Each input of a depthwise kernel reaches one output, so its fan-out is its area.
depthwise_init = Initialiser("normal", lambda shape: math.sqrt(2 / math.prod(shape[:2])))
dense_init = Initialiser("uniform", lambda shape: fan_out(shape) ** -0.5)


class Layers(NamedTuple):
    """A factory of layers with the settings of one network."""

    momentum: float  # of the running statistics, PyTorch's: the share of the new value
    dtype: DTypeLike
    rngs: nnx.Rngs
    padding: str = "same"  # one of PADDINGS
    epsilon: float = 1e-3  # of batch normalisation

    def conv(self, in_features: int, out_features: int, kernel: int = 1, stride: int = 1) -> Conv:
        """Return a convolution over all channels, without bias."""
        return Conv(in_features, out_features, kernel, init=kaiming_fan_out, **self._settings(kernel, stride))

    def depthwise(self, features: int, kernel: int, stride: int) -> Conv:
        """Return a convolution of each channel with its own kernel, without bias."""
        settings = self._settings(kernel, stride)
        return Conv(features, features, kernel, groups=features, init=depthwise_init, **settings)

    def norm(self, features: int) -> BatchNorm:
        """Return a batch normalisation."""
        return BatchNorm(features, momentum=self.momentum, epsilon=self.epsilon, dtype=self.dtype)

    def _settings(self, kernel: int, stride: int) -> dict[str, Any]:
        padding: Padding = "same" if self.padding == "same" else kernel // 2
        return {"stride": stride, "padding": padding, "bias": False, "dtype": self.dtype, "rngs": self.rngs}


class SqueezeExcite(nnx.Module):
    """Squeeze-and-excitation (Hu et al. 2018, sec. 3): a gate for each channel, from the means of all channels."""

    def __init__(self, features: int, reduced: int, *, layers: Layers):
        kwargs = {"init": kaiming_fan_out, "bias_init": zeros, "dtype": layers.dtype, "rngs": layers.rngs}
        self.conv_reduce = Conv(features, reduced, 1, **kwargs)
        self.conv_expand = Conv(reduced, features, 1, **kwargs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Return every channel times its gate, which is between 0 and 1."""
        means = global_avg_pool(x)[:, None, None, :]
        return x * nnx.sigmoid(self.conv_expand(swish(self.conv_reduce(means))))


class BlockShape(NamedTuple):
    """The numbers that distinguish a block from others of its kind."""

    in_features: int
    out_features: int
    kernel: int
    stride: int
    expansion: int  # of the width inside the block, over that of the input

    @property
    def hidden(self) -> int:
        """The width inside the block."""
        return self.in_features * self.expansion

    @property
    def reduced(self) -> int:
        """The width of the bottleneck of squeeze-and-excitation: a quarter of the block's input, not of its inside."""
        return self.in_features // 4


class Block(nnx.Module):
    """A residual branch, with a shortcut where the shape stays; stochastic depth drops the branch."""

    def __init__(self, shape: BlockShape, drop_path: float, *, layers: Layers):
        has_shortcut = shape.stride == 1 and shape.in_features == shape.out_features
        self.drop_path = DropPath(drop_path, rngs=layers.rngs) if has_shortcut else None
        self.build(shape, layers)

    def build(self, shape: BlockShape, layers: Layers) -> None:
        """Make the layers of the branch."""
        raise NotImplementedError

    def branch(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Return the output of the branch alone."""
        raise NotImplementedError

    def __call__(self, x: Float[Array, "b h w c"], drop_path: Rate | None = None) -> Float[Array, "b oh ow o"]:
        """Return the output of the branch, plus the input where the shape stays."""
        y = self.branch(x)
        return y if self.drop_path is None else x + self.drop_path(y, drop_path)


class MBConv(Block):
    """A block that widens, convolves each channel, gates and narrows (2019, table 1; Sandler et al. 2018, fig. 4)."""

    activation, has_gate = staticmethod(swish), True

    def build(self, shape: BlockShape, layers: Layers) -> None:
        """Make the layers of the branch."""
        self.conv_pw = layers.conv(shape.in_features, shape.hidden)
        self.bn1 = layers.norm(shape.hidden)
        self.conv_dw = layers.depthwise(shape.hidden, shape.kernel, shape.stride)
        self.bn2 = layers.norm(shape.hidden)
        self.se = SqueezeExcite(shape.hidden, shape.reduced, layers=layers) if self.has_gate else None
        self.conv_pwl = layers.conv(shape.hidden, shape.out_features)
        self.bn3 = layers.norm(shape.out_features)

    def branch(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Apply the layers; no activation follows the last normalisation."""
        x = self.activation(self.bn1(self.conv_pw(x)))
        x = self.activation(self.bn2(self.conv_dw(x)))
        return self.bn3(self.conv_pwl(x if self.se is None else self.se(x)))


class MBConv1(Block):
    """MBConv without the widening."""

    activation, has_gate = staticmethod(swish), True

    def build(self, shape: BlockShape, layers: Layers) -> None:
        """Make the layers of the branch."""
        self.conv_dw = layers.depthwise(shape.in_features, shape.kernel, shape.stride)
        self.bn1 = layers.norm(shape.in_features)
        self.se = SqueezeExcite(shape.in_features, shape.reduced, layers=layers) if self.has_gate else None
        self.conv_pw = layers.conv(shape.in_features, shape.out_features)
        self.bn2 = layers.norm(shape.out_features)

    def branch(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Apply the layers; no activation follows the last normalisation."""
        x = self.activation(self.bn1(self.conv_dw(x)))
        return self.bn2(self.conv_pw(x if self.se is None else self.se(x)))


class LiteMBConv(MBConv):
    """MBConv without the gate, and with ReLU6."""

    activation, has_gate = staticmethod(relu6), False


class LiteMBConv1(MBConv1):
    """MBConv1 without the gate, and with ReLU6."""

    activation, has_gate = staticmethod(relu6), False


class FusedMBConv(Block):
    """MBConv with one convolution in place of the first two, and no gate, as in Google's code (2021, fig. 2)."""

    def build(self, shape: BlockShape, layers: Layers) -> None:
        """Make the layers of the branch."""
        self.conv_exp = layers.conv(shape.in_features, shape.hidden, shape.kernel, shape.stride)
        self.bn1 = layers.norm(shape.hidden)
        self.conv_pwl = layers.conv(shape.hidden, shape.out_features)
        self.bn2 = layers.norm(shape.out_features)

    def branch(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Apply the layers; no activation follows the last normalisation."""
        x = swish(self.bn1(self.conv_exp(x)))
        return self.bn2(self.conv_pwl(x))


class FusedMBConv1(Block):
    """FusedMBConv without the widening: one convolution, with an activation after it."""

    def build(self, shape: BlockShape, layers: Layers) -> None:
        """Make the layers of the branch."""
        self.conv = layers.conv(shape.in_features, shape.out_features, shape.kernel, shape.stride)
        self.bn1 = layers.norm(shape.out_features)

    def branch(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Apply convolution, normalisation and activation."""
        return swish(self.bn1(self.conv(x)))


class Stage(NamedTuple):
    """A number of equal blocks, the first with the stride."""

    block: type[Block]
    repeats: int
    kernel: int
    stride: int
    expansion: int
    features: int


class EfficientNet(Network):
    """A stem, stages of blocks, a last 1x1 convolution, global pooling, one linear layer; images may have any size.

    `dropout` is the share of pooled features dropped before the linear layer. `drop_path` is the scale of stochastic
    depth: block i of n, from 0, drops its branch with probability drop_path * i / n, as in Google's code and timm, so
    that even the last block stays below `drop_path`. `norm_momentum` is the share of the new value in the running
    statistics: 0.01 for V1 and 0.1 for V2, as in Google's code; timm trains both with 0.1. `padding` and
    `norm_epsilon` tell Google's networks ("same", 1e-3) from those that timm trained ("symmetric", 1e-5). `scan`
    compiles a run of equal blocks once, and `remat` computes the inside of every block again in the backward pass
    (`Stack`). With `num_classes=0` the network returns the pooled features.
    """

    activation = staticmethod(swish)  # of the stem and the head

    def __init__(
        self,
        stages: tuple[Stage, ...],
        stem: int,
        head: int,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        dropout: float = 0.2,
        drop_path: float = 0.2,
        norm_momentum: float = 0.01,
        norm_epsilon: float = 1e-3,
        padding: str = "same",
        scan: bool = False,
        remat: bool | None = None,
    ):
        if padding not in PADDINGS:
            raise UserError(f"EfficientNet has no padding '{padding}': {nearest(padding, PADDINGS)}")
        layers = Layers(norm_momentum, dtype, rngs, padding, norm_epsilon)
        self.conv_stem = layers.conv(3, stem, 3, stride=2)
        self.bn1 = layers.norm(stem)
        self.blocks = Sequential(_make_stacks(stages, stem, drop_path, layers, scan=scan, remat=remat))
        self.conv_head = layers.conv(stages[-1].features, head)
        self.bn2 = layers.norm(head)
        self.dropout = Dropout(dropout, rngs=rngs)
        linear = functools.partial(Linear, init=dense_init, bias_init=zeros, dtype=dtype, rngs=rngs)
        self.classifier = linear(head, num_classes, wide=True) if num_classes else None

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow c"]:
        """Return the last, activated map. Raises UserError for images of another shape than [b, h, w, 3]."""
        check_images("EfficientNet", images)
        x = self.blocks(self.activation(self.bn1(self.conv_stem(images))))
        return self.activation(self.bn2(self.conv_head(x)))

    def head(self, pooled: Float[Array, "b c"]) -> Float[Array, "b classes"]:
        """Return float32 logits from dropout and the linear layer."""
        x = self.dropout(pooled)
        return widen(x if self.classifier is None else self.classifier(x))


class EfficientNetLite(EfficientNet):
    """EfficientNet-Lite: blocks of `LiteMBConv`, and ReLU6 after the stem and the last convolution too."""

    activation = staticmethod(relu6)


def _make_stacks(
    stages: tuple[Stage, ...], features: int, drop_path: float, layers: Layers, **compilation: Any
) -> list[Stack]:
    """Return the blocks of each stage; `features` channels enter, and `compilation` is `scan` and `remat`."""
    total, index, stacks = sum(stage.repeats for stage in stages), 0, []
    for stage in stages:
        blocks = []
        for stride in [stage.stride] + [1] * (stage.repeats - 1):
            shape = BlockShape(features, stage.features, stage.kernel, stride, stage.expansion)
            blocks.append(stage.block(shape, drop_path * index / total, layers=layers))
            features, index = stage.features, index + 1
        stacks.append(Stack(blocks, **compilation))
    return stacks


def round_features(features: float) -> int:
    """Return the nearest multiple of 8, or the next one where that is below nine tenths of `features`."""
    rounded = max(8, int(features + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * features else rounded


# 2019, table 1: the stages of B0.
B0 = (
    Stage(MBConv1, 1, 3, 1, 1, 16),
    Stage(MBConv, 2, 3, 2, 6, 24),
    Stage(MBConv, 2, 5, 2, 6, 40),
    Stage(MBConv, 3, 3, 2, 6, 80),
    Stage(MBConv, 3, 5, 1, 6, 112),
    Stage(MBConv, 4, 5, 2, 6, 192),
    Stage(MBConv, 1, 3, 1, 6, 320),
)


def scale(stages: tuple[Stage, ...], width: float, depth: float) -> tuple[Stage, ...]:
    """Return the stages of a network `width` times as wide and `depth` times as deep."""
    return tuple(
        stage._replace(features=round_features(stage.features * width), repeats=math.ceil(stage.repeats * depth))
        for stage in stages
    )


def _v1(number: int, width: float, depth: float, image_size: int, dropout: float) -> Spec:
    return Spec(
        reference=f"timm:tf_efficientnet_b{number}",
        builder=functools.partial(EfficientNet, dropout=dropout),
        sizes=(scale(B0, width, depth), round_features(32 * width), round_features(1280 * width)),
        # The crop leaves 32 pixels of the resized side.
        preprocessing=Preprocessing(image_size, image_size / (image_size + 32), "bicubic"),
    )


def lite_stages(width: float, depth: float) -> tuple[Stage, ...]:
    """Return the stages of a Lite network; the first and the last keep their depth."""
    blocks = {MBConv: LiteMBConv, MBConv1: LiteMBConv1}
    stages = [stage._replace(block=blocks[stage.block]) for stage in scale(B0, width, depth)]
    stages[0], stages[-1] = (stages[i]._replace(repeats=B0[i].repeats) for i in (0, -1))
    return tuple(stages)


def _lite(number: int, width: float, depth: float, dropout: float, images: Preprocessing) -> Spec:
    half = (0.5, 0.5, 0.5)
    return Spec(
        reference=f"timm:tf_efficientnet_lite{number}",
        builder=functools.partial(EfficientNetLite, dropout=dropout),
        sizes=(lite_stages(width, depth), 32, 1280),
        # As timm evaluates them; Google trained Lite3 and Lite4 at 280 and 300 pixels.
        preprocessing=dataclasses.replace(images, mean=half, std=half),
    )


def v2_stages(repeats: tuple[int, ...], features: tuple[int, ...]) -> tuple[Stage, ...]:
    """Return the stages of a variant of V2 (2021, table 4, and google/automl); all variants share their kinds."""
    kinds = [(FusedMBConv1, 1, 1), (FusedMBConv, 2, 4), (FusedMBConv, 2, 4)]
    kinds += [(MBConv, 2, 4), (MBConv, 1, 6), (MBConv, 2, 6), (MBConv, 1, 6)]
    rows = zip(kinds[: len(repeats)], repeats, features, strict=True)
    return tuple(Stage(block, n, 3, stride, expansion, out) for (block, stride, expansion), n, out in rows)


def _v2(name: str, repeats: tuple[int, ...], features: tuple[int, ...], image_size: int, dropout: float) -> Spec:
    half = (0.5, 0.5, 0.5)
    return Spec(
        reference=f"timm:tf_efficientnetv2_{name}",
        builder=functools.partial(EfficientNet, dropout=dropout, norm_momentum=0.1),
        sizes=(v2_stages(repeats, features), features[0], 1280),
        # As timm evaluates them: S on the central square, the others on the complete image resized to a square.
        preprocessing=Preprocessing(
            image_size, 1.0, "bicubic", half, half, crop="center" if name == "s" else "squash"
        ),
    )


VARIANTS = {
    "efficientnet_b0": _v1(0, 1.0, 1.0, 224, 0.2),
    "efficientnet_b1": _v1(1, 1.0, 1.1, 240, 0.2),
    "efficientnet_b2": _v1(2, 1.1, 1.2, 260, 0.3),
    "efficientnet_b3": _v1(3, 1.2, 1.4, 300, 0.3),
    "efficientnet_b4": _v1(4, 1.4, 1.8, 380, 0.4),
    "efficientnet_b5": _v1(5, 1.6, 2.2, 456, 0.4),
    "efficientnet_b6": _v1(6, 1.8, 2.6, 528, 0.5),
    "efficientnet_b7": _v1(7, 2.0, 3.1, 600, 0.5),
    "efficientnet_lite0": _lite(0, 1.0, 1.0, 0.2, Preprocessing(224, 0.875, "bicubic")),
    "efficientnet_lite1": _lite(1, 1.0, 1.1, 0.2, Preprocessing(240, 0.882, "bicubic")),
    "efficientnet_lite2": _lite(2, 1.1, 1.2, 0.3, Preprocessing(260, 0.89, "bicubic")),
    "efficientnet_lite3": _lite(3, 1.2, 1.4, 0.3, Preprocessing(300, 0.904, "bilinear")),
    "efficientnet_lite4": _lite(4, 1.4, 1.8, 0.3, Preprocessing(380, 0.92, "bilinear")),
    "efficientnetv2_s": _v2("s", (2, 4, 4, 6, 9, 15), (24, 48, 64, 128, 160, 256), 384, 0.2),
    "efficientnetv2_m": _v2("m", (3, 5, 5, 7, 14, 18, 5), (24, 48, 80, 160, 176, 304, 512), 480, 0.3),
    "efficientnetv2_l": _v2("l", (4, 7, 7, 10, 19, 25, 7), (32, 64, 96, 192, 224, 384, 640), 480, 0.4),
    "efficientnetv2_xl": _v2("xl", (4, 8, 8, 16, 24, 32, 8), (32, 64, 96, 192, 256, 512, 640), 512, 0.4),
}
