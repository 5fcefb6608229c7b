"""Learning curves: training loss, top-1 and top-5 error of runs or systems against images, operations or seconds."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from imagenet_repro.report.plots import charts
from imagenet_repro.report.plots.charts import Chart, ChartView
from imagenet_repro.report.plots.style import MUTED, LegendEntry, entries, rounded
from imagenet_repro.report.records import Comparison
from imagenet_repro.zoo.entries import ENTRIES

Metrics = Sequence[Mapping[str, Any]]
Against = Literal["images", "flops", "seconds", "joules"]

AMOUNTS: dict[Against, str] = {
    "images": "images seen in training",
    "flops": "floating-point operations of training",
    "seconds": "seconds of training",
    "joules": "joules of training",
}
SMOOTHED_OVER = 20  # each point of the smoothed loss is the mean over a twentieth of the run
MOST_POINTS = 400  # in all lines of a panel, including the last point of each; more would make the page large
MOST_RAW = 4  # runs up to which the loss is also drawn as it was logged; more pale lines would hide each other
MOST_RAW_POINTS = 1200  # in all pale lines
WIDE_APART = 5  # ratio of the ends of two runs, beyond which the axis is logarithmic
SIZE = (280, 250)  # pixels of a panel in the files
GUESSES = {"top1_error": 1, "top5_error": 5}
WHAT = "the learning curves"  # in errors
PANELS = {"loss": "Training loss", "top1_error": "Top-1 error, %", "top5_error": "Top-5 error, %"}


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
    path = Path(path)
    legend = entries([(name, "") for name in runs])
    lines = [_Line(entry, [rows]) for entry, rows in zip(legend, runs.values(), strict=True)]
    chart = _draw(lines, ["images"], {"images": path.stem}, num_classes=num_classes)
    return charts.write(chart, path.parent, WHAT)


def draw_systems(comparison: Comparison) -> Chart:
    """Return the chart of the systems of a comparison, with a choice of the amounts that rows have.

    Several seeds of a system are one line, their mean, in a band from the lowest to the highest seed. The mean is at
    equal progress, the share of the budget spent, at which each seed has its own amount of images, operations, seconds
    and joules. A run that has not ended is a line of its own, whose name says so.

    The training loss of support vector machines is a sum of hinge losses over classes. It cannot be compared with the
    cross-entropy of networks, so it is left out if there are networks.
    """
    named = [(system.name, system.network, [run.rows for run in system.runs]) for system in comparison.systems]
    named += [(f"{run.name}, seed {run.seed} ({run.state})", run.network, [run.rows]) for run in comparison.running]
    feature_systems = {entry.system for entry in ENTRIES if entry.system}
    has_both_losses = len({network in feature_systems for _, network, _ in named}) > 1
    legend = entries([(name, network) for name, network, _ in named])
    lines = [
        _Line(entry, rows, has_loss=not (has_both_losses and network in feature_systems))
        for entry, (_, network, rows) in zip(legend, named, strict=True)
    ]
    known: list[Against] = [
        against for against in AMOUNTS if against == "images" or all(_has(line.runs, against) for line in lines)
    ]
    stems: dict[Against, str] = {against: f"curves_{against}" for against in known}
    return _draw(lines, known, stems, num_classes=len(comparison.class_names) or None)


def _has(runs: Sequence[Metrics], against: Against) -> bool:
    """Return whether each run with evaluations has one with an amount."""
    return all(
        any(row.get(against) for row in rows if row.get("kind") == "eval")
        for rows in runs
        if any(row.get("kind") == "eval" for row in rows)
    )


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


# --- data -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Line:
    """One line of each panel: its look, the runs that it averages, and whether its loss is drawn."""

    entry: LegendEntry
    runs: Sequence[Metrics]
    has_loss: bool = True


@dataclasses.dataclass(frozen=True)
class _HorizontalAxis:
    """The horizontal axis of all panels."""

    key: Against
    start: float
    end: float
    is_log: bool

    def visible(self, rows: charts.Rows) -> charts.Rows:
        """Return the points on the axis; a mask that hides the others would take most of the time of drawing."""
        return [row for row in rows if row["x"] is not None and row["x"] >= (1 - 1e-5) * self.start]


def _horizontal_axis(systems: Sequence[Sequence[Metrics]], against: Against) -> _HorizontalAxis:
    rows = [[row[against] for row in rows if row.get(against)] for runs in systems for rows in runs]
    ends = [max(amounts) for amounts in rows if amounts]
    largest = max(ends, default=1)
    is_log = against != "images" and bool(ends) and largest > WIDE_APART * min(ends)
    start = min(_first_amount(runs, against) for runs in systems) if is_log else 0.0
    return _HorizontalAxis(against, start, largest, is_log)


def _first_amount(runs: Sequence[Metrics], against: str) -> float:
    """Return the amount at a system's first evaluation, or at its first logged loss if there is no evaluation."""
    for kind in ("eval", "train"):
        amounts = [row[against] for rows in runs for row in rows if row.get("kind") == kind and row.get(against)]
        if amounts:
            return min(amounts)
    return math.inf


def _curve_rows(line: _Line, key: str, against: Against, most: int) -> charts.Rows:
    """Return the points of one line: amount, value, lowest and highest seed; errors in percent."""
    kind, unit = ("train", 1) if key == "loss" else ("eval", 100)
    if kind == "train" and not line.has_loss:
        return []
    mean = curve(line.runs, kind, key, against, most=most)
    columns = (mean.x, unit * mean.y, unit * mean.low, unit * mean.high)
    rows = []
    for x, value, low, high in zip(*(map(rounded, column.tolist()) for column in columns), strict=True):
        row = {"system": line.entry.name, "x": x, "value": value}
        rows.append(row | {"low": low, "high": high} if mean.seeds > 1 else row)
    return rows


def _raw_rows(lines: Sequence[_Line], against: Against) -> charts.Rows:
    """Return the losses of few single runs as they were logged."""
    drawn = [line for line in lines if line.has_loss and len(line.runs) == 1]
    if len(lines) > MOST_RAW:
        return []
    rows = []
    for line in drawn:
        spent, loss = series(line.runs[0], "train", "loss", against)
        chosen = np.unique(np.linspace(0, len(loss) - 1, min(len(loss), MOST_RAW_POINTS // len(drawn))).astype(int))
        pairs = zip(spent[chosen].tolist(), loss[chosen].tolist(), strict=True)
        rows += [{"system": line.entry.name, "x": rounded(x), "value": rounded(value)} for x, value in pairs]
    return rows if any(row["value"] is not None for row in rows) else []


# --- drawing ----------------------------------------------------------------------------------------------------


def _draw(
    lines: Sequence[_Line], known: Sequence[Against], stems: Mapping[Against, str], *, num_classes: int | None
) -> Chart:
    legend = tuple(line.entry for line in lines)
    datasets: dict[str, charts.Rows] = {"nothing": [{}]}
    if num_classes is not None:
        for key, guesses in GUESSES.items():
            datasets[f"chance_{key}"] = [{"chance": rounded(100 * max(0.0, 1 - guesses / num_classes))}]
    views = []
    for against in known:
        axis = _horizontal_axis([line.runs for line in lines], against)
        for key in PANELS:
            most = MOST_POINTS // len(lines)
            rows = [row for line in lines for row in _curve_rows(line, key, against, most)]
            datasets[f"{key}_{against}"] = axis.visible(rows)
        datasets[f"raw_{against}"] = axis.visible(_raw_rows(lines, against))
        panels = [_draw_panel(key, axis, datasets, legend) for key in PANELS]
        specification = charts.draw_panels(panels, notes=_notes(lines))
        views.append(ChartView(AMOUNTS[against], stems[against], specification))
    return Chart(tuple(views), datasets, legend, click="run")


def _draw_panel(
    key: str, axis: _HorizontalAxis, datasets: Mapping[str, charts.Rows], legend: Sequence[LegendEntry]
) -> Any:
    import altair

    name = f"{key}_{axis.key}"
    x, y = _encode_places(key, axis)
    colour = charts.colour_of(legend)
    curves = charts.chart_on(name)
    layers = []
    if key == "loss" and datasets[f"raw_{axis.key}"]:
        raw = charts.chart_on(f"raw_{axis.key}").mark_line(strokeWidth=0.8)
        layers.append(raw.encode(x=x, y=y, color=colour, **charts.opacity("strokeOpacity", 0.25)))
    if any("low" in row for row in datasets[name]):
        band = curves.mark_area().encode(x=x, y=altair.Y("low:Q", title=None), y2="high:Q", color=colour)
        layers.append(band.encode(**charts.opacity("fillOpacity", 0.2)))
    line = curves.mark_line(strokeWidth=2, cursor="pointer")
    layers.append(
        line.encode(x=x, y=y, color=colour, strokeDash=charts.dash_of(legend), **charts.opacity("strokeOpacity"))
    )
    is_error = key in GUESSES
    marks = curves.mark_point(size=28 if is_error else 60, filled=True, cursor="pointer")
    layers.append(
        marks.encode(
            x=x, y=y, color=colour, shape=charts.shape_of(legend), tooltip=_tooltip(key, axis),
            # Of a loss, marks are there for the tooltips alone.
            **charts.opacity("fillOpacity", 1.0 if is_error else 0.0),
        )
    )  # fmt: skip
    if f"chance_{key}" in datasets:
        layers += _draw_chance(f"chance_{key}")
    if not datasets[name]:
        nothing = charts.chart_on("nothing").mark_text(color=MUTED, text="none recorded")
        layers.append(nothing.encode(x=altair.value("width"), y=altair.value(SIZE[1] / 2)))
    return altair.LayerChart(layer=layers, width=SIZE[0], height=SIZE[1], title=PANELS[key])


def _encode_places(key: str, axis: _HorizontalAxis) -> tuple[Any, Any]:
    import altair

    domain = (axis.start, axis.end) if math.isfinite(axis.start) and axis.start < axis.end else altair.Undefined
    scale = altair.Scale(type="log" if axis.is_log else "linear", domain=domain, nice=False)
    ticks: dict[str, Any] = {"values": charts.log_ticks(axis.start, axis.end)} if axis.is_log else {"tickCount": 4}
    zero = "datum.value ? datum.label : '0'"  # else it has the prefix of the others: 0k
    look = altair.Axis(format="~s", labelExpr=zero, labelOverlap="greedy", grid=False, **ticks)
    x = altair.X("x:Q", scale=scale, axis=look, title=AMOUNTS[axis.key])
    errors = altair.Scale(domain=(0, 100)) if key != "loss" else altair.Scale(zero=False)
    return x, altair.Y("value:Q", scale=errors, axis=altair.Axis(tickCount=5), title=None)


def _tooltip(key: str, axis: _HorizontalAxis) -> list[Any]:
    import altair

    title, form = ("loss, smoothed", ".4f") if key == "loss" else (PANELS[key].lower(), ".2f")
    return [
        altair.Tooltip("system:N"),
        altair.Tooltip("value:Q", title=title, format=form),
        altair.Tooltip("x:Q", title=AMOUNTS[axis.key], format=".4~s"),
    ]


def _draw_chance(dataset: str) -> list[Any]:
    """Return the layers of the error of random guessing."""
    import altair

    chance = charts.chart_on(dataset)
    place = altair.Y("chance:Q", title=None)
    rule = chance.mark_rule(color=MUTED, strokeDash=[4, 3]).encode(y=place)
    text = chance.mark_text(color=MUTED, align="left", baseline="top", dx=4, dy=3, fontSize=10, text="chance")
    return [rule, text.encode(y=place, x=altair.value(0))]


def _notes(lines: Sequence[_Line]) -> list[str]:
    """Return the meaning of the lines and bands, and the systems whose losses are left out."""
    sentences = []
    seeds = sorted({len(line.runs) for line in lines})
    if seeds and seeds[-1] > 1:
        counts = " or ".join(map(str, seeds))
        sentences.append(f"Lines are means over {counts} seeds; bands span the lowest to the highest seed.")
    left_out = [line.entry.name for line in lines if not line.has_loss]
    if left_out:
        sentences.append(
            f"Not shown: the training loss of {' and '.join(left_out)}, a hinge loss and not a cross-entropy."
        )
    return sentences
