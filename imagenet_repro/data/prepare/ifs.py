"""Iterated-function-system fractals drawn by the chaos game, many at a time (Kataoka et al., ACCV 2020, sec. 3).

A category is one system of two to eight affine maps of the plane. The chaos game moves a point by one map after
another, each chosen with a probability proportional to its determinant. An instance is the same system with every
parameter multiplied by a factor near one, seen under another rotation, mirroring, zoom, shift and pair of colours.

An image follows from (seed, split, category, instance) alone, on every machine: random numbers are the raw words of
PCG64, and the arithmetic is IEEE 754 additions, multiplications, divisions and square roots, one at a time.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, UInt8, UInt64

from imagenet_repro.data.prepare.jpeg import encode

MAX_MAPS = 8
_TABLE = 256  # resolution of the probabilities of the maps
_WALKERS = 256  # points of an instance that move at once
_BURN_IN = 12  # moves before a point lies on the attractor
_CONTRACTION = 0.95  # bound on the singular values of a map; without one the points of a system may diverge
_SEARCH_SIZE = 64  # side in pixels of the drawing that measures the filling rate
_SEARCH_POINTS = 16384
_SYSTEM, _INSTANCE = 0, 1  # first words of the seeds: systems and instances draw from separate streams


@dataclasses.dataclass(frozen=True)
class Look:
    """The variation between instances of a category, and the style of the drawing."""

    size: int = 64  # pixels
    perturbation: float = 0.1  # every parameter of a map is multiplied by a factor from [1 - x, 1 + x]
    turn: float = 0.25  # largest rotation, as a share of half a turn
    zoom: float = 0.15  # the scale is drawn from [1 - x, 1 + x]
    shift: float = 0.08  # the centre moves by up to this share of the size
    points: float = 4.0  # for each pixel of the image
    noise: float = 0.1  # amplitude on the background, as a share of white


class FractalSystem(NamedTuple):
    """The iterated function system of a category; unused maps are zero and never chosen."""

    maps: Float32[np.ndarray, "8 6"]  # (a, b, c, d, e, f): x' = a x + b y + e, y' = c x + d y + f
    table: UInt8[np.ndarray, "256"]  # a random byte -> the map to apply
    filling_rate: float  # share of the pixels that the attractor touches


def _words(count: int, *seed: int) -> UInt64[np.ndarray, " count"]:
    return np.random.PCG64(np.random.SeedSequence(seed)).random_raw(count)


def _uniform(words: UInt64[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Convert words to float32 in [0, 1), from the upper 24 bits without rounding."""
    return (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _bytes(words: UInt64[np.ndarray, " n"]) -> UInt8[np.ndarray, " m"]:
    return words.astype("<u8").view(np.uint8)


def _largest_singular_value(maps: Float32[np.ndarray, "*n 6"]) -> Float32[np.ndarray, "*n"]:
    a, b, c, d = np.moveaxis(maps[..., :4], -1, 0)
    squares = a * a + b * b + c * c + d * d
    determinant = a * d - b * c
    root = np.sqrt(np.maximum(squares * squares - 4 * determinant * determinant, 0))
    return np.sqrt((squares + root) / 2)


def _contracted(maps: Float32[np.ndarray, "*n 6"]) -> Float32[np.ndarray, "*n 6"]:
    """Return the maps with linear parts shrunk to the bound where they exceed it."""
    factor = np.float32(_CONTRACTION) / np.maximum(_largest_singular_value(maps), np.float32(_CONTRACTION))
    return np.concatenate([maps[..., :4] * factor[..., None], maps[..., 4:]], axis=-1)


def _probability_table(maps: Float32[np.ndarray, "n 6"]) -> UInt8[np.ndarray, "256"]:
    """Return the map for each random byte, in proportion to |det|; each map has at least one of the 256 entries."""
    area = np.abs(maps[:, 0] * maps[:, 3] - maps[:, 1] * maps[:, 2]).astype(np.float64)
    bounds = np.cumsum(area)
    filled = np.floor(bounds / bounds[-1] * (_TABLE - len(maps))).astype(np.int64) + np.arange(1, len(maps) + 1)
    return np.searchsorted(filled, np.arange(_TABLE), side="right").astype(np.uint8)


@functools.lru_cache(maxsize=100_000)
def system(seed: int, category: int, filling_rate: tuple[float, float] = (0.15, 0.6)) -> FractalSystem:
    """Return the system of a category: the first candidate whose share of filled pixels lies within `filling_rate`.

    Parameters are uniform in [-1, 1] as in FractalDB. Unlike there, the linear parts are shrunk to singular values of
    0.95 at most, and the filling rate has an upper limit, which excludes almost solid shapes.
    """
    for attempt in range(10_000):
        words = _words(1 + 6 * MAX_MAPS, seed, _SYSTEM, category, attempt)
        count = 2 + int(words[0] % np.uint64(MAX_MAPS - 1))
        maps = _contracted(2 * _uniform(words[1:]).reshape(MAX_MAPS, 6) - 1)
        maps[count:] = 0
        candidate = FractalSystem(maps, _probability_table(maps[:count]), 0.0)
        rate = _filling_rate(candidate)
        if filling_rate[0] <= rate <= filling_rate[1]:
            return candidate._replace(filling_rate=rate)
    raise RuntimeError(f"no system with a filling rate in {filling_rate} among 10000 (seed {seed}, {category=})")


def _filling_rate(candidate: FractalSystem) -> float:
    steps = _BURN_IN + _SEARCH_POINTS // _WALKERS
    choices = _bytes(_words(steps * _WALKERS // 8, _SYSTEM)).reshape(steps, 1, _WALKERS)
    x, y, _ = _chaos_game(candidate.maps[None], candidate.table[None], choices, np.zeros((1, MAX_MAPS), np.float32))
    view = np.array([[1, 0, 0, 1, 0, 0]], np.float32)
    counts, _ = _histograms(x, y, x, view, _SEARCH_SIZE)
    return float(np.count_nonzero(counts)) / _SEARCH_SIZE**2


def _chaos_game(
    maps: Float32[np.ndarray, "b 8 6"],
    tables: UInt8[np.ndarray, "b 256"],
    choices: UInt8[np.ndarray, "steps b walkers"],
    tints: Float32[np.ndarray, "b 8"],
) -> tuple[Float32[np.ndarray, "moves b walkers"], ...]:
    """Return the coordinates x, y and the tint of the points after the burn-in.

    The tint is a running mean of the tints of the maps applied, so that the parts of a fractal differ in colour.
    """
    steps, batch, walkers = choices.shape
    rows = np.arange(batch)[:, None]
    chosen = tables.reshape(-1).take(choices + _TABLE * rows) + MAX_MAPS * rows
    coefficients = [np.ascontiguousarray(column) for column in maps.reshape(-1, 6).T] + [tints.reshape(-1) / 2]
    out = np.empty((3, steps - _BURN_IN, batch, walkers), np.float32)
    x = y = tint = np.zeros((batch, walkers), np.float32)
    half = np.float32(0.5)
    for step in range(steps):
        a, b, c, d, e, f, colour = (column.take(chosen[step]) for column in coefficients)
        x, y = a * x + b * y + e, c * x + d * y + f
        tint = tint * half + colour
        if step >= _BURN_IN:
            out[:, step - _BURN_IN] = x, y, tint
    return out[0], out[1], out[2]


def _histograms(
    x: Float32[np.ndarray, "moves b walkers"],
    y: Float32[np.ndarray, "moves b walkers"],
    tint: Float32[np.ndarray, "moves b walkers"],
    views: Float32[np.ndarray, "b 6"],
    size: int,
) -> tuple[Float32[np.ndarray, "b size size"], Float32[np.ndarray, "b size size"]]:
    """Return the number of points on each pixel, and their mean tint (0 where there are none).

    Args:
        x: of the points.
        y: of the points.
        tint: of the points.
        views: affine maps of the plane in which the bounding box of the points is centred and has a longer side of 2;
            afterwards that square covers nine tenths of the image.
        size: side of the image in pixels.
    """
    low, high = [np.stack([v.min((0, 2)), v.max((0, 2))]) for v in (x, y)]
    centre = (low[0] + low[1]) / 2, (high[0] + high[1]) / 2
    half = np.maximum(np.maximum(low[1] - low[0], high[1] - high[0]) / 2, np.float32(1e-6))
    scale = np.float32(0.45 * size) / half
    a, b, c, d = (views[:, i] * scale for i in range(4))
    offset = np.float32(size / 2 + 1)  # points outside the image fall on a border of one pixel
    e = offset + size * views[:, 4] - a * centre[0] - b * centre[1]
    f = offset + size * views[:, 5] - c * centre[0] - d * centre[1]
    a, b, c, d, e, f = (v[:, None] for v in (a, b, c, d, e, f))
    side = size + 2
    column = np.clip(a * x + b * y + e, 0, side - 1).astype(np.int64)
    row = np.clip(c * x + d * y + f, 0, side - 1).astype(np.int64)
    batch = x.shape[1]
    cell = ((np.arange(batch)[:, None] * side + row) * side + column).reshape(-1)
    counts = np.bincount(cell, minlength=batch * side * side).astype(np.float32)
    tints = np.bincount(cell, weights=tint.reshape(-1), minlength=batch * side * side).astype(np.float32)
    counts, tints = (v.reshape(batch, side, side)[:, 1:-1, 1:-1] for v in (counts, tints))
    return counts, tints / np.maximum(counts, 1)


def _views(u: Float32[np.ndarray, "b 6"], look: Look) -> Float32[np.ndarray, "b 6"]:
    """Return the affine maps of rotation, mirroring, zoom and shift from uniform variables.

    A rotation is computed from t = tan(angle / 2), which needs no sine. The angle of t in [-1, 1] is at most a quarter
    turn; where `look` turns further, a half turn is added with probability 1/2.
    """
    t = (2 * u[:, 0] - 1) * np.float32(min(math.tan(math.pi * look.turn / 2), 1.0))
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    half_turn = np.where((u[:, 1] < 0.5) & (look.turn > 0.5), np.float32(-1), np.float32(1))
    mirror = np.where(u[:, 2] < 0.5, np.float32(-1), np.float32(1))
    zoom = (1 + np.float32(look.zoom) * (2 * u[:, 3] - 1)) * half_turn
    shift = np.float32(look.shift) * (2 * u[:, 4:6] - 1)
    linear = np.stack([cosine * mirror, -sine, sine * mirror, cosine], 1) * zoom[:, None]
    return np.concatenate([linear, shift], 1)


def _palettes(u: Float32[np.ndarray, "b 13"]) -> tuple[Float32[np.ndarray, "b 2 1 1 3"], ...]:
    """Return two colours of the fractal and two of the background; one pair, drawn at random, is dark."""
    chroma = np.float32(0.5) * (u[:, :12].reshape(-1, 4, 3) - np.float32(0.5))
    level = np.array([0.25, 0.25, 0.75, 0.75], np.float32)
    level = np.where(u[:, 12:] < 0.5, level, 1 - level)
    colours = np.clip(level[:, :, None] + chroma, 0, 1)[:, :, None, None]
    return colours[:, :2], colours[:, 2:]


def _paint(
    counts: Float32[np.ndarray, "b size size"],
    tints: Float32[np.ndarray, "b size size"],
    u: Float32[np.ndarray, "b 15"],
    grain: UInt8[np.ndarray, "b size size"],
    look: Look,
) -> UInt8[np.ndarray, "b size size 3"]:
    """Draw the fractal over a background of two colours and noise; c points cover a pixel by c / (c + 1)."""
    fractal, background = _palettes(u[:, :13])
    cover = (counts / (counts + 1))[..., None]
    ramp = np.linspace(-0.5, 0.5, look.size, dtype=np.float32)
    slope = 2 * u[:, 13:15, None, None] - 1
    blend = ((slope[:, 0] * ramp[:, None] + slope[:, 1] * ramp) / 2 + np.float32(0.5))[..., None]
    noise = np.float32(look.noise / 255) * (grain.astype(np.float32) - np.float32(127.5))
    below = background[:, 0] + (background[:, 1] - background[:, 0]) * blend + noise[..., None]
    above = fractal[:, 0] + (fractal[:, 1] - fractal[:, 0]) * tints[..., None]
    return np.clip((below + (above - below) * cover) * 255 + np.float32(0.5), 0, 255).astype(np.uint8)


def render(
    seed: int, split: int, categories: Int[np.ndarray, " b"], instances: Int[np.ndarray, " b"], look: Look
) -> UInt8[np.ndarray, "b size size 3"]:
    """Draw one RGB image for each pair of a category and one of its instances.

    Args:
        seed: of the data set.
        split: number of the split; two splits have no instance in common.
        categories: of the images.
        instances: number of each image in its category.
        look: variation and style.
    """
    steps = _BURN_IN + max(1, math.ceil(look.points * look.size**2 / _WALKERS))
    scalars, choices, grain = 96, steps * _WALKERS // 8, -(-(look.size**2) // 8)
    words = np.stack(
        [
            _words(scalars + choices + grain, seed, _INSTANCE, split, int(category), int(instance))
            for category, instance in zip(categories, instances, strict=True)
        ]
    )
    u = _uniform(words[:, :scalars])
    systems = [system(seed, int(category)) for category in categories]
    maps = np.stack([s.maps for s in systems])
    maps = _contracted(maps * (1 + np.float32(look.perturbation) * (2 * u[:, :48].reshape(-1, MAX_MAPS, 6) - 1)))
    tables = np.stack([s.table for s in systems])
    picks = _bytes(words[:, scalars : scalars + choices].reshape(-1)).reshape(-1, steps, _WALKERS).transpose(1, 0, 2)
    x, y, tint = _chaos_game(maps, tables, picks, u[:, 48:56])
    counts, tints = _histograms(x, y, tint, _views(u[:, 56:62], look), look.size)
    pixels = look.size**2
    noise = _bytes(words[:, scalars + choices :].reshape(-1)).reshape(len(maps), -1)[:, :pixels]
    return _paint(counts, tints, u[:, 62:77], noise.reshape(-1, look.size, look.size), look)


class DrawingJob(NamedTuple):
    """Consecutive images of a split; image i is instance i // categories of category i % categories."""

    seed: int
    split: int
    categories: int
    start: int
    stop: int
    look: Look

    def __call__(self) -> list[bytes]:
        """Draw and encode the images."""
        instances, labels = np.divmod(np.arange(self.start, self.stop), self.categories)
        return encode(render(self.seed, self.split, labels, instances, self.look))
