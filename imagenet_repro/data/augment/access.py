"""Reading the pixels of an image at computed positions, counting its levels and looking its levels up.

`BY_INDEX` does this with gathers and scatters, which suit processors and GPUs. `BY_PRODUCT` does it with products of
one-hot matrices, which suit TPUs, where a gather or scatter takes a few cycles for each element. Levels are integers
up to 255 and thus exact in bfloat16, and every sum has one term that is not zero or counts at most 2^24 pixels, so
both give equal results.
"""

import abc
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Bool, Float32, Int, Int32, UInt8

Image = UInt8[Array, "h w 3"]
_NIBBLE = 16  # a level is 16 x its high half plus its low half
_TERMS = 3  # numbers in bfloat16 whose sum is a number in single precision
_ROWS = 16  # rows of a rotated image at a time, so that their products fit into a TPU's memory on the chip


class Taps(NamedTuple):
    """The pixels of one axis that an interpolated pixel is a sum of.

    Attributes:
        first: position of the first tap; positions outside of the image are moved to its border.
        weights: of the first tap and of those after it.
    """

    first: Int32[Array, "h w"]
    weights: list[Float32[Array, "h w"]]


class Access(abc.ABC):
    """A way to read, count and look up."""

    def lay_out(self, image: Image) -> Image:
        """Return the image in the layout in which loops and branches pass it on."""
        return image

    @abc.abstractmethod
    def pixels(
        self, image: Image, row: Int32[Array, "h w"] | None, column: Int32[Array, "h w"] | None
    ) -> Int[Array, "h w 3"]:
        """Return the pixels at `row` and `column`, which are moved to the border where they are outside of the image.

        Args:
            image: the pixels.
            row: None: each pixel's own row.
            column: None: each pixel's own column.
        """

    @abc.abstractmethod
    def interpolate(self, image: Image, down: Taps | None, across: Taps | None) -> Float32[Array, "h w 3"]:
        """Return weighted sums of pixels.

        Args:
            image: the pixels.
            down: taps along the rows; None: each pixel's own row.
            across: taps along the columns; None: each pixel's own column.
        """

    @abc.abstractmethod
    def up_to(self, image: Image) -> Int32[Array, "256 3"]:
        """Return the number of pixels of each channel at or below each level."""

    @abc.abstractmethod
    def look_up(self, image: Image, table: UInt8[Array, "256 3"]) -> Image:
        """Return the image with each level of each channel replaced by its entry."""


class _ByIndex(Access):
    def pixels(self, image, row, column):
        """See `Access`."""
        height, width, _ = image.shape
        y = jnp.arange(height)[:, None] if row is None else jnp.clip(row, 0, height - 1)
        x = jnp.arange(width)[None, :] if column is None else jnp.clip(column, 0, width - 1)
        return image.reshape(-1, 3).at[y * width + x].get(mode="promise_in_bounds")

    def interpolate(self, image, down, across):
        """See `Access`."""
        total = jnp.zeros(image.shape)
        for row, v in _taps(down):
            for column, u in _taps(across):
                total += (u * v)[:, :, None] * self.pixels(image, row, column)
        return total

    def up_to(self, image):
        """See `Access`."""
        cells = 3 * image.reshape(-1, 3).astype(jnp.int32) + jnp.arange(3)
        counts = jnp.zeros(256 * 3, jnp.int32).at[cells.reshape(-1)].add(1, mode="promise_in_bounds")
        return jnp.cumsum(counts.reshape(256, 3), axis=0)

    def look_up(self, image, table):
        """See `Access`."""
        cells = 3 * image.astype(jnp.int32) + jnp.arange(3)
        return table.reshape(-1).at[cells].get(mode="promise_in_bounds")


class _ByProduct(Access):
    def lay_out(self, image):
        """See `Access`. The minor axis is the width: a TPU pads it to 128 elements, as it would the three channels."""
        return with_layout_constraint(image, Layout(major_to_minor=(2, 0, 1)))

    def pixels(self, image, row, column):
        """See `Access`."""
        one = jnp.ones(image.shape[:2])
        down, across = (None if first is None else Taps(first, [one]) for first in (row, column))
        if down is not None and across is not None:
            return _interpolate_both(image, down, across, n_terms=1).astype(jnp.int32)
        return self.interpolate(image, down, across).astype(jnp.int32)

    def interpolate(self, image, down, across):
        """See `Access`."""
        if down is not None and across is not None:
            return _interpolate_both(image, down, across)
        if down is not None:
            return _interpolate_one(image, 0, down)
        return image.astype(jnp.float32) if across is None else _interpolate_one(image, 1, across)

    def up_to(self, image):
        """See `Access`."""
        levels = image.reshape(-1, 3).T.astype(jnp.int32)
        high, low = (_one_hot(half, _NIBBLE) for half in (levels // _NIBBLE, levels % _NIBBLE))
        counts = jnp.einsum("cnh,cnl->hlc", high, low, preferred_element_type=jnp.float32)
        return jnp.cumsum(counts.reshape(256, 3).astype(jnp.int32), axis=0)

    def look_up(self, image, table):
        """See `Access`."""
        levels = image.astype(jnp.int32)
        halves = table.reshape(_NIBBLE, _NIBBLE, 3).astype(jnp.bfloat16)
        rows = jnp.einsum("yxcl,hlc->yxch", _one_hot(levels % _NIBBLE, _NIBBLE), halves)
        return jnp.where(_is_one_hot(levels // _NIBBLE, _NIBBLE), rows, 0).sum(-1).astype(jnp.uint8)


def _interpolate_one(image: Image, axis: int, taps: Taps) -> Float32[Array, "h w 3"]:
    """Read all taps with one product, whose other factor has the pixels of all taps at each position of the first."""
    count = len(taps.weights)
    stacked = jnp.concatenate(_shifted(image, axis, count), axis=-1).astype(jnp.bfloat16)
    length = stacked.shape[axis]
    chosen = _one_hot(jnp.clip(taps.first + count - 1, 0, length - 1), length)
    form = "yxk,kxc->cyx" if axis == 0 else "yxk,ykc->cyx"
    pixels = jnp.einsum(form, chosen, stacked, preferred_element_type=jnp.float32)
    parts = pixels.reshape(count, 3, *image.shape[:2])
    total = jnp.zeros((3, *image.shape[:2]))
    for weight, part in zip(taps.weights, parts, strict=True):
        total += weight * part
    return total.transpose(1, 2, 0)


def _interpolate_both(image: Image, down: Taps, across: Taps, n_terms: int = _TERMS) -> Float32[Array, "h w 3"]:
    """Interpolate for each pixel a whole row of the image, by a product with the weights of rows; then in that row.

    The weights of rows are sums of `n_terms` numbers in bfloat16; one suffices for weights of zero and one.
    """
    height, width, _ = image.shape
    repeated = jnp.concatenate([image.transpose(2, 0, 1)] * n_terms, axis=1).astype(jnp.bfloat16)

    def of_row(taps: tuple[Taps, Taps]) -> Float32[Array, "w 3"]:
        down, across = taps
        terms = jnp.concatenate(_bfloat16_terms(_weights(down, height), n_terms))
        rows = jnp.einsum("rx,crk->ckx", terms, repeated, preferred_element_type=jnp.float32)
        return (rows * _weights(across, width)).sum(1).T

    return lax.map(of_row, (down, across), batch_size=_ROWS)


def _taps(taps: Taps | None) -> Iterator[tuple[Array | None, Array]]:
    """Yield the position and weight of each tap; None stands for a pixel's own position."""
    if taps is None:
        yield None, jnp.ones((1, 1))
        return
    for number, weight in enumerate(taps.weights):
        yield taps.first + number, weight


def _weights(taps: Taps, length: int) -> Float32[Array, "{length} w"]:
    """Return the weight of each position for each pixel of a row."""
    total = jnp.zeros((length, len(taps.first)))
    for position, weight in _taps(taps):
        assert position is not None
        total += jnp.where(jnp.arange(length)[:, None] == jnp.clip(position, 0, length - 1), weight, 0)
    return total


def _bfloat16_terms(x: Float32[Array, "..."], count: int) -> list[Array]:
    """Return `count` numbers in bfloat16 whose sum is nearest to `x`."""
    terms = []
    for _ in range(count):
        term = lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
        terms.append(term.astype(jnp.bfloat16))
        x = x - term
    return terms


def _is_one_hot(cells: Int32[Array, "..."], count: int) -> Bool[Array, "... {count}"]:
    return cells[..., None] == jnp.arange(count)


def _one_hot(cells: Int32[Array, "..."], count: int) -> Array:
    return _is_one_hot(cells, count).astype(jnp.bfloat16)


def _shifted(image: Array, axis: int, count: int) -> list[Array]:
    """Return the image's pixels at positions from 1 - count on, from 2 - count on, ... from 0 on, border repeated."""
    more = count - 1
    widths = [(0, 0)] * image.ndim
    widths[axis] = (more, 2 * more)
    padded = jnp.pad(image, widths, mode="edge")
    length = image.shape[axis] + more
    return [lax.slice_in_dim(padded, place, place + length, axis=axis) for place in range(count)]


BY_INDEX = _ByIndex()
BY_PRODUCT = _ByProduct()
