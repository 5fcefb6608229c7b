"""ConvNeXt: Liu et al., "A ConvNet for the 2020s", 2022 (arXiv 2201.03545), and ConvNeXt V2.

ConvNeXt V2 (Woo et al., "Co-designing and scaling ConvNets with masked autoencoders", 2023, arXiv 2301.00808) has
global response normalisation in place of the scale of each branch. Its pre-training with masked images is not here.

Layers, names and initial values are timm's. The initial values are also the authors': a normal distribution of
deviation 0.02 cut off at -2 and 2, a hundred deviations away, which is a plain normal distribution.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.models.nn.initialisers import constant, normal, parameter
from imagenet_repro.models.nn.layers import (
    Conv,
    DropPath,
    GlobalResponseNorm,
    LayerNorm,
    Linear,
    Rate,
    Sequential,
    check_images,
    drop_path_rates,
    gelu,
)
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.nn.stack import Stack
from imagenet_repro.models.spec import Preprocessing, Spec


def _conv(*args: Any, **kwargs: Any) -> Conv:
    return Conv(*args, init=normal(0.02), bias_init=constant(0.0), **kwargs)


def _linear(*args: Any, **kwargs: Any) -> Linear:
    return Linear(*args, init=normal(0.02), bias_init=constant(0.0), **kwargs)


class Mlp(nnx.Module):
    """Two linear layers over the channels, with four times as many channels between them.

    With `response_norm`, global response normalisation comes before the second (ConvNeXt V2, fig. 5).
    """

    def __init__(self, features: int, *, response_norm: bool = False, dtype: DTypeLike, rngs: nnx.Rngs):
        self.fc1 = _linear(features, 4 * features, dtype=dtype, rngs=rngs)
        self.grn = GlobalResponseNorm(4 * features) if response_norm else None
        self.fc2 = _linear(4 * features, features, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Apply the layers at each position."""
        x = gelu(self.fc1(x))
        return self.fc2(x if self.grn is None else self.grn(x))


class Block(nnx.Module):
    """7x7 convolution of each channel, normalisation, two linear layers, a scale, a shortcut (fig. 4, right)."""

    def __init__(
        self,
        features: int,
        *,
        layer_scale: float,
        response_norm: bool = False,
        drop_path: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.conv_dw = _conv(features, features, 7, padding=3, groups=features, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(features, dtype=dtype)
        self.mlp = Mlp(features, response_norm=response_norm, dtype=dtype, rngs=rngs)
        self.gamma = parameter(rngs, constant(layer_scale), (features,)) if layer_scale else None
        self.drop_path = DropPath(drop_path, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], drop_path: Rate | None = None) -> Float[Array, "b h w c"]:
        """Return the residual branch plus the shortcut."""
        y = self.mlp(self.norm(self.conv_dw(x)))
        if self.gamma is not None:
            y = y * self.gamma[...].astype(y.dtype)
        return x + self.drop_path(y, drop_path)


class Stage(nnx.Module):
    """Blocks on maps of one size, after a 2x2 convolution that halves the map (not in the first stage).

    `compilation` is `scan` and `remat` of `Stack`.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        rates: list[float],
        *,
        layer_scale: float,
        response_norm: bool,
        compilation: dict[str, bool],
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        if in_features == features:
            self.downsample = None
        else:
            halve = _conv(in_features, features, 2, stride=2, dtype=dtype, rngs=rngs)
            self.downsample = Sequential([LayerNorm(in_features, dtype=dtype), halve])
        kwargs = {"layer_scale": layer_scale, "response_norm": response_norm, "dtype": dtype, "rngs": rngs}
        self.blocks = Stack([Block(features, drop_path=rate, **kwargs) for rate in rates], **compilation)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Return the last block's map."""
        return self.blocks(x if self.downsample is None else self.downsample(x))


class Head(nnx.Module):
    """Normalisation of the pooled features and, where there are classes, one linear layer."""

    def __init__(self, features: int, num_classes: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.norm = LayerNorm(features, dtype=dtype)
        self.fc = _linear(features, num_classes, wide=True, dtype=dtype, rngs=rngs) if num_classes else None

    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b n"]:
        """Return float32 logits, or the normalised features in the layers' dtype."""
        x = self.norm(x)
        return x if self.fc is None else self.fc(x)


class ConvNeXt(Network):
    """A stem of 4x4 patches, four stages, pooling, normalisation, one linear layer, for images from 32 pixels on.

    `response_norm` is whether blocks have global response normalisation (ConvNeXt V2). `drop_path` is the rate of
    stochastic depth at the last block; rates rise linearly from 0 at the first. `layer_scale` is the initial scale of
    every residual branch; 0 leaves the scales out. `scan` compiles a run of equal blocks once, and `remat` computes
    the inside of every block again in the backward pass (`Stack`). With `num_classes=0` the network returns the
    pooled and normalised features.
    """

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        width: int,
        response_norm: bool = False,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        drop_path: float = 0.0,
        layer_scale: float = 1e-6,
        scan: bool = False,
        remat: bool | None = None,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        compilation = {"scan": scan, "remat": remat}
        patches = _conv(3, width, 4, stride=4, **kwargs)
        self.stem = Sequential([patches, LayerNorm(width, dtype=dtype)])
        rates, features, stages = drop_path_rates(drop_path, sum(depths)), width, []
        for index, depth in enumerate(depths):
            share, rates = rates[:depth], rates[depth:]
            branch = {"layer_scale": layer_scale, "response_norm": response_norm}
            stages.append(Stage(features, width * 2**index, share, **branch, compilation=compilation, **kwargs))
            features = width * 2**index
        self.stages = Sequential(stages)
        self.head_ = Head(features, num_classes, **kwargs)

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow c"]:
        """Return the last stage's map. Raises UserError where a side of the images is below 32 pixels."""
        check_images("ConvNeXt", images, 32)
        return self.stages(self.stem(images))

    def head(self, pooled: Float[Array, "b c"]) -> Float[Array, "b classes"]:
        """Return float32 logits from a normalisation and the linear layer."""
        return widen(self.head_(pooled))


def layer(name: str) -> int:
    """Return a parameter's layer, from 0 for the stem to 13 for the head, as the authors' fine-tuning decays rates.

    As in `get_num_layer_for_convnext` of facebookresearch/ConvNeXt, three blocks of the third stage are one layer,
    every other stage is one layer, and a downsampling belongs to the stage after it. The last stage is always 12, so
    where the third has 9 blocks (tiny), the layers 6 to 11 are empty.
    """
    first, *rest = name.split(".")
    if first == "stem":
        return 0
    if first != "stages":
        return 13
    stage = int(rest[0])
    if stage < 2:
        return stage + 1
    if stage == 3:
        return 12
    return 3 + (int(rest[2]) // 3 if rest[1] == "blocks" else 0)


def layer_of(depths: tuple[int, int, int, int]) -> Callable[[str], int]:
    """Return the function from a parameter's name to its layer where every block is one layer.

    The stem is in the layer of the first block, 0, and a downsampling in that of the block after it, as in
    `get_num_layer_for_convnext_single` of facebookresearch/ConvNeXt-V2, which counts from 1.
    """

    def layer(name: str) -> int:
        first, *rest = name.split(".")
        if first == "stem":
            return 0
        if first != "stages":
            return sum(depths)
        return sum(depths[: int(rest[0])]) + (int(rest[2]) if rest[1] == "blocks" else 0)

    return layer


def _spec(name: str, depth: int, width: int, drop_path: float) -> Spec:
    return Spec(
        reference=f"timm:convnext_{name}",
        builder=functools.partial(ConvNeXt, drop_path=drop_path),
        sizes=((3, 3, depth, 3), width),
        preprocessing=Preprocessing(kernel="bicubic"),
        layers=lambda network: layer,
    )


def _v2(name: str, depths: tuple[int, int, int, int], width: int, drop_path: float) -> Spec:
    return Spec(
        reference=f"timm:convnextv2_{name}",
        builder=functools.partial(ConvNeXt, drop_path=drop_path, layer_scale=0.0),
        sizes=(depths, width, True),
        preprocessing=Preprocessing(kernel="bicubic"),
        layers=lambda network: layer if depths[2] == 27 else layer_of(depths),
    )


# Stochastic depth of the authors' training on ImageNet-1k from scratch; for XL, of their training on ImageNet-22k.
# V2: of their fine-tuning on ImageNet-1k, which TRAINING.md of facebookresearch/ConvNeXt-V2 states for atto, tiny and
# base. The rates of the others are ours, and so is the rule that those with 36 blocks count layers as base does.
VARIANTS = {
    "convnext_tiny": _spec("tiny", 9, 96, 0.1),
    "convnext_small": _spec("small", 27, 96, 0.4),
    "convnext_base": _spec("base", 27, 128, 0.5),
    "convnext_large": _spec("large", 27, 192, 0.5),
    "convnext_xlarge": _spec("xlarge", 27, 256, 0.2),
    "convnextv2_atto": _v2("atto", (2, 2, 6, 2), 40, 0.1),
    "convnextv2_femto": _v2("femto", (2, 2, 6, 2), 48, 0.1),
    "convnextv2_pico": _v2("pico", (2, 2, 6, 2), 64, 0.1),
    "convnextv2_nano": _v2("nano", (2, 2, 8, 2), 80, 0.1),
    "convnextv2_tiny": _v2("tiny", (3, 3, 9, 3), 96, 0.2),
    "convnextv2_base": _v2("base", (3, 3, 27, 3), 128, 0.1),
    "convnextv2_large": _v2("large", (3, 3, 27, 3), 192, 0.1),
    "convnextv2_huge": _v2("huge", (3, 3, 27, 3), 352, 0.1),
}
