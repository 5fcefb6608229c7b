"""The grid of local descriptors: patches of one size at regular steps, over the image at several scales.

Every descriptor is a sum over pixels of a feature of the pixel times the pixel's weight in a cell of the patch. The
weight is a product of a weight by row and a weight by column, so the sums of all patches of an image are two matrix
products (`pool`). They cost less than a convolution for each cell and suit accelerators.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from imagenet_repro.errors import UserError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in the grey of OpenCV and Pillow
# Coefficients of x, x^3, ... in the arc tangent on [0, 1], to 2e-8 (Abramowitz & Stegun 1964, eq. 4.4.49).
_ARC_TANGENT = (
    *(1.0, -0.3333314528, 0.1999355085, -0.1420889944, 0.1065626393, -0.0752896400, 0.0429096138, -0.0161657367),
    0.0028662257,
)
# The weight of a pixel in a cell along one axis, from the pixel's distances to the centres of the cell and of the
# patch, both in widths of a cell.
Weight = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Level(NamedTuple):
    """One scale of an image: its size, and the centres of its patches, in pixels."""

    height: int
    width: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Grid:
    """Square patches of `patch` pixels every `step` pixels, on the image resized by each of `scales`.

    The patches lie completely inside the image, and the margins on both sides are equal to a pixel. Scales at which no
    patch fits are left out; at least one must remain.
    """

    patch: int = 24  # pixels on a side
    step: int = 4  # pixels between neighbours, at every scale
    scales: tuple[float, ...] = (1.0,)  # of the image's sides

    def levels(self, height: int, width: int) -> tuple[Level, ...]:
        """Return the scales of an image of this size at which a patch fits.

        Raises:
          UserError: the image is smaller than a patch at every scale.
        """
        sizes = [(round(height * scale), round(width * scale)) for scale in self.scales]
        levels = [Level(h, w, self._centres(h), self._centres(w)) for h, w in sizes if min(h, w) >= self.patch]
        if not levels:
            raise UserError(
                f"an image of {height} x {width} pixels has no room for a patch of {self.patch} pixels at any of the"
                f" scales {self.scales}; use smaller patches or larger images"
            )
        return tuple(levels)

    def _centres(self, size: int) -> tuple[int, ...]:
        first, last = self.patch // 2, size - (self.patch - self.patch // 2)
        return tuple(range(first + (last - first) % self.step // 2, last + 1, self.step))

    def places(self, height: int, width: int) -> Float[np.ndarray, "keypoints 2"]:
        """Return the centres (row, column) of all patches as shares of the image's sides, in descriptor order."""
        places = []
        for level in self.levels(height, width):
            rows, columns = ((np.asarray(c) + 0.5) / n for c, n in zip(level[2:], level[:2], strict=True))
            places.append(np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2))
        return np.concatenate(places).astype(np.float32)


# A function of images in [0, 1], a level and the size of a patch that returns the descriptors on the level's grid.
Descriptor = Callable[[Float[Array, "n h w *c"], Level, int], Float[Array, "n r c d"]]


def describe(
    images: UInt8[Array, "n h w 3"], grid: Grid, descriptor: Descriptor, *, luma: bool
) -> Float[Array, "n keypoints d"]:
    """Return the descriptors of all patches, scale by scale, row by row.

    Args:
      images: RGB.
      grid: of the patches.
      descriptor: the function that computes them.
      luma: whether `descriptor` takes grey images [n, h, w], else RGB [n, h, w, 3].

    Raises:
      UserError: the images are smaller than a patch.
    """
    pixels = images.astype(jnp.float32) / 255
    pixels = grey(pixels) if luma else pixels
    descriptors = []
    for level in grid.levels(*images.shape[1:3]):
        shape = (len(images), level.height, level.width, *pixels.shape[3:])
        resized = pixels if shape == pixels.shape else jax.image.resize(pixels, shape, "linear", antialias=True)
        on_grid = descriptor(resized, level, grid.patch)
        descriptors.append(on_grid.reshape(len(images), -1, on_grid.shape[-1]))
    return jnp.concatenate(descriptors, axis=1)


def grey(images: Float[Array, "n h w 3"]) -> Float[Array, "n h w"]:
    """Return the luma of RGB images."""
    return images @ jnp.asarray(LUMA)


def gradients(image: Float[Array, "... h w"]) -> tuple[Float[Array, "... h w"], Float[Array, "... h w"]]:
    """Return central differences by row and by column, not halved; zero on the border, which lacks a neighbour."""

    def along(axis: int) -> Array:
        middle = jax.lax.slice_in_dim(image, 2, None, axis=axis) - jax.lax.slice_in_dim(image, 0, -2, axis=axis)
        margins = [(1, 1) if i == axis % image.ndim else (0, 0) for i in range(image.ndim)]
        return jnp.pad(middle, margins)

    return along(image.ndim - 2), along(image.ndim - 1)


def strongest_gradients(images: Float[Array, "n h w 3"]) -> tuple[Float[Array, "n h w"], Float[Array, "n h w"]]:
    """Return gradients by row and by column of the colour channel with the largest gradient at each pixel."""
    by_row, by_column = gradients(images.transpose(0, 3, 1, 2))
    channel = jnp.argmax(by_row**2 + by_column**2, axis=1, keepdims=True)
    strongest_by_row, strongest_by_column = (
        jnp.take_along_axis(x, channel, axis=1)[:, 0] for x in (by_row, by_column)
    )
    return strongest_by_row, strongest_by_column


def from_axis(y: Float[Array, "*n"], x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Return the angle between a vector and the nearest axis, 0 to pi / 4; 0 for the zero vector.

    `jnp.arctan2` is equally exact and takes several times as long on the CPU.
    """
    x, y = jnp.abs(x), jnp.abs(y)
    tangent = jnp.minimum(x, y) / jnp.maximum(jnp.maximum(x, y), jnp.finfo(x.dtype).tiny)
    return tangent * jnp.polyval(jnp.asarray(_ARC_TANGENT[::-1], x.dtype), tangent**2)


def angles(y: Float[Array, "*n"], x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Return the angles of vectors, -pi to pi, as `jnp.arctan2` does except for the sign of zeros."""
    angle = from_axis(y, x)
    angle = jnp.where(jnp.abs(y) > jnp.abs(x), jnp.pi / 2 - angle, angle)
    angle = jnp.where(x < 0, jnp.pi - angle, angle)
    return jnp.where(y < 0, -angle, angle)


def zero_border(image: Float[Array, "n h w"]) -> Float[Array, "n h w"]:
    """Return the image with zeros on its border."""
    return jnp.pad(image[:, 1:-1, 1:-1], ((0, 0), (1, 1), (1, 1)))


def check_divides(cells: int, patch: int, descriptor: str) -> None:
    """Raise UserError where the width of a cell would not be an integer number of pixels."""
    if patch % cells:
        raise UserError(
            f"{descriptor} has {cells} x {cells} cells, and {patch} pixels of a patch are not a multiple of {cells}"
        )


def box(from_cell: np.ndarray, from_patch: np.ndarray) -> np.ndarray:
    """Return weight 1 for the pixels of the cell, 0 for the others."""
    return np.abs(from_cell) <= 0.5


def triangle(from_cell: np.ndarray, from_patch: np.ndarray) -> np.ndarray:
    """Return weights that divide a pixel linearly between its two nearest cells."""
    return np.maximum(0, 1 - np.abs(from_cell))


def pool(
    maps: Float[Array, "n m h w"], level: Level, patch: int, *, cells: int, weight: Weight, shift: float = 0.5
) -> Float[Array, "n r c i j m"]:
    """Return weighted sums of maps over the `cells` x `cells` cells of every patch.

    Args:
      maps: m features of each pixel, such as the strength of its gradient in each of m directions.
      level: the grid.
      patch: pixels on a side.
      cells: of a patch on a side.
      weight: of a pixel in a cell along one axis; the product over both axes is used.
      shift: position of a pixel minus its index, in pixels: 0.5 puts the patch's centre between two pixels, where the
        edges of cells are; 0 puts it on a pixel.

    Returns:
      For each image, patch (row r, column c) and cell (i, j), the sums of the m maps.
    """
    weights = functools.partial(_weights, cell=patch / cells, cells=cells, weight=weight, shift=shift)
    rows = jnp.asarray(weights(level.rows, level.height))
    columns = jnp.asarray(weights(level.columns, level.width))
    n, m = maps.shape[:2]
    by_column = jnp.einsum("nmhw,kw->nmhk", maps, columns)
    sums = jnp.einsum("lh,nmhk->nmlk", rows, by_column)
    sums = sums.reshape(n, m, len(level.rows), cells, len(level.columns), cells)
    return sums.transpose(0, 2, 4, 3, 5, 1)


def _weights(
    centres: tuple[int, ...], size: int, *, cell: float, cells: int, weight: Weight, shift: float
) -> Float[np.ndarray, "k size"]:
    """Return the weights of an axis's pixels in each cell of each patch."""
    from_patch = (np.arange(size) + shift - np.asarray(centres)[:, None, None]) / cell
    middles = np.arange(cells)[:, None] - (cells - 1) / 2
    return weight(from_patch - middles, from_patch).reshape(-1, size).astype(np.float32)
