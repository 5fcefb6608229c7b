"""Codes of descriptors over a codebook, pooled over the cells of a pyramid.

Bag of visual words, hard (Csurka et al. 2004) and soft (van Gemert et al. 2008, "Kernel codebooks");
locality-constrained linear coding (Wang et al. 2010); super-vector coding (Zhou, Yu, Zhang & Huang 2010).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from imagenet_repro.features.encoding.kmeans import squared_distances
from imagenet_repro.features.encoding.pyramid import Layout


def hard(x: Float[Array, "n t d"], codebook: Float[Array, "k d"]) -> Float[Array, "n t k"]:
    """Return 1 for the nearest word of each descriptor, 0 for the others."""
    return jax.nn.one_hot(jnp.argmin(_distances(x, codebook), -1), len(codebook))


def soft(x: Float[Array, "n t d"], codebook: Float[Array, "k d"], *, sigma: float) -> Float[Array, "n t k"]:
    """Return Gaussians, `sigma` wide, of the distances to all words, scaled to sum 1 ("codeword uncertainty")."""
    return jax.nn.softmax(-_distances(x, codebook) / (2 * sigma**2), axis=-1)


def bag(codes: Float[Array, "n t k"], layout: Layout) -> Float[Array, "n cells k"]:
    """Return the mean code of the descriptors in each cell, or zero in an empty one; `codes` in the layout's order."""
    sums = layout.sum_cells([codes[:, a:b].sum(1) for a, b in layout.stretches])
    return sums / jnp.maximum(layout.count, 1)[:, None]


def llc(
    x: Float[Array, "n t d"],
    codebook: Float[Array, "k d"],
    layout: Layout,
    *,
    neighbours: int = 5,
    regularisation: float = 1e-4,
) -> Float[Array, "n cells k"]:
    """Return locality-constrained linear codes, max-pooled over each cell.

    In the approximated form (Wang et al. 2010, sec. 3.1, with the closed form of eq. 7), a descriptor is approximated
    by a combination of its nearest words with coefficients of sum 1.

    Args:
      x: descriptors in the layout's order.
      codebook: the words.
      layout: of the pyramid's cells.
      neighbours: words that approximate a descriptor.
      regularisation: added to the diagonal of the words' covariance, as a share of its trace.

    Returns:
      The largest coefficient of each word over the descriptors of a cell, zero where none is positive.
    """
    numbers, weights = llc_coefficients(x, codebook, neighbours=neighbours, regularisation=regularisation)
    targets = (jnp.arange(len(x))[:, None, None], layout.stretch[:, None], numbers)
    largest = jnp.zeros((len(x), len(layout.stretches), len(codebook))).at[targets].max(weights)
    return jnp.where(jnp.asarray(layout.parts)[..., None], largest[:, None], 0.0).max(2)


def llc_coefficients(
    x: Float[Array, "n t d"], codebook: Float[Array, "k d"], *, neighbours: int, regularisation: float
) -> tuple[Array, Float[Array, "n t m"]]:
    """Return the indices [n, t, m] of each descriptor's nearest words, and its coefficients on them."""
    _, numbers = jax.lax.top_k(-_distances(x, codebook), neighbours)
    offsets = codebook[numbers] - x[:, :, None]
    covariance = jnp.einsum("ntid,ntjd->ntij", offsets, offsets)
    trace = jnp.trace(covariance, axis1=-2, axis2=-1)[..., None, None]
    covariance += jnp.eye(neighbours) * jnp.maximum(regularisation * trace, 1e-12)
    weights = _solve_ones(covariance)
    return numbers, weights / weights.sum(-1, keepdims=True)


def _solve_ones(matrices: Float[Array, "*n m m"]) -> Float[Array, "*n m"]:
    """Return the vectors that small positive definite matrices map to ones.

    Elimination works on all matrices at once; LAPACK would solve one after the other.
    """
    ones = jnp.ones((*matrices.shape[:-1], 1))
    rows = jnp.moveaxis(jnp.concatenate([matrices, ones], -1), (-2, -1), (0, 1))
    for i in range(len(rows)):
        row = rows[i] / rows[i, i]
        rows = (rows - rows[:, i, None] * row).at[i].set(row)
    return jnp.moveaxis(rows[:, -1], 0, -1)


def super_vector(
    x: Float[Array, "n t d"], codebook: Float[Array, "k d"], layout: Layout, *, constant: float = 1.0
) -> Float[Array, "n cells f"]:
    """Return super-vector codes.

    The part of a word is (`constant` sqrt(p), sum over its descriptors of (x - word) / (T sqrt(p))), where p is the
    share of a cell's T descriptors that are nearest to the word (Zhou et al. 2010, eq. 2 and 6).

    Args:
      x: descriptors in the layout's order.
      codebook: the words.
      layout: of the pyramid's cells.
      constant: weight of the share.

    Returns:
      k (d + 1) numbers, word by word; zero for words that are nearest to no descriptor of the cell.
    """
    targets = (layout.stretch[None], jnp.arange(len(x))[:, None], jnp.argmin(_distances(x, codebook), -1))
    shape = (len(layout.stretches), len(x), *codebook.shape)
    zeroth = layout.sum_cells(jnp.zeros(shape[:3]).at[targets].add(1.0))
    first = layout.sum_cells(jnp.zeros(shape).at[targets].add(x))
    total = jnp.maximum(layout.count, 1)[:, None]
    root = jnp.sqrt(zeroth / total)
    residuals = (first - zeroth[..., None] * codebook) / total[..., None]
    residuals = jnp.where(root[..., None] > 0, residuals / jnp.maximum(root[..., None], 1e-12), 0.0)
    codes = jnp.concatenate([constant * root[..., None], residuals], axis=-1)
    return codes.reshape(*codes.shape[:2], -1)


def _distances(x: Float[Array, "n t d"], codebook: Float[Array, "k d"]) -> Float[Array, "n t k"]:
    return squared_distances(x.reshape(-1, x.shape[-1]), codebook).reshape(*x.shape[:2], -1)
