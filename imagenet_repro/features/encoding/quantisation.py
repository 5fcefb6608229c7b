"""Product quantisation: Jegou, Douze & Schmid 2011, of image codes as in Sanchez & Perronnin 2011.

A code is cut into parts of a few numbers, and each part is replaced by the nearest of 256 centres of its own: a byte
for 8 numbers, 32 times less than float32. What trains on the codes decodes them batch by batch.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from imagenet_repro.errors import UserError
from imagenet_repro.features.encoding import kmeans

CENTRES = 256  # of each part: what a byte tells apart
AT_ONCE = 64  # parts that are worked on together
UNROLLED = 8  # centres that the CPU looks at in one turn


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantiser:
    """The centres of each part.

    Attributes:
      centres: float32 [parts, 256, numbers of a part].
    """

    # A pytree also holds shapes or shardings in place of its arrays, so no annotation names a shape here.
    centres: Any


def fit(codes: Float[Array, "n f"], key: Key[Array, ""], *, group: int = 8, iterations: int = 15) -> Quantiser:
    """Centres by k-means on a sample, started by k-means++ (its plain form).

    A centre that no part is nearest to takes the place of the part that is farthest from its own.

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
    return Quantiser(_fitted(_parts(codes, group), key, iterations))


@functools.partial(jax.jit, static_argnames="iterations")
def _fitted(parts: Float[Array, "p g n"], key: Key[Array, ""], iterations: int) -> Float[Array, "p 256 g"]:
    # All parts share these: drawn for each, they would take longer than k-means does.
    races = 1 / jax.random.exponential(key, (CENTRES, parts.shape[-1]))

    def of_part(part: Array) -> Array:
        def step(_: Array, centres: Array) -> Array:
            numbers, distances = _nearest(part, centres)
            distances += jnp.sum(part**2, 0)
            counts, sums = kmeans.sums(part.T, numbers, CENTRES)
            return kmeans.refilled(part.T, distances, counts, sums / jnp.maximum(counts, 1)[:, None])

        return jax.lax.fori_loop(0, iterations, step, _plus_plus(part, races))

    return jax.lax.map(of_part, parts, batch_size=AT_ONCE)


def _plus_plus(part: Float[Array, "g n"], races: Float[Array, "256 n"]) -> Float[Array, "256 g"]:
    """Images' parts, each drawn with a chance in proportion to its squared distance from those before.

    Of exponential times with such rates, each is the shortest with that chance.
    """

    def draw(distances: Array, race: Array) -> tuple[Array, Array]:
        centre = part[:, jnp.argmax(distances * race)]
        return jnp.minimum(distances, jnp.sum((part - centre[:, None]) ** 2, 0)), centre

    any_of_them = jnp.full(part.shape[-1], jnp.finfo(jnp.float32).max / races.max())
    return jax.lax.scan(draw, any_of_them, races)[1]


@jax.jit
def encode(codes: Float[Array, "n f"], quantiser: Quantiser) -> UInt8[Array, "n p"]:
    """The number of the nearest centre of each part."""
    parts = _parts(codes, quantiser.centres.shape[-1])
    numbers = jax.lax.map(lambda one: _nearest(*one)[0], (parts, quantiser.centres), batch_size=AT_ONCE)
    return numbers.T.astype(jnp.uint8)


def decode(numbers: UInt8[Array, "n p"], quantiser: Quantiser) -> Float[Array, "n f"]:
    """The centres in the place of their numbers."""
    parts, _, group = quantiser.centres.shape
    rows = numbers.astype(jnp.int32) + CENTRES * jnp.arange(parts)
    return quantiser.centres.reshape(-1, group)[rows].reshape(len(numbers), -1)


def _parts(codes: Float[Array, "n f"], group: int) -> Float[Array, "p g n"]:
    """Codes cut into parts, images last: what is done to all of them alike runs along memory."""
    return codes.T.reshape(-1, group, len(codes))


def _nearest(part: Float[Array, "g n"], centres: Float[Array, "256 g"]) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """The number of the centre nearest to a part of each image, and the squared distance less |part|^2."""
    return jax.lax.platform_dependent(part, centres, cpu=_nearest_one_by_one, default=_nearest_by_product)


def _nearest_by_product(part: Array, centres: Array) -> tuple[Array, Array]:
    distances = jnp.sum(centres**2, -1)[:, None] - 2 * centres @ part
    return jnp.argmin(distances, 0).astype(jnp.int32), jnp.min(distances, 0)


def _nearest_one_by_one(part: Array, centres: Array) -> tuple[Array, Array]:
    """Centre by centre, which on a CPU takes a fifth of the time: XLA's products of small matrices are slow there."""
    squares = jnp.sum(centres**2, -1)

    def look(number: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        nearest, best = found
        centre, distance = centres[number], squares[number]
        for value, numbers in zip(centre, part, strict=True):
            distance -= 2 * value * numbers
        closer = distance < best
        return jnp.where(closer, number, nearest), jnp.where(closer, distance, best)

    images = part.shape[-1]
    start = jnp.zeros(images, jnp.int32), jnp.full(images, jnp.inf)
    return jax.lax.fori_loop(0, CENTRES, look, start, unroll=UNROLLED)
