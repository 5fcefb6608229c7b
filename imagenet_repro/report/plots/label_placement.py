"""Placement of names beside the points of a figure, so that they cover neither each other nor points nor lines."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from imagenet_repro.report.plots import charts
from imagenet_repro.report.text import clipped_name

SIZE = 13  # height of a name in pixels, the unit of all lengths here
LETTER = 7.2  # pixels, the mean width of a letter in the wider of the fonts that draw it
NAME_LIMIT = 230  # pixels
FARTHEST = 38  # the distance beyond which a name would not be read as that of its point, and is left out
RINGS = (6, 11, 18, 27, 38, 50, 64, 80)  # the possible distances of a name from its point
LED_FROM = 11  # the distance from which a line connects the name with its point
MARGIN = 1.0  # around a name
MARKER = 4.0  # half the height of a point's marker
SWEEPS = 10  # over all names; positions mostly settle after three
# Right, left, above, below, and the corners between, in the order of preference.
SIDES = np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)], np.float64)
# Costs: the area of a name outside the panel, on other names, and on points and lines, in squares of its height;
# a connecting line that crosses a name or another line; one ring further out.
OUTSIDE, ON_NAMES, ON_OTHERS, CROSSED, FURTHER = 100.0, 60.0, 30.0, 6.0, 0.4
SAMPLES = np.linspace(0.15, 0.95, 9)  # positions along a connecting line that are tested for crossings


@dataclasses.dataclass(frozen=True)
class Frame:
    """The axes of a panel as the files draw it.

    Attributes:
      size: width and height in pixels.
      x, y: both ends of either axis.
      is_log: whether the horizontal axis is logarithmic.
    """

    size: tuple[int, int]
    x: tuple[float, float]
    y: tuple[float, float]
    is_log: bool = False

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a point in pixels from the upper left corner."""
        left, right, x = map(math.log10, (*self.x, x)) if self.is_log else (*self.x, x)
        low, high = self.y
        return self.size[0] * (x - left) / (right - left), self.size[1] * (high - y) / (high - low)


def place(
    points: Float[np.ndarray, "n 2"],
    sizes: Float[np.ndarray, "n 2"],
    obstacles: Float[np.ndarray, "m 4"],
    frame: Float[np.ndarray, " 4"],
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
    """Return the best centres of the names, and the distance of each name from its point.

    Each name has 64 candidate positions, in eight directions at eight distances. In turn, each name moves to the
    cheapest one given all others, until none moves. This is the coordinate descent of Christensen, Marks and Shieber
    (1995, sec. 3.3), started by adding the names one by one. All lengths are in pixels.

    Args:
      points: (x, y) of each point.
      sizes: width and height of each name.
      obstacles: boxes (left, bottom, right, top) that should stay free, including those of the points.
      frame: the box in which the names should lie.
    """
    choices = np.stack([_choices(point, size) for point, size in zip(points, sizes, strict=True)])  # [n, k, 2]
    distances = np.repeat(np.array(RINGS, np.float64), len(SIDES))
    boxes = np.concatenate([choices - sizes[:, None] / 2 - MARGIN, choices + sizes[:, None] / 2 + MARGIN], -1)
    leads = np.stack(np.broadcast_arrays(points[:, None], choices), -2)  # [n, k, 2, 2]
    leads[:, distances < LED_FROM] = np.nan
    square = sizes[:, 1:] ** 2
    fixed = OUTSIDE * (_area(boxes) - _overlap(boxes, frame[None])[..., 0]) / square
    fixed += ON_OTHERS * _overlap(boxes, obstacles).sum(-1) / square + _preference_costs()
    chosen = np.full(len(points), -1)
    by_other = np.zeros((len(points), *fixed.shape))  # [other, n, k]: the costs of each candidate beside that name
    for _ in range(SWEEPS):
        before = chosen.copy()
        for name in range(len(points)):
            best = np.argmin(fixed[name] + by_other[:, name].sum(0))
            if best != chosen[name]:
                chosen[name] = best
                by_other[name] = _costs_beside(boxes, leads, square, boxes[name, best], leads[name, best])
                by_other[name, name] = 0
        if np.array_equal(before, chosen):
            break
    return choices[np.arange(len(points)), chosen], distances[chosen]


def _costs_beside(
    boxes: Float[np.ndarray, "n k 4"],
    leads: Float[np.ndarray, "n k 2 2"],
    square: Float[np.ndarray, "n 1"],
    other_box: Float[np.ndarray, " 4"],
    other_lead: Float[np.ndarray, "2 2"],
) -> Float[np.ndarray, "n k"]:
    """Return the cost of every candidate position of every name beside one name that has its position."""
    crossed = _passes_through(leads, other_box) + _passes_through(other_lead, boxes) + _crosses(leads, other_lead)
    return ON_NAMES * _overlap(boxes, other_box[None])[..., 0] / square + CROSSED * crossed


def offsets(
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]],
    frame: Frame,
) -> list[dict[str, float | None]]:
    """Return the offset of each name's centre from its point, in pixels, as the fields `dx` and `dy` of its row.

    The width of a name is estimated from its length. A name that only fits far away is left out: its `dx` is null.

    Args:
      names: the name of each point.
      points: (x, y) of each point, in the units of the axes.
      lines: both ends of vertical or horizontal segments that names should not cover, such as error bars.
      frame: the axes.
    """
    places = np.array([frame.place(*point) for point in points])
    ends = np.array([[frame.place(*end) for end in line] for line in lines]).reshape(-1, 2, 2)
    sizes = np.array([(LETTER * len(clipped_name(name)) + 4, SIZE) for name in names], np.float64)
    obstacles = np.concatenate([
        np.concatenate([places - MARKER, places + MARKER], 1),
        np.concatenate([ends.min(1) - 1, ends.max(1) + 1], 1),
    ])  # fmt: skip
    centres, distances = place(places, sizes, obstacles, np.array([0.0, 0.0, *frame.size]))
    moved = np.round(centres - places, 1).tolist()
    return [
        {"dx": dx, "dy": dy} if distance <= FARTHEST else {"dx": None, "dy": None}
        for (dx, dy), distance in zip(moved, distances.tolist(), strict=True)
    ]


def draw_names(dataset: str, place: Mapping[str, Any]) -> Any:
    """Return altair's layer of names.

    Args:
      dataset: rows with the fields `system`, `label`, `dx`, `dy`, and `front`, which is true for bold names.
      place: altair's encodings `x` and `y` of the points.
    """
    import altair

    shown = charts.chart_on(dataset).transform_filter("datum.dx !== null")
    return altair.LayerChart(
        layer=[
            shown.transform_filter("datum.front" if is_bold else "!datum.front")
            .mark_text(
                fontWeight="bold" if is_bold else "normal", dx=altair.expr("datum.dx"), dy=altair.expr("datum.dy"),
                baseline="middle", limit=NAME_LIMIT,
            )
            .encode(**place, text="label:N", **charts.opacity("opacity"))
            for is_bold in (True, False)
        ]
    )  # fmt: skip


def _choices(point: Float[np.ndarray, " 2"], size: Float[np.ndarray, " 2"]) -> Float[np.ndarray, "k 2"]:
    """Return candidate centres of a name, whose nearest side or corner lies on a ring around the point."""
    unit = SIDES / np.linalg.norm(SIDES, axis=1, keepdims=True)
    rings = np.array(RINGS, np.float64)[:, None, None]
    return (point + rings * unit + SIDES * size / 2).reshape(-1, 2)


def _preference_costs() -> Float[np.ndarray, " k"]:
    sides = 0.05 * np.arange(len(SIDES))
    return (FURTHER * np.arange(len(RINGS))[:, None] + sides).reshape(-1)


def _area(boxes: Float[np.ndarray, "*s 4"]) -> Float[np.ndarray, "*s"]:
    return np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)


def _overlap(boxes: Float[np.ndarray, "*s 4"], others: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "*s m"]:
    """Return the area that each box shares with each of the others."""
    low = np.maximum(boxes[..., None, :2], others[:, :2])
    high = np.minimum(boxes[..., None, 2:], others[:, 2:])
    return np.prod(np.clip(high - low, 0, None), axis=-1)


def _passes_through(leads: Float[np.ndarray, "*l 2 2"], boxes: Float[np.ndarray, "*b 4"]) -> Int[np.ndarray, "..."]:
    """Return 1 where a connecting line passes through a box; both broadcast, and a line of NaN passes through none."""
    start, end = leads[..., :1, :], leads[..., 1:, :]
    along = start + SAMPLES[:, None] * (end - start)
    inside = (along > boxes[..., None, :2]) & (along < boxes[..., None, 2:])
    return np.any(np.all(inside, axis=-1), axis=-1).astype(int)


def _crosses(ones: Float[np.ndarray, "*a 2 2"], others: Float[np.ndarray, "*b 2 2"]) -> Int[np.ndarray, "..."]:
    """Return 1 where two connecting lines cross; both broadcast, and a line of NaN crosses none."""
    return (_separates(ones, others) & _separates(others, ones)).astype(int)


def _separates(line: Float[np.ndarray, "*a 2 2"], other: Float[np.ndarray, "*b 2 2"]) -> Bool[np.ndarray, "..."]:
    """Return whether the ends of the other line lie on different sides of the first."""
    along, to_ends = line[..., 1, :] - line[..., 0, :], other - line[..., :1, :]
    sides = along[..., None, 0] * to_ends[..., 1] - along[..., None, 1] * to_ends[..., 0]
    return np.prod(sides, axis=-1) < 0
