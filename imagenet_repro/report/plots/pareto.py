"""Error against compute, with the Pareto front: the systems that no other beats at the same cost or less."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from imagenet_repro.report.plots import label_placement
from imagenet_repro.report.plots.style import (
    AS_TEXT,
    GRID,
    MUTED,
    STYLE,
    describe_ranges,
    error_range,
    fix_layout,
    limit_errors,
    new_figure,
    power,
    styles,
    write,
)
from imagenet_repro.report.records import ComparedSystem, Comparison

Cost = Literal["flops", "multiply_adds"]

COSTS = {"flops": "floating-point operations in training", "multiply_adds": "multiply-adds of one image"}
NARROWEST = 0.5  # decades; the smallest length of the axis of costs


def plot_pareto(comparison: Comparison, path: str | Path, *, against: Cost = "flops") -> list[Path]:
    """Draw top-1 and top-5 error against a cost, with the Pareto front; return the .png and the .svg.

    Errors and operations are means over seeds. The systems on the front have filled markers and bold names.

    Args:
      comparison: the systems.
      path: the path of the figure.
      against: the cost: operations of training, or multiply-adds of classifying one image.

    Raises:
      SaveError: a file cannot be written.
    """
    systems = comparison.systems
    cost = np.array([_cost(system, against) for system in systems])
    unit, written = power(cost.max())
    with rc_context(STYLE | AS_TEXT):
        figure = new_figure((11, 4.6 if len(systems) <= 8 else 6), w_pad=0.12, h_pad=0.06)
        panels, drawn = list(figure.subplots(1, 2)), []
        for panel, guesses in zip(panels, (1, 5), strict=True):
            panel.set_title(f"Top-{guesses} error, %", loc="left", fontweight="bold", fontsize=11)
            panel.set_xlabel(COSTS[against] + written)
            _scale(panel, cost / unit)
            drawn.append(_draw(panel, systems, cost / unit, guesses))
        figure.supxlabel(_caption(systems), x=0.01, ha="left", fontsize=9, color=MUTED)
        fix_layout(figure)  # on which the positions of the names depend
        names = [system.name for system in systems]
        for panel, (points, front, lines) in zip(panels, drawn, strict=True):
            label_placement.write_names(panel, names, points, bold=front, lines=lines)
        return write(figure, path, "the figure of errors against costs")


def pareto_front(cost: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Return which points no other point dominates, by being as good or better in both and better in one.

    Equal points are all on the front, or none is. A point with NaN is not on it.
    """
    as_good = (cost[:, None] <= cost) & (error[:, None] <= error)  # [n, n]: row against column
    better = (cost[:, None] < cost) | (error[:, None] < error)
    return np.isfinite(cost + error) & ~np.any(as_good & better, axis=0)


def _cost(system: ComparedSystem, against: Cost) -> float:
    if against == "multiply_adds":
        return float(system.runs[0].result["multiply_adds"])
    return float(np.mean([run.result["spent"]["flops"] for run in system.runs]))


def _caption(systems: Sequence[ComparedSystem]) -> str:
    front = (
        "Dashed line, filled markers and bold names: the Pareto front; no other system has a lower error at the same"
        " cost or less."
    )
    return f"{front}\nBars: {describe_ranges(systems)}."


# --- drawing ----------------------------------------------------------------------------------------------------


def _scale(panel: Axes, cost: Float[np.ndarray, " n"]) -> None:
    """Set the axis of costs: logarithmic, with space on either side, and ticks as dense as its length needs."""
    low, high = math.log10(cost.min()), math.log10(cost.max())
    half = max(high - low, NARROWEST) * 0.62
    centre = (low + high) / 2
    panel.set_xscale("log")
    panel.set_xlim(10 ** (centre - half), 10 ** (centre + half))
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if half < 1.2 else (1.0,), numticks=9))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)


def _draw(
    panel: Axes, systems: Sequence[ComparedSystem], cost: Float[np.ndarray, " n"], guesses: int
) -> tuple[Float[np.ndarray, "n 2"], Bool[np.ndarray, " n"], Float[np.ndarray, "m 2 2"]]:
    """Draw the errors; return the points, whether each is on the front, and lines that names must not cover."""
    error, low, high = np.array([error_range(system, guesses) for system in systems]).T
    front = pareto_front(cost, error)
    limit_errors(panel, low, high)
    steps = _draw_front(panel, cost[front], error[front])
    for number, style in zip(range(len(systems)), styles(), strict=False):
        look = {"color": style["color"], "zorder": 3, "clip_on": False}
        panel.plot([cost[number]] * 2, [low[number], high[number]], linewidth=1.4, alpha=0.6, **look)
        face = style["color"] if front[number] else "white"
        mark = {"marker": style["marker"], "markersize": 7, "markerfacecolor": face, "markeredgewidth": 1.6}
        panel.plot(cost[number], error[number], linestyle="none", **mark, **look)
    bars = np.stack([np.stack([cost, low], -1), np.stack([cost, high], -1)], 1)
    return np.stack([cost, error], -1), front, np.concatenate([bars, steps])


def _draw_front(
    panel: Axes, cost: Float[np.ndarray, " f"], error: Float[np.ndarray, " f"]
) -> Float[np.ndarray, "s 2 2"]:
    """Draw the front as a step line; return both ends of its segments."""
    order = np.lexsort((error, cost))
    right, top = panel.get_xlim()[1], panel.get_ylim()[1]
    x = np.append(np.repeat(cost[order], 2), right)  # up, at its cost, then to the right with its error
    y = np.append(top, np.repeat(error[order], 2))
    panel.plot(x, y, color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)), zorder=2)
    corners = np.stack([x, y], -1)
    return np.stack([corners[:-1], corners[1:]], 1)
