"""MaxViT: Tu et al., "MaxViT: multi-axis vision transformer", 2022 (arXiv 2204.01697).

Every block has an inverted bottleneck with squeeze-and-excitation, attention within windows, and attention within
grids, whose positions are spread evenly over the map. Layers, names and initial values are those of timm's
`maxvit_*_tf_*`, which computes what the authors' TensorFlow code does.
"""

import functools
import math
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.errors import UserError
from imagenet_repro.models.nn.attention import attend
from imagenet_repro.models.nn.initialisers import Initialiser, constant, fan_in, fan_out, normal, parameter
from imagenet_repro.models.nn.layers import (
    AvgPool,
    BatchNorm,
    Conv,
    DropPath,
    LayerNorm,
    Linear,
    Rate,
    check_images,
    drop_path_rates,
    gelu_tanh,
    global_avg_pool,
    swish,
    tanh,
)
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.nn.stack import Stack
from imagenet_repro.models.spec import Preprocessing, Spec

HEAD_SIZE = 32  # features of a head
STRIDE = 32  # pixels on a side of a position of the last map
TABLE = "relative_position_bias_table"  # the last part of the name of a parameter that depends on the window
Partition = Literal["window", "grid"]

# Glorot & Bengio 2010, eq. 16.
_xavier = Initialiser("uniform", lambda shape: math.sqrt(6 / (fan_in(shape) + fan_out(shape))))


def _conv_init(groups: int) -> Initialiser:
    return Initialiser("normal", lambda shape: math.sqrt(2 * groups / fan_out(shape)))


def _conv(
    in_features: int,
    out_features: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> Conv:
    return Conv(
        in_features,
        out_features,
        kernel,
        stride=stride,
        padding="same",
        groups=groups,
        bias=bias,
        init=_conv_init(groups),
        bias_init=constant(0.0),
        dtype=dtype,
        rngs=rngs,
    )


def _norm(features: int, dtype: DTypeLike) -> BatchNorm:
    return BatchNorm(features, epsilon=1e-3, dtype=dtype)


class SqueezeExcite(nnx.Module):
    """A factor in (0, 1) for each channel, from the means of all channels (Hu et al. 2018, sec. 3)."""

    def __init__(self, features: int, reduced: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.fc1 = _conv(features, reduced, bias=True, dtype=dtype, rngs=rngs)
        self.fc2 = _conv(reduced, features, bias=True, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Return the map with each channel times its factor."""
        return x * nnx.sigmoid(self.fc2(swish(self.fc1(global_avg_pool(x)[:, None, None]))))


class Shortcut(nnx.Module):
    """Means over 2x2 pixels and, where the width changes, a 1x1 convolution."""

    def __init__(self, in_features: int, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.pool = AvgPool(2, stride=2)
        self.expand = (
            _conv(in_features, features, bias=True, dtype=dtype, rngs=rngs) if in_features != features else None
        )

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Return the smaller map."""
        x = self.pool(x)
        return x if self.expand is None else self.expand(x)


class MBConv(nnx.Module):
    """Inverted bottleneck with a norm before it and squeeze-and-excitation (MaxViT, sec. 3.2 and appendix A.1)."""

    def __init__(
        self, in_features: int, features: int, *, stride: int, drop_path: float, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        hidden = 4 * features
        self.shortcut = Shortcut(in_features, features, **kwargs) if stride == 2 else None
        self.pre_norm = _norm(in_features, dtype)
        self.conv1_1x1 = _conv(in_features, hidden, **kwargs)
        self.norm1 = _norm(hidden, dtype)
        self.conv2_kxk = _conv(hidden, hidden, 3, stride=stride, groups=hidden, **kwargs)
        self.norm2 = _norm(hidden, dtype)
        self.se = SqueezeExcite(hidden, features // 4, **kwargs)
        self.conv3_1x1 = _conv(hidden, features, bias=True, **kwargs)
        self.drop_path = DropPath(drop_path, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], drop_path: Rate | None = None) -> Float[Array, "b oh ow o"]:
        """Return the branch plus the shortcut."""
        y = gelu_tanh(self.norm1(self.conv1_1x1(self.pre_norm(x))))
        y = self.conv3_1x1(self.se(gelu_tanh(self.norm2(self.conv2_kxk(y)))))
        return self.drop_path(y, drop_path) + (x if self.shortcut is None else self.shortcut(x))


class RelativeBias(nnx.Module):
    """The biases that each head adds to the scores of two positions of a window, by their offset."""

    def __init__(self, window: int, heads: int, *, rngs: nnx.Rngs):
        self.relative_position_bias_table = parameter(rngs, normal(0.02), (heads, 2 * window - 1, 2 * window - 1))
        self.window = window

    def __call__(self) -> Float[Array, "h n n"]:
        """Return the biases of all pairs (query, key) of positions, row by row, in float32."""
        side = np.arange(self.window)
        difference = side[None, :] - side[:, None] + self.window - 1  # of key and query
        table = self.relative_position_bias_table[...][:, difference]  # [heads, query row, key row, columns]
        table = table[..., difference]  # [heads, query row, key row, query column, key column]
        return table.transpose(0, 1, 3, 2, 4).reshape(len(table), self.window**2, self.window**2)


class WindowAttention(nnx.Module):
    """Multi-head self-attention within windows, with relative positions."""

    def __init__(self, features: int, window: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kwargs = {"init": _xavier, "bias_init": constant(0.0), "dtype": dtype, "rngs": rngs}
        self.qkv = Linear(features, 3 * features, **kwargs)
        self.rel_pos = RelativeBias(window, features // HEAD_SIZE, rngs=rngs)
        self.proj = Linear(features, features, **kwargs)

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """Return the positions of each window after attention, in the layer's dtype."""
        batch, positions, features = x.shape
        qkv = self.qkv(x).reshape(batch, positions, 3, -1, HEAD_SIZE)
        y = attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], positions, bias=self.rel_pos())
        return self.proj(y.reshape(batch, positions, features))


class Mlp(nnx.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kwargs = {"init": _xavier, "bias_init": normal(1e-6), "dtype": dtype, "rngs": rngs}
        self.fc1 = Linear(features, 4 * features, **kwargs)
        self.fc2 = Linear(4 * features, features, **kwargs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Apply the layers at each position."""
        return self.fc2(gelu_tanh(self.fc1(x)))


class PartitionAttention(nnx.Module):
    """Attention within the parts of a map, then an MLP, each with a norm before it and a shortcut (sec. 3.1)."""

    def __init__(
        self, features: int, window: int, part: Partition, *, drop_path: float, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.norm1 = LayerNorm(features, epsilon=1e-5, dtype=dtype)
        self.attn = WindowAttention(features, window, **kwargs)
        self.drop_path1 = DropPath(drop_path, rngs=rngs)
        self.norm2 = LayerNorm(features, epsilon=1e-5, dtype=dtype)
        self.mlp = Mlp(features, **kwargs)
        self.drop_path2 = DropPath(drop_path, rngs=rngs)
        self.part: Partition = part
        self.window = window

    def __call__(self, x: Float[Array, "b h w c"], drop_path: Rate | None = None) -> Float[Array, "b h w c"]:
        """Return the map after both branches."""
        parts = split_map(self.norm1(x), self.window, self.part)
        y = join_map(self.attn(parts), self.window, self.part, x.shape)
        x = x + self.drop_path1(y, drop_path)
        return x + self.drop_path2(self.mlp(self.norm2(x)), drop_path)


def split_map(x: Float[Array, "b h w c"], window: int, part: Partition) -> Float[Array, "p n c"]:
    """Return the parts of a map, image by image, with `window` x `window` positions each.

    A part is a window of neighbours, or a grid with positions at equal distances over the whole map. The sides of the
    map are multiples of `window`.
    """
    b, h, w, c = x.shape
    if part == "window":
        x = x.reshape(b, h // window, window, w // window, window, c).transpose(0, 1, 3, 2, 4, 5)
    else:
        x = x.reshape(b, window, h // window, window, w // window, c).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(-1, window**2, c)


def join_map(
    parts: Float[Array, "p n c"], window: int, part: Partition, shape: tuple[int, ...]
) -> Float[Array, "b h w c"]:
    """Return the map of a shape, the inverse of `split_map`."""
    b, h, w, _ = shape
    x = parts.reshape(b, h // window, w // window, window, window, -1)
    x = x.transpose(0, 1, 3, 2, 4, 5) if part == "window" else x.transpose(0, 3, 1, 4, 2, 5)
    return x.reshape(b, h, w, -1)


class Block(nnx.Module):
    """An inverted bottleneck, attention within windows, attention within grids (fig. 2)."""

    def __init__(
        self,
        in_features: int,
        features: int,
        window: int,
        *,
        stride: int,
        drop_path: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kwargs = {"drop_path": drop_path, "dtype": dtype, "rngs": rngs}
        self.conv = MBConv(in_features, features, stride=stride, **kwargs)
        self.attn_block = PartitionAttention(features, window, "window", **kwargs)
        self.attn_grid = PartitionAttention(features, window, "grid", **kwargs)

    def __call__(self, x: Float[Array, "b h w c"], drop_path: Rate | None = None) -> Float[Array, "b oh ow o"]:
        """Return the map after the three parts."""
        return self.attn_grid(self.attn_block(self.conv(x, drop_path), drop_path), drop_path)


class Stage(nnx.Module):
    """Blocks on maps of one size; the first of them halves the map. `compilation` is `scan` and `remat` of `Stack`."""

    def __init__(
        self,
        in_features: int,
        features: int,
        window: int,
        rates: list[float],
        *,
        compilation: dict[str, Any],
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        first = Block(in_features, features, window, stride=2, drop_path=rates[0], **kwargs)
        others = [Block(features, features, window, stride=1, drop_path=rate, **kwargs) for rate in rates[1:]]
        self.blocks = Stack([first, *others], **compilation)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Return the last block's map."""
        return self.blocks(x)


class Stem(nnx.Module):
    """Two 3x3 convolutions; the first one halves the map."""

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv1 = _conv(3, features, 3, stride=2, bias=True, dtype=dtype, rngs=rngs)
        self.norm1 = _norm(features, dtype)
        self.conv2 = _conv(features, features, 3, bias=True, dtype=dtype, rngs=rngs)

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow c"]:
        """Return the first map."""
        return self.conv2(gelu_tanh(self.norm1(self.conv1(images))))


class Hidden(nnx.Module):
    """A linear layer and a hyperbolic tangent before the classifier."""

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.fc = Linear(features, features, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b c"]:
        """Apply both."""
        return tanh(self.fc(x))


class Head(nnx.Module):
    """Normalisation of the pooled features, a hidden layer and, where there are classes, one linear layer."""

    def __init__(self, features: int, num_classes: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.norm = LayerNorm(features, epsilon=1e-5, dtype=dtype)
        self.pre_logits = Hidden(features, dtype=dtype, rngs=rngs)
        self.fc = Linear(features, num_classes, wide=True, dtype=dtype, rngs=rngs) if num_classes else None

    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b n"]:
        """Return float32 logits, or the hidden features in the layers' dtype."""
        x = self.pre_logits(self.norm(x))
        return x if self.fc is None else self.fc(x)


class MaxViT(Network):
    """A stem, four stages, pooling, normalisation, a hidden layer, one linear layer.

    Windows and grids have 1/32 of `image_size` (pixels, square, a multiple of 32) on a side, so they cover the last
    map of such images. Sides of images are multiples of `image_size`.

    Args:
      depths: blocks of each stage.
      width: channels of the first stage; each stage has twice as many as the one before.
      stem: channels of the stem.
      drop_path: rate of stochastic depth at the last block; rates rise linearly from 0 at the first.
      scan: whether a run of equal blocks is compiled once (`Stack`).
      remat: whether the inside of every block is computed again in the backward pass (`Stack`).
    """

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        width: int,
        stem: int,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        image_size: int = 224,
        drop_path: float = 0.0,
        scan: bool = False,
        remat: bool | None = None,
    ):
        if image_size % STRIDE:
            near = max(STRIDE, round(image_size / STRIDE) * STRIDE)
            raise UserError(
                f"MaxViT cannot take {image_size} x {image_size} pixels: image_size must be a multiple of {STRIDE},"
                f" such as {near}"
            )
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.image_size = image_size
        self.stem = Stem(stem, **kwargs)
        rates, features, stages = drop_path_rates(drop_path, sum(depths)), stem, []
        for index, depth in enumerate(depths):
            share, rates = rates[:depth], rates[depth:]
            compilation = {"scan": scan, "remat": remat}
            stage = Stage(features, width * 2**index, image_size // STRIDE, share, compilation=compilation, **kwargs)
            stages.append(stage)
            features = width * 2**index
        self.stages = nnx.List(stages)
        self.head_ = Head(features, num_classes, **kwargs)

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow c"]:
        """Return the last stage's map.

        Raises:
          UserError: the images are not [batch, height, width, 3], or a side is not a multiple of `image_size`.
        """
        check_images("MaxViT", images)
        height, width = images.shape[1:3]
        if height % self.image_size or width % self.image_size or not min(height, width):
            raise UserError(
                f"MaxViT cannot take {height} x {width} pixels: it is built for {self.image_size} x {self.image_size},"
                " and its windows fit multiples of that. Build it for other sizes with"
                " config.model.options.image_size, a multiple of 32"
            )
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        return x

    def head(self, pooled: Float[Array, "b c"]) -> Float[Array, "b classes"]:
        """Return float32 logits from a normalisation, the hidden layer and the linear layer."""
        return widen(self.head_(pooled))


def resize_table(table: Float[np.ndarray, "h m m"], size: int) -> Float[np.ndarray, "h n n"]:
    """Return the biases of a window for another one, by linear interpolation, as timm does.

    Differences of positions of the first window are taken to be at distances that grow as powers, so that the largest
    difference is that of the other window and small ones stay as they are (BEiT, Bao et al. 2021, arXiv 2106.08254,
    in its code).

    Args:
      table: biases of each head by the difference of rows and columns, from -(window - 1) to window - 1.
      size: the number of differences in the result, 2 * window - 1.
    """
    half, new_half = table.shape[-1] // 2, size // 2
    low, high = 1.01, 1.5
    while high - low > 1e-6:  # the ratio of distances whose sum is the largest new difference
        ratio = (low + high) / 2
        low, high = (low, ratio) if (1 - ratio**half) / (1 - ratio) > new_half else (ratio, high)
    distances = np.concatenate([[0.0], np.cumsum(ratio ** np.arange(half))])
    places = np.concatenate([-distances[:0:-1], distances])
    weights = np.stack([np.interp(np.arange(-new_half, new_half + 1), places, row) for row in np.eye(len(places))], 1)
    return np.einsum("ij,hjk,lk->hil", weights, table, weights).astype(table.dtype)


def _spec(name: str, depths: tuple[int, int, int, int], width: int, stem: int, drop_path: float) -> Spec:
    theirs = f"maxvit_{name}_tf"
    return Spec(
        reference=f"timm:{theirs}_224",
        builder=functools.partial(MaxViT, drop_path=drop_path),
        sizes=(depths, width, stem),
        preprocessing=Preprocessing(crop_ratio=0.95, kernel="bicubic"),
        aliases=(f"{theirs}_384", f"{theirs}_512"),
    )


# Stochastic depth of the authors' training on ImageNet-1k (hp/vision_i1k.py of google-research/maxvit); XL has L's.
VARIANTS = {
    "maxvit_tiny": _spec("tiny", (2, 2, 5, 2), 64, 64, 0.2),
    "maxvit_small": _spec("small", (2, 2, 5, 2), 96, 64, 0.3),
    "maxvit_base": _spec("base", (2, 6, 14, 2), 96, 64, 0.4),
    "maxvit_large": _spec("large", (2, 6, 14, 2), 128, 128, 0.6),
    "maxvit_xlarge": _spec("xlarge", (2, 6, 14, 2), 192, 192, 0.6),
}
