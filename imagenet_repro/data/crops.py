"""Crops of decoded images on the host, described by the dataclasses of `config`.

With `antialias`, the resize is Pillow's, which widens the kernel by the shrinking factor, as in torchvision and timm.
Without it, the resize is OpenCV's, which samples the same few pixels at any scale, as tf.image and Caffe do. In both,
`area` averages over the pixels that a new one covers. Pillow's bicubic has a = -0.5, OpenCV's a = -0.75.

Evaluation protocols need more than one square of an image. `Canvases` and `Copies` therefore return several resized
copies of one decoded image, as a row of bytes from which the device cuts its views (inference/views.py), and
`CombinedCrops` joins the results of several specifications.
"""

import dataclasses
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

_OPENCV: dict[Kernel, int] = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}
_PILLOW: dict[Kernel, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
}
_ATTEMPTS = 10
# Largest aspect ratio of a resized image; of a longer strip only the centre is used. Without a limit, an image of
# 1 x 65,535 pixels would take 13 GB at shorter side 256.
_MAX_ASPECT = 32


# Bytes before each canvas: whether the image is higher than wide, and its longer side, the lower byte first.
CANVAS_HEADER = 3
# Longer side of a canvas in units of the shorter one; of a longer image only the central part is used.
CANVAS_ASPECT = 2


@dataclasses.dataclass(frozen=True)
class Canvases:
    """The complete image at several scales, each on a canvas of the same shape for any image.

    A canvas is [scale, 2 x scale, 3] with the shorter side down; an image that is higher than wide is transposed.
    The result is a row of bytes: for each scale the header and the canvas.
    """

    scales: tuple[int, ...]  # pixels of the shorter side, after resizing
    kernel: Kernel = "bilinear"
    antialias: bool = False


@dataclasses.dataclass(frozen=True)
class Copies:
    """The largest central part of one aspect at several scales; the result is a row of bytes, copy after copy."""

    shapes: tuple[tuple[int, int], ...]  # height and width in pixels, all of about the same aspect
    kernel: Kernel = "bilinear"
    antialias: bool = False


@dataclasses.dataclass(frozen=True)
class CombinedCrops:
    """The results of several specifications for one image, as a row of bytes, one after the other."""

    parts: tuple[Crop | Canvases | Copies, ...]


CropSpec = Crop | Canvases | Copies | CombinedCrops


def output_shape(spec: CropSpec, size: int) -> tuple[int, ...]:
    """Return the shape of the uint8 array that `crop` returns."""
    if isinstance(spec, Canvases):
        return (sum(CANVAS_HEADER + 3 * CANVAS_ASPECT * scale**2 for scale in spec.scales),)
    if isinstance(spec, Copies):
        return (sum(3 * height * width for height, width in spec.shapes),)
    if isinstance(spec, CombinedCrops):
        return (sum(math.prod(output_shape(part, size)) for part in spec.parts),)
    return (size, size, 3)


def crop(
    image: UInt8[np.ndarray, "h w 3"], spec: CropSpec, size: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "..."]:
    """Return the crop of an image that `spec` describes.

    Args:
        image: RGB, any height and width from 1.
        spec: one of the crops of `config`, or of this module.
        size: side of a square crop in pixels.
        rng: source of the crop's randomness; a crop without randomness does not advance it.

    Returns:
        uint8 of the shape that `output_shape` gives.

    Raises:
        UserError: as `check_fits`.
    """
    check_fits(spec, size)
    return np.ascontiguousarray(_take(spec, image, size, rng))


def check_fits(spec: CropSpec, size: int) -> None:
    """Raise `UserError` where a crop of `size` pixels does not fit into the shorter side that `spec` resizes to."""
    if isinstance(spec, CombinedCrops):
        for part in spec.parts:
            check_fits(part, size)
    if isinstance(spec, ShorterSideCrop | ScaleJitterCrop):
        shortest = spec.resize if isinstance(spec, ShorterSideCrop) else min(spec.resize)
        if shortest < size:
            raise UserError(
                f"crop {spec.name!r} resizes the shorter side to {shortest}, "
                f"which is less than the image size of {size}"
            )
    if isinstance(spec, ScaleJitterCrop | InceptionCrop):
        for field in ("resize",) if isinstance(spec, ScaleJitterCrop) else ("area", "aspect"):
            low, high = getattr(spec, field)
            if low > high:
                raise UserError(f"crop {spec.name!r}: {field} = {(low, high)} must be (smallest, largest)")


@functools.singledispatch
def _take(spec: CropSpec, image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
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


@_take.register
def _(spec: Canvases, image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([_canvas(image, scale, spec) for scale in spec.scales])


def _canvas(image: np.ndarray, scale: int, spec: Canvases) -> np.ndarray:
    """Return the header and the canvas of one scale, as bytes."""
    resized = _resize_shorter_side(_limit_aspect(image, CANVAS_ASPECT), scale, spec.kernel, spec.antialias)
    high = resized.shape[0] > resized.shape[1]
    if high:
        resized = resized.swapaxes(0, 1)
    longer = resized.shape[1]
    canvas = np.zeros((scale, CANVAS_ASPECT * scale, 3), np.uint8)
    canvas[:, :longer] = resized
    header = np.array([high, longer % 256, longer // 256], np.uint8)
    return np.concatenate([header, canvas.reshape(-1)])


@_take.register
def _(spec: Copies, image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    copies = []
    for height, width in spec.shapes:
        part = _central_part(image, width / height)
        copies.append(resize(part, height, width, spec.kernel, spec.antialias).reshape(-1))
    return np.concatenate(copies)


@_take.register
def _(spec: CombinedCrops, image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([_take(part, image, size, rng).reshape(-1) for part in spec.parts])


def _central_part(image: np.ndarray, aspect: float) -> np.ndarray:
    """Return the largest central part whose width is `aspect` times its height, to a pixel."""
    height, width = image.shape[:2]
    high, wide = min(height, max(1, round(width / aspect))), min(width, max(1, round(height * aspect)))
    return _central_window(image, high, wide)


def _limit_aspect(image: np.ndarray, aspect: int) -> np.ndarray:
    """Return the central part whose longer side is at most `aspect` times the shorter one."""
    height, width = image.shape[:2]
    longest = aspect * min(height, width)
    return _central_window(image, min(height, longest), min(width, longest))


def _central_window(image: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def crop_window(
    spec: CenterCrop | SquashCrop, height: int, width: int, size: int
) -> tuple[float, float, float, float]:
    """Return the part of an image that a crop shows.

    Args:
        spec: a crop without randomness.
        height: of the image in pixels.
        width: of the image in pixels.
        size: side of the crop in pixels.

    Returns:
        (left, top, right, bottom) in pixels of the image, the lines between pixels on which the crop's edges are.
    """
    if isinstance(spec, SquashCrop):
        return 0.0, 0.0, float(width), float(height)
    longest = _MAX_ASPECT * min(height, width)
    used_height, used_width = min(height, longest), min(width, longest)
    resized_height, resized_width = _proportional(used_height, used_width, _shorter_side(spec, size))
    down, across = _centre_corner(resized_height, resized_width, size)
    scale_y, scale_x = used_height / resized_height, used_width / resized_width
    left, top = (width - used_width) // 2 + across * scale_x, (height - used_height) // 2 + down * scale_y
    return left, top, left + size * scale_x, top + size * scale_y


def _shorter_side(spec: CenterCrop, size: int) -> int:
    """Return the shorter side, in pixels, of the image that a central crop is cut from."""
    return math.floor(size / spec.ratio + 1e-6)


def inception_box(
    height: int, width: int, area: tuple[float, float], aspect: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw the box of a random-resized crop, with torchvision's ten attempts.

    Where none of the ten fits, the box is the largest central one whose aspect is in the range.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        area: smallest and largest area of the box as a share of the image's.
        aspect: smallest and largest width / height of the box, drawn log-uniformly.
        rng: source of the draws.

    Returns:
        (top, left, height, width) in pixels.
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
    """Resize by Pillow with antialias, else by OpenCV; an image of the right size is returned as it is."""
    if image.shape[:2] == (height, width):
        return image
    if antialias:
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), _PILLOW[kernel]))
    return cv2.resize(image, (width, height), interpolation=_OPENCV[kernel])


def _resize_shorter_side(image: np.ndarray, shorter: int, kernel: Kernel, antialias: bool) -> np.ndarray:
    """Resize to a shorter side; the longer one follows in proportion, rounded down as in torchvision."""
    image = _limit_aspect(image, _MAX_ASPECT)
    height, width = _proportional(image.shape[0], image.shape[1], shorter)
    return resize(image, height, width, kernel, antialias)


def _proportional(height: int, width: int, shorter: int) -> tuple[int, int]:
    """Return height and width after resizing to a shorter side."""
    if height <= width:
        return shorter, shorter * width // height
    return shorter * height // width, shorter


def _centre(image: np.ndarray, size: int) -> np.ndarray:
    """Return the central square."""
    top, left = _centre_corner(image.shape[0], image.shape[1], size)
    return image[top : top + size, left : left + size]


def _centre_corner(height: int, width: int, size: int) -> tuple[int, int]:
    """Return top and left of the central square; half a pixel rounds to even, as in torchvision's CenterCrop."""
    return round((height - size) / 2), round((width - size) / 2)


def _random_window(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    top, left = rng.integers(image.shape[0] - size + 1), rng.integers(image.shape[1] - size + 1)
    return image[top : top + size, left : left + size]
