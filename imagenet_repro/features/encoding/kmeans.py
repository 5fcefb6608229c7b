"""Codebooks by k-means, started by k-means++ (Arthur & Vassilvitskii 2007).

`fit` runs Lloyd's algorithm over a sample that fits in memory, or steps over random parts of it ("web-scale k-means",
Sculley 2010), in which each centre moves by one over the number of vectors that it has seen. A centre without vectors
moves to the vector that is farthest from its own centre.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from imagenet_repro.errors import UserError

BLOCK = 8192  # vectors whose distances to all centres are held at a time


def fit(
    x: Float[Array, "n d"], clusters: int, key: Key[Array, ""], *, iterations: int = 25, batch: int = 0
) -> Float[Array, "k d"]:
    """Return the centres of clusters.

    Args:
      x: the vectors.
      clusters: number of centres.
      key: of all random choices.
      iterations: passes over `x`, or steps where `batch` is not 0.
      batch: vectors of a step, drawn for each step; 0: all of them.

    Raises:
      UserError: fewer vectors than clusters.
    """
    check_sample(len(x), clusters)
    start, steps = jax.random.split(key)
    centres = plus_plus(x, clusters, start)
    if batch:
        return _mini_batches(x, centres, steps, iterations=iterations, batch=min(batch, len(x)))
    return _lloyd(x, centres, iterations=iterations)


def check_sample(vectors: int, clusters: int) -> None:
    """Raise UserError where there are fewer vectors than clusters."""
    if vectors < clusters:
        raise UserError(f"{clusters} clusters of {vectors} descriptors: draw a larger sample, or fewer clusters")


def squared_distances(x: Float[Array, "n d"], centres: Float[Array, "k d"]) -> Float[Array, "n k"]:
    """Return the squared distance of every vector to every centre.

    It is computed from one product, so small distances have rounding errors; none is negative.
    """
    products = x @ centres.T
    distances = jnp.sum(x**2, -1, keepdims=True) - 2 * products + jnp.sum(centres**2, -1)
    return jnp.maximum(distances, 0.0)


def nearest(x: Float[Array, "n d"], centres: Float[Array, "k d"]) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Return the index of each vector's nearest centre, and the squared distance to it."""

    def of_block(block: Array) -> tuple[Array, Array]:
        distances = squared_distances(block, centres)
        return jnp.argmin(distances, -1), jnp.min(distances, -1)

    blocks = -(-len(x) // BLOCK)
    padded = jnp.pad(x, ((0, blocks * BLOCK - len(x)), (0, 0))).reshape(blocks, BLOCK, -1) if blocks > 1 else x[None]
    numbers, distances = jax.lax.map(of_block, padded)
    return numbers.reshape(-1)[: len(x)], distances.reshape(-1)[: len(x)]


@functools.partial(jax.jit, static_argnames="clusters")
def plus_plus(x: Float[Array, "n d"], clusters: int, key: Key[Array, ""]) -> Float[Array, "k d"]:
    """Draw centres from the vectors, each with a probability in proportion to its squared distance from those before.

    This is the greedy form of the authors' experiments and scikit-learn: 2 + log(clusters) candidates are drawn for a
    centre, and the one that leaves the smallest sum of distances is used.
    """
    trials = 2 + int(math.log(clusters))
    first, rest = jax.random.split(key)
    centre = x[jax.random.randint(first, (), 0, len(x))]

    def draw(distances: Array, key: Array) -> tuple[Array, Array]:
        # Where every vector is already a centre (there are fewer distinct ones than clusters), all are equally likely.
        cumulative = jnp.cumsum(jnp.where(jnp.any(distances > 0), distances, 1.0))
        drawn = jnp.searchsorted(cumulative, cumulative[-1] * jax.random.uniform(key, (trials,)), side="right")
        candidates = x[jnp.minimum(drawn, len(x) - 1)]
        left = jnp.minimum(distances[:, None], squared_distances(x, candidates))
        best = jnp.argmin(left.sum(0))
        return left[:, best], candidates[best]

    distances = jnp.sum((x - centre) ** 2, -1)
    _, centres = jax.lax.scan(draw, distances, jax.random.split(rest, clusters - 1))
    return jnp.concatenate([centre[None], centres])


@functools.partial(jax.jit, static_argnames="iterations")
def _lloyd(x: Float[Array, "n d"], centres: Float[Array, "k d"], *, iterations: int) -> Float[Array, "k d"]:
    def step(_: Array, centres: Array) -> Array:
        numbers, distances = nearest(x, centres)
        counts, totals = sums(x, numbers, len(centres))
        return refill_empty(x, distances, counts, totals / jnp.maximum(counts, 1)[:, None])

    return jax.lax.fori_loop(0, iterations, step, centres)


@functools.partial(jax.jit, static_argnames=("iterations", "batch"))
def _mini_batches(
    x: Float[Array, "n d"], centres: Float[Array, "k d"], key: Key[Array, ""], *, iterations: int, batch: int
) -> Float[Array, "k d"]:
    def step(number: Array, carried: tuple[Array, Array]) -> tuple[Array, Array]:
        centres, n_seen = carried
        part = x[jax.random.randint(jax.random.fold_in(key, number), (batch,), 0, len(x))]
        numbers, distances = nearest(part, centres)
        counts, totals = sums(part, numbers, len(centres))
        n_seen = n_seen + counts
        moved = centres + (totals - counts[:, None] * centres) / jnp.maximum(n_seen, 1)[:, None]
        return refill_empty(part, distances, n_seen, moved), n_seen

    return jax.lax.fori_loop(0, iterations, step, (centres, jnp.zeros(len(centres))))[0]


def sums(
    x: Float[Array, "n d"], numbers: Int[Array, " n"], clusters: int
) -> tuple[Float[Array, " k"], Float[Array, "k d"]]:
    """Return the number of vectors of each cluster, and their sums."""
    counts = jnp.zeros(clusters).at[numbers].add(1.0)
    return counts, jnp.zeros((clusters, x.shape[-1])).at[numbers].add(x)


def refill_empty(
    x: Float[Array, "n d"], distances: Float[Array, " n"], counts: Float[Array, " k"], centres: Float[Array, "k d"]
) -> Float[Array, "k d"]:
    """Return the centres; those without vectors are replaced by the vectors farthest from their own centres."""
    n_farthest = min(len(centres), len(x))
    _, farthest = jax.lax.top_k(distances, n_farthest)
    rank = jnp.cumsum(counts == 0) - 1  # the first empty centre gets the farthest vector, and so on
    replacement = x[farthest[jnp.clip(rank, 0, n_farthest - 1)]]
    return jnp.where((counts == 0)[:, None], replacement, centres)
