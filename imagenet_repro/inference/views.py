"""Views of an image, cut on the device from what the host decoded once (see `data.crops`).

All functions work on batches of uint8 pixels and return views of one size, so a network is compiled once for any
number of views. If half a pixel is left over at a centre, it goes to the even side, as on the host.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int32, UInt8

from imagenet_repro.data.crops import CANVAS_ASPECT, CANVAS_HEADER

Squares = Literal["whole", "center", "three"]
Position = Literal["center", "corners", "grid5", "square"]

CORNERS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
GRID = tuple((i / 4, j / 4) for i in range(5) for j in range(5))
PLACES = {"center": ((0.5, 0.5),), "corners": CORNERS, "grid5": GRID}  # shares of the free space down and across


class Canvas(NamedTuple):
    """A batch at one scale: the shorter side goes down, so an image that is higher than wide is transposed."""

    pixels: UInt8[Array, "b s l 3"]
    longer: Int32[Array, " b"]  # pixels of the longer side; the rest of `pixels` is empty
    transposed: Bool[Array, " b"]


def read_canvases(rows: UInt8[Array, "b n"], scales: Sequence[int]) -> list[Canvas]:
    """Return the canvases of `crops.Canvases`, one for each scale."""
    batch_canvases, start = [], 0
    for scale in scales:
        transposed, low, high = (rows[:, start + i].astype(jnp.int32) for i in range(CANVAS_HEADER))
        start += CANVAS_HEADER
        end = start + 3 * CANVAS_ASPECT * scale**2
        pixels = rows[:, start:end].reshape(-1, scale, CANVAS_ASPECT * scale, 3)
        batch_canvases.append(Canvas(pixels, low + 256 * high, transposed > 0))
        start = end
    return batch_canvases


def read_copies(rows: UInt8[Array, "b n"], shapes: Sequence[tuple[int, int]]) -> list[UInt8[Array, "b _h _w 3"]]:
    """Return the images of `crops.Copies`, one for each shape."""
    images, start = [], 0
    for height, width in shapes:
        end = start + 3 * height * width
        images.append(rows[:, start:end].reshape(-1, height, width, 3))
        start = end
    return images


def cut_windows(
    canvas: Canvas, size: int, squares: Squares, positions: Sequence[Position]
) -> list[UInt8[Array, "b {size} {size} 3"]]:
    """Return every window of `size` pixels at the named positions of the named regions of an image.

    Args:
      canvas: the image at one scale.
      size: side of a window in pixels, at most the scale.
      squares: "whole": windows anywhere in the image. Otherwise windows in squares of the shorter side: "center" is
        the central square, "three" adds the squares at both ends of the longer side.
      positions: "center"; "corners", all four; "grid5", 5 x 5 at equal distances; "square", the complete square
        resized (bilinear, antialiased), which needs squares.
    """
    regions = [canvas] if squares == "whole" else [_square(canvas, share) for share in SQUARES[squares]]
    windows = []
    for region in regions:
        for position in positions:
            windows += [_squeezed(region, size)] if position == "square" else _windows(region, size, PLACES[position])
    return windows


SQUARES = {"center": (0.5,), "three": (0.0, 0.5, 1.0)}  # shares of the free space along the longer side


def _square(canvas: Canvas, share: float) -> Canvas:
    scale = canvas.pixels.shape[1]
    pixels = _slices(canvas.pixels, jnp.zeros_like(canvas.longer), _place(canvas.longer - scale, share), scale)
    return Canvas(pixels, jnp.full_like(canvas.longer, scale), canvas.transposed)


def _windows(canvas: Canvas, size: int, places: Sequence[tuple[float, float]]) -> list[Array]:
    room = canvas.pixels.shape[1] - size
    windows = []
    for down, across in places:
        # In a transposed image, down is along the longer side.
        short = _place(jnp.full_like(canvas.longer, room), jnp.where(canvas.transposed, across, down))
        long = _place(canvas.longer - size, jnp.where(canvas.transposed, down, across))
        windows.append(_upright(_slices(canvas.pixels, short, long, size), canvas.transposed))
    return windows


def _squeezed(square: Canvas, size: int) -> Array:
    pixels = square.pixels.astype(jnp.float32)
    resized = jax.image.resize(pixels, (len(pixels), size, size, 3), "bilinear", antialias=True)
    return _upright(jnp.clip(jnp.round(resized), 0, 255).astype(jnp.uint8), square.transposed)


def _place(room: Array, share: float | Array) -> Array:
    """Return the first pixel of a window that may move by `room` pixels."""
    return jnp.round(room * share).astype(jnp.int32)  # to even, as Python's round


def _slices(pixels: Array, down: Array, across: Array, size: int) -> Array:
    return jax.vmap(lambda image, i, j: lax.dynamic_slice(image, (i, j, 0), (size, size, 3)))(pixels, down, across)


def _upright(windows: Array, transposed: Array) -> Array:
    return jnp.where(transposed[:, None, None, None], windows.swapaxes(1, 2), windows)
