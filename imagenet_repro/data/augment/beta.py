"""Draws from Beta(alpha, alpha), the shares of mixup and CutMix, from a table of quantiles.

`jax.random.beta` samples by rejection: a loop on the device that runs until every draw is accepted. Here one uniform
number is mapped through the quantile function, which the host tabulates once for each alpha.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key

_CELLS = 4096  # of [0, 1/2]; the other half is its mirror image
_MAX_POWER = 8.0


def draw_share(key: Key[Array, ""], alpha: float) -> Float32[Array, ""]:
    """Draw a number from Beta(alpha, alpha), alpha > 0."""
    return quantile(jax.random.uniform(key), alpha)


def quantile(probability: Float32[Array, "*axes"], alpha: float) -> Float32[Array, "*axes"]:
    """Return the numbers below which Beta(alpha, alpha) has these probabilities.

    The table holds a power of the quantile, in which it is nearly linear: near zero the probability of being below x
    is proportional to x ** alpha. Between two entries it is interpolated linearly.

    Args:
        probability: in [0, 1].
        alpha: of the distribution, above 0; static.
    """
    power = min(alpha, _MAX_POWER)
    table = jnp.asarray(_powers_of_quantiles(alpha, power))
    place = jnp.minimum(probability, 1 - probability) * (2 * _CELLS)
    cell = jnp.minimum(place.astype(jnp.int32), _CELLS - 1)
    lower, upper = table[cell], table[cell + 1]
    smaller = (lower + (place - cell) * (upper - lower)) ** (1 / power)
    return jnp.where(probability < 0.5, smaller, 1 - smaller)


@functools.cache
def _powers_of_quantiles(alpha: float, power: float) -> Float32[np.ndarray, " cells"]:
    from scipy.special import betaincinv  # imported where it is needed, for a quick start without mixup

    return (betaincinv(alpha, alpha, np.linspace(0, 0.5, _CELLS + 1)) ** power).astype(np.float32)
