"""Layers that several families share. Their parameters have PyTorch's names, so that weights load without renaming.

A module's attribute path, joined by dots, is the name of the tensor in the reference's `state_dict`. Kernels are
stored as XLA wants them: `weight` is [height, width, in / groups, out] in a convolution, [in, out] in a linear layer.
Parameters and running statistics are float32; a layer computes in its `dtype`.
"""

import math
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.errors import UserError
from imagenet_repro.models.nn import batch_norm, cpu_convolution, pooling, target
from imagenet_repro.models.nn.initialisers import Initialiser, constant, parameter, torch_uniform
from imagenet_repro.models.nn.precision import wide_dtype, widen
from imagenet_repro.models.nn.windows import Pads

Size = int | tuple[int, int]
Padding = Size | Literal["same"]  # zeros on both sides; `pads` defines "same"

Dropout = nnx.Dropout  # `deterministic` is switched by train() and eval(); its random state is an nnx.RngState
swish = nnx.swish
tanh = nnx.tanh


@jax.custom_jvp
def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the larger of x and zero; the gradient at zero is zero.

    The gradient reads the result, which the next layer stores anyway, and not what led to it.
    """
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_gradient(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = relu(*primals)
    return y, jnp.where(target.in_memory(y) > 0, tangents[0], jnp.zeros_like(y))


@jax.custom_jvp
def relu6(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x clipped to [0, 6]; the gradient at both ends is zero, as in PyTorch (Krizhevsky 2010, CIFAR-10)."""
    return jnp.clip(x, 0, 6)


@relu6.defjvp
def _relu6_gradient(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = relu6(*primals)
    inside = target.in_memory(y)
    return y, jnp.where((inside > 0) & (inside < 6), tangents[0], jnp.zeros_like(y))


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x times the standard normal's distribution function, computed exactly as in PyTorch.

    Hendrycks & Gimpel 2016 (arXiv 1606.08415).
    """
    return nnx.gelu(x, approximate=False)


def gelu_tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return `gelu` by its approximation with a hyperbolic tangent (Hendrycks & Gimpel 2016, sec. 2)."""
    return nnx.gelu(x, approximate=True)


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x * sigmoid(1.702 x), the approximation of `gelu` by a sigmoid (Hendrycks & Gimpel 2016, sec. 2)."""
    return x * nnx.sigmoid(1.702 * x)


ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu}


def pair(size: Size) -> tuple[int, int]:
    """Return (height, width) from one number or two."""
    return (size, size) if isinstance(size, int) else size


def pads(padding: Padding, size: Size, window: Size, stride: Size) -> Pads:
    """Return the zeros before and after each axis of a map of `size`.

    "same" is TensorFlow's rule: the fewest zeros that give ceil(size / stride) positions, the odd one after the map.
    """
    if padding != "same":
        down, across = pair(padding)
        return (down, down), (across, across)
    axes = zip(pair(size), pair(window), pair(stride), strict=True)
    totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in axes]
    down, across = ((total // 2, total - total // 2) for total in totals)
    return down, across


def pool_pads(padding: Padding, size: Size, window: Size, stride: Size, ceil: bool) -> Pads:
    """Return the zeros of a pooling: those of `pads`, and with `ceil` more, so that no pixel at the end is left out.

    A window must begin on the map or on the padding before it (Caffe's rule and PyTorch's `ceil_mode`).
    """
    padding_of_floor = pads(padding, size, window, stride)
    if not ceil:
        return padding_of_floor
    axes = zip(pair(size), pair(window), pair(stride), padding_of_floor, strict=True)
    down, across = (_ceil_pads(*axis) for axis in axes)
    return down, across


def _ceil_pads(n: int, window: int, stride: int, padding: tuple[int, int]) -> tuple[int, int]:
    low, high = padding
    positions = -(-(n + low + high - window) // stride) + 1
    if (positions - 1) * stride >= n + low:
        positions -= 1
    return low, max((positions - 1) * stride + window - n - low, 0)


def _map_size(x: Float[Array, "b h w c"]) -> tuple[int, int]:
    return x.shape[1], x.shape[2]


class Sequential(nnx.List):
    """Layers that are applied one after the other; a layer's name is its position."""

    def __call__(self, x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        """Apply every layer."""
        for layer in self:
            x = layer(x)
        return x


class Conv(nnx.Module):
    """Two-dimensional convolution (as a cross-correlation, the convention of the field), NHWC."""

    torch_axes = (3, 2, 0, 1)  # our axis of each of PyTorch's: out, in, height, width
    lora: Any = None  # an adapter (`nn/lora.py`)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel: Size,
        *,
        stride: Size = 1,
        padding: Padding = 0,
        groups: int = 1,
        bias: bool = True,
        init: Initialiser = torch_uniform,
        bias_init: Initialiser | None = None,  # None: PyTorch's, which follows the kernel's shape
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        shape = (*pair(kernel), in_features // groups, out_features)
        self.weight = parameter(rngs, init, shape)
        self.bias = _bias(rngs, shape, bias_init) if bias else None
        self.stride, self.groups, self.dtype = pair(stride), groups, dtype
        self.kernel: tuple[int, int] = pair(kernel)
        self.padding: Padding = padding

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b oh ow o"]:
        """Return the map, in the layer's dtype."""
        padding = pads(self.padding, _map_size(x), self.kernel, self.stride)
        y = cpu_convolution.convolve(
            x.astype(self.dtype),
            self.weight[...].astype(self.dtype),
            stride=self.stride,
            padding=padding,
            groups=self.groups,
        )
        y = y if self.bias is None else y + self.bias[...].astype(self.dtype)
        return y if self.lora is None else y + self.lora(x)


def _bias(rngs: nnx.Rngs, kernel: tuple[int, ...], init: Initialiser | None) -> nnx.Param:
    if init is None:
        return parameter(rngs, torch_uniform, kernel[-1:], torch_uniform.scale(kernel))
    return parameter(rngs, init, kernel[-1:])


def wide_product(
    x: Float[Array, "... i"], weight: Float[Array, "i o"], bias: Float[Array, " o"] | None, dtype: DTypeLike
) -> Float[Array, "... o"]:
    """Return x @ weight + bias, with the factors in `dtype`, in the dtype of its sums: float32 at least."""
    sums = wide_dtype(dtype)
    y = jnp.dot(x.astype(dtype), weight.astype(dtype), precision=lax.Precision.HIGHEST, preferred_element_type=sums)
    return y if bias is None else y + bias.astype(sums)


class Linear(nnx.Module):
    """A linear layer over the last axis: x @ weight, plus a bias unless `bias` is False."""

    torch_axes = (1, 0)
    lora: Any = None  # an adapter (`nn/lora.py`)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        init: Initialiser = torch_uniform,
        bias_init: Initialiser | None = None,  # None: PyTorch's, which follows the kernel's shape
        wide: bool = False,  # return the float32 of the sums, as logits need it: rounded, the largest two may tie
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        shape = (in_features, out_features)
        self.weight = parameter(rngs, init, shape)
        self.bias = _bias(rngs, shape, bias_init) if bias else None
        self.dtype, self.wide = dtype, wide

    def __call__(self, x: Float[Array, "... i"]) -> Float[Array, "... o"]:
        """Return the product plus the bias, in the layer's dtype, or in that of its sums where it is `wide`."""
        if self.wide:
            bias = None if self.bias is None else self.bias[...]
            y = wide_product(x, self.weight[...], bias, self.dtype)
        else:
            y = jnp.dot(x.astype(self.dtype), self.weight[...].astype(self.dtype), precision=lax.Precision.HIGHEST)
            y = y if self.bias is None else y + self.bias[...].astype(self.dtype)
        return y if self.lora is None else y + self.lora(x)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last (Ioffe & Szegedy 2015), with running statistics as in PyTorch.

    Mean and variance are computed in float32 over this device's share of the batch, or, where `axis_name` is set, over
    the shares of all devices along that axis, or of `group` neighbours along it. The running variance uses the
    unbiased estimate, the normalisation the biased one. train() and eval() switch `use_running_average`.
    """

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        scale_init: float = 1.0,
        axis_name: str | None = None,
        group: int = 0,
        dtype: DTypeLike = jnp.float32,
    ):
        self.weight = nnx.Param(jnp.full((features,), scale_init, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.running_mean = nnx.BatchStat(jnp.zeros((features,), jnp.float32))
        self.running_var = nnx.BatchStat(jnp.ones((features,), jnp.float32))
        self.momentum, self.epsilon, self.dtype = momentum, epsilon, dtype
        self.axis_name, self.group = axis_name, group
        self.use_running_average = False

    def __call__(self, x: Float[Array, "b ... c"]) -> Float[Array, "b ... c"]:
        """Normalise, scale and shift; in training mode, update the running statistics too."""
        return self._normalise(x, rectified=False)

    def rectified(self, x: Float[Array, "b ... c"]) -> Float[Array, "b ... c"]:
        """Return what `relu` makes of the normalised batch; its gradient takes one pass less than the two apart."""
        return self._normalise(x, rectified=True)

    def _normalise(self, x: Float[Array, "b ... c"], *, rectified: bool) -> Float[Array, "b ... c"]:
        if self.use_running_average:
            scale = self.weight[...] * (1 / jnp.sqrt(self.running_var[...] + self.epsilon))
            y = widen(x) * scale + (self.bias[...] - self.running_mean[...] * scale)
            return (relu(y) if rectified else y).astype(self.dtype)
        devices = batch_norm.Devices(self.axis_name, self.group) if self.axis_name is not None else None
        form = batch_norm.Form(self.epsilon, rectified, devices)
        parameters = (self.weight[...], self.bias[...], self.running_mean[...])
        y, moments = cast(tuple[Array, batch_norm.Moments], batch_norm.normalise(x, *parameters, form))
        count = x.size // x.shape[-1] * (devices.size if devices else 1)
        self._move(self.running_mean, moments.mean)
        self._move(self.running_var, moments.var * (count / max(count - 1, 1)))
        return y.astype(self.dtype)

    def _move(self, statistic: nnx.BatchStat, value: Float[Array, " c"]) -> None:
        moved = (1 - self.momentum) * statistic[...] + self.momentum * lax.stop_gradient(value)
        # Not `statistic[...] = moved`: Flax would read the sharding of a traced array, for which JAX raises an error.
        # Building its message searches the complete trace, a fifth of the time that tracing a deep network takes.
        statistic.set_value(moved)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis (Ba et al. 2016), computed in float32."""

    def __init__(self, features: int, *, epsilon: float = 1e-6, dtype: DTypeLike = jnp.float32):
        self.weight = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.epsilon, self.dtype = epsilon, dtype

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """Normalise, scale and shift."""
        x = widen(x)
        centred = x - x.mean(-1, keepdims=True)
        y = centred * lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        return (y * self.weight[...] + self.bias[...]).astype(self.dtype)


class GlobalResponseNorm(nnx.Module):
    """Response normalisation of each channel over the whole map (Woo et al. 2023, arXiv 2301.00808, sec. 4).

    y = x + weight * x * g / (mean of g over the channels + epsilon) + bias, where g is the Euclidean norm of a
    channel's map. Weight and bias start at zero, so that the layer starts as the identity. The gradient of a channel
    that is zero everywhere is finite.
    """

    def __init__(self, features: int, *, epsilon: float = 1e-6):
        self.weight = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Normalise in float32; return the type of `x`."""
        a = widen(x)
        squares = jnp.square(a).sum((1, 2), keepdims=True)
        norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        share = norms / (norms.mean(-1, keepdims=True) + self.epsilon)
        return (a + self.weight[...] * (a * share) + self.bias[...]).astype(x.dtype)


class LocalResponseNorm(nnx.Module):
    """Response normalisation across maps: Krizhevsky et al. 2012, sec. 3.3, with the paper's constants.

    b_i = a_i / (k + alpha * sum over the `size` maps around i of a_j^2) ^ beta. Caffe and PyTorch divide alpha by
    `size`: theirs is 5e-4 where this is 1e-4.
    """

    def __init__(self, size: int = 5, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0):
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Normalise in float32; return the type of `x`."""
        a, before = widen(x), self.size // 2
        squares = jnp.pad(jnp.square(a), ((0, 0), (0, 0), (0, 0), (before, self.size - 1 - before)))
        total = sum(squares[..., i : i + x.shape[-1]] for i in range(self.size))
        return (a * (self.k + self.alpha * total) ** -self.beta).astype(x.dtype)


class LayerScale(nnx.Module):
    """A learned factor for each channel of a residual branch (Touvron et al. 2021, "Going deeper", sec. 2)."""

    def __init__(self, features: int, value: float, *, rngs: nnx.Rngs):
        self.gamma = parameter(rngs, constant(value), (features,))

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """Return the product, in the type of `x`."""
        return x * self.gamma[...].astype(x.dtype)


Rate = float | Float[Array, ""]  # a probability, possibly traced


class DropPath(nnx.Module):
    """Stochastic depth (Huang et al. 2016): drops the complete residual branch of an image with probability `rate`.

    A branch that is not dropped is divided by 1 - rate, as all implementations but the paper's do, so evaluation
    changes nothing. train() and eval() switch `deterministic`.
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        self.rate, self.deterministic = rate, False
        self.rngs = rngs.dropout.fork() if rate else None

    def __call__(self, x: Float[Array, "b ..."], rate: Rate | None = None) -> Float[Array, "b ..."]:
        """Return the branch, or zeros in its place, for each image; a `rate` replaces the layer's own."""
        if self.deterministic or self.rngs is None:
            return x
        survival = 1 - (self.rate if rate is None else rate)
        survives = jax.random.bernoulli(self.rngs(), survival, (len(x),) + (1,) * (x.ndim - 1))
        return jnp.where(survives, x / jnp.asarray(survival, x.dtype), 0).astype(x.dtype)


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Return rates that rise linearly from 0 at the first block to `last` at the last (Huang et al. 2016, eq. 4)."""
    return [last * index / max(depth - 1, 1) for index in range(depth)]


class MaxPool(nnx.Module):
    """Maximum over windows; padding never wins.

    Pixels at the end that do not fill a window are left out; with `ceil` they have their own window.
    """

    def __init__(self, window: Size, *, stride: Size, padding: Padding = 0, ceil: bool = False):
        self.window, self.stride, self.ceil = pair(window), pair(stride), ceil
        self.padding: Padding = padding

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow c"]:
        """Return the pooled map, in the type of `x`."""
        padding = pool_pads(self.padding, _map_size(x), self.window, self.stride, self.ceil)
        return pooling.max_pool(x, self.window, self.stride, padding)


class AvgPool(nnx.Module):
    """Mean over windows. With `count_padding` (PyTorch's default) the zeros of the padding count as values."""

    def __init__(self, window: Size, *, stride: Size, padding: Padding = 0, count_padding: bool = True):
        self.window, self.stride, self.count_padding = pair(window), pair(stride), count_padding
        self.padding: Padding = padding

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow c"]:
        """Return the pooled map, summed in float32, in the type of `x`."""
        padding = ((0, 0), *pads(self.padding, _map_size(x), self.window, self.stride), (0, 0))

        def add(x: Array) -> Array:
            return lax.reduce_window(x, 0.0, lax.add, (1, *self.window, 1), (1, *self.stride, 1), padding)

        counted = math.prod(self.window) if self.count_padding else add(jnp.ones((1, *x.shape[1:3], 1)))
        return (add(widen(x)) / counted).astype(x.dtype)


def flatten(x: Float[Array, "b h w c"]) -> Float[Array, "b n"]:
    """Return one vector for each image, channels first, as the references flatten before a linear layer."""
    return jnp.moveaxis(x, -1, 1).reshape(len(x), -1)


def check_images(
    network: str, images: Float[Array, "..."], smallest: int = 1, *, channels: int | None = 3, hint: str = ""
) -> None:
    """Check the shape of images before a network computes anything.

    Args:
      network: its name, for the message.
      images: to be [batch, height, width, channels].
      smallest: pixels that a side must have.
      channels: None for any number.
      hint: what to try, added to the message about small images.

    Raises:
      UserError: the images have another shape, or a side is below the smallest.
    """
    if images.ndim != 4 or (channels is not None and images.shape[-1] != channels):
        expected = f"[batch, height, width, {channels or 'channels'}]"
        raise UserError(f"{network} takes images {expected}, these are {list(images.shape)}")
    height, width = images.shape[1:3]
    if min(height, width) < smallest:
        raise UserError(
            f"{network} cannot take {height} x {width} pixels: it needs at least {smallest} on each side{hint}"
        )


def global_avg_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Return the mean over the map, computed in float32, in the type of `x`."""
    return x.mean((1, 2), dtype=wide_dtype(x.dtype)).astype(x.dtype)


def adaptive_avg_pool(x: Float[Array, "b h w c"], size: Size) -> Float[Array, "b oh ow c"]:
    """Return the map averaged to `size`, from any map, as torch.nn.AdaptiveAvgPool2d does.

    Output i is the mean of the inputs from floor(i * n / out) to ceil((i + 1) * n / out): windows may overlap, and a
    map smaller than `size` is repeated.
    """
    for axis, out in zip((1, 2), pair(size), strict=True):
        x = _adaptive_mean(x, axis, out)
    return x


def _adaptive_mean(x: Float[Array, "b h w c"], axis: int, out: int) -> Float[Array, "b h2 w2 c"]:
    n = x.shape[axis]
    if n == out:
        return x
    windows = [(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]
    means = [lax.slice_in_dim(x, low, high, axis=axis).mean(axis) for low, high in windows]
    return jnp.stack(means, axis)
