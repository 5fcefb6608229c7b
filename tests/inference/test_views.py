"""Tests of windows against windows that NumPy cuts from the resized image."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from imagenet_repro.data import crops
from imagenet_repro.inference import views

RNG = np.random.default_rng(0)  # unused by these crops
SIZES = ((40, 60), (60, 40), (48, 48), (41, 67), (30, 200))


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def images():
    return [image(*size, seed) for seed, size in enumerate(SIZES)]


def canvases(scales):
    spec = crops.Canvases(scales)
    rows = np.stack([crops.crop(one, spec, 0, RNG) for one in images()])
    assert rows.shape[1:] == crops.output_shape(spec, 0)
    return views.read_canvases(jnp.asarray(rows), scales)


def resized(one, scale):
    """Resize the shorter side to `scale`, after a cut to the central part of at most twice that length."""
    height, width = one.shape[:2]
    if width > 2 * height:
        one = one[:, (width - 2 * height) // 2 :][:, : 2 * height]
        width = 2 * height
    shorter = min(height, width)
    return crops.resize(one, scale * height // shorter, scale * width // shorter, "bilinear", False)


def squares(one, which):
    shorter = min(one.shape[:2])
    room = max(one.shape[:2]) - shorter
    starts = {"center": [round(room / 2)], "three": [0, round(room / 2), room]}[which]
    if one.shape[0] > one.shape[1]:
        return [one[start : start + shorter] for start in starts]
    return [one[:, start : start + shorter] for start in starts]


def windows(one, size, position):
    down, across = one.shape[0] - size, one.shape[1] - size
    shares = {"center": [0.5], "corners": [0, 1], "grid5": [0, 0.25, 0.5, 0.75, 1]}[position]
    for i, j in itertools.product(shares, repeat=2):
        top, left = round(down * i), round(across * j)
        yield one[top : top + size, left : left + size]


def squeezed(square, size):
    channels = [Image.fromarray(square[..., c].astype(np.float32)) for c in range(3)]
    planes = [np.asarray(one.resize((size, size), Image.Resampling.BILINEAR)) for one in channels]
    return np.clip(np.round(np.stack(planes, -1)), 0, 255)


def same_set(result, expected):
    """Check that two sets of views are equal in any order, which does not matter since views are averaged."""
    key = lambda view: view.tobytes()  # noqa: E731
    result, expected = sorted(map(np.asarray, result), key=key), sorted(map(np.ascontiguousarray, expected), key=key)
    assert len(result) == len(expected)
    for one, other in zip(result, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("position", ["center", "corners", "grid5"])
@pytest.mark.parametrize("scale", [32, 37])
def test_windows_of_the_full_image(position, scale):
    (canvas,) = canvases((scale,))
    result = views.cut_windows(canvas, 32, "whole", (position,))
    for number, one in enumerate(images()):
        same_set([view[number] for view in result], list(windows(resized(one, scale), 32, position)))


@pytest.mark.parametrize("which", ["center", "three"])
def test_windows_of_squares_at_two_scales(which):
    result = [
        view for canvas in canvases((36, 45)) for view in views.cut_windows(canvas, 32, which, ("corners", "center"))
    ]
    assert len(result) == 2 * 5 * (1 if which == "center" else 3)
    for number, one in enumerate(images()):
        expected = [
            window
            for scale in (36, 45)
            for square in squares(resized(one, scale), which)
            for position in ("corners", "center")
            for window in windows(square, 32, position)
        ]
        same_set([view[number] for view in result], expected)


def test_a_full_square_is_resized_as_by_pillow():
    (canvas,) = canvases((45,))
    result = views.cut_windows(canvas, 32, "three", ("square",))
    for number, one in enumerate(images()):
        expected = [squeezed(square, 32) for square in squares(resized(one, 45), "three")]
        for view, other in zip(result, expected, strict=True):
            assert np.abs(np.asarray(view[number]).astype(float) - other).max() <= 1


def test_copies_are_the_central_part_of_one_aspect():
    spec = crops.Copies(((32, 48), (64, 96)))
    rows = jnp.asarray(np.stack([crops.crop(one, spec, 0, RNG) for one in images()]))
    small, large = views.read_copies(rows, spec.shapes)
    assert small.shape == (5, 32, 48, 3)
    assert large.shape == (5, 64, 96, 3)
    np.testing.assert_array_equal(small[0], crops.resize(images()[0], 32, 48, "bilinear", False))
    high = images()[1][(60 - 27) // 2 :][:27]  # 40 wide, so 27 high at 3:2
    np.testing.assert_array_equal(large[1], crops.resize(high, 64, 96, "bilinear", False))


def test_several_stand_one_after_the_other():
    parts = (crops.Canvases((16,)), crops.Copies(((8, 8),)), crops.CenterCrop())
    row = crops.crop(images()[0], crops.CombinedCrops(parts), 8, RNG)
    expected = np.concatenate([crops.crop(images()[0], part, 8, RNG).reshape(-1) for part in parts])
    np.testing.assert_array_equal(row, expected)
    assert row.shape == crops.output_shape(crops.CombinedCrops(parts), 8)
