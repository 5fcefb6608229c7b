"""Each operation against Pillow, on photographs of scikit-learn and on an image of noise."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_image

from imagenet_repro.data.augment import operations
from imagenet_repro.data.augment.access import BY_PRODUCT
from imagenet_repro.data.augment.operations import Draws, Options

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


FORMS = {
    "platform": operations.apply_layers,
    "batched": operations.apply_batched,
    "product": partial(operations.apply_by_branch, access=BY_PRODUCT),
}


@partial(jax.jit, static_argnames=("options", "form"))
def apply_form(images, draws, options, form="platform"):
    return FORMS[form](images, draws, options=options)


def options(among=operations.OPERATIONS, interpolation="nearest") -> Options:
    return Options(among, FILL, interpolation)


def applied(name: str, argument: float, interpolation="nearest", position=(0.5, 0.5, 0.0), form="platform"):
    """Return all pictures after one operation."""
    images = np.stack(pictures())
    count = len(images), 1
    draws = Draws(
        jnp.full(count, operations.OPERATIONS.index(name)),
        jnp.full(count, argument, jnp.float32),
        jnp.broadcast_to(jnp.array(position, jnp.float32), (*count, 3)),
    )
    return np.asarray(apply_form(images, draws, options(interpolation=interpolation), form))


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


def drawn(count: int, layers: int) -> Draws:
    """Return random operations and arguments beyond those of any policy."""
    rng = np.random.default_rng(5)
    operation = rng.integers(0, len(operations.OPERATIONS), (count, layers))
    names = np.array(operations.OPERATIONS)[operation]
    scales = {"rotate": 90, "shear_x": 0.9, "shear_y": 0.9, "posterize": 8, "solarize": 256, "solarize_add": 110}
    scales |= dict.fromkeys(("translate_x", "translate_y", "cutout"), 60)
    scales |= dict.fromkeys(("color", "contrast", "brightness", "sharpness"), 1.9)
    scale = np.vectorize(lambda name: scales.get(name, 1))(names)
    sign = np.where(np.isin(names, operations.GEOMETRIC) & (rng.random((count, layers)) < 0.5), -1, 1)
    argument = jnp.asarray(rng.random((count, layers)) * scale * sign, jnp.float32)
    return Draws(jnp.asarray(operation), argument, jnp.asarray(rng.random((count, layers, 3)), jnp.float32))


@pytest.mark.parametrize(
    ("form", "interpolation"),
    [
        ("batched", "nearest"),
        ("batched", "bilinear"),
        pytest.param("batched", "random", marks=pytest.mark.slow),
        ("product", "nearest"),
        ("product", "random"),
    ],
)
def test_the_forms_for_accelerators_equal_that_for_processors(form, interpolation):
    """Exactly with nearest pixels; smooth warps sum products, and the compiler decides how these are rounded."""
    images = np.stack(pictures() * 8)
    draws = drawn(len(images), 2)
    chosen = options(interpolation=interpolation)
    expected, actual = (np.asarray(apply_form(images, draws, chosen, name)) for name in ("platform", form))
    if interpolation == "nearest":
        np.testing.assert_array_equal(actual, expected)
    else:
        assert (actual != expected).mean() < 1e-4


def test_the_set_of_operations_does_not_change_a_result():
    for name, argument in (("rotate", 12.0), ("equalize", 0.0), ("color", 0.3)):
        draws = Draws(jnp.ones((1, 1), jnp.int32), jnp.full((1, 1), argument), jnp.zeros((1, 1, 3)))
        alone = apply_form(pictures()[0][None], draws, options(("identity", name)))
        np.testing.assert_array_equal(alone[0], applied(name, argument)[0])


def test_layers_follow_each_other():
    among = ("identity", "invert", "posterize")
    draws = Draws(jnp.array([[2, 1]]), jnp.array([[3.0, 0.0]]), jnp.zeros((1, 2, 3)))
    expected = ImageOps.invert(ImageOps.posterize(Image.fromarray(pictures()[0]), 3))
    actual = apply_form(pictures()[0][None], draws, options(among))
    np.testing.assert_array_equal(actual[0], np.asarray(expected))
