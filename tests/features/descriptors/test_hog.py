"""HOG against scikit-image, and its 31-dimensional form against a plain transcription of its definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.feature import hog as scikit_image

from imagenet_repro.features.descriptors import grid, hog
from tests.features.photographs import photographs, without_ties


@pytest.mark.parametrize(("cell", "block"), [(8, 2), (6, 3)])
def test_blocks_are_scikit_images(cell, block):
    images = without_ties(photographs(60))
    actual = np.asarray(jax.jit(functools.partial(hog.dalal_triggs, cell=cell, block=block))(images))
    for image, blocks in zip(images, actual, strict=True):
        expected = scikit_image(
            image.astype(np.float64),
            pixels_per_cell=(cell, cell),
            cells_per_block=(block, block),
            channel_axis=-1,
            feature_vector=False,
        )
        assert blocks.shape == expected.shape
        np.testing.assert_allclose(blocks, expected, atol=1e-4)


def transcribed(image, cell):
    """Compute Felzenszwalb et al. 2010 as their features.cc does, loop by loop, in float64."""
    image = 255 * image.astype(np.float64)
    height, width = (size // cell for size in image.shape[:2])
    hist = np.zeros((height, width, 18))
    for y in range(1, height * cell - 1):
        for x in range(1, width * cell - 1):
            dy, dx = image[y + 1, x] - image[y - 1, x], image[y, x + 1] - image[y, x - 1]
            channel = np.argmax(dy**2 + dx**2)
            dy, dx = dy[channel], dx[channel]
            dots = [np.cos(o * np.pi / 9) * dx + np.sin(o * np.pi / 9) * dy for o in range(18)]
            yp, xp = (y + 0.5) / cell - 0.5, (x + 0.5) / cell - 0.5
            for i in (int(np.floor(yp)), int(np.floor(yp)) + 1):
                for j in (int(np.floor(xp)), int(np.floor(xp)) + 1):
                    if 0 <= i < height and 0 <= j < width:
                        hist[i, j, np.argmax(dots)] += (1 - abs(yp - i)) * (1 - abs(xp - j)) * np.hypot(dy, dx)
    norm = ((hist[..., :9] + hist[..., 9:]) ** 2).sum(-1)
    result = np.zeros((height - 2, width - 2, 31))
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            n = [
                1 / np.sqrt(norm[i, j] + norm[i + 1, j] + norm[i, j + 1] + norm[i + 1, j + 1] + 1e-4)
                for i, j in ((y, x), (y - 1, x), (y, x - 1), (y - 1, x - 1))
            ]
            sensitive = np.array([np.minimum(hist[y, x] * f, 0.2) for f in n])
            insensitive = np.array([np.minimum((hist[y, x, :9] + hist[y, x, 9:]) * f, 0.2) for f in n])
            texture = 0.2357 * sensitive.sum(1)
            result[y - 1, x - 1] = np.r_[0.5 * sensitive.sum(0), 0.5 * insensitive.sum(0), texture]
    return result


def test_the_31_features_follow_the_definition():
    images = without_ties(photographs(48)[:, :, :40])
    actual = np.asarray(jax.jit(hog.felzenszwalb)(images))
    for image, features in zip(images, actual, strict=True):
        expected = transcribed(image, 8)
        assert features.shape == expected.shape
        np.testing.assert_allclose(features, expected, atol=1e-4)


def test_a_local_descriptor_is_the_images_where_their_cells_agree():
    images = jnp.asarray(without_ties(photographs(48)))
    cells = np.asarray(jax.jit(hog.felzenszwalb)(images))  # inner cells 1 to 4 of 6
    (level,) = grid.Grid(patch=32, step=8).levels(48, 48)
    local = np.asarray(jax.jit(lambda x: hog.hog(x, level, 32))(images)).reshape(2, 3, 3, 2, 2, 31)
    assert level.rows == (16, 24, 32)
    for r in range(3):
        for c in range(3):
            np.testing.assert_allclose(local[:, r, c], cells[:, r : r + 2, c : c + 2], atol=1e-4)


def test_flat_images_have_no_direction():
    flat = jnp.full((1, 32, 32, 3), 0.5)
    for actual in (jax.jit(hog.dalal_triggs)(flat), jax.jit(hog.felzenszwalb)(flat)):
        np.testing.assert_array_equal(actual, 0)
