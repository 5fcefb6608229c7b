"""Spatial pyramids: Lazebnik, Schmid & Ponce 2006. An image is described once in each of several cells."""

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
      divisions: (rows, columns) of each, such as (1, 1) for the whole image and (3, 1) for three strips.
    """

    divisions: tuple[tuple[int, int], ...] = ((1, 1),)

    @classmethod
    def parse(cls, divisions: Sequence[str]) -> "Pyramid":
        """The pyramid of divisions written as "1x1" or "3x1", rows first.

        Raises:
          UserError: there are none, or one is written otherwise.
        """
        found = [re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", division) for division in divisions]
        if not found or not all(found):
            raise UserError(f"a pyramid is of divisions such as '1x1' and '3x1' (rows x columns), not {divisions}")
        return cls(tuple((int(match[1]), int(match[2])) for match in found))

    def members(self, places: Float[np.ndarray, "t 2"]) -> Bool[np.ndarray, "cells t"]:
        """Which descriptors lie in each cell; cells row by row, division by division.

        Args:
          places: of the descriptors, (row, column) as shares of the image's sides.
        """
        members = []
        for rows, columns in self.divisions:
            place = np.floor(places * (rows, columns)).astype(int).clip(0, (rows - 1, columns - 1))
            number = place[:, 0] * columns + place[:, 1]
            members += [number == cell for cell in range(rows * columns)]
        return np.stack(members)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Descriptors in an order in which those that lie in the same cells follow one another.

    What a cell sums up is then the sum of what whole stretches sum up, each of which is summed up once however many
    cells it is part of.

    Attributes:
      order: numbers of the descriptors, [t].
      stretches: (first, end) of each stretch in that order.
      parts: which stretches make up a cell, [cells, stretches].
    """

    order: Int[np.ndarray, " t"]
    stretches: tuple[tuple[int, int], ...]
    parts: Bool[np.ndarray, "cells s"]

    @property
    def count(self) -> Float[Array, " cells"]:
        """How many descriptors lie in each cell."""
        return jnp.asarray(self.parts @ np.array([b - a for a, b in self.stretches], np.float32))

    @property
    def stretch(self) -> Int[np.ndarray, " t"]:
        """In which stretch each descriptor lies."""
        return np.repeat(np.arange(len(self.stretches)), [b - a for a, b in self.stretches])

    def summed(self, sums: list[Float[Array, "n ..."]] | Float[Array, "s n ..."]) -> Float[Array, "n cells ..."]:
        """What each cell sums up, from what each stretch does."""
        zero = jnp.zeros_like(sums[0])
        return jnp.stack([sum((x for x, own in zip(sums, part, strict=True) if own), zero) for part in self.parts], 1)


def layout(members: Bool[np.ndarray, "cells t"]) -> Layout:
    """The layout of descriptors of which it is known in which cells they lie."""
    patterns, which = np.unique(members, axis=1, return_inverse=True)
    which = which.reshape(-1)
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=patterns.shape[1]))
    return Layout(order, tuple(zip((0, *ends[:-1].tolist()), ends.tolist(), strict=True)), patterns)
