"""Dense SIFT: Lowe, "Distinctive image features from scale-invariant keypoints", 2004, sec. 6, upright.

A patch has 4 x 4 cells of 8 directions and is weighted by a Gaussian with a deviation of half its side. Each gradient
is shared between neighbouring cells and directions. The descriptor is normalised, clipped at 0.2 and normalised again.
The order of the numbers and the sense of the directions are OpenCV's.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from imagenet_repro.features.descriptors.grid import Level, from_axis, gradients, pool, triangle, zero_border

CELLS, DIRECTIONS = 4, 8
CLIP = 0.2
TINY = 1e-7  # a descriptor of a smaller norm becomes zero


def sift(images: Float[Array, "n h w"], level: Level, patch: int, *, root: bool = False) -> Float[Array, "n r c 128"]:
    """Return descriptors of unit length, or zero where the patch has no gradient.

    Args:
      images: luma in [0, 1].
      level: the grid.
      patch: pixels on a side; a cell is a quarter of it.
      root: whether to take the square root of the descriptor scaled to sum 1, so that distances are Hellinger's
        (Arandjelovic & Zisserman 2012, "RootSIFT").
    """
    sums = pool(directions(images), level, patch, cells=CELLS, weight=_window, shift=0.0)
    n, rows, columns = sums.shape[:3]
    descriptors = sums.reshape(n, rows, columns, CELLS * CELLS * DIRECTIONS)
    descriptors = normalise(jnp.minimum(normalise(descriptors), CLIP))
    if root:
        total = descriptors.sum(-1, keepdims=True)
        return jnp.sqrt(descriptors / jnp.maximum(total, TINY))
    return descriptors


root_sift = functools.partial(sift, root=True)


def directions(image: Float[Array, "n h w"]) -> Float[Array, "n 8 h w"]:
    """Return the strength of the gradient in each direction, shared linearly between the two nearest.

    Directions are counted counter-clockwise from the right. The border has no gradient.
    """
    by_row, by_column = gradients(image)
    strength = zero_border(jnp.sqrt(by_row**2 + by_column**2))
    diagonal = strength * from_axis(by_row, by_column) / (np.pi / 4)
    straight = strength - diagonal
    up, right, down, left = by_row < 0, by_column > 0, by_row > 0, by_column < 0
    flat = jnp.abs(by_row) <= jnp.abs(by_column)
    masks = (flat & right, up & right, ~flat & up, up & left, flat & left, down & left, ~flat & down, down & right)
    return jnp.stack([jnp.where(w, diagonal if i % 2 else straight, 0.0) for i, w in enumerate(masks)], axis=1)


def _window(from_cell: np.ndarray, from_patch: np.ndarray) -> np.ndarray:
    return triangle(from_cell, from_patch) * np.exp(-(from_patch**2) / (2 * (CELLS / 2) ** 2))


def normalise(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Scale vectors to unit length; those shorter than `TINY` become zero."""
    norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return jnp.where(norm > TINY, x / jnp.maximum(norm, TINY), 0.0)
