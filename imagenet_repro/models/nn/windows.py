"""Windows that move over maps, and their taps: the positions inside a window. NHWC."""

import dataclasses

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]  # zeros before and after, down and across


@dataclasses.dataclass(frozen=True)
class Windows:
    """The positions of a window that moves over the maps of an array."""

    shape: tuple[int, ...]  # of the array: batch, height, width, channels
    size: Pair
    stride: Pair
    padding: Pads
    groups: int = 1  # of channels, for a convolution

    @property
    def positions(self) -> Pair:
        """The number of positions, down and across."""
        ends = zip(self.shape[1:3], self.size, self.stride, self.padding, strict=True)
        down, across = ((n + sum(p) - k) // s + 1 for n, k, s, p in ends)
        return down, across


def split_into_taps(x: Array, windows: Windows, fill: float) -> dict[Pair, Array]:
    """Return for each tap of the window its inputs in `x` as the window moves: [b, oh, ow, c]."""
    pads = ((0, 0, 0), *((*p, 0) for p in windows.padding), (0, 0, 0))
    x = lax.pad(x, jnp.array(fill, x.dtype), pads)
    (down, across), (sh, sw), (b, _, _, c) = windows.positions, windows.stride, x.shape
    taps = {}
    for i in range(windows.size[0]):
        for j in range(windows.size[1]):
            end = (b, i + (down - 1) * sh + 1, j + (across - 1) * sw + 1, c)
            taps[i, j] = lax.slice(x, (0, i, j, 0), end, (1, sh, sw, 1))
    return taps


def add_taps(taps: dict[Pair, Array], windows: Windows) -> Array:
    """Return the transpose of `split_into_taps`: each tap's values, summed at the positions that they came from.

    Positions with the same remainder modulo the stride are summed densely, and the remainders are interleaved at the
    end; scattering with holes would visit every position for every tap.
    """
    (sh, sw), (height, width) = windows.stride, windows.size
    last_row, last_column = (height - 1) // sh, (width - 1) // sw  # in strides from the window's corner
    phases: dict[Pair, Array] = {}
    for (i, j), tap in taps.items():
        (row, i_phase), (column, j_phase) = divmod(i, sh), divmod(j, sw)
        share = jnp.pad(tap, ((0, 0), (row, last_row - row), (column, last_column - column), (0, 0)))
        phases[i_phase, j_phase] = phases[i_phase, j_phase] + share if (i_phase, j_phase) in phases else share
    zeros = jnp.zeros_like(phases[0, 0])
    lines = [jnp.stack([phases.get((i, j), zeros) for j in range(sw)], 3) for i in range(sh)]
    b, rows, columns, c = zeros.shape
    x = jnp.stack(lines, 2).reshape(b, rows * sh, columns * sw, c)
    ends = zip(windows.shape[1:3], windows.padding, x.shape[1:3], strict=True)
    crop = [(-low, n + low - length, 0) for n, (low, _), length in ends]
    return lax.pad(x, jnp.array(0, x.dtype), ((0, 0, 0), *crop, (0, 0, 0)))
