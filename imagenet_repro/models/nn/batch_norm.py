"""The arithmetic of batch normalisation in training mode, with as few passes over the activations as it takes.

Activations stay in their own dtype in memory; every sum and product is float32, or float64 where they are float64. The
forward pass reads them twice: once for the sums of both moments and once to normalise. The backward pass reads the
activations and the gradient twice: once for two sums and once for the result. It stores no normalised activations,
no mask of a ReLU and no masked gradient.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from imagenet_repro.models.nn import target
from imagenet_repro.models.nn.precision import wide_dtype, widen
from imagenet_repro.models.nn.target import in_memory


class Devices(NamedTuple):
    """The devices over whose shares of the batch the statistics are computed.

    `group` neighbours along the axis belong together, which must divide its size; 0: all along the axis.
    """

    axis_name: str
    group: int = 0

    @property
    def size(self) -> int:
        """The number of devices that share statistics."""
        return self.group or lax.axis_size(self.axis_name)

    def mean(self, values: Array) -> Array:
        """Return the mean over these devices, in one all-reduce."""
        starts = range(0, lax.axis_size(self.axis_name), self.size)
        groups = [list(range(start, start + self.size)) for start in starts] if self.group else None
        return lax.psum(values, self.axis_name, axis_index_groups=groups) / self.size


class Moments(NamedTuple):
    """Mean and biased variance of each channel."""

    mean: Float[Array, " c"]
    var: Float[Array, " c"]


def moments(x: Float[Array, "b ... c"], devices: Devices | None, reference: Float[Array, " c"]) -> Moments:
    """Return mean and biased variance over all axes but the last, in one pass.

    E[x^2] - E[x]^2 loses the variance's digits where the mean is large beside the deviation. So the moments are those
    of the difference from this device's first pixel, which is about a deviation away from the mean. Narrower types,
    whose own digits are lost first, take `reference` instead: it is at hand, and reading a pixel takes one more kernel
    for each layer. The moments of several devices are combined by the differences from `reference`, which must be the
    same on all of them, such as the running mean.
    """
    axes = tuple(range(x.ndim - 1))
    origin = x[(0,) * (x.ndim - 1)] if x.dtype == wide_dtype(x.dtype) else reference
    difference = widen(x) - origin
    mean, square = difference.mean(axes), jnp.square(difference).mean(axes)
    var = jnp.maximum(square - jnp.square(mean), 0.0)  # rounding may leave a small negative number
    mean = mean + origin
    if devices is None:
        return Moments(mean, var)
    distance = mean - reference
    distance, square = devices.mean(jnp.stack([distance, var + jnp.square(distance)]))
    return Moments(reference + distance, jnp.maximum(square - jnp.square(distance), 0.0))


class Form(NamedTuple):
    """The options of a normalisation."""

    epsilon: float
    rectified: bool  # whether a ReLU follows
    devices: Devices | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def normalise(
    x: Float[Array, "b ... c"],
    weight: Float[Array, " c"],
    bias: Float[Array, " c"],
    reference: Float[Array, " c"],
    form: Form,
) -> tuple[Float[Array, "b ... c"], Moments]:
    """Return the normalised batch in the dtype of `x`, and its moments, through which no gradient flows.

    Args:
      x: activations.
      weight: scale of each channel.
      bias: shift of each channel.
      reference: as in `moments`.
      form: epsilon, the ReLU after it, and the devices that share statistics.
    """
    return _forward(x, weight, bias, reference, form)[0]


class Residuals(NamedTuple):
    """Values of the forward pass that the backward pass needs."""

    x: Array
    y: Array | None  # of a rectified form; the next layer's gradient holds it anyway
    weight: Array
    bias: Array
    mean: Array
    inverse: Array  # one over the deviation


def _forward(
    x: Array, weight: Array, bias: Array, reference: Array, form: Form
) -> tuple[tuple[Array, Moments], Residuals]:
    batch = moments(x, form.devices, reference)
    inverse = 1 / jnp.sqrt(batch.var + form.epsilon)
    y = _affine(x, batch.mean, weight * inverse, bias)
    y = (jnp.maximum(y, 0.0) if form.rectified else y).astype(x.dtype)
    return (y, batch), Residuals(x, y if form.rectified else None, weight, bias, batch.mean, inverse)


def _affine(x: Array, mean: Array, scale: Array, bias: Array) -> Array:
    if x.dtype == wide_dtype(x.dtype):
        return (x - mean) * scale + bias
    return widen(x) * scale + (bias - mean * scale)


def _backward(form: Form, residuals: Residuals, cotangents: tuple[Array, Moments]) -> tuple[Array | None, ...]:
    x, y, weight, bias, mean, inverse = residuals
    dy, axes = cotangents[0], tuple(range(x.ndim - 1))
    if y is not None:
        x, y, dy = in_memory((x, y, dy))
    before = widen(dy) if y is None else jnp.where(y > 0, widen(dy), 0.0)  # the gradient before the ReLU
    d_bias, d_weight = before.sum(axes), (before * (widen(x) - mean)).sum(axes) * inverse
    sums = jnp.stack([d_bias, d_weight]) / (x.size // x.shape[-1])
    if form.devices is not None:
        sums = form.devices.mean(sums)
    if y is not None and target.platform() != "cpu":
        # The mask follows from x too. Reading y once more would cost as much as x, and XLA would store a shared mask.
        x, dy = in_memory((x, dy))
        before = jnp.where(_affine(x, mean, weight * inverse, bias) > 0, widen(dy), 0.0)
    normalised = (widen(x) - mean) * inverse
    dx = (weight * inverse) * (before - sums[0] - normalised * sums[1])
    return dx.astype(x.dtype), d_weight, d_bias, None


normalise.defvjp(_forward, _backward)
