"""Error against cost, with the Pareto front: the systems that no other beats at the same cost or less."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from imagenet_repro.report import energy
from imagenet_repro.report.plots import charts, label_placement
from imagenet_repro.report.plots.charts import Chart, ChartView
from imagenet_repro.report.plots.label_placement import Frame
from imagenet_repro.report.plots.style import (
    MUTED,
    describe_ranges,
    error_domain,
    error_range,
    rounded,
    system_entries,
)
from imagenet_repro.report.records import ComparedSystem, Comparison
from imagenet_repro.report.text import clipped_name

Cost = Literal["flops", "images", "seconds", "joules", "parameters", "multiply_adds"]

COSTS: dict[Cost, str] = {
    "flops": "floating-point operations in training",
    "images": "images seen in training",
    "seconds": "seconds of training",
    "joules": "joules of training",
    "parameters": "parameters",
    "multiply_adds": "multiply-adds of one image",
}
OF_NETWORK = ("parameters", "multiply_adds")  # costs that are equal for all seeds
NARROWEST = 0.5  # decades; the smallest length of the axis of costs
SIZE = (420, 300)  # pixels of a panel in the files
MOST_NAMES = 16  # systems whose names stand beside their points; more would hide each other
FRONT = (
    "Dashed line, filled marks and bold names: the Pareto front; no other system has a lower error at the same cost or"
    " less."
)


def draw_pareto(comparison: Comparison) -> Chart:
    """Return the chart of top-1 and top-5 error against each cost that is known of all systems, with the front.

    Errors and costs are means over seeds. The systems on the front have filled marks and bold names.
    """
    systems = comparison.systems
    costs = known_costs(systems)
    entries = system_entries(systems)
    datasets: dict[str, charts.Rows] = {"systems": [_row(system, costs) for system in systems]}
    views = []
    for key, cost in costs.items():
        panels = []
        for guesses in (1, 5):
            error = np.array([error_range(system, guesses) for system in systems])
            front = pareto_front(cost, error[:, 0])
            for row, is_on_front in zip(datasets["systems"], front.tolist(), strict=True):
                row[f"front_{key}_{guesses}"] = is_on_front
            domain = error_domain(error[:, 1].min(), error[:, 2].max())
            panel = _Panel(key, guesses, Frame(SIZE, _cost_domain(cost), domain, is_log=True))
            datasets[panel.front] = _front_rows(panel, cost[front], error[front, 0])
            if len(systems) <= MOST_NAMES:
                datasets[panel.names] = _name_rows(
                    panel, systems, np.column_stack([cost, error]), front, datasets[panel.front]
                )
            panels.append(_draw_panel(panel, entries, has_names=len(systems) <= MOST_NAMES))
        notes = [FRONT, f"Bars: {describe_ranges(systems)}."]
        views.append(ChartView(COSTS[key], f"pareto_{key}", charts.draw_panels(panels, notes=notes)))
    return Chart(tuple(views), datasets, entries, click="system")


def known_costs(systems: Sequence[ComparedSystem]) -> dict[Cost, Float[np.ndarray, " n"]]:
    """Return the costs that are known, and not zero, of every system: an array by cost, in the order of `COSTS`."""
    every: dict[Cost, np.ndarray] = {key: np.array([_cost(system, key) for system in systems]) for key in COSTS}
    return {key: cost for key, cost in every.items() if np.isfinite(cost).all() and (cost > 0).all()}


def pareto_front(cost: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Return which points no other point dominates, by being as good or better in both and better in one.

    Equal points are all on the front, or none is. A point with NaN is not on it.
    """
    as_good = (cost[:, None] <= cost) & (error[:, None] <= error)  # [n, n]: row against column
    better = (cost[:, None] < cost) | (error[:, None] < error)
    return np.isfinite(cost + error) & ~np.any(as_good & better, axis=0)


def _cost(system: ComparedSystem, key: Cost) -> float:
    """Return the mean of a cost over seeds; NaN unless it is known of all."""
    results = [run.result for run in system.runs[: 1 if key in OF_NETWORK else None]]
    if key in OF_NETWORK:
        values = [result.get(key) for result in results]
    elif key == "joules":
        values = [energy.joules(result) for result in results]
    else:
        values = [result["spent"].get(key) for result in results]
    return float(np.mean([math.nan if value is None else value for value in values]))


# --- data -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Panel:
    """The axes of one panel, and the names of its data sets."""

    key: Cost
    guesses: int
    frame: Frame

    @property
    def front(self) -> str:
        """The name of the data set of the front's corners."""
        return f"front_{self.key}_{self.guesses}"

    @property
    def names(self) -> str:
        """The name of the data set of names beside points."""
        return f"names_{self.key}_{self.guesses}"


def _row(system: ComparedSystem, costs: dict[Cost, Float[np.ndarray, " n"]]) -> dict[str, Any]:
    row: dict[str, Any] = {"system": system.name, "seeds": len(system.runs)}
    for guesses in (1, 5):
        keys = (f"top{guesses}", f"top{guesses}_low", f"top{guesses}_high")
        row |= zip(keys, map(rounded, error_range(system, guesses)), strict=True)
    return row | {key: rounded(_cost(system, key)) for key in costs}


def _cost_domain(cost: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Return the ends of the logarithmic axis, with space on either side."""
    low, high = math.log10(cost.min()), math.log10(cost.max())
    half = max(high - low, NARROWEST) * 0.62
    centre = (low + high) / 2
    return 10 ** (centre - half), 10 ** (centre + half)


def _front_rows(panel: _Panel, cost: Float[np.ndarray, " f"], error: Float[np.ndarray, " f"]) -> charts.Rows:
    """Return the corners of the front: down at the cost of each system, then to the right with its error."""
    order = np.lexsort((error, cost))
    x = np.append(np.repeat(cost[order], 2), panel.frame.x[1])
    y = np.append(panel.frame.y[1], np.repeat(error[order], 2))
    pairs = enumerate(zip(x.tolist(), y.tolist(), strict=True))
    return [{"cost": rounded(one), "error": rounded(other), "at": at} for at, (one, other) in pairs]


def _name_rows(
    panel: _Panel,
    systems: Sequence[ComparedSystem],
    points: Float[np.ndarray, "n 4"],
    front: Bool[np.ndarray, " n"],
    front_rows: charts.Rows,
) -> charts.Rows:
    """Return each system's name with its offset from the point, in pixels. Points are cost, error, low, high."""
    bars = [((cost, low), (cost, high)) for cost, _, low, high in points.tolist()]
    corners = itertools.pairwise((row["cost"], row["error"]) for row in front_rows)
    places = [(cost, error) for cost, error, _, _ in points.tolist()]
    names = [system.name for system in systems]
    offsets = label_placement.offsets(names, places, [*bars, *corners], panel.frame)
    return [
        {
            "system": name, "label": clipped_name(name), "cost": rounded(cost), "error": rounded(error),
            "front": is_on_front, **offset,
        }
        for name, (cost, error), is_on_front, offset in zip(names, places, front.tolist(), offsets, strict=True)
    ]  # fmt: skip


# --- drawing ----------------------------------------------------------------------------------------------------


def _draw_panel(panel: _Panel, entries: Sequence[charts.LegendEntry], *, has_names: bool) -> Any:
    import altair

    x_scale = altair.Scale(type="log", domain=panel.frame.x, nice=False)
    y_scale = altair.Scale(domain=panel.frame.y, nice=False, zero=False)
    axis = altair.Axis(format="~s", values=charts.log_ticks(*panel.frame.x), labelOverlap="greedy")
    title = COSTS[panel.key]
    x = altair.X(f"{panel.key}:Q", scale=x_scale, axis=axis, title=title)
    y = altair.Y(f"top{panel.guesses}:Q", scale=y_scale, axis=altair.Axis(tickCount=6), title=None)
    corner = {"x": altair.X("cost:Q", scale=x_scale, title=title), "y": altair.Y("error:Q", scale=y_scale, title=None)}
    front = charts.chart_on(panel.front).mark_line(color=MUTED, strokeDash=[5, 3], strokeWidth=1.2)
    systems = charts.chart_on("systems")
    colour = charts.colour_of(entries, is_shown=not has_names)
    bars = systems.mark_rule(strokeWidth=1.5).encode(
        x=x,
        y=altair.Y(f"top{panel.guesses}_low:Q", scale=y_scale, title=None),
        y2=f"top{panel.guesses}_high:Q",
        color=colour,
        **charts.opacity("strokeOpacity", 0.6),
    )
    marks = systems.mark_point(size=75, strokeWidth=2, cursor="pointer", filled=False).encode(
        x=x, y=y, color=colour, shape=charts.shape_of(entries, is_shown=not has_names), **charts.opacity("opacity"),
        fillOpacity=altair.FillOpacityValue(
            value=0, condition={"test": f"datum.front_{panel.key}_{panel.guesses}", "value": 1}
        ),
        fill=charts.fill_of(entries),
        tooltip=_tooltip(panel),
    )  # fmt: skip
    layers = [front.encode(**corner, order="at:O"), bars, marks]
    if has_names:
        layers.append(label_placement.draw_names(panel.names, corner))
    return altair.LayerChart(layer=layers, width=SIZE[0], height=SIZE[1], title=f"Top-{panel.guesses} error, %")


def _tooltip(panel: _Panel) -> list[Any]:
    import altair

    name = f"top{panel.guesses}"
    return [
        altair.Tooltip("system:N"),
        altair.Tooltip(f"{name}:Q", title=f"top-{panel.guesses} error, %", format=".2f"),
        altair.Tooltip(f"{name}_low:Q", title="from", format=".2f"),
        altair.Tooltip(f"{name}_high:Q", title="to", format=".2f"),
        altair.Tooltip(f"{panel.key}:Q", title=COSTS[panel.key], format=",.6~g" if panel.key == "seconds" else ".4~s"),
        altair.Tooltip("seeds:Q", title="seeds"),
    ]
