"""Reading the pixels of an image at computed positions, counting its levels and looking its levels up.

`BY_INDEX` does this with gathers and scatters, which suit processors and GPUs. `BY_PRODUCT` does it with products of
one-hot matrices, which suit TPUs, where a gather or scatter takes a few cycles for each element. Levels are integers
up to 255 and thus exact in bfloat16, and every sum has one term that is not zero or counts at most 2^24 pixels, so
both give equal results.
"""

import abc
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, Int32, UInt8

Image = UInt8[Array, "h w 3"]
_NIBBLE = 16  # a level is 16 x its high half plus its low half


class Access(abc.ABC):
    """A way to read, count and look up."""

    @abc.abstractmethod
    def neighbours(
        self,
        image: Image,
        row: Int32[Array, "h w"] | None,
        column: Int32[Array, "h w"] | None,
        places: Sequence[int],
    ) -> list[list[Int[Array, "h w 3"]]]:
        """Return the pixels at `row + i` and `column + j` for each i and j in `places`, as lists of rows.

        Positions outside of the image are moved to its border.

        Args:
            image: the pixels.
            row: None: each pixel's own row, and i is 0 alone.
            column: None: each pixel's own column, and j is 0 alone.
            places: consecutive offsets.
        """

    @abc.abstractmethod
    def up_to(self, image: Image) -> Int32[Array, "256 3"]:
        """Return the number of pixels of each channel at or below each level."""

    @abc.abstractmethod
    def look_up(self, image: Image, table: UInt8[Array, "256 3"]) -> Image:
        """Return the image with each level of each channel replaced by its entry."""


class _ByIndex(Access):
    def neighbours(self, image, row, column, places):
        """See `Access`."""
        height, width, _ = image.shape
        flat = image.reshape(-1, 3)
        if row is None:
            rows = [jnp.arange(height)[:, None]]
        else:
            rows = [jnp.clip(row + place, 0, height - 1) for place in places]
        if column is None:
            columns = [jnp.arange(width)[None, :]]
        else:
            columns = [jnp.clip(column + place, 0, width - 1) for place in places]
        return [[flat.at[y * width + x].get(mode="promise_in_bounds") for x in columns] for y in rows]

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
    def neighbours(self, image, row, column, places):
        """See `Access`. A warp along both axes has no cheap product and gathers each neighbourhood at once."""
        if row is not None and column is not None:
            return self._gather(image, row, column, places)
        axis, position = (0, row) if column is None else (1, column)
        assert position is not None
        stacked = jnp.concatenate(_shifted(image, axis, places), axis=-1).astype(jnp.bfloat16)
        cells = jnp.clip(position + places[-1], 0, stacked.shape[axis] - 1)
        chosen = _one_hot(cells, stacked.shape[axis])
        form = "yxk,kxc->yxc" if axis == 0 else "yxk,ykc->yxc"
        pixels = jnp.einsum(form, chosen, stacked, preferred_element_type=jnp.float32).astype(jnp.int32)
        parts = jnp.split(pixels, len(places), axis=-1)
        return [[part] for part in parts] if axis == 0 else [parts]

    def _gather(self, image, row, column, places):
        stacked = jnp.concatenate(
            [part for rows in _shifted(image, 0, places) for part in _shifted(rows, 1, places)], axis=-1
        )
        height, width, channels = stacked.shape
        y = jnp.clip(row + places[-1], 0, height - 1)
        x = jnp.clip(column + places[-1], 0, width - 1)
        pixels = stacked.reshape(-1, channels).at[y * width + x].get(mode="promise_in_bounds")
        parts = jnp.split(pixels, len(places) ** 2, axis=-1)
        return [parts[i : i + len(places)] for i in range(0, len(parts), len(places))]

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


def _is_one_hot(cells: Int32[Array, "..."], count: int) -> Bool[Array, "... {count}"]:
    return cells[..., None] == jnp.arange(count)


def _one_hot(cells: Int32[Array, "..."], count: int) -> Array:
    return _is_one_hot(cells, count).astype(jnp.bfloat16)


def _shifted(image: Array, axis: int, places: Sequence[int]) -> list[Array]:
    """Return, for each place, the image's pixels at positions from -last - first on, moved to the border."""
    first, last = places[0], places[-1]
    widths = [(0, 0)] * image.ndim
    widths[axis] = (last - first, last - first)
    padded = jnp.pad(image, widths, mode="edge")
    count = image.shape[axis] + last - first
    return [lax.slice_in_dim(padded, place - first, place - first + count, axis=axis) for place in places]


BY_INDEX = _ByIndex()
BY_PRODUCT = _ByProduct()
