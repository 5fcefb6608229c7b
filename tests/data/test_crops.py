import dataclasses
import math

import cv2
import numpy as np
import pytest
from PIL import Image

from imagenet_repro.config import CenterCrop, InceptionCrop, PadCrop, ScaleJitterCrop, ShorterSideCrop, SquashCrop
from imagenet_repro.data import crops
from imagenet_repro.errors import UserError

SIZE = 32
SPECS = [
    InceptionCrop(),
    ShorterSideCrop(resize=40),
    ScaleJitterCrop(resize=(36, 48)),
    CenterCrop(),
    CenterCrop(ratio=1.0),
    PadCrop(padding=4),
    SquashCrop(),
]
RANDOM = [spec for spec in SPECS if not isinstance(spec, CenterCrop | SquashCrop)]
PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
}


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng((height, width)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def coordinates(height: int, width: int) -> np.ndarray:
    """Return an image whose red is the row and whose green is the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (90, 1), (3, 2), (20, 500), (100, 75), (31, 33), (2, 4000)])
def test_any_image_gives_a_complete_crop(spec, shape, antialias):
    spec = type(spec)(**{**vars(spec), "antialias": antialias})
    for seed in range(3):
        result = crops.crop(noise(*shape), spec, SIZE, rng(seed))
        assert result.shape == (SIZE, SIZE, 3)
        assert result.dtype == np.uint8
        assert result.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("spec", RANDOM, ids=lambda spec: spec.name)
def test_crops_depend_on_the_generator_alone(spec):
    image = noise(90, 70)
    same = [crops.crop(image, spec, SIZE, rng(5)) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    others = [crops.crop(image, spec, SIZE, rng(seed)) for seed in range(6)]
    assert len({other.tobytes() for other in others}) > 3


@pytest.mark.parametrize("spec", [CenterCrop(), SquashCrop()], ids=lambda spec: spec.name)
def test_crops_without_randomness_leave_the_generator_alone(spec):
    generator = rng()
    crops.crop(noise(90, 70), spec, SIZE, generator)
    assert generator.bit_generator.state == rng().bit_generator.state


@pytest.mark.parametrize("kernel", PILLOW)
@pytest.mark.parametrize("target", [(30, 20), (200, 300), (50, 50), (7, 200)])
def test_antialiased_kernels_are_pillows(kernel, target):
    image = noise(100, 150)
    expected = Image.fromarray(image).resize(target[::-1], PILLOW[kernel])
    np.testing.assert_array_equal(crops.resize(image, *target, kernel, antialias=True), np.asarray(expected))


def triangle_samples(length: int, new: int) -> np.ndarray:
    """Return the weights [new, length] of linear interpolation between the two nearest pixels, with repeated edges.

    Pixel centres are at one half.
    """
    weights = np.zeros((new, length))
    for i in range(new):
        centre = (i + 0.5) * length / new - 0.5
        for pixel in (math.floor(centre), math.floor(centre) + 1):
            weights[i, min(max(pixel, 0), length - 1)] += max(0.0, 1 - abs(centre - pixel))
    return weights


@pytest.mark.parametrize("target", [(30, 20), (200, 300), (90, 61)])
def test_bilinear_without_antialias_samples_the_nearest_pixels(target):
    image = noise(100, 150)
    rows, columns = triangle_samples(100, target[0]), triangle_samples(150, target[1])
    expected = np.einsum("ij,jkc,lk->ilc", rows, image, columns, optimize=True)
    result = crops.resize(image, *target, "bilinear", antialias=False)
    assert np.abs(result - expected).max() < 1.5  # OpenCV's fixed point


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(
    "target", [(28, 22), (200, 300), (56, 62)]
)  # even sizes, where no centre lies between two pixels
def test_nearest_is_the_pixel_under_the_centre(target, antialias):
    rows, columns = ((np.arange(new) + 0.5) * old // new for new, old in zip(target, (100, 150), strict=True))
    expected = noise(100, 150)[np.ix_(rows.astype(int), columns.astype(int))]
    np.testing.assert_array_equal(crops.resize(noise(100, 150), *target, "nearest", antialias), expected)


def test_area_without_antialias_is_the_mean_of_the_covered_pixels():
    image = noise(60, 90)
    expected = image.reshape(20, 3, 30, 3, 3).mean((1, 3))
    assert np.abs(crops.resize(image, 20, 30, "area", antialias=False) - expected).max() <= 0.51


def test_an_image_of_the_right_size_is_not_resampled():
    image = noise(SIZE, SIZE)
    for kernel in PILLOW:
        for antialias in (False, True):
            np.testing.assert_array_equal(crops.resize(image, SIZE, SIZE, kernel, antialias), image)


def test_inception_boxes_have_the_area_and_aspect_that_were_drawn():
    """4,000 boxes that fit have uniform areas and log-uniform aspects, up to rounding (Szegedy et al. 2014)."""
    generator, height, width = rng(), 1200, 1200
    boxes = np.array([crops.inception_box(height, width, (0.08, 0.5), (3 / 4, 4 / 3), generator) for _ in range(4000)])
    top, left, h, w = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()
    area, aspect = h * w / (height * width), np.log(w / h) / np.log(4 / 3)
    assert area.min() > 0.079
    assert area.max() < 0.501
    assert np.abs(aspect).max() < 1.01
    for uniform in ((area - 0.08) / 0.42, (aspect + 1) / 2):
        deciles = np.histogram(uniform, bins=10, range=(0, 1))[0]
        assert (np.abs(deciles - 400) < 5 * math.sqrt(400)).all()
    # Offsets are uniform over the positions where the box fits.
    for offset, room in ((top, height - h), (left, width - w)):
        assert abs((offset / np.maximum(room, 1)).mean() - 0.5) < 0.03


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((1000, 10), (493, 0, 13, 10)),  # narrower than 3/4: all of the width, and the width over 3/4
        ((10, 1000), (0, 493, 10, 13)),  # wider than 4/3
        ((1, 1000), (0, 499, 1, 1)),
        ((1000, 1), (499, 0, 1, 1)),
    ],
)
def test_where_nothing_fits_the_largest_central_box_is_used(shape, box):
    """torchvision's fallback uses all of the shorter side, and the nearest allowed aspect."""
    assert crops.inception_box(*shape, (0.9, 1.0), (3 / 4, 4 / 3), rng()) == box


def test_an_image_whose_aspect_is_allowed_falls_back_to_all_of_it():
    assert crops.inception_box(50, 60, (1.0, 1.0), (0.1, 10.0), rng()) == (0, 0, 50, 60)


def test_the_inception_crop_is_the_resized_box():
    image = noise(90, 120)
    for seed in range(5):
        top, left, height, width = crops.inception_box(90, 120, (0.08, 1.0), (3 / 4, 4 / 3), rng(seed))
        part = image[top : top + height, left : left + width]
        expected = Image.fromarray(part).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        result = crops.crop(image, InceptionCrop(antialias=True), SIZE, rng(seed))
        np.testing.assert_array_equal(result, np.asarray(expected))


def test_a_random_kernel_is_each_of_the_four_equally_often():
    image, spec = noise(90, 120), InceptionCrop(area=(1.0, 1.0), aspect=(4 / 3, 4 / 3), kernel="random")
    expected = {crops.resize(image, SIZE, SIZE, kernel, antialias=False).tobytes(): kernel for kernel in PILLOW}
    kernels = [expected[crops.crop(image, spec, SIZE, rng(seed)).tobytes()] for seed in range(800)]
    assert all(abs(kernels.count(kernel) - 200) < 5 * 150**0.5 for kernel in PILLOW)


def test_squashing_uses_the_complete_image():
    image = np.zeros((60, 90, 3), np.uint8)
    image[:30], image[:, :45, 1] = 200, 100
    result = crops.crop(image, SquashCrop(kernel="area"), 30, rng())
    np.testing.assert_array_equal(result, image[::2, ::3])
    expected = Image.fromarray(noise(90, 70)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    result = crops.crop(noise(90, 70), SquashCrop(kernel="bicubic", antialias=True), SIZE, rng())
    np.testing.assert_array_equal(result, np.asarray(expected))


@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (333, 500), (500, 334), (256, 256), (257, 256), (70, 41)])
def test_the_centre_crop_is_torchvisions(shape):
    """Resize(256) and CenterCrop(224): the longer side is rounded down, the offset to even."""
    height, width = shape
    short, long = min(shape), max(shape)
    resized = (256, int(256 * long / short)) if height <= width else (int(256 * long / short), 256)
    complete = Image.fromarray(noise(*shape)).resize(resized[::-1], Image.Resampling.BILINEAR)
    top, left = (int(round((side - 224) / 2.0)) for side in resized)  # noqa: RUF046
    expected = np.asarray(complete)[top : top + 224, left : left + 224]
    result = crops.crop(noise(*shape), CenterCrop(ratio=0.875, antialias=True), 224, rng())
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("size", "ratio", "shorter"), [(224, 0.875, 256), (299, 0.95, 314), (224, 0.7, 320), (288, 0.96, 300)]
)
def test_the_ratio_determines_the_shorter_side(size, ratio, shorter):
    """The side is timm's floor(size / crop_pct), whatever the last bit of the division."""
    image = noise(shorter, shorter)
    offset = round((shorter - size) / 2)
    expected = image[offset : offset + size, offset : offset + size]
    np.testing.assert_array_equal(crops.crop(image, CenterCrop(ratio=ratio), size, rng()), expected)


def test_the_2012_crop_stays_in_the_centre_square():
    image = coordinates(40, 80)  # already of shorter side 40; the centre square begins at column 20
    corners = {tuple(crops.crop(image, ShorterSideCrop(resize=40), 32, rng(seed))[0, 0, :2]) for seed in range(800)}
    assert corners == {(row, column) for row in range(9) for column in range(20, 29)}


def test_scale_jitter_draws_the_side_and_the_position():
    image = coordinates(40, 80)
    corners = {
        tuple(crops.crop(image, ScaleJitterCrop(resize=(40, 40)), 38, rng(seed))[0, 0, :2]) for seed in range(900)
    }
    assert corners == {(row, column) for row in range(3) for column in range(43)}
    # The last row of a crop of the complete square shows the scale: sides of 36 to 38, each about equally often.
    flat = np.repeat(np.arange(72, dtype=np.uint8)[:, None, None] * 3, 72, 1).repeat(3, 2)
    steps = [
        float(np.diff(crops.crop(flat, ScaleJitterCrop(resize=(36, 72)), 36, rng(s))[1:-1, 0, 0]).mean())
        for s in range(300)
    ]
    sides = 72 * 3 / np.array(steps)
    assert sides.min() < 38
    assert sides.max() > 70
    assert abs(sides.mean() - 54) < 3


def test_padding_is_black_and_moves_the_image_by_at_most_itself():
    image = noise(32, 32) | 1
    offsets = set()
    for seed in range(600):
        result = crops.crop(image, PadCrop(padding=4), 32, rng(seed))
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
        actual = [(y, x) for y in range(9) for x in range(9) if (padded[y : y + 32, x : x + 32] == result).all()]
        assert len(actual) == 1
        offsets.update(actual)
    assert len(offsets) == 81


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ShorterSideCrop(resize=31), "31, which is less than the image size of 32"),
        (ScaleJitterCrop(resize=(20, 64)), "20, which is less than the image size of 32"),
        (ScaleJitterCrop(resize=(64, 40)), "smallest, largest"),
        (InceptionCrop(area=(1.0, 0.1)), r"area = .*\(smallest, largest\)"),
        (InceptionCrop(aspect=(2.0, 0.5)), r"aspect = .*\(smallest, largest\)"),
    ],
)
def test_impossible_crops_are_refused(spec, message):
    with pytest.raises(UserError, match=message):
        crops.crop(noise(50, 50), spec, SIZE, rng())


def test_kernels_differ():
    image = noise(90, 90)
    results = {
        (kernel, antialias): crops.resize(image, 31, 31, kernel, antialias).tobytes()
        for kernel in PILLOW
        for antialias in (False, True)
    }
    assert len(set(results.values())) == 7  # the nearest pixel is the same one, antialiased or not
    assert cv2.resize(image, (31, 31), interpolation=cv2.INTER_CUBIC).tobytes() == results["bicubic", False]


@pytest.mark.parametrize("spec", [CenterCrop(ratio=0.875), CenterCrop(ratio=1.0), SquashCrop()], ids=str)
@pytest.mark.parametrize("shape", [(200, 120), (120, 200), (90, 90), (33, 250), (3, 240)])
def test_the_window_is_the_position_of_the_crop(spec, shape):
    """In an image whose colours are rows and columns, a crop begins and ends with those at the window's edges."""
    spec = dataclasses.replace(spec, kernel="area", antialias=True)
    left, top, right, bottom = crops.crop_window(spec, *shape, SIZE)
    crop = crops.crop(coordinates(*shape), spec, SIZE, rng()).astype(float)
    places = (np.arange(SIZE) + 0.5) / SIZE
    rows, columns = top + places * (bottom - top) - 0.5, left + places * (right - left) - 0.5
    np.testing.assert_allclose(crop[:, :, 0].mean(1), np.clip(rows, 0, shape[0] - 1), atol=1.01)
    np.testing.assert_allclose(crop[:, :, 1].mean(0), np.clip(columns, 0, shape[1] - 1), atol=1.01)
