"""The operations of AutoAugment and RandAugment on uint8 images, equal to Pillow's, on the device.

The operation of an image is a number drawn inside the compiled step. `apply_layers` has two forms of the program:

- The batched form has the same steps for every operation: a warp (the identity where the operation is not geometric),
  a table of 256 entries for each channel, a blend with a grey or a smoothed picture, and a filled box. GPUs run it,
  since they would wait for the host at every branch.
- The branching form is a loop over the images that runs, for each, the branch of the operation it drew and no other.
  CPUs and TPUs run it. On a TPU, whose gathers and scatters take some cycles for each element, most branches read
  pixels, count levels and look them up by products with one-hot matrices (access.py).

Both forms compute a pixel by the same arithmetic and give equal images.

Sources: Pillow's ImageOps, ImageEnhance and affine Image.transform, which the searches of Cubuk et al. 2018
(arXiv 1805.09501, table 6) ran. Integer operations are exact; where Pillow computes in floating point and truncates,
results may differ by one level.
"""

import dataclasses
import functools
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int, Int32, UInt8

from imagenet_repro.data.augment.access import BY_INDEX, BY_PRODUCT, Access, Taps

Interpolation = Literal["nearest", "bilinear", "bicubic", "random"]

IDENTITY = "identity"
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
TABLES = ("auto_contrast", "equalize", "invert", "posterize", "solarize", "solarize_add", "contrast", "brightness")
BLENDS = ("color", "sharpness")
CUTOUT = "cutout"
_ALONG: dict[str, Literal["x", "y"]] = {"shear_x": "x", "translate_x": "x", "shear_y": "y", "translate_y": "y"}
OPERATIONS = (IDENTITY, *GEOMETRIC, *TABLES, *BLENDS, CUTOUT)

_SOLARIZE_ADD_BELOW = 128
_LUMA = (19595, 38470, 7471)  # ITU-R 601 in 65536ths, as in Pillow's convert("L")
_FIXED_POINT = 65536  # one, in Pillow's affine transform with the nearest pixel
_BICUBIC = -1.0  # Keys' a in Pillow's transform; its resize has -0.5

Image = UInt8[Array, "h w 3"]
Scalar = Float32[Array, ""]


class Draws(NamedTuple):
    """The drawn operations; each array may have axes of layers and of images in front.

    The meaning of the argument depends on the operation. rotate: degrees, counter-clockwise; shear_x, shear_y: the
    factor; translate_x, translate_y: pixels, to the left or up where positive; posterize: bits to keep; solarize: the
    lowest level that is inverted; solarize_add: the number added to levels below 128; color, contrast, brightness,
    sharpness: Pillow's factor, where 1 is no change; cutout: half the box's side in pixels. The others ignore it.

    Attributes:
        operation: index into `among` of `Options`.
        argument: the operation's argument.
        place: numbers in [0, 1); the first two are cutout's centre as shares of height and width, the third chooses
            between bilinear and bicubic where `interpolation` is `random`.
    """

    operation: Int[Array, "*axes"]
    argument: Float32[Array, "*axes"]
    place: Float32[Array, "*axes 3"]


@dataclasses.dataclass(frozen=True)
class Options:
    """The options that all images of a program share.

    Attributes:
        among: names of `OPERATIONS` that may be drawn; no other is in the compiled program.
        fill: the RGB colour of pixels from outside the image, and of cutout's box.
        interpolation: sampling of the geometric operations.
    """

    among: tuple[str, ...]
    fill: tuple[int, int, int]
    interpolation: Interpolation = "nearest"


def apply_layers(images: UInt8[Array, "b h w 3"], draws: Draws, options: Options) -> UInt8[Array, "b h w 3"]:
    """Apply to each image its operations in turn, in the form for the platform that the program is compiled for.

    Args:
        images: any height and width.
        draws: with axes of images and of layers in front.
        options: static.

    Returns:
        Images of the same shape.
    """
    return jax.lax.platform_dependent(
        images,
        draws,
        cpu=partial(apply_by_branch, options=options, access=BY_INDEX),
        tpu=partial(apply_by_branch, options=options, access=BY_PRODUCT),
        default=partial(apply_batched, options=options),
    )


def apply_by_branch(
    images: UInt8[Array, "b h w 3"], draws: Draws, *, options: Options, access: Access
) -> UInt8[Array, "b h w 3"]:
    """Return what `apply_layers` does, from a loop over the images that branches to the operation of each layer."""

    def branch(name: str, image: Image, argument: Scalar, place: Float32[Array, "3"]) -> Image:
        image = access.lay_out(image)
        return access.lay_out(_apply_one(name, image, argument, place, options=options, access=access))

    branches = [partial(branch, name) for name in options.among]

    def layer(image: Image, draw: Draws) -> tuple[Image, None]:
        return jax.lax.switch(draw.operation, branches, image, draw.argument, draw.place), None

    return jax.lax.map(lambda item: jax.lax.scan(layer, *item)[0], (images, draws))


def _apply_one(
    name: str, image: Image, argument: Scalar, place: Float32[Array, "3"], *, options: Options, access: Access
) -> Image:
    if name == IDENTITY:
        return image
    if name in GEOMETRIC:
        matrix = jax.lax.optimization_barrier(_matrix(name, argument, image.shape))
        sampling = _Sampling(options.interpolation, place[2])
        return _warp(image, matrix, options.fill, sampling, access, along=_ALONG.get(name, "both"))
    if name in BLENDS:
        return _blend(_DEGENERATE[name](image), image, argument).astype(jnp.uint8)
    if name == CUTOUT:
        return _cut_out(image, place, argument, options.fill)
    statistics = _Statistics(image, access)
    if name in _LOOKED_UP:
        table = _TABLES[name](statistics, _all_levels(), argument)
        return access.look_up(image, table.astype(jnp.uint8))
    return _TABLES[name](statistics, image.astype(jnp.int32), argument).astype(jnp.uint8)


def apply_batched(images: UInt8[Array, "b h w 3"], draws: Draws, *, options: Options) -> UInt8[Array, "b h w 3"]:
    """Return what `apply_layers` does, from steps that are the same for every operation.

    The layers are a loop, so that the program holds one layer for any number of them.
    """

    def layer(image: Image, draw: Draws) -> tuple[Image, None]:
        return _apply_any(image, draw, options), None

    return jax.vmap(lambda image, draw: jax.lax.scan(layer, image, draw)[0])(images, draws)


def _apply_any(image: Image, draw: Draws, options: Options) -> Image:
    operation, argument, place = draw
    index = {name: jnp.asarray(operation == options.among.index(name)) for name in options.among}
    geometric, tables, blends = ([name for name in group if name in index] for group in (GEOMETRIC, TABLES, BLENDS))
    if geometric:
        matrix = jnp.zeros((2, 3)).at[:, :2].set(jnp.eye(2))
        for name in geometric:
            matrix = jnp.where(index[name], _matrix(name, argument, image.shape), matrix)
        # Without a barrier the compiler would compute the matrix, with its sines, again for each pixel.
        matrix = jax.lax.optimization_barrier(matrix)
        image = _warp(image, matrix, options.fill, _Sampling(options.interpolation, place[2]), BY_INDEX)
    if tables:
        statistics = _Statistics(image, BY_INDEX)
        levels = table = _all_levels()
        for name in tables:
            table = jnp.where(index[name], _TABLES[name](statistics, levels, argument), table)
        image = BY_INDEX.look_up(image, jax.lax.optimization_barrier(table.astype(jnp.uint8)))
    if blends:
        other = image
        for name in blends:
            other = jnp.where(index[name], _DEGENERATE[name](image), other)
        image = _blend(other, image, argument).astype(jnp.uint8)
    if CUTOUT in index:
        image = jnp.where(index[CUTOUT], _cut_out(image, place, argument, options.fill), image)
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


def _warp(
    image: Image,
    matrix: Float32[Array, "2 3"],
    fill: tuple[int, int, int],
    sampling: _Sampling,
    access: Access,
    *,
    along: Literal["x", "y", "both"] = "both",
) -> Image:
    """Return the image whose pixel centres come from the positions to which `matrix` maps them.

    `along` is the axis that the matrix changes. Along the other one each position is a pixel's centre, where the
    weight of that pixel is one and the other weights are zero.
    """
    height, width, _ = image.shape
    x, y, limits = jnp.arange(width)[None, :], jnp.arange(height)[:, None], (width, height)
    if sampling.nearest:
        # Pillow computes in fixed point; its rounding errors add up to whole pixels at the boundaries.
        offset = matrix[:, 2] + (matrix[:, 0] + matrix[:, 1]) / 2
        steps = jnp.floor(jnp.stack([matrix[:, 0], matrix[:, 1], offset]) * _FIXED_POINT + 0.5).astype(jnp.int32)
        source = [(x * steps[0, i] + y * steps[1, i] + steps[2, i]) // _FIXED_POINT for i in (0, 1)]
        inside = _inside(source, limits)
        column, row = source if along == "both" else (source[0], None) if along == "x" else (None, source[1])
        warped = access.pixels(image, row, column)
    else:
        position = [m[0] * (x + 0.5) + m[1] * (y + 0.5) + m[2] for m in matrix]
        inside = _inside(position, limits)
        below = [jnp.floor(p - 0.5) for p in position]
        across, down = (
            Taps(b.astype(jnp.int32) + sampling.places[0], sampling.weights(p - 0.5 - b))
            for p, b in zip(position, below, strict=True)
        )
        total = access.interpolate(image, None if along == "x" else down, None if along == "y" else across)
        # Rounding of the weights must not turn a flat 255 into 254, since the conversion truncates as Pillow's does.
        warped = jnp.clip(total + 1e-3, 0, 255)
    return jnp.where(inside[:, :, None], warped.astype(jnp.uint8), jnp.array(fill, jnp.uint8))


def _inside(position: list[Array], limits: tuple[int, int]) -> Array:
    (x, y), (width, height) = position, limits
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)


class _Statistics:
    """The statistics of an image that tables depend on: counts and extremes of levels, and the mean grey."""

    def __init__(self, image: Image, access: Access):
        self._image = image
        self._access = access
        self.pixels = image.shape[0] * image.shape[1]

    @functools.cached_property
    def up_to(self) -> Int32[Array, "256 3"]:
        """The number of pixels of each channel at or below each level."""
        # With a barrier the counts are computed once for all tables.
        return jax.lax.optimization_barrier(self._access.up_to(self._image))

    def extremes(self) -> tuple[Int32[Array, "3"], Int32[Array, "3"]]:
        """Return the lowest and highest level of each channel."""
        return self._image.min((0, 1)).astype(jnp.int32), self._image.max((0, 1)).astype(jnp.int32)

    def mean_grey(self) -> Int32[Array, ""]:
        """Return the mean of the grey picture, rounded half up."""
        return (2 * _grey(self._image).sum() + self.pixels) // (2 * self.pixels)


# Each table is a function of levels of three channels, all 256 of them or those of an image, and of the argument.
Levels = Int32[Array, "*axes 3"]


def _all_levels() -> Int32[Array, "256 3"]:
    return jnp.broadcast_to(jnp.arange(256)[:, None], (256, 3))


def _auto_contrast(statistics: _Statistics, levels: Levels, _: Scalar) -> Levels:
    low, high = statistics.extremes()
    stretched = jnp.clip(255 * (levels - low) // jnp.maximum(high - low, 1), 0, 255)
    return jnp.where(high > low, stretched, levels)


def _equalize(statistics: _Statistics, levels: Levels, _: Scalar) -> Levels:
    """Return the table of all `levels`."""
    up_to = statistics.up_to
    below = jnp.concatenate([jnp.zeros((1, 3), jnp.int32), up_to[:-1]])
    # The pixels below the highest level that occurs, and so not counted in Pillow's step.
    step = jnp.where(up_to < statistics.pixels, up_to, 0).max(0) // 255
    equal = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, equal, levels)


def _invert(_: _Statistics, levels: Levels, __: Scalar) -> Levels:
    return 255 - levels


def _posterize(_: _Statistics, levels: Levels, bits: Scalar) -> Levels:
    dropped = 8 - jnp.clip(bits, 0, 8).astype(jnp.int32)
    return (levels >> dropped) << dropped


def _solarize(_: _Statistics, levels: Levels, threshold: Scalar) -> Levels:
    return jnp.where(levels < threshold, levels, 255 - levels)


def _solarize_add(_: _Statistics, levels: Levels, addition: Scalar) -> Levels:
    added = jnp.clip(levels + addition.astype(jnp.int32), 0, 255)
    return jnp.where(levels < _SOLARIZE_ADD_BELOW, added, levels)


def _contrast(statistics: _Statistics, levels: Levels, factor: Scalar) -> Levels:
    return _blend(statistics.mean_grey(), levels, factor)


def _brightness(_: _Statistics, levels: Levels, factor: Scalar) -> Levels:
    return _blend(jnp.int32(0), levels, factor)


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
_LOOKED_UP = ("equalize",)  # the only table that counts levels, and so needs all of its entries


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


def _cut_out(image: Image, centre: Float32[Array, "3"], half: Scalar, fill: tuple[int, int, int]) -> Image:
    """Fill a square of side 2 x `half` around a pixel, as far as it is inside the image (DeVries & Taylor 2017)."""
    height, width, _ = image.shape
    row, column = jnp.floor(centre[0] * height), jnp.floor(centre[1] * width)
    half = jnp.floor(half)
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    box = (y >= row - half) & (y < row + half) & (x >= column - half) & (x < column + half)
    return jnp.where(box, jnp.array(fill, jnp.uint8), image)
