"""Reading, counting and looking up by index and by product, each against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.data.augment.access import BY_INDEX, BY_PRODUCT, Taps

HEIGHT, WIDTH = 21, 34
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
ROW = RNG.integers(-40, 60, (HEIGHT, WIDTH)).astype(np.int32)  # many are outside of the image
COLUMN = RNG.integers(-40, 80, (HEIGHT, WIDTH)).astype(np.int32)
BOTH = pytest.mark.parametrize("access", [BY_INDEX, BY_PRODUCT], ids=["index", "product"])


ALONG = pytest.mark.parametrize("along", ["x", "y", "both"])


def clipped(along: str, place_y: int = 0, place_x: int = 0) -> np.ndarray:
    """Return the pixels at places beside ROW and COLUMN, or beside each pixel's own row or column."""
    own_row, own_column = np.mgrid[:HEIGHT, :WIDTH]
    y = own_row if along == "x" else np.clip(ROW + place_y, 0, HEIGHT - 1)
    x = own_column if along == "y" else np.clip(COLUMN + place_x, 0, WIDTH - 1)
    return IMAGE[y, x]


@BOTH
@ALONG
def test_pixels_are_read(access, along):
    row, column = None if along == "x" else jnp.asarray(ROW), None if along == "y" else jnp.asarray(COLUMN)
    np.testing.assert_array_equal(jax.jit(access.pixels)(jnp.asarray(IMAGE), row, column), clipped(along))


@BOTH
@ALONG
@pytest.mark.parametrize("count", [2, 4])
def test_pixels_are_interpolated(access, along, count):
    weights = RNG.normal(size=(2, count, HEIGHT, WIDTH)).astype(np.float32)
    taps = [Taps(jnp.asarray(first), list(jnp.asarray(w))) for first, w in zip((ROW, COLUMN), weights, strict=True)]
    down, across = None if along == "x" else taps[0], None if along == "y" else taps[1]
    actual = jax.jit(access.interpolate)(jnp.asarray(IMAGE), down, across)
    expected = np.zeros((HEIGHT, WIDTH, 3))
    for i, j in np.ndindex(1 if along == "x" else count, 1 if along == "y" else count):
        v, u = 1 if along == "x" else weights[0, i], 1 if along == "y" else weights[1, j]
        expected += (u * v * np.ones((HEIGHT, WIDTH)))[..., None] * clipped(along, i, j)
    np.testing.assert_allclose(actual, expected, atol=2e-3, rtol=2e-6)


@BOTH
def test_levels_are_counted(access):
    image = IMAGE // 3 * 3
    expected = np.stack([(image.reshape(-1, 3) <= level).sum(0) for level in range(256)])
    np.testing.assert_array_equal(jax.jit(access.up_to)(image), expected)


@BOTH
def test_levels_are_looked_up(access):
    table = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    expected = np.stack([table[:, channel][IMAGE[..., channel]] for channel in range(3)], -1)
    actual = jax.jit(access.look_up)(IMAGE, table)
    np.testing.assert_array_equal(actual, expected)
    assert actual.dtype == jnp.uint8
