"""Histograms of oriented gradients.

`dalal_triggs` (Dalal & Triggs, "Histograms of oriented gradients for human detection", 2005): cells of 9 unsigned
directions; blocks of cells are normalised together and clipped.

`felzenszwalb` (Felzenszwalb, Girshick, McAllester & Ramanan, "Object detection with discriminatively trained
part-based models", 2010, sec. 6): 31 numbers for a cell, which carry nearly the same information as the 36 of its four
normalisations.

`hog` is the local descriptor: `felzenszwalb` over the middle 2 x 2 of 4 x 4 cells, stacked as in the features of the
SUN database (Xiao et al. 2010).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from imagenet_repro.features.descriptors.grid import (
    Level,
    angles,
    box,
    check_divides,
    pool,
    strongest_gradients,
    triangle,
    zero_border,
)

CLIP = 0.2
SIGNED = 18  # directions in a full turn
CELLS = 4  # of a local descriptor on a side; the outer cells only normalise the inner ones
_EPSILON_DALAL = 1e-5  # as in scikit-image
_EPSILON_FELZENSZWALB = 1e-4  # as in the authors' code, where pixels are 0 to 255
_TEXTURE = 0.2357  # as in the authors' code


def dalal_triggs(
    images: Float[Array, "n h w 3"], *, cell: int = 8, block: int = 2, directions: int = 9
) -> Float[Array, "n r c block block directions"]:
    """Return the histograms of blocks of cells, one cell apart; normalised, clipped at 0.2, normalised again.

    Equal to `skimage.feature.hog` with its defaults: the gradient is that of the strongest channel, and votes are not
    shared between cells or directions.

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
    cells = (
        pool(votes, _cells(images.shape[1], images.shape[2], cell), cell, cells=1, weight=box)[:, :, :, 0, 0] / cell**2
    )
    rows, columns = (count - block + 1 for count in cells.shape[1:3])
    parts = [[cells[:, i : i + rows, j : j + columns] for j in range(block)] for i in range(block)]
    blocks = jnp.stack([jnp.stack(row, axis=3) for row in parts], axis=3)
    blocks = jnp.minimum(_normalise(blocks), CLIP)
    return _normalise(blocks)


def felzenszwalb(images: Float[Array, "n h w 3"], *, cell: int = 8) -> Float[Array, "n r c 31"]:
    """Return 18 signed directions, 9 unsigned ones and 4 of texture, for every cell except those at the border.

    Args:
      images: RGB in [0, 1].
      cell: pixels on a side of a cell.
    """
    level = _cells(images.shape[1], images.shape[2], cell)
    return _cell_features(pool(_signed_votes(images), level, cell, cells=1, weight=triangle)[:, :, :, 0, 0])


def hog(images: Float[Array, "n h w 3"], level: Level, patch: int) -> Float[Array, "n r c 124"]:
    """Return the features of `felzenszwalb` for the middle 2 x 2 of the 4 x 4 cells of each patch.

    Args:
      images: RGB in [0, 1].
      level: the grid.
      patch: pixels on a side, a multiple of 4.

    Raises:
      UserError: `patch` is not a multiple of 4.
    """
    check_divides(CELLS, patch, "a HOG descriptor")
    cells = pool(_signed_votes(images), level, patch, cells=CELLS, weight=triangle)
    features = _cell_features(cells)
    return features.reshape(*features.shape[:3], -1)


def _cells(height: int, width: int, cell: int) -> Level:
    """Return the grid of an image's complete cells."""
    rows, columns = (tuple(cell // 2 + cell * i for i in range(size // cell)) for size in (height, width))
    return Level(height, width, rows, columns)


def _votes(strength: Float[Array, "n h w"], number: Array, directions: int) -> Float[Array, "n d h w"]:
    return jnp.where(number[:, None] == jnp.arange(directions)[:, None, None], strength[:, None], 0.0)


def _signed_votes(images: Float[Array, "n h w 3"]) -> Float[Array, "n 18 h w"]:
    """Return each gradient's strength in the nearest of 18 directions, counted clockwise from the right."""
    by_row, by_column = strongest_gradients(255 * images)
    turn = angles(by_row, by_column) * (SIGNED / (2 * np.pi))
    number = jnp.round(turn).astype(jnp.int32) % SIGNED
    return _votes(zero_border(jnp.sqrt(by_row**2 + by_column**2)), number, SIGNED)


def _normalise(blocks: Float[Array, "n r c i j d"]) -> Float[Array, "n r c i j d"]:
    energy = jnp.sum(blocks**2, axis=(3, 4, 5), keepdims=True)
    return blocks / jnp.sqrt(energy + _EPSILON_DALAL**2)


def _cell_features(cells: Float[Array, "... i j 18"]) -> Float[Array, "... oi oj 31"]:
    """Return 31 numbers for each inner cell of a rectangle of histograms (the authors' features.cc)."""
    unsigned = cells[..., :9] + cells[..., 9:]
    energy = jnp.sum(unsigned**2, axis=-1)
    block_energy = energy[..., :-1, :-1] + energy[..., 1:, :-1] + energy[..., :-1, 1:] + energy[..., 1:, 1:]
    factors = 1 / jnp.sqrt(block_energy + _EPSILON_FELZENSZWALB)
    corners = [(slice(1, None), slice(1, None)), (slice(None, -1), slice(1, None))]
    corners += [(slice(1, None), slice(None, -1)), (slice(None, -1), slice(None, -1))]
    factors = jnp.stack([factors[(..., *corner)] for corner in corners], axis=-1)[..., None]  # [..., oi, oj, 4, 1]
    inner = (..., slice(1, -1), slice(1, -1), None, slice(None))
    sensitive = jnp.minimum(cells[inner] * factors, CLIP)
    insensitive = jnp.minimum(unsigned[inner] * factors, CLIP)
    texture = _TEXTURE * sensitive.sum(-1)
    return jnp.concatenate([0.5 * sensitive.sum(-2), 0.5 * insensitive.sum(-2), texture], axis=-1)
