"""Local binary patterns against scikit-image's."""

import jax.numpy as jnp
import numpy as np
from skimage.feature import local_binary_pattern

from imagenet_repro.features.descriptors import grid, lbp
from tests.features.photographs import photographs, without_ties


def test_codes_are_scikit_images():
    for grey in 256 * without_ties(photographs(96)).mean(-1):
        expected = local_binary_pattern(grey.astype(np.float64), 8, 1, "nri_uniform")
        result = np.asarray(lbp.codes(jnp.asarray(grey[None])))[0]
        np.testing.assert_array_equal(result[1:-1, 1:-1], expected[1:-1, 1:-1])  # scikit-image pads with zeros


def test_every_pattern_has_the_code_of_its_shape():
    table = lbp.uniform_codes()
    turns = [[pattern >> i & 1 for i in range(8)] for pattern in range(256)]
    changes = np.array([sum(bits[i] != bits[i - 1] for i in range(8)) for bits in turns])
    assert set(table[changes > 2]) == {58}
    uniform = table[changes <= 2]
    assert sorted(uniform) == list(range(58))
    ones = np.array([sum(bits) for bits in turns])[changes <= 2]
    assert (np.diff(ones[np.argsort(uniform)]) >= 0).all()


def test_descriptors_are_shares_of_codes_in_each_cell():
    images = photographs(32)
    (level,) = grid.Grid(patch=16, step=8).levels(32, 32)
    pixels = jnp.asarray(images / 255, jnp.float32)
    result = np.asarray(lbp.lbp(grid.grey(pixels), level, 16))
    codes = np.asarray(lbp.codes(grid.grey(pixels)))
    for r, y in enumerate(level.rows):
        for c, x in enumerate(level.columns):
            for i in range(2):
                for j in range(2):
                    top, left = y - 8 + 8 * i, x - 8 + 8 * j
                    counts = np.bincount(codes[0, top : top + 8, left : left + 8].ravel(), minlength=59)
                    np.testing.assert_allclose(result[0, r, c].reshape(2, 2, 59)[i, j] ** 2 * 256, counts, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(result, axis=-1), 1, atol=1e-5)


def test_flat_images_have_the_code_of_all_neighbours_as_bright():
    for value in (0.0, 0.1, 0.7):
        np.testing.assert_array_equal(lbp.codes(jnp.full((1, 9, 9), value)), 57)
