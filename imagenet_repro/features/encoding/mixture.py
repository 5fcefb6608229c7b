"""Mixtures of Gaussians with diagonal covariances, by expectation maximisation (Dempster, Laird & Rubin 1977).

Probabilities are kept as logarithms; the sums of an iteration run over the sample block by block.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from imagenet_repro.features.encoding import kmeans

BLOCK = 8192  # vectors whose responsibilities are held at a time
EMPTY = 1e-3  # vectors; a component that is responsible for fewer keeps its mean and variances


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mixture:
    """A mixture of k Gaussians with diagonal covariances.

    Attributes:
      weights: [k], of sum 1.
      means: [k, d].
      variances: [k, d].
    """

    weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    variances: Float[Array, "k d"]


def fit(
    x: Float[Array, "n d"],
    components: int,
    key: Key[Array, ""],
    *,
    iterations: int = 50,
    restarts: int = 1,
    floor: float = 1e-3,
) -> Mixture:
    """Return the most likely of `restarts` mixtures, each started from the clusters of k-means.

    Args:
      x: the sample.
      components: number of Gaussians.
      key: of all random choices.
      iterations: of expectation maximisation.
      restarts: number of mixtures to fit.
      floor: of the variances, as a share of the sample's variance in that direction.

    Raises:
      UserError: fewer vectors than components.
    """
    kmeans.check_sample(len(x), components)
    lowest = floor * jnp.maximum(jnp.var(x, axis=0), 1e-12)
    mixtures = []
    for start in jax.random.split(key, restarts):
        centres = kmeans.fit(x, components, start, iterations=10)
        initial = _from_clusters(x, centres, lowest)
        mixtures.append(_maximise_likelihood(x, initial, lowest, iterations=iterations))
    best = jnp.argmax(jnp.stack([log_likelihood(x, mixture) for mixture in mixtures])) if restarts > 1 else 0
    return jax.tree.map(lambda *each: jnp.stack(each)[best], *mixtures)


def log_probabilities(x: Float[Array, "*n d"], mixture: Mixture) -> Float[Array, "*n k"]:
    """Return the logarithm of each component's weight times its density at the vectors."""
    precisions = 1 / mixture.variances
    # -(x - mu)^2 / (2 sigma^2) for all components is one product with (x, x^2), plus a constant.
    factors = jnp.concatenate([mixture.means * precisions, -0.5 * precisions], axis=1)
    constants = jnp.sum(jnp.log(2 * jnp.pi * mixture.variances) + mixture.means**2 * precisions, -1)
    return with_squares(x) @ factors.T + (jnp.log(mixture.weights) - 0.5 * constants)


def with_squares(x: Float[Array, "*n d"]) -> Float[Array, "*n 2*d"]:
    """Return the numbers of vectors, then their squares."""
    return jnp.concatenate([x, x**2], axis=-1)


def responsibilities(x: Float[Array, "*n d"], mixture: Mixture) -> Float[Array, "*n k"]:
    """Return the probability of each component given a vector, of sum 1."""
    return jax.nn.softmax(log_probabilities(x, mixture), axis=-1)


@jax.jit
def log_likelihood(x: Float[Array, "n d"], mixture: Mixture) -> Float[Array, ""]:
    """Return the mean over the vectors of the logarithm of the mixture's density."""
    return _expectation(x, mixture)[0] / len(x)


def _blocks(x: Float[Array, "n d"]) -> tuple[Float[Array, "b m d"], Float[Array, "b m"]]:
    """Return the vectors in blocks, and 1 for each vector that is not padding."""
    size = min(BLOCK, len(x))
    count = -(-len(x) // size)
    missing = count * size - len(x)
    real = jnp.pad(jnp.ones(len(x)), (0, missing)).reshape(count, size)
    return jnp.pad(x, ((0, missing), (0, 0))).reshape(count, size, -1), real


def _expectation(
    x: Float[Array, "n d"], mixture: Mixture
) -> tuple[Float[Array, ""], tuple[Float[Array, " k"], Float[Array, "k d"], Float[Array, "k d"]]]:
    """Return the sum of log-densities, and each component's sums of responsibilities, vectors and squares."""

    def add(sums: tuple, block: tuple) -> tuple[tuple, None]:
        vectors, real = block
        logs = log_probabilities(vectors, mixture)
        total = jax.nn.logsumexp(logs, axis=-1)
        gamma = jnp.exp(logs - total[:, None]) * real[:, None]
        first, second = jnp.split(gamma.T @ with_squares(vectors), 2, axis=1)
        new = (jnp.sum(total * real), (gamma.sum(0), first, second))
        return jax.tree.map(jnp.add, sums, new), None

    k, d = mixture.means.shape
    zeros = (jnp.zeros(()), (jnp.zeros(k), jnp.zeros((k, d)), jnp.zeros((k, d))))
    return jax.lax.scan(add, zeros, _blocks(x))[0]


def _from_clusters(x: Float[Array, "n d"], centres: Float[Array, "k d"], lowest: Float[Array, " d"]) -> Mixture:
    numbers, _ = kmeans.nearest(x, centres)
    counts = jnp.zeros(len(centres)).at[numbers].add(1.0)
    squares = jnp.zeros_like(centres).at[numbers].add((x - centres[numbers]) ** 2)
    variances = jnp.maximum(squares / jnp.maximum(counts, 1)[:, None], lowest)
    return Mixture(jnp.maximum(counts, 1) / jnp.maximum(counts, 1).sum(), centres, variances)


@functools.partial(jax.jit, static_argnames="iterations")
def _maximise_likelihood(
    x: Float[Array, "n d"], mixture: Mixture, lowest: Float[Array, " d"], *, iterations: int
) -> Mixture:
    origin = x.mean(0)  # squares of centred vectors have smaller rounding errors
    centred = x - origin

    def step(_: Array, mixture: Mixture) -> Mixture:
        _, (counts, sums, squares) = _expectation(centred, mixture)
        is_used = (counts > EMPTY)[:, None]
        counts = jnp.maximum(counts, EMPTY)
        means = jnp.where(is_used, sums / counts[:, None], mixture.means)
        variances = jnp.where(is_used, squares / counts[:, None] - means**2, mixture.variances)
        return Mixture(counts / counts.sum(), means, jnp.maximum(variances, lowest))

    start = dataclasses.replace(mixture, means=mixture.means - origin)
    fitted = jax.lax.fori_loop(0, iterations, step, start)
    return dataclasses.replace(fitted, means=fitted.means + origin)
