"""Principal components of descriptors, from running moments of a stream of any length."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from imagenet_repro.errors import UserError

WHITENING_FLOOR = 1e-6  # of the largest variance; directions with less vary by rounding only and are not amplified


class Moments:
    """Count, mean and scatter of a stream of vectors in float64 (Chan, Golub & LeVeque 1979)."""

    def __init__(self, features: int):
        self.count = 0
        self.mean = np.zeros(features)
        self.scatter = np.zeros((features, features))

    def add(self, vectors: Float[np.ndarray, "n d"]) -> None:
        """Add some vectors."""
        count, vectors = len(vectors), vectors.astype(np.float64)
        if not count:
            return
        mean = vectors.mean(0)
        centred, shift = vectors - mean, mean - self.mean
        total = self.count + count
        self.scatter += centred.T @ centred + np.outer(shift, shift) * self.count * count / total
        self.mean = self.mean + shift * count / total
        self.count = total


@dataclasses.dataclass(frozen=True)
class Pca:
    """Principal components of vectors.

    Attributes:
      mean: of the vectors, [d].
      components: unit vectors in decreasing order of variance, [k, d]; the largest number of each is positive.
      variances: of the vectors along them, [k].
    """

    mean: Float[Array | np.ndarray, " d"]
    components: Float[Array | np.ndarray, "k d"]
    variances: Float[Array | np.ndarray, " k"]


def fit(moments: Moments, components: int) -> Pca:
    """Return the first principal components as float32.

    Raises:
      UserError: there are more components than numbers in a vector, or fewer than two vectors.
    """
    check(len(moments.mean), components)
    if moments.count < 2:
        raise UserError(f"principal components need at least two descriptors; there are {moments.count}")
    variances, vectors = np.linalg.eigh(moments.scatter / (moments.count - 1))
    vectors = vectors[:, ::-1].T[:components]
    signs = np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(1)[:, None], 1))
    arrays = (moments.mean, vectors * signs, np.maximum(variances[::-1][:components], 0))
    return Pca(*(array.astype(np.float32) for array in arrays))


def check(features: int, components: int) -> None:
    """Raise UserError where vectors have fewer numbers than `components`."""
    if components > features:
        raise UserError(f"{components} principal components of vectors of {features} numbers; use {features} at most")


def project(x: Float[Array, "*n d"], pca: Pca, *, whiten: bool = False) -> Float[Array, "*n k"]:
    """Return the components of vectors; with `whiten`, each is divided by its standard deviation."""
    projected = (x - pca.mean) @ pca.components.T
    if not whiten:
        return projected
    return projected / jnp.sqrt(jnp.maximum(pca.variances, WHITENING_FLOOR * pca.variances.max(initial=1e-12)))
