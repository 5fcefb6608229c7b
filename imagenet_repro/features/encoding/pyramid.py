"""Spatial pyramids (Lazebnik, Schmid & Ponce 2006): an image has a code for each of several cells."""

import dataclasses
import re
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from imagenet_repro.errors import UserError


@dataclasses.dataclass(frozen=True)
class Pyramid:
    """Cells of one or several divisions of the image.

    Attributes:
      divisions: (rows, columns) of each, such as (1, 1) for the complete image and (3, 1) for three strips.
    """

    divisions: tuple[tuple[int, int], ...] = ((1, 1),)

    @classmethod
    def parse(cls, divisions: Sequence[str]) -> "Pyramid":
        """Return the pyramid of divisions written as "1x1" or "3x1", rows first.

        Raises:
          UserError: there are none, or one has another form.
        """
        matches = [re.fullmatch(r"([1-9][0-9]{0,2})x([1-9][0-9]{0,2})", division) for division in divisions]
        sizes = tuple((int(match[1]), int(match[2])) for match in matches if match)
        if not sizes or len(sizes) < len(divisions):
            raise UserError(f"a pyramid has divisions such as '1x1' and '3x1' (rows x columns), not {divisions}")
        return cls(sizes)

    def members(self, places: Float[np.ndarray, "t 2"]) -> Bool[np.ndarray, "cells t"]:
        """Return which descriptors lie in each cell; cells row by row, division by division.

        Args:
          places: positions (row, column) of the descriptors as shares of the image's sides.
        """
        members = []
        for rows, columns in self.divisions:
            position = np.floor(places * (rows, columns)).astype(int).clip(0, (rows - 1, columns - 1))
            number = position[:, 0] * columns + position[:, 1]
            members += [number == cell for cell in range(rows * columns)]
        return np.stack(members)


@dataclasses.dataclass(frozen=True)
class Layout:
    """An order of descriptors in which those that belong to the same cells are consecutive.

    Such a stretch of descriptors is summed once, however many cells contain it, and the sum of a cell is the sum of
    its stretches.

    Attributes:
      order: indices of the descriptors, [t].
      stretches: (first, end) of each stretch in that order.
      parts: whether a stretch belongs to a cell, [cells, stretches].
    """

    order: Int[np.ndarray, " t"]
    stretches: tuple[tuple[int, int], ...]
    parts: Bool[np.ndarray, "cells s"]

    @property
    def count(self) -> Float[Array, " cells"]:
        """The number of descriptors in each cell."""
        return jnp.asarray(self.parts @ np.array([b - a for a, b in self.stretches], np.float32))

    @property
    def stretch(self) -> Int[np.ndarray, " t"]:
        """The index of each descriptor's stretch."""
        return np.repeat(np.arange(len(self.stretches)), [b - a for a, b in self.stretches])

    def sum_cells(self, sums: list[Float[Array, "n ..."]] | Float[Array, "s n ..."]) -> Float[Array, "n cells ..."]:
        """Return the sum of each cell from the sums of the stretches."""
        zero = jnp.zeros_like(sums[0])
        return jnp.stack(
            [sum((x for x, is_part in zip(sums, part, strict=True) if is_part), zero) for part in self.parts], 1
        )


def layout(members: Bool[np.ndarray, "cells t"]) -> Layout:
    """Return the layout of descriptors from their membership in the cells."""
    patterns, pattern_of = np.unique(members, axis=1, return_inverse=True)
    pattern_of = pattern_of.reshape(-1)
    order = np.argsort(pattern_of, kind="stable")
    ends = np.cumsum(np.bincount(pattern_of, minlength=patterns.shape[1]))
    return Layout(order, tuple(zip((0, *ends[:-1].tolist()), ends.tolist(), strict=True)), patterns)
