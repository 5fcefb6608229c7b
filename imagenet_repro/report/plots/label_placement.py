"""Names beside the points of a picture, clear of each other, of the points and of the lines."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.text import Text

from imagenet_repro.report.plots.style import MUTED
from imagenet_repro.report.sections.class_gains import clipped

SIZE = 9  # of the letters, in points, as are all lengths here
RINGS = (6, 11, 18, 27, 38, 50, 64, 80)  # how far from its point a name may be
LED_FROM = 11  # the ring from which a line leads from the name to its point
MARGIN = 1.0  # around a name
MARKER = 4.0  # half the height of a point
SWEEPS = 10  # over all names; they mostly settle after three
# Right, left, above, below, and between: in the order in which they are liked best.
SIDES = np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)], np.float64)
# What costs: a name's area outside of the panel, on other names, on points and lines, in squares as high as the name;
# a leading line across a name or another line; a ring further out.
OUTSIDE, ON_NAMES, ON_OTHERS, CROSSED, FURTHER = 100.0, 60.0, 30.0, 6.0, 0.4
SAMPLES = np.linspace(0.15, 0.95, 9)  # of a leading line, by which crossings are found


def place(
    points: Float[np.ndarray, "n 2"],
    sizes: Float[np.ndarray, "n 2"],
    obstacles: Float[np.ndarray, "m 4"],
    frame: Float[np.ndarray, " 4"],
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
    """Where the centres of the names should be, and how far each is from its point.

    Each name has 64 places, in eight directions at eight distances. One after the other takes the cheapest, given
    the others', until none moves: coordinate descent, as of Christensen, Marks and Shieber (1995, sec. 3.3), from
    names that come one by one. All lengths are in one unit, points of typography.

    Args:
      points: (x, y).
      sizes: width and height of each name.
      obstacles: boxes (left, bottom, right, top) that should stay free, those of the points among them.
      frame: the box in which the names should lie.
    """
    choices = np.stack([_choices(point, size) for point, size in zip(points, sizes, strict=True)])  # [n, k, 2]
    distances = np.repeat(np.array(RINGS, np.float64), len(SIDES))
    boxes = np.concatenate([choices - sizes[:, None] / 2 - MARGIN, choices + sizes[:, None] / 2 + MARGIN], -1)
    leads = np.stack(np.broadcast_arrays(points[:, None], choices), -2)  # [n, k, 2, 2]
    leads[:, distances < LED_FROM] = np.nan
    square = sizes[:, 1:] ** 2
    fixed = OUTSIDE * (_area(boxes) - _overlap(boxes, frame[None])[..., 0]) / square
    fixed += ON_OTHERS * _overlap(boxes, obstacles).sum(-1) / square + _dislike()
    chosen = np.full(len(points), -1)
    for _ in range(SWEEPS):
        before = chosen.copy()
        for name in range(len(points)):
            others = np.flatnonzero((chosen >= 0) & (np.arange(len(points)) != name))
            boxes_there, leads_there = boxes[others, chosen[others]], leads[others, chosen[others]]
            on_names = _overlap(boxes[name], boxes_there).sum(-1) / square[name]
            crossed = _through(leads[name][:, None], boxes_there) + _through(leads_there, boxes[name][:, None])
            crossed = crossed.sum(-1) + _across(leads[name][:, None], leads_there).sum(-1)
            chosen[name] = np.argmin(fixed[name] + ON_NAMES * on_names + CROSSED * crossed)
        if np.array_equal(before, chosen):
            break
    return choices[np.arange(len(points)), chosen], distances[chosen]


def write_names(
    panel: Axes,
    names: Sequence[str],
    points: Float[np.ndarray, "n 2"],
    *,
    bold: Bool[np.ndarray, " n"],
    lines: Float[np.ndarray, "m 2 2"],
) -> None:
    """Writes each name beside its point; those far from theirs are led to it by a thin line.

    The panel must have its final limits, and the layout of its figure be settled (`figure.draw_without_rendering()`).

    Args:
      panel: where.
      names: of the points.
      points: (x, y) of each, in the units of the axes.
      bold: which names are.
      lines: both ends of what the names should not lie on: upright or level, such as error bars.
    """
    to_points = 72 / panel.figure.dpi
    texts = [
        panel.annotate(
            clipped(name), point, (0, 0), textcoords="offset points", fontsize=SIZE, ha="center", va="center",
            fontweight="bold" if heavy else "normal", parse_math=False, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4},
        )
        for name, point, heavy in zip(names, points, bold, strict=True)
    ]  # fmt: skip
    places = to_points * panel.transData.transform(points)
    ends = to_points * panel.transData.transform(lines.reshape(-1, 2)).reshape(-1, 2, 2)
    obstacles = np.concatenate([
        np.concatenate([places - MARKER, places + MARKER], 1),
        np.concatenate([ends.min(1) - 1, ends.max(1) + 1], 1),
    ])  # fmt: skip
    sizes = to_points * np.array([Text.get_window_extent(text).size for text in texts])
    centres, distances = place(places, sizes, obstacles, to_points * np.array(panel.bbox.extents))
    for text, offset, distance in zip(texts, centres - places, distances, strict=True):
        text.xyann = tuple(offset)
        text.set_in_layout(False)
        text.arrow_patch.set_visible(distance >= LED_FROM)


def _choices(point: Float[np.ndarray, " 2"], size: Float[np.ndarray, " 2"]) -> Float[np.ndarray, "k 2"]:
    """Centres of a name: its nearest side or corner lies on a ring around the point."""
    unit = SIDES / np.linalg.norm(SIDES, axis=1, keepdims=True)
    rings = np.array(RINGS, np.float64)[:, None, None]
    return (point + rings * unit + SIDES * size / 2).reshape(-1, 2)


def _dislike() -> Float[np.ndarray, " k"]:
    sides = 0.05 * np.arange(len(SIDES))
    return (FURTHER * np.arange(len(RINGS))[:, None] + sides).reshape(-1)


def _area(boxes: Float[np.ndarray, "*s 4"]) -> Float[np.ndarray, "*s"]:
    return np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)


def _overlap(boxes: Float[np.ndarray, "*s 4"], others: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "*s m"]:
    """Area that each box has in common with each of the others."""
    low = np.maximum(boxes[..., None, :2], others[:, :2])
    high = np.minimum(boxes[..., None, 2:], others[:, 2:])
    return np.prod(np.clip(high - low, 0, None), axis=-1)


def _through(leads: Float[np.ndarray, "*l 2 2"], boxes: Float[np.ndarray, "*b 4"]) -> Int[np.ndarray, "..."]:
    """1 where a leading line passes through a box; both broadcast, a line of NaN passes through none."""
    start, end = leads[..., :1, :], leads[..., 1:, :]
    along = start + SAMPLES[:, None] * (end - start)
    inside = (along > boxes[..., None, :2]) & (along < boxes[..., None, 2:])
    return np.any(np.all(inside, axis=-1), axis=-1).astype(int)


def _across(ones: Float[np.ndarray, "*a 2 2"], others: Float[np.ndarray, "*b 2 2"]) -> Int[np.ndarray, "..."]:
    """1 where two leading lines cross; both broadcast, a line of NaN crosses none."""
    return (_parts(ones, others) & _parts(others, ones)).astype(int)


def _parts(line: Float[np.ndarray, "*a 2 2"], other: Float[np.ndarray, "*b 2 2"]) -> Bool[np.ndarray, "..."]:
    """Whether the ends of the other line lie on different sides of the first."""
    along, to_ends = line[..., 1, :] - line[..., 0, :], other - line[..., :1, :]
    sides = along[..., None, 0] * to_ends[..., 1] - along[..., None, 1] * to_ends[..., 0]
    return np.prod(sides, axis=-1) < 0
