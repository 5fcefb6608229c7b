"""SIFT against OpenCV's at the same points."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.features.descriptors import grid, sift
from tests.features.photographs import describe, photographs


def opencv(image, points, patch):
    """Return OpenCV's descriptors of upright patches, with its initial blur disabled."""
    width_of_cell = patch / 4
    points = [cv2.KeyPoint(float(x), float(y), width_of_cell / 1.5, 0.0, 1.0, 0) for y, x in points]
    result, descriptors = cv2.SIFT_create(sigma=0.5).compute(image, points)
    assert len(result) == len(points)
    return descriptors


def in_pixels(g, size):
    (level,) = g.levels(size, size)
    return [(y, x) for y in level.rows for x in level.columns]


@pytest.mark.parametrize("patch", [12, 16, 24])
def test_descriptors_are_opencvs_up_to_its_rounding_to_bytes(patch):
    size = 64
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in photographs(size)]
    g = grid.Grid(patch=patch, step=5)
    images = np.repeat(np.stack(greys)[..., None], 3, -1)
    ours = describe(images, g, sift.sift, luma=True)
    for grey, result in zip(greys, np.asarray(ours), strict=True):
        expected = opencv(grey, in_pixels(g, size), patch)
        # OpenCV scales to a length of 512, rounds and clips at 255, so rounding alone gives half a unit.
        np.testing.assert_allclose(np.minimum(512 * result, 255), expected, atol=0.75)


def test_root_sift_has_unit_length_and_hellinger_products():
    images = jnp.asarray(photographs(48))
    g = grid.Grid(patch=24, step=8)
    plain, root = (describe(images, g, f, luma=True) for f in (sift.sift, sift.root_sift))
    np.testing.assert_allclose(np.linalg.norm(root, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(root**2, plain / plain.sum(-1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("descriptor", [sift.sift, sift.root_sift])
def test_a_flat_patch_has_a_descriptor_of_zeros(descriptor):
    images = jnp.full((1, 32, 32, 3), 200, jnp.uint8)
    np.testing.assert_array_equal(describe(images, grid.Grid(patch=16), descriptor, luma=True), 0)


def test_a_quarter_turn_of_the_picture_turns_cells_and_directions():
    image = photographs(33)[:1]
    g = grid.Grid(patch=32, step=1)
    (level,) = g.levels(33, 33)
    assert (level.rows[0], level.columns[0]) == (16, 16)  # the middle pixel, around which the picture turns
    both = (jnp.asarray(x) for x in (image, np.rot90(image, axes=(1, 2))))
    before, after = (describe(x, g, sift.sift, luma=True)[0, 0].reshape(4, 4, 8) for x in both)
    np.testing.assert_allclose(after, np.roll(np.rot90(before), 2, axis=-1), atol=1e-4)
