"""The operations of AutoAugment and RandAugment on one uint8 image, equal to Pillow's, on the device.

The operation of an image is a number drawn inside the compiled step. A switch over images would evaluate every branch
for each of them, so an application has the same form for every operation: a warp (the identity where the operation is
not geometric), a table of 256 entries for each channel, a blend with a grey or a smoothed picture, and a filled box.
That is one gather, one look-up and one 3 x 3 filter.

Sources: Pillow's ImageOps, ImageEnhance and affine Image.transform, which the searches of Cubuk et al. 2018
(arXiv 1805.09501, table 6) ran. Integer operations are exact; where Pillow computes in floating point and truncates,
results may differ by one level.
"""

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int, Int32, UInt8

Interpolation = Literal["nearest", "bilinear", "bicubic", "random"]

IDENTITY = "identity"
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
TABLES = ("auto_contrast", "equalize", "invert", "posterize", "solarize", "solarize_add", "contrast", "brightness")
BLENDS = ("color", "sharpness")
CUTOUT = "cutout"
OPERATIONS = (IDENTITY, *GEOMETRIC, *TABLES, *BLENDS, CUTOUT)

_SOLARIZE_ADD_BELOW = 128
_LUMA = (19595, 38470, 7471)  # ITU-R 601 in 65536ths, as in Pillow's convert("L")
_FIXED_POINT = 65536  # one, in Pillow's affine transform with the nearest pixel
_BICUBIC = -1.0  # Keys' a in Pillow's transform; its resize has -0.5

Image = UInt8[Array, "h w 3"]
Scalar = Float32[Array, ""]


def apply(
    image: Image,
    operation: Int[Array, ""],
    argument: Scalar,
    place: Float32[Array, "3"],
    *,
    among: Sequence[str],
    fill: tuple[int, int, int],
    interpolation: Interpolation = "nearest",
) -> Image:
    """Apply the operation `among[operation]`; only the operations in `among` are in the compiled program.

    The meaning of the argument depends on the operation. rotate: degrees, counter-clockwise; shear_x, shear_y: the
    factor; translate_x, translate_y: pixels, to the left or up where positive; posterize: bits to keep; solarize: the
    lowest level that is inverted; solarize_add: the number added to levels below 128; color, contrast, brightness,
    sharpness: Pillow's factor, where 1 is no change; cutout: half the box's side in pixels. The others ignore it.

    Args:
        image: any height and width.
        operation: index into `among`.
        argument: the operation's argument.
        place: numbers in [0, 1); the first two are cutout's centre as shares of height and width, the third chooses
            between bilinear and bicubic where `interpolation` is `random`.
        among: names of `OPERATIONS`, static.
        fill: the RGB colour of pixels from outside the image, and of cutout's box.
        interpolation: sampling of the geometric operations.

    Returns:
        An image of the same shape.
    """
    index = {name: jnp.asarray(operation == among.index(name)) for name in among}
    geometric, tables, blends = ([name for name in group if name in index] for group in (GEOMETRIC, TABLES, BLENDS))
    if geometric:
        matrix = jnp.zeros((2, 3)).at[:, :2].set(jnp.eye(2))
        for name in geometric:
            matrix = jnp.where(index[name], _matrix(name, argument, image.shape), matrix)
        # Without a barrier the compiler would compute the matrix, with its sines, again for each pixel.
        matrix = jax.lax.optimization_barrier(matrix)
        image = _warp(image, matrix, fill, _Sampling(interpolation, place[2]))
    if tables:
        statistics = _Statistics(image)
        table = jnp.broadcast_to(jnp.arange(256)[:, None], (256, 3))
        for name in tables:
            table = jnp.where(index[name], _TABLES[name](statistics, argument), table)
        image = _look_up(image, jax.lax.optimization_barrier(table.astype(jnp.uint8)))
    if blends:
        other = image
        for name in blends:
            other = jnp.where(index[name], _DEGENERATE[name](image), other)
        image = _blend(other, image, argument).astype(jnp.uint8)
    if CUTOUT in index:
        image = jnp.where(index[CUTOUT] & _box(image.shape, place[:2], argument), jnp.array(fill, jnp.uint8), image)
    return image


def _matrix(name: str, argument: Scalar, shape: tuple[int, ...]) -> Float32[Array, "2 3"]:
    """Return the map from a pixel's centre (x + 1/2, y + 1/2) in the result to its position (x, y) in the source."""
    one, zero = jnp.float32(1), jnp.float32(0)
    if name == "rotate":
        height, width, _ = shape
        cos, sin = jnp.cos(jnp.deg2rad(argument)), jnp.sin(jnp.deg2rad(argument))
        x, y = width / 2, height / 2
        rows = (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y)
    else:
        rows = {
            "shear_x": ((one, argument, zero), (zero, one, zero)),
            "shear_y": ((one, zero, zero), (argument, one, zero)),
            "translate_x": ((one, zero, argument), (zero, one, zero)),
            "translate_y": ((one, zero, zero), (zero, one, argument)),
        }[name]
    return jnp.stack([jnp.stack(row) for row in rows])


class _Sampling:
    """Weights of the source pixels at offsets -1, 0, 1 and 2 from the pixel below a position."""

    def __init__(self, interpolation: Interpolation, coin: Scalar):
        self.nearest = interpolation == "nearest"
        self.places = (0, 1) if interpolation == "bilinear" else (-1, 0, 1, 2)
        self._interpolation = interpolation
        self._coin = coin

    def weights(self, past: Float32[Array, "h w"]) -> list[Float32[Array, "h w"]]:
        """Return the weights, which sum to one, for a position at a distance `past` in [0, 1) from the pixel below."""
        linear = [jnp.maximum(0, 1 - jnp.abs(past - place)) for place in self.places]
        if self._interpolation == "bilinear":
            return linear
        cubic = [_cubic(jnp.abs(past - place)) for place in self.places]
        if self._interpolation == "bicubic":
            return cubic
        return [jnp.where(self._coin < 0.5, one, other) for one, other in zip(linear, cubic, strict=True)]


def _cubic(distance: Float32[Array, "h w"]) -> Float32[Array, "h w"]:
    """Return the cubic convolution kernel at distances up to 2 (Keys 1981, eq. 4)."""
    a, d = _BICUBIC, distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return jnp.where(d <= 1, near, jnp.where(d < 2, far, 0))


def _warp(image: Image, matrix: Float32[Array, "2 3"], fill: tuple[int, int, int], sampling: _Sampling) -> Image:
    height, width, _ = image.shape
    x, y, limits = jnp.arange(width)[None, :], jnp.arange(height)[:, None], (width, height)
    flat = image.reshape(-1, 3)
    if sampling.nearest:
        # Pillow computes in fixed point; its rounding errors add up to whole pixels at the boundaries.
        offset = matrix[:, 2] + (matrix[:, 0] + matrix[:, 1]) / 2
        steps = jnp.floor(jnp.stack([matrix[:, 0], matrix[:, 1], offset]) * _FIXED_POINT + 0.5).astype(jnp.int32)
        source = [(x * steps[0, i] + y * steps[1, i] + steps[2, i]) // _FIXED_POINT for i in (0, 1)]
        inside = _inside(source, limits)
        column, row = (jnp.clip(s, 0, limit - 1) for s, limit in zip(source, limits, strict=True))
        warped = flat.at[row * width + column].get(mode="promise_in_bounds")
    else:
        position = [m[0] * (x + 0.5) + m[1] * (y + 0.5) + m[2] for m in matrix]
        inside = _inside(position, limits)
        below = [jnp.floor(p - 0.5) for p in position]
        across, down = (sampling.weights(p - 0.5 - b) for p, b in zip(position, below, strict=True))
        columns, rows = (
            [jnp.clip(b.astype(jnp.int32) + place, 0, limit - 1) for place in sampling.places]
            for b, limit in zip(below, limits, strict=True)
        )
        total = jnp.zeros(image.shape)
        for row, v in zip(rows, down, strict=True):
            for column, u in zip(columns, across, strict=True):
                pixels = flat.at[row * width + column].get(mode="promise_in_bounds")
                total += (u * v)[:, :, None] * pixels
        # Rounding of the weights must not turn a flat 255 into 254, since the conversion truncates as Pillow's does.
        warped = jnp.clip(total + 1e-3, 0, 255).astype(jnp.uint8)
    return jnp.where(inside[:, :, None], warped, jnp.array(fill, jnp.uint8))


def _inside(position: list[Array], limits: tuple[int, int]) -> Array:
    (x, y), (width, height) = position, limits
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)


class _Statistics:
    """The statistics of an image that tables depend on: counts of levels and the mean grey."""

    def __init__(self, image: Image):
        self._image = image
        self.pixels = image.shape[0] * image.shape[1]

    @functools.cached_property
    def up_to(self) -> Int32[Array, "256 3"]:
        """The number of pixels of each channel at or below each level."""
        cells = 3 * self._image.reshape(-1, 3).astype(jnp.int32) + jnp.arange(3)
        counts = jnp.zeros(256 * 3, jnp.int32).at[cells.reshape(-1)].add(1, mode="promise_in_bounds")
        # With a barrier the counts are computed once for all tables.
        return jax.lax.optimization_barrier(jnp.cumsum(counts.reshape(256, 3), axis=0))

    def extremes(self) -> tuple[Int32[Array, "3"], Int32[Array, "3"]]:
        """Return the lowest and highest level of each channel."""
        return (self.up_to == 0).sum(0), (self.up_to < self.pixels).sum(0)

    def mean_grey(self) -> Int32[Array, ""]:
        """Return the mean of the grey picture, rounded half up."""
        return (2 * _grey(self._image).sum() + self.pixels) // (2 * self.pixels)


def _auto_contrast(statistics: _Statistics, _: Scalar) -> Int32[Array, "256 3"]:
    low, high = statistics.extremes()
    levels = jnp.arange(256)[:, None]
    stretched = jnp.clip(255 * (levels - low) // jnp.maximum(high - low, 1), 0, 255)
    return jnp.where(high > low, stretched, levels)


def _equalize(statistics: _Statistics, _: Scalar) -> Int32[Array, "256 3"]:
    up_to, levels = statistics.up_to, jnp.arange(256)[:, None]
    below = jnp.concatenate([jnp.zeros((1, 3), jnp.int32), up_to[:-1]])
    # The pixels below the highest level that occurs, and so not counted in Pillow's step.
    step = jnp.where(up_to < statistics.pixels, up_to, 0).max(0) // 255
    equal = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, equal, levels)


def _invert(_: _Statistics, __: Scalar) -> Int32[Array, "256 1"]:
    return 255 - jnp.arange(256)[:, None]


def _posterize(_: _Statistics, bits: Scalar) -> Int32[Array, "256 1"]:
    dropped = 8 - jnp.clip(bits, 0, 8).astype(jnp.int32)
    return ((jnp.arange(256) >> dropped) << dropped)[:, None]


def _solarize(_: _Statistics, threshold: Scalar) -> Int32[Array, "256 1"]:
    levels = jnp.arange(256)
    return jnp.where(levels < threshold, levels, 255 - levels)[:, None]


def _solarize_add(_: _Statistics, addition: Scalar) -> Int32[Array, "256 1"]:
    levels = jnp.arange(256)
    added = jnp.clip(levels + addition.astype(jnp.int32), 0, 255)
    return jnp.where(levels < _SOLARIZE_ADD_BELOW, added, levels)[:, None]


def _contrast(statistics: _Statistics, factor: Scalar) -> Int32[Array, "256 1"]:
    return _blend(statistics.mean_grey(), jnp.arange(256), factor)[:, None]


def _brightness(_: _Statistics, factor: Scalar) -> Int32[Array, "256 1"]:
    return _blend(jnp.int32(0), jnp.arange(256), factor)[:, None]


_TABLES = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": _invert,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "contrast": _contrast,
    "brightness": _brightness,
}


def _look_up(image: Image, table: UInt8[Array, "256 3"]) -> Image:
    cells = 3 * image.astype(jnp.int32) + jnp.arange(3)
    return table.reshape(-1).at[cells].get(mode="promise_in_bounds")


def _blend(other: Array, levels: Array, factor: Scalar) -> Int32[Array, "..."]:
    """Blend as Pillow's Image.blend: `levels` at factor 1, `other` at 0; truncated to integers in [0, 255]."""
    start, end = other.astype(jnp.float32), levels.astype(jnp.float32)
    return jnp.clip(start + factor * (end - start), 0, 255).astype(jnp.int32)


def _grey(image: Image) -> Int32[Array, "h w"]:
    return ((image.astype(jnp.int32) * jnp.array(_LUMA)).sum(-1) + 32768) >> 16


def _grey_picture(image: Image) -> Image:
    return jnp.broadcast_to(_grey(image)[:, :, None], image.shape).astype(jnp.uint8)


def _smooth(image: Image) -> Image:
    """Filter with Pillow's SMOOTH: the mean of 3 x 3 pixels, the middle one five times; the border is unchanged."""
    levels = image.astype(jnp.int32)
    rows = levels[:-2] + levels[1:-1] + levels[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * levels[1:-1, 1:-1]
    return image.at[1:-1, 1:-1].set(((2 * total + 13) // 26).astype(jnp.uint8))


_DEGENERATE = {"color": _grey_picture, "sharpness": _smooth}


def _box(shape: tuple[int, ...], centre: Float32[Array, "2"], half: Scalar) -> Array:
    """Return the mask [h, w, 1] of a square of side 2 x `half` around a pixel, inside the image.

    DeVries & Taylor 2017.
    """
    height, width, _ = shape
    row, column = jnp.floor(centre[0] * height), jnp.floor(centre[1] * width)
    half = jnp.floor(half)
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    return (y >= row - half) & (y < row + half) & (x >= column - half) & (x < column + half)


def scan(image: Image, draws: tuple[Array, Array, Array], **options) -> Image:
    """Apply several operations in turn; `draws` are the arguments of `apply`, with an axis of layers in front.

    The layers are a loop, so that the program holds one layer for any number of them.
    """

    def layer(picture, draw):
        return apply(picture, *draw, **options), None

    return jax.lax.scan(layer, image, draws)[0]
