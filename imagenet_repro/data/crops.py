"""The crops a host takes of decoded images, by the dataclass of `config.py` that describes them.

`antialias` widens the kernel with the shrinking factor and is Pillow's resize, as in torchvision and timm; without
it the resize is OpenCV's, which samples the same few pixels at any scale, as tf.image and Caffe do. `area` averages
over the pixels a new one covers in both. Pillow's bicubic has a = -0.5, OpenCV's a = -0.75.
"""

import functools
import math

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from imagenet_repro.config import (
    CenterCrop,
    Crop,
    InceptionCrop,
    Kernel,
    PadCrop,
    ScaleJitterCrop,
    ShorterSideCrop,
    SquashCrop,
)
from imagenet_repro.errors import UserError

_OPENCV = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}
_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
}
_ATTEMPTS = 10
# A side of 1 beside one of 65,535 would take 13 GB at shorter side 256. Only the centre of a longer strip is used.
_LONGEST = 32


def crop(
    image: UInt8[np.ndarray, "h w 3"], spec: Crop, size: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Takes the crop that `spec` describes.

    Args:
        image: RGB, any height and width from 1.
        spec: one of the crops of `config.py`.
        size: pixels of the result's sides.
        rng: decides what is random about the crop; a crop without randomness leaves it alone.

    Raises:
        UserError: as `check`.
    """
    check(spec, size)
    return np.ascontiguousarray(_take(spec, image, size, rng))


def check(spec: Crop, size: int) -> None:
    """Raises `UserError` where a crop of `size` pixels does not fit into the shorter side that `spec` resizes to."""
    shortest = {ShorterSideCrop: lambda: spec.resize, ScaleJitterCrop: lambda: min(spec.resize)}.get(type(spec))
    if shortest and shortest() < size:
        raise UserError(
            f"crop {spec.name!r} resizes the shorter side to {shortest()}, which is less than the image size of {size}"
        )
    if isinstance(spec, ScaleJitterCrop) and spec.resize[0] > spec.resize[1]:
        raise UserError(f"crop {spec.name!r}: resize = {spec.resize} must be (smallest, largest)")
    for name in ("area", "aspect"):
        low, high = getattr(spec, name, (0, 0))
        if low > high:
            raise UserError(f"crop {spec.name!r}: {name} = {(low, high)} must be (smallest, largest)")


@functools.singledispatch
def _take(spec: Crop, image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    raise TypeError(f"no crop for {type(spec).__name__}")


@_take.register
def _(spec: InceptionCrop, image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    top, left, height, width = inception_box(image.shape[0], image.shape[1], spec.area, spec.aspect, rng)
    kernel = list(_PILLOW)[rng.integers(len(_PILLOW))] if spec.kernel == "random" else spec.kernel
    return resize(image[top : top + height, left : left + width], size, size, kernel, spec.antialias)


@_take.register
def _(spec: ShorterSideCrop, image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    square = _centre(_resize_shorter_side(image, spec.resize, spec.kernel, spec.antialias), spec.resize)
    return _random_window(square, size, rng)


@_take.register
def _(spec: ScaleJitterCrop, image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    shorter = int(rng.integers(spec.resize[0], spec.resize[1] + 1))
    return _random_window(_resize_shorter_side(image, shorter, spec.kernel, spec.antialias), size, rng)


@_take.register
def _(spec: CenterCrop, image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return _centre(_resize_shorter_side(image, _shorter_side(spec, size), spec.kernel, spec.antialias), size)


@_take.register
def _(spec: PadCrop, image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    square = _centre(_resize_shorter_side(image, size, spec.kernel, spec.antialias), size)
    margin = (spec.padding, spec.padding)
    return _random_window(np.pad(square, (margin, margin, (0, 0))), size, rng)


@_take.register
def _(spec: SquashCrop, image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return resize(image, size, size, spec.kernel, spec.antialias)


def window(spec: CenterCrop | SquashCrop, height: int, width: int, size: int) -> tuple[float, float, float, float]:
    """The part of an image of some height and width that a crop of `size` pixels shows.

    Returns:
        (left, top, right, bottom), the lines between the image's pixels at which the crop's edges lie.
    """
    if isinstance(spec, SquashCrop):
        return 0.0, 0.0, float(width), float(height)
    top, left, height, width = _used(height, width)
    tall, wide = _proportional(height, width, _shorter_side(spec, size))
    down, across = _centred(tall, wide, size)
    scale_y, scale_x = height / tall, width / wide
    return (
        left + across * scale_x,
        top + down * scale_y,
        left + (across + size) * scale_x,
        top + (down + size) * scale_y,
    )


def inception_box(
    height: int, width: int, area: tuple[float, float], aspect: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draws the box (top, left, height, width) of a random-resized crop, with torchvision's ten attempts.

    Where none of the ten fits, the box is the largest central one whose aspect lies in the range.
    """
    low, high = math.log(aspect[0]), math.log(aspect[1])
    for _ in range(_ATTEMPTS):
        target = height * width * (area[0] + (area[1] - area[0]) * rng.random())
        ratio = math.exp(low + (high - low) * rng.random())
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.random() * (height - h + 1)), int(rng.random() * (width - w + 1)), h, w
    w, h = width, height
    if width / height < aspect[0]:
        h = max(1, round(width / aspect[0]))
    elif width / height > aspect[1]:
        w = max(1, round(height * aspect[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def resize(
    image: UInt8[np.ndarray, "h w 3"], height: int, width: int, kernel: Kernel, antialias: bool
) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Resizes by Pillow with antialias, else by OpenCV; an image of the right size is returned as it is."""
    if image.shape[:2] == (height, width):
        return image
    if antialias:
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), _PILLOW[kernel]))
    return cv2.resize(image, (width, height), interpolation=_OPENCV[kernel])


def _shorter_side(spec: CenterCrop, size: int) -> int:
    """Pixels of the shorter side that a central crop is taken of."""
    return math.floor(size / spec.ratio + 1e-6)


def _resize_shorter_side(image: np.ndarray, shorter: int, kernel: str, antialias: bool) -> np.ndarray:
    """Resizes to a shorter side, the longer one in proportion and cut to whole pixels as in torchvision."""
    top, left, height, width = _used(*image.shape[:2])
    used = image[top : top + height, left : left + width]
    return resize(used, *_proportional(height, width, shorter), kernel, antialias)


def _used(height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) of what a crop looks at: all of an image, but for the ends of a very long one."""
    longest = _LONGEST * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return top, left, min(height, longest), min(width, longest)


def _proportional(height: int, width: int, shorter: int) -> tuple[int, int]:
    """Height and width at a shorter side."""
    if height <= width:
        return shorter, shorter * width // height
    return shorter * height // width, shorter


def _centre(image: np.ndarray, size: int) -> np.ndarray:
    """The central square."""
    top, left = _centred(image.shape[0], image.shape[1], size)
    return image[top : top + size, left : left + size]


def _centred(height: int, width: int, size: int) -> tuple[int, int]:
    """Top and left of the central square; half a pixel goes to the even side, as in torchvision's CenterCrop."""
    return round((height - size) / 2), round((width - size) / 2)


def _random_window(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    top, left = rng.integers(image.shape[0] - size + 1), rng.integers(image.shape[1] - size + 1)
    return image[top : top + size, left : left + size]
