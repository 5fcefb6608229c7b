"""Positions of patches."""

import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.features.descriptors import grid


@pytest.mark.parametrize(("size", "patch", "step"), [(64, 24, 4), (65, 24, 4), (24, 24, 4), (50, 17, 3)])
def test_patches_are_centred_and_no_more_would_fit(size, patch, step):
    (level,) = grid.Grid(patch=patch, step=step).levels(size, size + 9)
    first, last = level.rows[0] - patch // 2, level.rows[-1] + patch - patch // 2
    assert first >= 0
    assert last <= size
    assert abs(first - (size - last)) <= 1
    assert first + size - last < step
    assert set(np.diff(level.rows)) <= {step}


def test_small_scales_are_left_out_and_positions_are_shares_of_the_image():
    g = grid.Grid(patch=16, step=16, scales=(1.0, 0.5, 0.25))
    assert [(level.height, level.width) for level in g.levels(32, 64)] == [(32, 64), (16, 32)]
    places = g.places(32, 64)
    assert len(places) == 2 * 4 + 2
    np.testing.assert_allclose(places[0], [8.5 / 32, 8.5 / 64])
    np.testing.assert_allclose(places[-1], [8.5 / 16, 24.5 / 32])


def test_an_image_smaller_than_a_patch_is_refused():
    with pytest.raises(UserError, match="16 x 40 pixels has no room for a patch of 24"):
        grid.Grid(patch=24, scales=(1.0, 0.5)).levels(16, 40)


def test_pooling_is_the_sum_over_each_cell():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 3, 20, 30)).astype(np.float32)
    (level,) = grid.Grid(patch=12, step=5).levels(20, 30)
    result = np.asarray(grid.pool(jnp.asarray(maps), level, 12, cells=3, weight=grid.box))
    assert result.shape == (2, len(level.rows), len(level.columns), 3, 3, 3)
    for r, y in enumerate(level.rows):
        for c, x in enumerate(level.columns):
            cells = maps[:, :, y - 6 : y + 6, x - 6 : x + 6].reshape(2, 3, 3, 4, 3, 4).sum((3, 5))
            np.testing.assert_allclose(result[:, r, c], cells.transpose(0, 2, 3, 1), atol=1e-4)


def test_gradients_are_zero_on_the_border():
    image = jnp.arange(12.0).reshape(1, 3, 4) ** 2
    by_row, by_column = grid.gradients(image)
    np.testing.assert_array_equal(by_row[0, 1], image[0, 2] - image[0, 0])
    np.testing.assert_array_equal(by_row[0, [0, 2]], 0)
    np.testing.assert_array_equal(by_column[0, :, 1:-1], image[0, :, 2:] - image[0, :, :-2])
    np.testing.assert_array_equal(by_column[0, :, [0, -1]], 0)
