"""Each operation against Pillow, on photographs of scikit-learn and on an image of noise."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_image

from imagenet_repro.data.augment import operations

HEIGHT, WIDTH = 80, 96
FILL = (124, 116, 104)
AFFINE = Image.Transform.AFFINE


@cache
def pictures() -> list[np.ndarray]:
    photographs = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    shrunk = [np.asarray(photograph.resize((WIDTH, HEIGHT), reducing_gap=3)) for photograph in photographs]
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    narrow = np.random.default_rng(1).integers(100, 133, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    flat = np.full((HEIGHT, WIDTH, 3), (0, 255, 77), np.uint8)
    return [*shrunk, noise, narrow, flat]


@partial(jax.jit, static_argnames="interpolation")
def apply_all(images, operation, argument, position, interpolation="nearest"):
    one = partial(operations.apply, among=operations.OPERATIONS, fill=FILL, interpolation=interpolation)
    return jax.vmap(one, in_axes=(0, None, None, None))(images, operation, argument, position)


def applied(name: str, argument: float, interpolation: str = "nearest", position=(0.5, 0.5, 0.0)) -> np.ndarray:
    number = operations.OPERATIONS.index(name)
    images, position = np.stack(pictures()), jnp.array(position, jnp.float32)
    return np.asarray(apply_all(images, number, jnp.float32(argument), position, interpolation=interpolation))


def by_pillow(change) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(picture))) for picture in pictures()])


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(int) - other.astype(int))


def solarize_add(image: Image.Image, addition: int) -> Image.Image:
    return image.point([min(255, level + addition) if level < 128 else level for level in range(256)] * 3)


EXACT = [
    ("identity", 0, lambda image: image),
    ("equalize", 0, ImageOps.equalize),
    ("invert", 0, ImageOps.invert),
    *(("posterize", bits, partial(ImageOps.posterize, bits=bits)) for bits in (1, 3, 4, 7, 8)),
    ("posterize", 0, lambda image: Image.new("RGB", image.size)),  # as in the versions of Pillow that allow it
    *(("solarize", level, partial(ImageOps.solarize, threshold=level)) for level in (0, 1, 26, 128, 255, 256)),
    *(("solarize_add", add, partial(solarize_add, addition=add)) for add in (0, 11, 99, 110)),
]


@pytest.mark.parametrize(("name", "argument", "change"), EXACT)
def test_integer_tables_are_pillows(name, argument, change):
    np.testing.assert_array_equal(applied(name, argument), by_pillow(change))


def test_auto_contrast_is_pillows_to_one_level():
    """Pillow multiplies by 255 / (high - low) in floating point and truncates, possibly just below an integer."""
    off = difference(applied("auto_contrast", 0), by_pillow(ImageOps.autocontrast))
    assert off.max() <= 1
    assert (off > 0).mean() < 0.01


@pytest.mark.parametrize("factor", [0.1, 0.55, 1.0, 1.9, 3.7])
@pytest.mark.parametrize("name", ["brightness", "color", "contrast", "sharpness"])
def test_enhancers_are_pillows_to_one_level(name, factor):
    """Both blend in single precision and truncate; the compiler decides whether the product is rounded first."""
    enhance = getattr(ImageEnhance, name.capitalize())
    off = difference(applied(name, factor), by_pillow(lambda image: enhance(image).enhance(factor)))
    assert off.max() <= 1
    assert (off > 0).mean() < 0.01


def transforms(resample: Image.Resampling):
    for angle in (-30, -27.3, 0, 4.1, 45):
        yield "rotate", angle, lambda image, angle=angle: image.rotate(angle, resample, fillcolor=FILL)
    for amount in (-0.3, 0, 0.123, 0.6):
        for name, matrix in (("shear_x", (1, amount, 0, 0, 1, 0)), ("shear_y", (1, 0, 0, amount, 1, 0))):
            yield name, amount, partial(affine, matrix=matrix, resample=resample)
    for pixels in (-31.2, 0, 7, 36.49, 150):
        for name, matrix in (("translate_x", (1, 0, pixels, 0, 1, 0)), ("translate_y", (1, 0, 0, 0, 1, pixels))):
            yield name, pixels, partial(affine, matrix=matrix, resample=resample)


def affine(image: Image.Image, matrix: tuple, resample: Image.Resampling) -> Image.Image:
    return image.transform(image.size, AFFINE, matrix, resample, fillcolor=FILL)


@pytest.mark.parametrize(("name", "argument", "change"), list(transforms(Image.Resampling.NEAREST)))
def test_nearest_warps_are_pillows(name, argument, change):
    """Positions are in single precision, so a pixel within 2e-5 of a boundary may differ."""
    off = difference(applied(name, argument), by_pillow(change)).any(-1)
    assert off.mean() < 1e-3


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_smooth_warps_are_pillows_to_one_level(interpolation):
    """Pixels at the border are excluded: rounding decides whether they are filled."""
    for name, argument, change in transforms(Image.Resampling[interpolation.upper()]):
        off = difference(applied(name, argument, interpolation), by_pillow(change)).max(-1)
        assert (off > 1).mean() < 1e-3, (name, argument)


def test_random_interpolation_is_one_of_two():
    for coin, interpolation in ((0.2, "bilinear"), (0.7, "bicubic")):
        rotated = applied("rotate", 20, "random", (0.5, 0.5, coin))
        assert (rotated != applied("rotate", 20, interpolation)).mean() < 1e-3  # two programs, rounded differently


@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.5, 0.25), (0.999, 0.999)])
@pytest.mark.parametrize("half", [0, 4, 10.9, 400])
def test_cutout_fills_a_box_around_a_pixel(centre, half):
    row, column, side = int(centre[0] * HEIGHT), int(centre[1] * WIDTH), int(half)
    expected = np.stack(pictures())
    expected[:, max(0, row - side) : row + side, max(0, column - side) : column + side] = FILL
    np.testing.assert_array_equal(applied("cutout", half, position=(*centre, 0.0)), expected)


def test_the_set_of_operations_does_not_change_a_result():
    picture = jnp.asarray(pictures()[0])
    for name, argument in (("rotate", 12.0), ("equalize", 0.0), ("color", 0.3)):
        alone = operations.apply(
            picture, jnp.int32(1), jnp.float32(argument), jnp.zeros(3), among=("identity", name), fill=FILL
        )
        np.testing.assert_array_equal(alone, applied(name, argument)[0])


def test_layers_follow_each_other():
    picture = jnp.asarray(pictures()[0])
    among = ("identity", "invert", "posterize")
    draws = jnp.array([2, 1]), jnp.array([3.0, 0.0]), jnp.zeros((2, 3))
    expected = ImageOps.invert(ImageOps.posterize(Image.fromarray(pictures()[0]), 3))
    np.testing.assert_array_equal(operations.scan(picture, draws, among=among, fill=FILL), np.asarray(expected))
