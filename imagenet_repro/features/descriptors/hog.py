"""Histograms of oriented gradients.

Dalal & Triggs, "Histograms of oriented gradients for human detection", 2005: cells of 9 directions without sign,
blocks of cells normalised together and clipped. Felzenszwalb, Girshick, McAllester & Ramanan, "Object detection with
discriminatively trained part-based models", 2010, sec. 6: 31 numbers for a cell, which say nearly the same as the 36
of its four normalisations. As local descriptors, the latter over the middle 2 x 2 of 4 x 4 cells, as stacked in the
SUN database's features (Xiao et al. 2010).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from imagenet_repro.features.descriptors.grid import (
    Level,
    angles,
    box,
    check_divides,
    inside,
    pool,
    strongest_gradients,
    triangle,
)

CLIP = 0.2
SIGNED = 18  # directions in a full turn
CELLS = 4  # of a local descriptor on a side, of which the outer ones normalise the inner
_EPSILON_DALAL = 1e-5  # scikit-image's
_EPSILON_FELZENSZWALB = 1e-4  # the authors', where pixels are 0 to 255
_TEXTURE = 0.2357  # the authors'


def dalal_triggs(
    images: Float[Array, "n h w 3"], *, cell: int = 8, block: int = 2, directions: int = 9
) -> Float[Array, "n r c block block directions"]:
    """Every block of `block` x `block` cells, one cell apart; normalised, clipped at 0.2, normalised again.

    As `skimage.feature.hog` with its defaults: the strongest channel's gradient, votes that are not shared between
    cells or directions.

    Args:
      images: RGB in [0, 1].
      cell: pixels on a side of a cell.
      block: cells on a side of a block.
      directions: in half a turn.
    """
    by_row, by_column = strongest_gradients(images)
    degrees = jnp.rad2deg(angles(by_row, by_column)) % 180
    number = jnp.floor(degrees / (180 / directions)).astype(jnp.int32) % directions
    votes = _votes(jnp.sqrt(by_row**2 + by_column**2), number, directions)
    cells = pool(votes, _cells(*images.shape[1:3], cell), cell, cells=1, weight=box)[:, :, :, 0, 0] / cell**2
    rows, columns = (count - block + 1 for count in cells.shape[1:3])
    parts = [[cells[:, i : i + rows, j : j + columns] for j in range(block)] for i in range(block)]
    blocks = jnp.stack([jnp.stack(row, axis=3) for row in parts], axis=3)
    blocks = jnp.minimum(_normalised(blocks), CLIP)
    return _normalised(blocks)


def felzenszwalb(images: Float[Array, "n h w 3"], *, cell: int = 8) -> Float[Array, "n r c 31"]:
    """18 directions with sign, 9 without, 4 of texture, for every cell but those at the border.

    Args:
      images: RGB in [0, 1].
      cell: pixels on a side of a cell.
    """
    level = _cells(*images.shape[1:3], cell)
    return _described(pool(_signed_votes(images), level, cell, cells=1, weight=triangle)[:, :, :, 0, 0])


def hog(images: Float[Array, "n h w 3"], level: Level, patch: int) -> Float[Array, "n r c 124"]:
    """`felzenszwalb` of the middle 2 x 2 of the 4 x 4 cells of each patch.

    Args:
      images: RGB in [0, 1].
      level: the grid.
      patch: pixels on a side, a multiple of 4.

    Raises:
      UserError: it is no multiple of 4.
    """
    check_divides(CELLS, patch, "a HOG descriptor")
    cells = pool(_signed_votes(images), level, patch, cells=CELLS, weight=triangle)
    described = _described(cells)
    return described.reshape(*described.shape[:3], -1)


def _cells(height: int, width: int, cell: int) -> Level:
    """The grid of an image's cells, those that are whole."""
    rows, columns = (tuple(cell // 2 + cell * i for i in range(size // cell)) for size in (height, width))
    return Level(height, width, rows, columns)


def _votes(strength: Float[Array, "n h w"], number: Array, directions: int) -> Float[Array, "n d h w"]:
    return jnp.where(number[:, None] == jnp.arange(directions)[:, None, None], strength[:, None], 0.0)


def _signed_votes(images: Float[Array, "n h w 3"]) -> Float[Array, "n 18 h w"]:
    """The whole gradient in the nearest of 18 directions, counted from the right, with the clock."""
    by_row, by_column = strongest_gradients(255 * images)
    turn = angles(by_row, by_column) * (SIGNED / (2 * np.pi))
    number = jnp.round(turn).astype(jnp.int32) % SIGNED
    return _votes(inside(jnp.sqrt(by_row**2 + by_column**2)), number, SIGNED)


def _normalised(blocks: Float[Array, "n r c i j d"]) -> Float[Array, "n r c i j d"]:
    energy = jnp.sum(blocks**2, axis=(3, 4, 5), keepdims=True)
    return blocks / jnp.sqrt(energy + _EPSILON_DALAL**2)


def _described(cells: Float[Array, "... i j 18"]) -> Float[Array, "... oi oj 31"]:
    """31 numbers for each inner cell from the histograms of a rectangle of cells (the authors' features.cc)."""
    unsigned = cells[..., :9] + cells[..., 9:]
    energy = jnp.sum(unsigned**2, axis=-1)
    of_four = energy[..., :-1, :-1] + energy[..., 1:, :-1] + energy[..., :-1, 1:] + energy[..., 1:, 1:]
    factors = 1 / jnp.sqrt(of_four + _EPSILON_FELZENSZWALB)
    corners = [(slice(1, None), slice(1, None)), (slice(None, -1), slice(1, None))]
    corners += [(slice(1, None), slice(None, -1)), (slice(None, -1), slice(None, -1))]
    factors = jnp.stack([factors[(..., *corner)] for corner in corners], axis=-1)[..., None]  # [..., oi, oj, 4, 1]
    inner = (..., slice(1, -1), slice(1, -1), None, slice(None))
    sensitive = jnp.minimum(cells[inner] * factors, CLIP)
    insensitive = jnp.minimum(unsigned[inner] * factors, CLIP)
    texture = _TEXTURE * sensitive.sum(-1)
    return jnp.concatenate([0.5 * sensitive.sum(-2), 0.5 * insensitive.sum(-2), texture], axis=-1)
