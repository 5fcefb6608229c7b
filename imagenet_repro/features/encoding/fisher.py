"""Fisher vectors: Perronnin & Dance 2007, improved by Perronnin, Sanchez & Mensink 2010.

The Fisher vector of descriptors x_1 to x_T is the gradient of their likelihood under a mixture of Gaussians w, mu,
sigma with responsibilities gamma (Sanchez, Perronnin, Mensink & Verbeek, "Image classification with the Fisher
vector", 2013, eq. 16 to 18):

    G_w     = 1 / (T sqrt(w))   sum_t (gamma_t - w)
    G_mu    = 1 / (T sqrt(w))   sum_t gamma_t (x_t - mu) / sigma
    G_sigma = 1 / (T sqrt(2 w)) sum_t gamma_t ((x_t - mu)^2 / sigma^2 - 1)

The improved form takes signed square roots and scales to unit length, separately in each cell of a pyramid.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from imagenet_repro.features.encoding.mixture import Mixture, responsibilities, with_squares
from imagenet_repro.features.encoding.pyramid import Layout

TINY = 1e-12  # a vector of a smaller length becomes zero


class Statistics(NamedTuple):
    """Sums over the descriptors of each cell.

    Attributes:
      n_descriptors: in each cell, [cells].
      zeroth: sums of responsibilities, [n, cells, k].
      first: of responsibilities times descriptors, [n, cells, k, d].
      second: of responsibilities times their squares, [n, cells, k, d].
    """

    n_descriptors: Float[Array, " cells"]
    zeroth: Float[Array, "n cells k"]
    first: Float[Array, "n cells k d"]
    second: Float[Array, "n cells k d"]


def _statistics(stretches: list[tuple[Array, Array]], layout: Layout) -> Statistics:
    """Return the sums of each cell from the descriptors and responsibilities of each stretch."""
    products = [jnp.einsum("ntk,ntd->nkd", gamma, with_squares(x)) for x, gamma in stretches]
    first, second = jnp.split(layout.sum_cells(products), 2, axis=-1)
    return Statistics(layout.count, layout.sum_cells([gamma.sum(1) for _, gamma in stretches]), first, second)


def encode(
    x: Float[Array, "n t d"],
    mixture: Mixture,
    layout: Layout,
    *,
    with_weights: bool = False,
    power: float = 0.5,
    normalise: bool = True,
) -> Float[Array, "n cells f"]:
    """Return the Fisher vectors of images, one for each cell.

    A cell's vector is [G_w if `with_weights`,] G_mu of the first component, of the second and so on, then G_sigma in
    the same order: 2 k d numbers, or k more.

    Args:
      x: descriptors of each image, in the layout's order.
      mixture: of the descriptors.
      layout: of the pyramid's cells.
      with_weights: whether to include G_w, which adds little.
      power: applied to the absolute value of every number; the sign is kept.
      normalise: whether to scale a cell's vector to unit length.
    """
    # One stretch at a time, so that the responsibilities, the largest arrays, are never copied.
    stretches = [x[:, a:b] for a, b in layout.stretches]
    count, zeroth, first, second = _statistics([(part, responsibilities(part, mixture)) for part in stretches], layout)
    sigma = jnp.sqrt(mixture.variances)
    scale = 1 / (jnp.maximum(count, 1)[:, None] * jnp.sqrt(mixture.weights))
    of_means = (first - zeroth[..., None] * mixture.means) / sigma
    squares = second - 2 * first * mixture.means + zeroth[..., None] * mixture.means**2
    of_sigmas = (squares / mixture.variances - zeroth[..., None]) / jnp.sqrt(2.0)
    both = scale[:, None, :, None] * jnp.stack([of_means, of_sigmas], axis=2)
    vectors = both.reshape(*zeroth.shape[:2], -1)
    if with_weights:
        vectors = jnp.concatenate([scale * (zeroth - count[:, None] * mixture.weights), vectors], axis=-1)
    return improve(vectors, power=power, normalise=normalise)


def improve(vectors: Float[Array, "... f"], *, power: float = 0.5, normalise: bool = True) -> Float[Array, "... f"]:
    """Apply a signed power and scale to unit length (Perronnin, Sanchez & Mensink 2010, sec. 2.2 and 2.3)."""
    if power == 0.5:
        vectors = jnp.sign(vectors) * jnp.sqrt(jnp.abs(vectors))
    elif power != 1:
        vectors = jnp.sign(vectors) * jnp.abs(vectors) ** power
    if not normalise:
        return vectors
    length = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return jnp.where(length > TINY, vectors / jnp.maximum(length, TINY), 0.0)
