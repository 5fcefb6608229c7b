"""Principal components of descriptors, from sums that a stream of any length leaves behind."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from imagenet_repro.errors import UserError

WHITENING_FLOOR = 1e-6  # of the largest variance: what varies less is noise of rounding, and is not blown up


class Moments:
    """Count, mean and scatter of a stream of vectors in float64 (Chan, Golub & LeVeque 1979)."""

    def __init__(self, features: int):
        self.count = 0
        self.mean = np.zeros(features)
        self.scatter = np.zeros((features, features))

    def add(self, vectors: Float[np.ndarray, "n d"]) -> None:
        """Takes in some vectors."""
        count, vectors = len(vectors), vectors.astype(np.float64)
        if not count:
            return
        mean = vectors.mean(0)
        centred, away = vectors - mean, mean - self.mean
        total = self.count + count
        self.scatter += centred.T @ centred + np.outer(away, away) * self.count * count / total
        self.mean = self.mean + away * count / total
        self.count = total


@dataclasses.dataclass(frozen=True)
class Pca:
    """A linear map to fewer numbers.

    Attributes:
      mean: of the vectors, [d].
      components: unit vectors in falling order of variance, [k, d]; the largest number of each is positive.
      variances: of the vectors along them, [k].
    """

    mean: Float[Array | np.ndarray, " d"]
    components: Float[Array | np.ndarray, "k d"]
    variances: Float[Array | np.ndarray, " k"]


def fit(moments: Moments, components: int) -> Pca:
    """The first principal components; float32.

    Raises:
      UserError: more components than the vectors have numbers, or fewer than two vectors.
    """
    check(len(moments.mean), components)
    if moments.count < 2:
        raise UserError(f"principal components need two descriptors at least, here are {moments.count}")
    variances, vectors = np.linalg.eigh(moments.scatter / (moments.count - 1))
    vectors = vectors[:, ::-1].T[:components]
    signs = np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(1)[:, None], 1))
    found = (moments.mean, vectors * signs, np.maximum(variances[::-1][:components], 0))
    return Pca(*(x.astype(np.float32) for x in found))


def check(features: int, components: int) -> None:
    """Raises UserError where vectors have fewer numbers than components are asked for."""
    if components > features:
        raise UserError(
            f"{components} principal components of vectors of {features} numbers; ask for {features} at most"
        )


def project(x: Float[Array, "*n d"], pca: Pca, *, whiten: bool = False) -> Float[Array, "*n k"]:
    """The components of vectors, each divided by its standard deviation where `whiten`."""
    projected = (x - pca.mean) @ pca.components.T
    if not whiten:
        return projected
    return projected / jnp.sqrt(jnp.maximum(pca.variances, WHITENING_FLOOR * pca.variances.max(initial=1e-12)))
