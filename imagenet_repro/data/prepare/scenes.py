"""Scenes with one object of a class: its outline in depth, filled with texture, over clutter, in changing light.

What an image of class c is made of, in the order of drawing (`Scene` has the ranges):

1. The ground: two regions with a bent border, each with a colour and a texture.
2. Clutter: pieces of outlines of any class, each a few neighbouring parts of one, smaller than the object.
3. The object: an outline of class c (`outlines.py`), bent by a smooth field, turned in depth and in the plane, seen in
   perspective, mirrored or not, at any place that keeps most of it in the frame. Its shadow falls beside it.
4. An occluder in some images: one more piece, in front of the object.
5. Light: shading across the object, a gradient across the image, contrast, exposure, a colour cast, noise.

Object, clutter, occluder and ground draw their textures from one pool and their chroma from one distribution, at
random and without regard to the class. A texture is much finer than an object, and its contrast is about that between
object and ground, which is lighter or darker. So the class is in the outline alone, not in colour or texture.

These properties and ranges were fixed before any system was trained on the images. docs/data.md tells what was tried
and withdrawn afterwards.

An image follows from (seed, split, class, instance) alone, on every machine: random numbers are the raw words of
PCG64, and the arithmetic is of integers, or IEEE 754 additions, multiplications, divisions and square roots, one at a
time.
"""

import dataclasses
import functools
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8, UInt64

from imagenet_repro.data.prepare.outlines import CLASSES, Draws, Outline

_SAMPLES = 4  # of a mask along each side of a pixel
_SUBPIXEL_BITS = 4  # of a vertex, in OpenCV's fixed-point coordinates
_WORDS = 1024  # numbers for a scene
_TILES = 96  # textures in the pool
_POOL, _SCENE = 0, 1  # first words of the seeds


@dataclasses.dataclass(frozen=True)
class Scene:
    """The ranges from which a scene is drawn; angles are given as tan(angle / 2), lengths as shares of the frame."""

    size: int = 64  # pixels
    extent: tuple[float, float] = (0.6, 0.95)  # longer side of the object
    outside: float = 0.08  # largest share of a side of the object that may leave the frame
    yaw: float = 0.41  # up to 45 degrees about the vertical axis
    pitch: float = 0.22  # up to 25 degrees about the horizontal axis
    roll: float = 0.15  # up to 17 degrees in the plane
    distance: float = 3.0  # of the camera, in half sides of the outline's square
    bend: float = 0.07  # amplitude of the smooth field, in half sides
    pieces: tuple[int, int] = (2, 4)  # of clutter
    piece_extent: tuple[float, float] = (0.2, 0.4)
    occluded: float = 0.4  # share of the images with an occluder
    difference: tuple[float, float] = (0.22, 0.42)  # between the luminances of object and ground, in [0, 1]
    chroma: float = 0.16  # largest deviation of a channel from the luminance
    texture: tuple[float, float] = (0.14, 0.34)  # amplitude
    gradient: float = 0.35  # of the light across the image
    shading: float = 0.25  # of the light across the object
    shadow: float = 0.5  # share of the images with a shadow
    contrast: tuple[float, float] = (0.75, 1.2)
    exposure: float = 0.08
    cast: float = 0.12  # largest relative change of a channel
    noise: float = 0.03


def _words(count: int, *seed: int) -> UInt64[np.ndarray, " count"]:
    return np.random.PCG64(np.random.SeedSequence(seed)).random_raw(count)


# --- textures ----------------------------------------------------------------------------------------------------


def _wave(phase: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return a wave of period 1 in [-1, 1], two parabolas in place of a sine."""
    s = 2 * (phase - np.floor(phase)) - 1
    return 4 * s * (1 - np.abs(s))


def _smooth_noise(words: UInt64[np.ndarray, " n"], cells: int, side: int) -> Float64[np.ndarray, "side side"]:
    """Return noise in [-1, 1] that varies over side / cells pixels, interpolated between random values."""
    lattice = (words[: (cells + 1) ** 2] >> np.uint64(56)).astype(np.uint8).reshape(cells + 1, cells + 1)
    return cv2.resize(lattice, (side, side), interpolation=cv2.INTER_LINEAR_EXACT).astype(np.float64) / 127.5 - 1


def _stripes(u: Float64[np.ndarray, "side side"], v, noise, _words):
    del v
    return _wave(u + 0.35 * noise)


def _checks(u, v, noise, _words):
    return _wave(u + 0.2 * noise) * _wave(v + 0.2 * noise)


def _dots(u, v, noise, _words):
    return np.clip(1.5 * (_wave(u + 0.2 * noise) + _wave(v)), -1, 1)


def _clouds(u, v, noise, words):
    del u, v
    side = len(noise)
    return noise + 0.7 * _smooth_noise(words[2000:], min(40, side // 3), side)


def _grain(u, v, noise, words):
    del u, v
    side = len(noise)
    return _smooth_noise(words[2000:], min(50, side // 2), side) + 0.3 * noise


def _bricks(u, v, noise, _words):
    row = np.floor(v + 0.15 * noise)
    return np.maximum(np.abs(_wave(v + 0.15 * noise)), 0.2) * _wave(u + row / 2)


_FAMILIES: tuple[Callable, ...] = (_stripes, _checks, _dots, _clouds, _grain, _bricks)


@functools.lru_cache(maxsize=4)
def texture_pool(seed: int, size: int) -> Float32[np.ndarray, "tiles side side"]:
    """Return the textures of a data set in [-1, 1], twice as large as an image, with periods of 4 to 12 % of it."""
    side = 2 * size
    rows, columns = (axis.astype(np.float64) for axis in np.mgrid[:side, :side])
    tiles = []
    for number in range(_TILES):
        words = _words(6000, seed, _POOL, number)
        draws = Draws(words[:8])
        t = draws.uniform(-1, 1)
        cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        period, aspect = size * draws.uniform(0.045, 0.12), draws.uniform(0.7, 1.4)
        u = (cosine * columns + sine * rows) / period
        v = (cosine * rows - sine * columns) / (period * aspect)
        noise = _smooth_noise(words[100:], 12 + draws.integer(12), side)
        tile = _FAMILIES[number % len(_FAMILIES)](u, v, noise, words)
        low, high = tile.min(), tile.max()
        tiles.append((2 * (tile - low) / (high - low) - 1).astype(np.float32))
    return np.stack(tiles)


class _Palette:
    """Draws surfaces: a texture of the pool in a colour of its own."""

    def __init__(self, draws: Draws, scene: Scene, pool: Float32[np.ndarray, "tiles side side"]):
        self._draws, self._scene, self._pool = draws, scene, pool

    def surface(self, luminance: float, shape: tuple[int, int]) -> Float32[np.ndarray, "h w 3"]:
        """Return a surface of about this luminance in [0, 1]."""
        draws, size = self._draws, self._scene.size
        tile = self._pool[draws.integer(len(self._pool))]
        row, column = draws.integer(size), draws.integer(size)
        tile = tile[row : row + shape[0], column : column + shape[1]]
        tile = tile[:: int(draws.sign()), :: int(draws.sign())]
        amplitude = draws.uniform(*self._scene.texture)
        chroma = self._scene.chroma
        base = np.array([luminance + draws.uniform(-chroma, chroma) for _ in range(3)], np.float32)
        slope = np.array([amplitude * draws.uniform(0.6, 1.0) for _ in range(3)], np.float32)
        return base + slope * tile[..., None]


# --- shapes ------------------------------------------------------------------------------------------------------


def _rotation(t: float) -> tuple[float, float]:
    return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)


def _bent(x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], draws: Draws, amplitude: float):
    """Return the points moved by a smooth field, two waves for each coordinate."""
    dx = _wave(draws.uniform(0.2, 0.4) * y + draws.uniform()) + _wave(draws.uniform(0.2, 0.4) * x + draws.uniform())
    dy = _wave(draws.uniform(0.2, 0.4) * x + draws.uniform()) + _wave(draws.uniform(0.2, 0.4) * y + draws.uniform())
    return x + amplitude * dx, y + amplitude * dy


def _seen(outline: Outline, draws: Draws, scene: Scene) -> Outline:
    """Return the outline bent, mirrored, turned in depth and in the plane, in a box whose longer side is 1."""
    points = np.concatenate(outline)
    x, y = _bent(points[:, 0], points[:, 1], draws, scene.bend)
    x = x * draws.sign()
    cosine, sine = _rotation(draws.uniform(-scene.yaw, scene.yaw))
    x, depth = cosine * x, sine * x
    cosine, sine = _rotation(draws.uniform(-scene.pitch, scene.pitch))
    y, depth = cosine * y - sine * depth, sine * y + cosine * depth
    nearness = scene.distance / (scene.distance + depth)
    x, y = x * nearness, y * nearness
    cosine, sine = _rotation(draws.uniform(-scene.roll, scene.roll))
    x, y = cosine * x - sine * y, sine * x + cosine * y
    x, y = x - (x.min() + x.max()) / 2, y - (y.min() + y.max()) / 2
    side = max(x.max() - x.min(), y.max() - y.min())
    seen = np.stack([x, y], 1) / side
    return np.split(seen, np.cumsum([len(part) for part in outline])[:-1])


def _place(parts: Outline, extent: float, outside: float, draws: Draws):
    """Return the parts at a scale and a random place of the unit square; `outside` of a side may leave it."""
    both = np.concatenate(parts) * extent
    half = (both.max(0) - both.min(0)) / 2
    low = half * (1 - 2 * outside)
    centre = [draws.uniform(low[axis], max(1 - low[axis], low[axis])) for axis in (0, 1)]
    return [part * extent + np.array(centre) for part in parts]


def _mask(parts: Outline, size: int) -> Float32[np.ndarray, "size size"]:
    """Return the share of each pixel that the union of the polygons covers, from 4 x 4 samples."""
    fine = np.zeros((size * _SAMPLES, size * _SAMPLES), np.uint8)
    scale = size * _SAMPLES * (1 << _SUBPIXEL_BITS)
    for part in parts:
        cv2.fillPoly(fine, [np.floor(part * scale).astype(np.int32)], 1, cv2.LINE_8, _SUBPIXEL_BITS)
    rows = sum(fine[i::_SAMPLES] for i in range(1, _SAMPLES)) + fine[0::_SAMPLES]
    counts = sum(rows[:, i::_SAMPLES] for i in range(1, _SAMPLES)) + rows[:, 0::_SAMPLES]
    return counts.astype(np.float32) / np.float32(_SAMPLES**2)


def object_mask(seed: int, split: int, label: int, instance: int, scene: Scene) -> Float32[np.ndarray, "size size"]:
    """Return the share of each pixel that the object of an image covers, before anything occludes it."""
    return _object(Draws(_words(_WORDS, seed, _SCENE, split, label, instance)), label, scene)


def _object(draws: Draws, label: int, scene: Scene) -> Float32[np.ndarray, "size size"]:
    parts = _seen(CLASSES[label].draw(draws), draws, scene)
    return _mask(_place(parts, draws.uniform(*scene.extent), scene.outside, draws), scene.size)


def _piece(draws: Draws, scene: Scene) -> Float32[np.ndarray, "size size"]:
    """Return the mask of up to five neighbouring parts of an outline of any class."""
    outline = CLASSES[draws.integer(len(CLASSES))].draw(draws)
    first = draws.integer(len(outline))
    parts = _seen(outline[first : first + 2 + draws.integer(4)], draws, scene)
    return _mask(_place(parts, draws.uniform(*scene.piece_extent), 0.4, draws), scene.size)


# --- composition -------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def _ramps(size: int) -> tuple[Float32[np.ndarray, "size size"], Float32[np.ndarray, "size size"]]:
    """Return the coordinates x and y of the pixels, in [-1, 1]."""
    line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - 1
    return np.broadcast_to(line, (size, size)), np.broadcast_to(line[:, None], (size, size))


def _slope(draws: Draws, strength: float, size: int) -> Float32[np.ndarray, "size size"]:
    """Return a factor around 1 that changes linearly over the image, in a random direction."""
    x, y = _ramps(size)
    gain = [np.float32(draws.uniform(-strength, strength)) for _ in range(2)]
    return 1 + gain[0] * x + gain[1] * y


def _other(luminance: float, difference: float, sign: float) -> float:
    """Return a luminance at a difference from another, on the other side of it where it would leave [0.08, 0.92]."""
    one = luminance + sign * difference
    return one if 0.08 <= one <= 0.92 else luminance - sign * difference


def _cover(image, mask, surface) -> None:
    image += (surface - image) * mask[..., None]


def _ground(draws: Draws, palette: _Palette, luminance: float, size: int) -> Float32[np.ndarray, "size size 3"]:
    x, y = _ramps(size)
    image = palette.surface(luminance, (size, size))
    other = palette.surface(luminance + draws.uniform(-0.12, 0.12), (size, size))
    across, along = (y, x) if draws.uniform() < 0.7 else (x, y)
    border = draws.uniform(-0.7, 0.7) + draws.uniform(-0.3, 0.3) * along
    border = border + draws.uniform(0, 0.2) * _wave(draws.uniform(0.3, 1.0) * along + draws.uniform())
    steepness = size / 2
    _cover(image, np.clip((across - border) * steepness, 0, 1).astype(np.float32), other)
    return image


def draw_scene(seed: int, split: int, label: int, instance: int, scene: Scene) -> UInt8[np.ndarray, "size size 3"]:
    """Draw one image in RGB.

    Args:
        seed: of the data set.
        split: number of the split; two splits have no scene in common.
        label: index of the object's class in `outlines.CLASSES`.
        instance: number of the image in its class.
        scene: the ranges.
    """
    size = scene.size
    words = _words(_WORDS + -(-(size * size) // 8), seed, _SCENE, split, label, instance)
    draws = Draws(words[:_WORDS])
    mask = _object(draws, label, scene)
    palette = _Palette(draws, scene, texture_pool(seed, size))
    luminance = draws.uniform(0.2, 0.8)
    image = _ground(draws, palette, luminance, size)
    for _ in range(scene.pieces[0] + draws.integer(scene.pieces[1] - scene.pieces[0] + 1)):
        shade = _other(luminance, draws.uniform(*scene.difference), draws.sign())
        _cover(image, _piece(draws, scene), palette.surface(shade, (size, size)))
    if draws.uniform() < scene.shadow:
        _cast_shadow(image, mask, draws)
    shade = _other(luminance, draws.uniform(*scene.difference), draws.sign())
    surface = palette.surface(shade, (size, size)) * _slope(draws, scene.shading, size)[..., None]
    _cover(image, mask, surface)
    if draws.uniform() < scene.occluded:
        shade = _other(luminance, draws.uniform(*scene.difference), draws.sign())
        _cover(image, _piece(draws, scene), palette.surface(shade, (size, size)))
    return _expose(image, draws, words[_WORDS:], scene)


def _cast_shadow(image: Float32[np.ndarray, "size size 3"], mask, draws: Draws) -> None:
    size = len(mask)
    down, right = 1 + draws.integer(max(1, size // 12)), draws.integer(max(1, size // 6)) - size // 12
    shadow = np.zeros_like(mask)
    source = mask[: size - down, max(0, -right) : size - max(0, right)]
    shadow[down:, max(0, right) : size - max(0, -right)] = source
    image *= 1 - np.float32(draws.uniform(0.15, 0.4)) * shadow[..., None]


def _expose(image, draws: Draws, noise: UInt64[np.ndarray, " n"], scene: Scene) -> UInt8[np.ndarray, "size size 3"]:
    """Return the image in the light of the scene, with noise, as bytes."""
    size = scene.size
    image = image * _slope(draws, scene.gradient / 2, size)[..., None]
    gain = np.array([1 + draws.uniform(-scene.cast, scene.cast) for _ in range(3)], np.float32)
    contrast, level = np.float32(draws.uniform(*scene.contrast)), draws.uniform(-scene.exposure, scene.exposure)
    image = (image * gain - np.float32(0.5)) * contrast + np.float32(0.5 + level)
    grain = noise.astype("<u8").view(np.uint8)[: size * size].reshape(size, size).astype(np.float32)
    image = image + ((grain - np.float32(127.5)) * np.float32(scene.noise / 127.5))[..., None]
    return np.clip(image * 255 + np.float32(0.5), 0, 255).astype(np.uint8)
