"""Product quantisation (Jegou, Douze & Schmid 2011) of image codes, as in Sanchez & Perronnin 2011.

A code is cut into parts of a few numbers, and each part is replaced by the nearest of its 256 centres. With parts of 8
numbers, one byte replaces 32 bytes of float32. Training decodes the codes batch by batch.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from imagenet_repro.errors import UserError
from imagenet_repro.features.encoding import kmeans

CENTRES = 256  # of each part, numbered by a byte
AT_ONCE = 64  # parts that are processed together
UNROLLED = 8  # centres in one iteration of the loop on the CPU


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantiser:
    """The centres of each part.

    Attributes:
      centres: float32 [parts, 256, numbers of a part].
    """

    # A pytree may also hold shapes or shardings in place of its arrays, so the annotation has no shape.
    centres: Any


def fit(codes: Float[Array, "n f"], key: Key[Array, ""], *, group: int = 8, iterations: int = 15) -> Quantiser:
    """Learn the centres by k-means on a sample, started by the plain form of k-means++.

    A centre without parts moves to the part that is farthest from its own centre.

    Args:
      codes: of at least 256 images.
      key: of all random choices.
      group: numbers of a part.
      iterations: of k-means.

    Raises:
      UserError: the length of a code is not a multiple of `group`, or there are too few codes.
    """
    if codes.shape[-1] % group:
        raise UserError(f"codes of {codes.shape[-1]:,} numbers cannot be cut into parts of {group}")
    kmeans.check_sample(len(codes), CENTRES)
    return Quantiser(_fit_parts(_parts(codes, group), key, iterations))


@functools.partial(jax.jit, static_argnames="iterations")
def _fit_parts(parts: Float[Array, "p g n"], key: Key[Array, ""], iterations: int) -> Float[Array, "p 256 g"]:
    # All parts share these random numbers; drawing them for each part would take longer than k-means.
    races = 1 / jax.random.exponential(key, (CENTRES, parts.shape[-1]))

    def fit_part(part: Array) -> Array:
        def step(_: Array, centres: Array) -> Array:
            numbers, distances = _nearest(part, centres)
            distances += jnp.sum(part**2, 0)
            counts, sums = kmeans.sums(part.T, numbers, CENTRES)
            return kmeans.refill_empty(part.T, distances, counts, sums / jnp.maximum(counts, 1)[:, None])

        return jax.lax.fori_loop(0, iterations, step, _plus_plus(part, races))

    return jax.lax.map(fit_part, parts, batch_size=AT_ONCE)


def _plus_plus(part: Float[Array, "g n"], races: Float[Array, "256 n"]) -> Float[Array, "256 g"]:
    """Draw centres from the parts, each with a probability in proportion to its squared distance from those before.

    Each of several exponential times with rates in that proportion is the shortest one with that probability.
    """

    def draw(distances: Array, race: Array) -> tuple[Array, Array]:
        centre = part[:, jnp.argmax(distances * race)]
        return jnp.minimum(distances, jnp.sum((part - centre[:, None]) ** 2, 0)), centre

    equal_distances = jnp.full(part.shape[-1], jnp.finfo(jnp.float32).max / races.max())
    return jax.lax.scan(draw, equal_distances, races)[1]


@jax.jit
def encode(codes: Float[Array, "n f"], quantiser: Quantiser) -> UInt8[Array, "n p"]:
    """Return the index of the nearest centre of each part."""
    parts = _parts(codes, quantiser.centres.shape[-1])
    numbers = jax.lax.map(lambda one: _nearest(*one)[0], (parts, quantiser.centres), batch_size=AT_ONCE)
    return numbers.T.astype(jnp.uint8)


def decode(numbers: UInt8[Array, "n p"], quantiser: Quantiser) -> Float[Array, "n f"]:
    """Return codes with each index replaced by its centre."""
    parts, _, group = quantiser.centres.shape
    rows = numbers.astype(jnp.int32) + CENTRES * jnp.arange(parts)
    return quantiser.centres.reshape(-1, group)[rows].reshape(len(numbers), -1)


def _parts(codes: Float[Array, "n f"], group: int) -> Float[Array, "p g n"]:
    """Return codes cut into parts, with images as the last axis, along which operations are contiguous in memory."""
    return codes.T.reshape(-1, group, len(codes))


def _nearest(part: Float[Array, "g n"], centres: Float[Array, "256 g"]) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Return the index of the centre nearest to a part of each image, and the squared distance less |part|^2."""
    return jax.lax.platform_dependent(part, centres, cpu=_nearest_one_by_one, default=_nearest_by_product)


def _nearest_by_product(part: Array, centres: Array) -> tuple[Array, Array]:
    distances = jnp.sum(centres**2, -1)[:, None] - 2 * centres @ part
    return jnp.argmin(distances, 0).astype(jnp.int32), jnp.min(distances, 0)


def _nearest_one_by_one(part: Array, centres: Array) -> tuple[Array, Array]:
    """Compare centre by centre, in a fifth of the time on a CPU, where XLA's products of small matrices are slow."""
    squares = jnp.sum(centres**2, -1)

    def compare(number: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        nearest, smallest = best
        centre, distance = centres[number], squares[number]
        for value, numbers in zip(centre, part, strict=True):
            distance -= 2 * value * numbers
        is_closer = distance < smallest
        return jnp.where(is_closer, number, nearest), jnp.where(is_closer, distance, smallest)

    images = part.shape[-1]
    start = jnp.zeros(images, jnp.int32), jnp.full(images, jnp.inf)
    return jax.lax.fori_loop(0, CENTRES, compare, start, unroll=UNROLLED)
