"""Local colour statistics against NumPy on the pixels of each cell."""

import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.features.descriptors import colour, grid
from tests.features.photographs import describe, photographs


def test_means_and_deviations_of_each_cell():
    images = photographs(40)
    g = grid.Grid(patch=16, step=7)
    result = describe(images, g, colour.colour, luma=False)
    (level,) = g.levels(40, 40)
    centres = [(y, x) for y in level.rows for x in level.columns]
    assert result.shape == (2, len(centres), 96)
    for image, descriptors in zip(images / 255, result, strict=True):
        for (y, x), descriptor in zip(centres, descriptors, strict=True):
            cells = image[y - 8 : y + 8, x - 8 : x + 8].reshape(4, 4, 4, 4, 3)
            np.testing.assert_allclose(descriptor[:48], cells.mean((1, 3)).ravel(), atol=1e-5)
            np.testing.assert_allclose(descriptor[48:], cells.std((1, 3)).ravel(), atol=1e-3)


def test_a_uniform_colour_has_no_deviation():
    images = jnp.full((1, 16, 16, 3), jnp.asarray([10, 200, 90]), jnp.uint8)
    result = describe(images, grid.Grid(patch=16), colour.colour, luma=False)[0, 0]
    np.testing.assert_allclose(result[:3], np.array([10, 200, 90]) / 255, atol=1e-6)
    np.testing.assert_allclose(result[48:], 0, atol=1e-3)


def test_cells_of_fractional_pixels_are_refused():
    with pytest.raises(UserError, match="18 pixels of a patch are not a multiple of 4"):
        grid.describe(jnp.zeros((1, 32, 32, 3), jnp.uint8), grid.Grid(patch=18), colour.colour, luma=False)
