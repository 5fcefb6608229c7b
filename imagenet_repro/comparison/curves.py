"""Learning curves of several runs as one picture: training loss, top-1 and top-5 error against images seen."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from imagenet_repro.comparison.drawing import COLOURS, MUTED, STYLE, write

Metrics = Sequence[Mapping[str, Any]]

LINES = ("-", "--", ":")  # beyond seven runs the colours return with the next kind of line
SMOOTHED_OVER = 20  # a point of the smoothed loss is the mean over a twentieth of the run
LABEL_POINTS = 11  # between two names
RUN = "run: "  # marks the lines that get a name; matplotlib hides labels that begin with an underscore


def plot_curves(runs: Mapping[str, Metrics], path: str | Path, *, num_classes: int | None = None) -> list[Path]:
    """Draws the rows of each run's `metrics.jsonl` and returns the two files written: `path` as .png and as .svg.

    Rows of kind "train" give `loss`, rows of kind "eval" `top1_error` and `top5_error` (shares in [0, 1]), both at
    `images` seen. Where a resumed run repeated a step, its last row counts. With `num_classes` the error of chance
    is drawn. Values that are not finite leave a gap. Raises `SaveError` where the files cannot be written.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(12, 4), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1)
        panels = list(figure.subplots(1, 3))
        for (name, rows), style in zip(runs.items(), _styles(), strict=False):
            _draw_loss(panels[0], name, rows, style)
            _draw_error(panels[1], name, rows, "top1_error", style)
            _draw_error(panels[2], name, rows, "top5_error", style)
        limit = max((row["images"] for rows in runs.values() for row in rows if "images" in row), default=0)
        _finish(panels, limit or 1, num_classes)
        figure.canvas.draw()  # settles the layout, which the places of the labels depend on
        for panel in panels:
            _label_lines(panel)
        return write(figure, path, "the learning curves")


def series(rows: Metrics, kind: str, key: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """(images seen, value) of one kind of row in the order of steps; of a repeated step the last row."""
    points = {row["step"]: (row["images"], row.get(key)) for row in rows if row.get("kind") == kind}
    pairs = [points[step] for step in sorted(points)]
    images = np.array([pair[0] for pair in pairs], np.float64)
    values = np.array([math.nan if pair[1] is None else pair[1] for pair in pairs], np.float64)
    return images, np.where(np.isfinite(values), values, np.nan)


def smooth(values: Float[np.ndarray, " n"], width: int) -> Float[np.ndarray, " n"]:
    """Centred moving mean over `width` points that skips NaN; the window shrinks at the ends."""
    known = np.isfinite(values)
    window = np.ones(max(1, width))
    total = np.convolve(np.where(known, values, 0.0), window)
    count = np.convolve(known.astype(np.float64), window)
    start = (len(window) - 1) // 2
    total, count = (array[start : start + len(values)] for array in (total, count))
    return np.where(known, total / np.maximum(count, 1), np.nan)


def _styles() -> Iterator[dict[str, str]]:
    return ({"color": colour, "linestyle": line} for line in itertools.cycle(LINES) for colour in COLOURS)


def _draw_loss(panel: Axes, name: str, rows: Metrics, style: Mapping[str, str]) -> None:
    images, loss = series(rows, "train", "loss")
    if np.isfinite(loss).any():
        panel.plot(images, loss, color=style["color"], alpha=0.2, linewidth=0.8)
        panel.plot(images, smooth(loss, len(loss) // SMOOTHED_OVER), linewidth=1.8, label=RUN + name, **style)


def _draw_error(panel: Axes, name: str, rows: Metrics, key: str, style: Mapping[str, str]) -> None:
    images, error = series(rows, "eval", key)
    if np.isfinite(error).any():
        dots = {"marker": "o", "markersize": 4, "clip_on": False, "zorder": 3}
        panel.plot(images, 100 * error, linewidth=1.8, label=RUN + name, **dots, **style)


def _finish(panels: Sequence[Axes], limit: int | float, num_classes: int | None) -> None:
    titles = ("Training loss", "Top-1 error, %", "Top-5 error, %")
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, loc="left", fontweight="bold", fontsize=11)
        panel.set_xlabel("images seen in training")
        panel.set_xlim(0, limit)
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.xaxis.set_major_formatter(EngFormatter(sep=" "))
        panel.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        panel.set_axisbelow(True)
        if not panel.lines:
            panel.text(0.5, 0.5, "none recorded", transform=panel.transAxes, ha="center", color=MUTED)
    for panel, guesses in zip(panels[1:], (1, 5), strict=True):
        panel.set_ylim(0, 100)
        if num_classes is not None:
            _draw_chance(panel, 100 * max(0.0, 1 - guesses / num_classes))


def _draw_chance(panel: Axes, error: float) -> None:
    panel.axhline(error, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    panel.annotate("chance", (0, error), (4, -3), textcoords="offset points", color=MUTED, fontsize=8, va="top")


def _label_lines(panel: Axes) -> None:
    """Writes each run's name to the right of the panel at the height of its last point, names kept apart."""
    ends = []
    for line in panel.lines:
        x, y = (np.asarray(data, np.float64) for data in line.get_data())
        known = np.flatnonzero(np.isfinite(y))
        if line.get_label().startswith(RUN) and known.size:
            ends.append((line, x[known[-1]], y[known[-1]]))
    if not ends:
        return
    # heights as shares of the panel's height
    heights = np.array([panel.transAxes.inverted().transform(panel.transData.transform(end[1:]))[1] for end in ends])
    gap = LABEL_POINTS * panel.figure.dpi / 72 / panel.bbox.height
    for (line, x, y), place in zip(ends, spread(heights, gap), strict=True):
        early = {"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.6, "alpha": 0.6, "shrinkB": 4}
        panel.annotate(
            line.get_label().removeprefix(RUN), xy=(x, y), xytext=(1.03, place), textcoords="axes fraction",
            color=line.get_color(), fontsize=9, va="center", annotation_clip=False, parse_math=False,
            arrowprops=early if x < panel.get_xlim()[1] * 0.98 else None,
        )  # fmt: skip


def spread(heights: Float[np.ndarray, " n"], gap: float) -> Float[np.ndarray, " n"]:
    """Places in [0, 1] as near to the heights as their order and a distance of `gap` between neighbours allow.

    Isotonic regression of the heights less their share of the gaps is the least-squares solution; clipping it is
    the solution within bounds. Where the gaps do not fit, they shrink.
    """
    from scipy.optimize import isotonic_regression

    gap = min(gap, 1 / max(1, len(heights) - 1))
    order = np.argsort(heights, kind="stable")
    offsets = gap * np.arange(len(heights))
    places = np.empty(len(heights))
    places[order] = np.clip(isotonic_regression(heights[order] - offsets).x, 0, 1 - offsets[-1]) + offsets
    return places
