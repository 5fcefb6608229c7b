"""Product quantisation: Jegou, Douze & Schmid 2011, of image codes as in Sanchez & Perronnin 2011.

A code is cut into parts of a few numbers, and each part is replaced by the nearest of 256 centres of its own: a byte
for 8 numbers, 32 times less than float32. What trains on the codes decodes them batch by batch.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from imagenet_repro.errors import UserError
from imagenet_repro.features import kmeans

CENTRES = 256  # of each part: what a byte tells apart
AT_ONCE = 64  # parts whose centres are sought together


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantiser:
    """The centres of each part.

    Attributes:
      centres: [parts, 256, numbers of a part].
    """

    centres: Float[Array, "p 256 g"]


def fit(codes: Float[Array, "n f"], key: Key[Array, ""], *, group: int = 8, iterations: int = 10) -> Quantiser:
    """Centres by k-means on a sample.

    Args:
      codes: of at least 256 images.
      key: of all random choices.
      group: numbers of a part.
      iterations: of k-means.

    Raises:
      UserError: the length of a code is no multiple of `group`, or there are too few codes.
    """
    if codes.shape[-1] % group:
        raise UserError(f"codes of {codes.shape[-1]:,} numbers cannot be cut into parts of {group}")
    kmeans.check_sample(len(codes), CENTRES)
    parts = codes.reshape(len(codes), -1, group).swapaxes(0, 1)
    of_part = functools.partial(kmeans.fit, clusters=CENTRES, iterations=iterations)
    keys = jax.random.split(key, len(parts))
    found = jax.lax.map(lambda one: of_part(one[0], key=one[1]), (parts, keys), batch_size=AT_ONCE)
    return Quantiser(found)


@jax.jit
def encode(codes: Float[Array, "n f"], quantiser: Quantiser) -> UInt8[Array, "n p"]:
    """The number of the nearest centre of each part."""
    parts, _, group = quantiser.centres.shape

    def nearest(one: tuple[Array, Array]) -> Array:
        cut, centres = one
        # |x - c|^2 but for |x|^2, which all centres of a part have in common.
        return jnp.argmin(jnp.sum(centres**2, -1) - 2 * cut @ centres.T, -1).astype(jnp.uint8)

    cut = codes.reshape(len(codes), parts, group).swapaxes(0, 1)
    return jax.lax.map(nearest, (cut, quantiser.centres), batch_size=AT_ONCE).T


def decode(numbers: UInt8[Array, "n p"], quantiser: Quantiser) -> Float[Array, "n f"]:
    """The centres in the place of their numbers."""
    parts, _, group = quantiser.centres.shape
    rows = numbers.astype(jnp.int32) + CENTRES * jnp.arange(parts)
    return quantiser.centres.reshape(-1, group)[rows].reshape(len(numbers), -1)
