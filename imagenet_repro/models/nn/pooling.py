"""Maximum pooling whose gradient compares each window with its maximum; NHWC.

XLA's gradient of a pooling is a select-and-scatter. On the CPU it takes ten times as long as it needs. On a GPU it is
a scatter, and with deterministic operations a sort too. On a TPU it is the better form: libtpu expects 12.1 ms for the
pooling of ResNet's stem between two 1x1 convolutions, forward and backward, and 20.5 ms with the comparison (64
images, v5e, level O1).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from imagenet_repro.models.nn import target
from imagenet_repro.models.nn.windows import Pads, Pair, Windows, add_taps, split_into_taps


def max_pool(x: Float[Array, "b h w c"], window: Pair, stride: Pair, padding: Pads) -> Float[Array, "b oh ow c"]:
    """Return the maximum over windows; padding never wins.

    The gradient goes to the first maximum of a window, in the order of rows.
    """
    if target.platform() == "tpu":
        return _xla_max_pool(x, window, stride, padding)
    return _compared_max_pool(x, Windows(x.shape, window, stride, padding))


def _xla_max_pool(x: Array, window: Pair, stride: Pair, padding: Pads) -> Array:
    pads = [(0, 0), *padding, (0, 0)]
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *stride, 1), pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _compared_max_pool(x: Array, windows: Windows) -> Array:
    return functools.reduce(jnp.maximum, split_into_taps(x, windows, -jnp.inf).values())


def _forward(x: Array, windows: Windows) -> tuple[Array, Array]:
    return _compared_max_pool(x, windows), x


def _backward(windows: Windows, x: Array, dy: Array) -> tuple[Array]:
    taps = split_into_taps(x, windows, -jnp.inf)
    largest, winner = taps[0, 0], jnp.zeros(dy.shape, jnp.int16)
    for number, tap in enumerate(taps.values()):
        winner = jnp.where(tap > largest, jnp.int16(number), winner)
        largest = jnp.maximum(tap, largest)
    winner = lax.optimization_barrier(winner)  # computed once, not again for each tap
    shares = {key: jnp.where(winner == number, dy, 0) for number, key in enumerate(taps)}
    return (add_taps(shares, windows),)


_compared_max_pool.defvjp(_forward, _backward)
