"""Local binary patterns: Ojala, Pietikainen & Maenpaa, "Multiresolution gray-scale and rotation invariant texture
classification with local binary patterns", 2002.

The pattern of a pixel says which of its eight neighbours on a circle are at least as bright. Of the 256 patterns, the
58 with at most two changes along the circle ("uniform") have their own code, and all others share one.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from imagenet_repro.features.descriptors.grid import Level, box, check_divides, pool

NEIGHBOURS = 8
CODES = NEIGHBOURS * (NEIGHBOURS - 1) + 3
CELLS = 2  # of a local descriptor on a side
_DIAGONAL = 0.70711  # cosine of half a right angle, rounded as in scikit-image
_TIE = 1e-6  # rounding error of an interpolated neighbour that is as bright as the pixel


def lbp(images: Float[Array, "n h w"], level: Level, patch: int) -> Float[Array, "n r c 236"]:
    """Return the square roots of the shares of the 59 codes in each of 2 x 2 cells, a vector of unit length.

    Args:
      images: luma in [0, 1].
      level: the grid.
      patch: pixels on a side, even.

    Raises:
      UserError: `patch` is odd.
    """
    check_divides(CELLS, patch, "an LBP descriptor")
    maps = (codes(images)[:, None] == jnp.arange(CODES)[:, None, None]).astype(jnp.float32)
    counts = pool(maps, level, patch, cells=CELLS, weight=box)
    return jnp.sqrt(counts / patch**2).reshape(*counts.shape[:3], -1)


def codes(image: Float[Array, "n h w"]) -> Int32[Array, "n h w"]:
    """Return the code of each pixel, 0 to 58, in the order of scikit-image's `nri_uniform`.

    Code 0 means that no neighbour is as bright, 57 that all are, 58 that the pattern is not uniform; the codes between
    are ordered by the number of neighbours, then by their position. The image is padded with its outermost pixels.
    """
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    pattern = jnp.zeros(image.shape, jnp.int32)
    for number in range(NEIGHBOURS):  # counter-clockwise from the right
        pattern += (_neighbour(padded, number) >= image - _TIE).astype(jnp.int32) << number
    return jnp.asarray(uniform_codes())[pattern]


def _neighbour(padded: Float[Array, "n h w"], number: int) -> Float[Array, "n oh ow"]:
    """Return the neighbours at distance 1 in the direction of `number` eighths of a turn; diagonals interpolated."""
    row = (0, -1, -1, -1, 0, 1, 1, 1)[number]
    column = (1, 1, 0, -1, -1, -1, 0, 1)[number]
    height, width = padded.shape[1] - 2, padded.shape[2] - 2

    def shifted(by_row: int, by_column: int) -> Array:
        return padded[:, 1 + by_row : 1 + by_row + height, 1 + by_column : 1 + by_column + width]

    if row == 0 or column == 0:
        return shifted(row, column)
    near = (1 - _DIAGONAL) * shifted(0, 0) + _DIAGONAL * shifted(0, column)
    far = (1 - _DIAGONAL) * shifted(row, 0) + _DIAGONAL * shifted(row, column)
    return (1 - _DIAGONAL) * near + _DIAGONAL * far


def uniform_codes() -> Int[np.ndarray, " 256"]:
    """Return the code of each of the 256 patterns; bit k of a pattern is the neighbour at k eighths of a turn."""
    table = np.full(2**NEIGHBOURS, CODES - 1, np.int32)
    for ones in range(NEIGHBOURS + 1):
        for turn in range(NEIGHBOURS if 0 < ones < NEIGHBOURS else 1):
            first = (NEIGHBOURS - turn) % NEIGHBOURS  # start of the run of ones
            pattern = sum(1 << (first + i) % NEIGHBOURS for i in range(ones))
            table[pattern] = 0 if ones == 0 else 1 + (ones - 1) * NEIGHBOURS + turn
    return table
