"""The layers that several families share; their parameters bear PyTorch's names, so importing weights is a rename.

A module's attribute path, joined by dots, is the name of the tensor in the reference's `state_dict`. Kernels are
stored as XLA wants them: `weight` is [height, width, in / groups, out] in a convolution, [in, out] in a linear layer.
Parameters and running statistics are float32; the computation runs in a layer's `dtype`.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.models import convolution
from imagenet_repro.models.initialise import Initialiser, parameter, torch_uniform

Size = int | tuple[int, int]

Dropout = nnx.Dropout  # `deterministic` is switched by train() and eval(); its random state is an nnx.RngState
relu = nnx.relu


def pair(size: Size) -> tuple[int, int]:
    """(height, width) from one number or two."""
    return (size, size) if isinstance(size, int) else size


class Network(nnx.Module):
    """A whole network: NHWC float images in, float32 logits out (or features, where it has no head)."""

    def train(self, **attributes: Any) -> "Network":
        """Switches to training mode, in place; returns the network."""
        super().train(**attributes)
        return self

    def eval(self, **attributes: Any) -> "Network":
        """Switches to evaluation mode, in place; returns the network."""
        super().eval(**attributes)
        return self


class Sequential(nnx.List):
    """Layers applied one after the other; a layer's name is its position."""

    def __call__(self, x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        """Applies every layer."""
        for layer in self:
            x = layer(x)
        return x


class Conv(nnx.Module):
    """Two-dimensional convolution (without the flip, as everywhere in the field), NHWC."""

    torch_axes = (3, 2, 0, 1)  # PyTorch's order of our weight's axes: out, in, height, width

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel: Size,
        *,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        init: Initialiser = torch_uniform,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        shape = (*pair(kernel), in_features // groups, out_features)
        self.weight = parameter(rngs, init, shape)
        self.bias = parameter(rngs, torch_uniform, shape[-1:], torch_uniform.scale(shape)) if bias else None
        self.stride, self.padding, self.dilation = pair(stride), pair(padding), pair(dilation)
        self.groups, self.dtype = groups, dtype

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b oh ow o"]:
        """The map, in the layer's dtype."""
        y = convolution.convolve(
            x.astype(self.dtype),
            self.weight[...].astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


class Linear(nnx.Module):
    """x @ weight + bias over the last axis."""

    torch_axes = (1, 0)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        init: Initialiser = torch_uniform,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        shape = (in_features, out_features)
        self.weight = parameter(rngs, init, shape)
        self.bias = parameter(rngs, torch_uniform, shape[-1:], torch_uniform.scale(shape)) if bias else None
        self.dtype = dtype

    def __call__(self, x: Float[Array, "... i"]) -> Float[Array, "... o"]:
        """The product, in the layer's dtype."""
        y = jnp.dot(x.astype(self.dtype), self.weight[...].astype(self.dtype), precision=lax.Precision.HIGHEST)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last (Ioffe & Szegedy 2015); running statistics as PyTorch keeps them.

    Mean and variance are taken in float32 over this device's share of the batch, or, where `axis_name` is set, over
    the shares of all devices along that axis. The running variance takes the unbiased estimate, the normalisation the
    biased one. `use_running_average` is switched by train() and eval().
    """

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        scale_init: float = 1.0,
        axis_name: str | None = None,
        dtype: DTypeLike = jnp.float32,
    ):
        self.weight = nnx.Param(jnp.full((features,), scale_init, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.running_mean = nnx.BatchStat(jnp.zeros((features,), jnp.float32))
        self.running_var = nnx.BatchStat(jnp.ones((features,), jnp.float32))
        self.momentum, self.epsilon, self.dtype = momentum, epsilon, dtype
        self.axis_name = axis_name
        self.use_running_average = False

    def __call__(self, x: Float[Array, "b ... c"]) -> Float[Array, "b ... c"]:
        """Normalises, scales and shifts; in training mode, also updates the running statistics."""
        x = x.astype(jnp.float32)
        if self.use_running_average:
            mean, var = self.running_mean[...], self.running_var[...]
        else:
            mean, var = self._batch_statistics(x)
        scale = self.weight[...] * (1 / jnp.sqrt(var + self.epsilon))
        return (x * scale + (self.bias[...] - mean * scale)).astype(self.dtype)

    def _batch_statistics(self, x: Float[Array, "b ... c"]) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """Mean and biased variance of the batch; moves the running statistics towards them."""
        axes = tuple(range(x.ndim - 1))
        moments = jnp.stack([x.mean(axes), jnp.square(x).mean(axes)])
        count = x.size // x.shape[-1]
        if self.axis_name is not None:
            moments = lax.pmean(moments, self.axis_name)
            count *= lax.axis_size(self.axis_name)
        mean, square = moments
        var = jnp.maximum(square - jnp.square(mean), 0.0)  # rounding may leave a small negative number
        self._move(self.running_mean, mean)
        self._move(self.running_var, var * (count / max(count - 1, 1)))
        return mean, var

    def _move(self, statistic: nnx.BatchStat, value: Float[Array, " c"]) -> None:
        statistic[...] = (1 - self.momentum) * statistic[...] + self.momentum * lax.stop_gradient(value)


class MaxPool(nnx.Module):
    """Maximum over windows; padding never wins, and what does not fill a window is left out (floor)."""

    def __init__(self, window: Size, *, stride: Size, padding: Size = 0):
        self.window, self.stride, self.padding = pair(window), pair(stride), pair(padding)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow c"]:
        """The pooled map, in the type of `x`."""
        return convolution.max_pool(x, self.window, self.stride, self.padding)


def global_avg_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Mean over the map, taken in float32, in the type of `x`."""
    return x.mean((1, 2), dtype=jnp.float32).astype(x.dtype)


def adaptive_avg_pool(x: Float[Array, "b h w c"], size: Size) -> Float[Array, "b oh ow c"]:
    """Average pooling to `size` from any map, as torch.nn.AdaptiveAvgPool2d.

    Output i averages the inputs from floor(i * n / out) to ceil((i + 1) * n / out): windows may overlap, and a map
    smaller than `size` is repeated.
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
