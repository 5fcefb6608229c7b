"""Learning curves: training loss, top-1 and top-5 error of runs or systems against images, operations or seconds."""

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from imagenet_repro.report.plots.style import (
    AS_TEXT,
    GRID,
    MUTED,
    STYLE,
    draw_leads,
    fix_layout,
    new_figure,
    power,
    shorten,
    styles,
    write,
)
from imagenet_repro.report.records import Comparison
from imagenet_repro.report.text import clipped_name
from imagenet_repro.zoo.entries import ENTRIES

Metrics = Sequence[Mapping[str, Any]]
Against = Literal["images", "flops", "seconds"]

SMOOTHED_OVER = 20  # each point of the smoothed loss is the mean over a twentieth of the run
MOST_POINTS = 300  # in all lines of a panel, including the last point of each; more would make the file large
MOST_RAW = 4  # runs up to which the loss is also drawn as it was logged; more pale lines would hide each other
WIDE_APART = 5  # ratio of the ends of two runs, beyond which the axis is logarithmic
MOST_DOTS = 6  # markers on a line; with more evaluations every n-th has one, and the last
CROWDED = 8  # lines, beyond which the figure is taller
LABEL_POINTS = 11  # distance between two names
BESIDE = 1.03  # position of the names, in widths of the panel
LETTER = 0.072  # inches, the mean width of a letter in the names
RUN = "run: "  # marks the lines that get a name; matplotlib ignores labels that begin with an underscore
TITLES = ("Training loss", "Top-1 error, %", "Top-5 error, %")


def plot_curves(runs: Mapping[str, Metrics], path: str | Path, *, num_classes: int | None = None) -> list[Path]:
    """Draw the rows of each run's `metrics.jsonl` against images seen.

    Rows of kind "train" give `loss`; rows of kind "eval" give `top1_error` and `top5_error`, in [0, 1]. Where a
    resumed run repeated a step, the last row counts. Values that are not finite leave a gap.

    Args:
      runs: rows by the run's name.
      path: the path of the figure.
      num_classes: the number of classes, with which the error of random guessing is drawn; None: it is not drawn.

    Returns:
      The two files written: `path` as .png and as .svg.

    Raises:
      SaveError: a file cannot be written.
    """
    axis = _horizontal_axis([[rows] for rows in runs.values()], "images")
    lines = [_Line(name, [rows], style) for (name, rows), style in zip(runs.items(), styles(), strict=False)]
    return _plot(lines, path, axis=axis, num_classes=num_classes)


def plot_systems(comparison: Comparison, path: str | Path, *, against: Against = "images") -> list[Path]:
    """Draw the systems of a comparison as `plot_curves` draws runs; return the .png and the .svg.

    Several seeds of a system are one line, their mean, in a band from the lowest to the highest seed. The mean is at
    equal progress, the share of the budget spent, at which each seed has its own amount of images, operations and
    seconds. A run that has not ended is a line of its own, whose name says so.

    The training loss of support vector machines is a sum of hinge losses over classes. It cannot be compared with the
    cross-entropy of networks, so it is left out if there are networks.

    Args:
      comparison: the systems.
      path: the path of the figure.
      against: the horizontal axis: images seen, floating-point operations or seconds of training.

    Raises:
      SaveError: a file cannot be written.
    """
    named = [(system.name, system.network, [run.rows for run in system.runs]) for system in comparison.systems]
    named += [(f"{run.name}, seed {run.seed} ({run.state})", run.network, [run.rows]) for run in comparison.running]
    feature_systems = {entry.system for entry in ENTRIES if entry.system}
    has_both_losses = len({network in feature_systems for _, network, _ in named}) > 1
    lines = [
        _Line(name, rows, style, has_loss=not (has_both_losses and network in feature_systems))
        for (name, network, rows), style in zip(named, styles(), strict=False)
    ]
    axis = _horizontal_axis([line.runs for line in lines], against)
    with rc_context(AS_TEXT):
        return _plot(lines, path, axis=axis, num_classes=len(comparison.class_names) or None)


# --- values -----------------------------------------------------------------------------------------------------


def series(
    rows: Metrics, kind: str, key: str, against: str = "images"
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return the amounts spent and the values of one kind of row, in the order of steps.

    The last row of a repeated step counts. Rows that lack the amount `against` are left out. A value that is missing
    or not finite becomes NaN.
    """
    points = {row["step"]: row for row in rows if row.get("kind") == kind and row.get(against) is not None}
    pairs = [(points[step][against], points[step].get(key)) for step in sorted(points)]
    spent = np.array([pair[0] for pair in pairs], np.float64)
    values = np.array([math.nan if pair[1] is None else pair[1] for pair in pairs], np.float64)
    return spent, np.where(np.isfinite(values), values, np.nan)


@dataclasses.dataclass(frozen=True)
class Curve:
    """Several seeds as one line.

    Attributes:
      x: amount spent.
      y: mean over seeds.
      low, high: lowest and highest of the seeds; both equal `y` if there is one seed.
      seeds: number of seeds with a finite value.
    """

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    seeds: int


def curve(runs: Sequence[Metrics], kind: str, key: str, against: str = "images", *, most: int = MOST_POINTS) -> Curve:
    """Return the mean over runs and their range at equal shares of the budget (`progress`), those of the first run.

    The loss is smoothed in each run first. If there are more than `most` points, `most` of them are taken evenly. A
    run without a finite value is left out; where a run's value is missing there is a gap.
    """
    every = (_read_values(rows, kind, (key, against), most) for rows in runs)
    values = [one for one in every if np.isfinite(one.value).any()]
    if not values:
        empty = np.empty(0)
        return Curve(empty, empty, empty, empty, 0)
    if len(values) == 1:
        return Curve(values[0].spent, values[0].value, values[0].value, values[0].value, 1)
    progress = values[0].progress
    x = np.mean([np.interp(progress, one.progress, one.spent) for one in values], axis=0)
    y = np.stack([np.interp(progress, one.progress, one.value) for one in values])
    return Curve(x, y.mean(axis=0), y.min(axis=0), y.max(axis=0), len(values))


@dataclasses.dataclass(frozen=True)
class _RunValues:
    """The values of one run along its progress."""

    progress: Float[np.ndarray, " n"]
    spent: Float[np.ndarray, " n"]
    value: Float[np.ndarray, " n"]


def _read_values(rows: Metrics, kind: str, keys: tuple[str, str], most: int) -> _RunValues:
    spent, value = series(rows, kind, *keys)
    _, progress = series(rows, kind, "progress", keys[1])
    if kind == "train" and len(value):
        value = smooth(value, len(value) // SMOOTHED_OVER)
    chosen = np.unique(np.linspace(0, len(value) - 1, min(len(value), most)).round().astype(int))
    return _RunValues(progress[chosen], spent[chosen], value[chosen])


def smooth(values: Float[np.ndarray, " n"], width: int) -> Float[np.ndarray, " n"]:
    """Return the centred moving mean over `width` points, which skips NaN; the window shrinks at the ends."""
    known = np.isfinite(values)
    window = np.ones(max(1, width))
    total = np.convolve(np.where(known, values, 0.0), window)
    count = np.convolve(known.astype(np.float64), window)
    start = (len(window) - 1) // 2
    total, count = (array[start : start + len(values)] for array in (total, count))
    return np.where(known, total / np.maximum(count, 1), np.nan)


# --- drawing ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Line:
    """One line of each panel: its name, the runs that it averages, its style, and whether its loss is drawn."""

    name: str
    runs: Sequence[Metrics]
    style: Mapping[str, str]
    has_loss: bool = True


@dataclasses.dataclass(frozen=True)
class _HorizontalAxis:
    """The horizontal axis of all panels; its numbers are amounts divided by `unit`."""

    key: str
    label: str
    unit: float
    start: float
    end: float
    is_log: bool


def _horizontal_axis(systems: Sequence[Sequence[Metrics]], against: Against) -> _HorizontalAxis:
    rows = [[row[against] for row in rows if row.get(against)] for runs in systems for rows in runs]
    ends = [max(amounts) for amounts in rows if amounts]
    largest = max(ends, default=1)
    is_log = against != "images" and bool(ends) and largest > WIDE_APART * min(ends)
    label, unit = "images seen in training", 1.0
    if against == "flops":
        unit, written = power(largest)
        label = f"floating-point operations{written}"
    if against == "seconds":
        unit, label = _time_unit(largest)
    start = min(_first_amount(runs, against) for runs in systems) / unit if is_log else 0.0
    return _HorizontalAxis(against, label, unit, start, largest / unit, is_log)


def _first_amount(runs: Sequence[Metrics], against: str) -> float:
    """Return the amount at a system's first evaluation, or at its first logged loss if there is no evaluation."""
    for kind in ("eval", "train"):
        amounts = [row[against] for rows in runs for row in rows if row.get("kind") == kind and row.get(against)]
        if amounts:
            return min(amounts)
    return math.inf


def _time_unit(largest: float) -> tuple[float, str]:
    units = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
    unit, name = next((unit for unit in units if largest >= 3 * unit[0]), units[-1])
    return unit, f"{name} of training"


def _plot(lines: Sequence[_Line], path: str | Path, *, axis: _HorizontalAxis, num_classes: int | None) -> list[Path]:
    longest = max((len(clipped_name(line.name)) for line in lines), default=0)
    width = 9 + 3 * max(1.0, LETTER * longest)
    with rc_context(STYLE):
        figure = new_figure((width, 4 if len(lines) <= CROWDED else 5.2), w_pad=0.1)
        panels = list(figure.subplots(1, 3))
        for line in lines:
            if line.has_loss:
                _draw_line(panels[0], line, axis, ("train", "loss"), most=MOST_POINTS // len(lines))
            if line.has_loss and len(line.runs) == 1 and len(lines) <= MOST_RAW:
                _draw_raw(panels[0], line, axis)
            for panel, key in zip(panels[1:], ("top1_error", "top5_error"), strict=True):
                _draw_line(panel, line, axis, ("eval", key), most=MOST_POINTS // len(lines))
        _finish(panels, axis, num_classes)
        caption = textwrap.fill(_caption(lines), int(13 * width))
        figure.supxlabel(caption, x=0.01, ha="left", fontsize=9, color=MUTED, parse_math=False)
        fix_layout(figure)  # on which the positions of the labels depend
        for panel in panels:
            label_lines(panel)
        return write(figure, path, "the learning curves")


def _draw_raw(panel: Axes, line: _Line, axis: _HorizontalAxis) -> None:
    spent, loss = series(line.runs[0], "train", "loss", axis.key)
    if np.isfinite(loss).any():
        panel.plot(spent / axis.unit, loss, color=line.style["color"], alpha=0.2, linewidth=0.8)


def _draw_line(panel: Axes, line: _Line, axis: _HorizontalAxis, kind_and_key: tuple[str, str], *, most: int) -> None:
    kind, key = kind_and_key
    mean_curve = curve(line.runs, kind, key, axis.key, most=most)
    if not mean_curve.seeds:
        return
    percent = 100 if kind == "eval" else 1
    x, y, low, high = (
        mean_curve.x / axis.unit,
        *(percent * values for values in (mean_curve.y, mean_curve.low, mean_curve.high)),
    )
    if mean_curve.seeds > 1:
        panel.fill_between(x, low, high, color=line.style["color"], alpha=0.2, linewidth=0)
    every = math.ceil(len(x) / MOST_DOTS)
    dots = {"marker": line.style["marker"], "markersize": 4, "markevery": ((len(x) - 1) % every, every)}
    dots = dots | {"clip_on": False, "zorder": 3} if kind == "eval" else {}
    look = {"color": line.style["color"], "linestyle": line.style["linestyle"], "linewidth": 1.8}
    panel.plot(x, y, label=RUN + line.name, **look, **dots)


def _finish(panels: Sequence[Axes], axis: _HorizontalAxis, num_classes: int | None) -> None:
    for panel, title in zip(panels, TITLES, strict=True):
        panel.set_title(title, loc="left", fontweight="bold", fontsize=11)
        panel.set_xlabel(axis.label)
        _scale(panel, axis)
        panel.grid(axis="y", color=GRID, linewidth=0.8)
        panel.set_axisbelow(True)
        if not panel.lines:
            panel.text(0.5, 0.5, "none recorded", transform=panel.transAxes, ha="center", color=MUTED)
    for panel, guesses in zip(panels[1:], (1, 5), strict=True):
        panel.set_ylim(0, 100)
        if num_classes is not None:
            _draw_chance(panel, 100 * max(0.0, 1 - guesses / num_classes))


def _scale(panel: Axes, axis: _HorizontalAxis) -> None:
    if axis.is_log:
        panel.set_xscale("log")
        near = axis.end < 100 * axis.start  # less than two decades: more than the powers of ten
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if near else (1.0,), numticks=5))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.xaxis.set_major_formatter("{x:g}")
    else:
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.xaxis.set_major_formatter(EngFormatter(sep=" "))
    panel.set_xlim(axis.start, axis.end)


def _draw_chance(panel: Axes, error: float) -> None:
    panel.axhline(error, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    beside = {"xycoords": panel.get_yaxis_transform(), "textcoords": "offset points"}
    panel.annotate("chance", (0, error), (4, -3), color=MUTED, fontsize=8, va="top", **beside)


def _caption(lines: Sequence[_Line]) -> str:
    """Return the meaning of the lines and bands, and the systems whose losses are left out."""
    sentences = []
    seeds = sorted({len(line.runs) for line in lines})
    if seeds and seeds[-1] > 1:
        counts = " or ".join(map(str, seeds))
        sentences.append(f"Lines are means over {counts} seeds; bands span the lowest to the highest seed.")
    left_out = [line.name for line in lines if not line.has_loss]
    if left_out:
        sentences.append(
            f"Not shown: the training loss of {' and '.join(left_out)}, a hinge loss and not a cross-entropy."
        )
    return " ".join(sentences)


def label_lines(panel: Axes) -> None:
    """Write each run's name to the right of the panel at the height of its last point, so that no names overlap."""
    ends = []
    for line in panel.lines:
        x, y = (np.asarray(data, np.float64) for data in line.get_data())
        known = np.flatnonzero(np.isfinite(y))
        if str(line.get_label()).startswith(RUN) and known.size:
            ends.append((line, x[known[-1]], y[known[-1]]))
    if not ends:
        return
    # In shares of the panel's width and height.
    places = panel.transAxes.inverted().transform(panel.transData.transform([end[1:] for end in ends]))
    points = panel.figure.dpi / 72
    heights = spread(places[:, 1], LABEL_POINTS * points / panel.bbox.height)
    for (line, _, _), height in zip(ends, heights, strict=True):
        name = clipped_name(str(line.get_label()).removeprefix(RUN))
        panel.annotate(
            name, (BESIDE, height), xycoords="axes fraction", color=line.get_color(), fontsize=9, va="center",
            annotation_clip=False, parse_math=False,
        )  # fmt: skip
    early = places[:, 0] < 0.98  # lines that end before the edge of the panel
    size = np.array(panel.bbox.size) / points
    names_at = np.stack([np.full(len(ends), BESIDE), heights], 1)
    starts, stops = shorten(names_at[early] * size, places[early] * size, 1, 4)
    colours = [end[0].get_color() for end, is_early in zip(ends, early, strict=True) if is_early]
    draw_leads(panel, starts / size, stops / size, colours, linewidth=0.6, alpha=0.6, zorder=3)


def spread(heights: Float[np.ndarray, " n"], gap: float) -> Float[np.ndarray, " n"]:
    """Return positions in [0, 1] that are as near to the heights as their order and a distance of `gap` allow.

    Isotonic regression of the heights minus their share of the gaps is the least-squares solution; clipping gives the
    solution within bounds. Gaps that do not fit are made smaller.
    """
    from scipy.optimize import isotonic_regression

    gap = min(gap, 1 / max(1, len(heights) - 1))
    order = np.argsort(heights, kind="stable")
    offsets = gap * np.arange(len(heights))
    places = np.empty(len(heights))
    places[order] = np.clip(isotonic_regression(heights[order] - offsets).x, 0, 1 - offsets[-1]) + offsets
    return places
