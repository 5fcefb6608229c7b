"""A figure of the differences between all pairs of systems."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from imagenet_repro.report.plots import charts
from imagenet_repro.report.plots.charts import INK, Chart, ChartView
from imagenet_repro.report.plots.style import rounded
from imagenet_repro.report.text import signed

CELL = (52, 26)  # pixels
SLANT = -40  # degrees by which the names of columns are turned
SATURATED = 5.0  # points; the strongest colour stands for at least this, so that small differences stay pale
# Orange and purple are distinct for people with any common colour blindness. The darkest shades of ColorBrewer's PuOr
# are left out, so that dark text is readable on all of them.
COLOURS = ("#8073ac", "#a39bc7", "#c2bedc", "#dadcec", "#f0f1f4", "#faecd7", "#fed8a6", "#fdbc6b", "#eb9733")
MOST_NUMBERS = 20  # systems; in a figure of more, as wide as a page, no number could be read
MOST_BESIDE = 5  # systems; two figures of so many stand side by side
SMALL_CELL = (17, 17)  # pixels, without numbers
NOTE = (
    "Each cell: error of its row minus error of its column, in points. Bold: the difference is significant; (in"
    " brackets): it is not.",
    "Purple: the row has the lower error; orange: the higher.",
)
NOTE_WITHOUT_NUMBERS = (
    "The colour of each cell: error of its row minus error of its column.",
    "Purple: the row has the lower error; orange: the higher. Dot: the difference is not significant. The table has"
    " the numbers.",
)


def draw_matrix(
    names: Sequence[str],
    points: Float[np.ndarray, "n n"],
    significant: Bool[np.ndarray, "n n"],
    *,
    stem: str,
    title: str,
) -> Chart:
    """Return the differences of all pairs as a heat map, lowest error first.

    Args:
      names: names of the systems.
      points: error of the row's system minus that of the column's, in percentage points; NaN: not known.
      significant: whether the two differ significantly.
      stem: of the files' names.
      title: says which error this is.
    """
    order = _by_error(points)
    ordered = [names[index] for index in order]
    rows = [
        {
            "row": names[row],
            "column": names[column],
            "points": rounded(float(points[row, column])),
            "significant": "yes" if significant[row, column] else "no",
        }
        for row in order
        for column in order
        if row != column and np.isfinite(points[row, column])
    ]
    has_numbers = len(names) <= MOST_NUMBERS
    if has_numbers:
        for row in rows:
            text = signed(row["points"])
            row["text"] = text if row["significant"] == "yes" else f"({text})"
    panel = _draw_panel(ordered, _largest(points), has_numbers=has_numbers)
    specification = charts.draw_panels([panel], title=title, notes=notes(len(names)))
    return Chart(
        (ChartView("", stem, specification),), {"cells": rows}, click="pair", is_narrow=len(names) <= MOST_BESIDE
    )


def notes(n_systems: int) -> tuple[str, ...]:
    """Return the meaning of the cells of a figure of so many systems."""
    return NOTE if n_systems <= MOST_NUMBERS else NOTE_WITHOUT_NUMBERS


def _by_error(points: Float[np.ndarray, "n n"]) -> list[int]:
    """Return the indices by rising error: a row's mean difference from all is its error minus a constant."""
    known = np.isfinite(points)
    means = np.where(known, points, 0).sum(1) / np.maximum(known.sum(1), 1)
    return np.argsort(means, kind="stable").tolist()


def _largest(points: Float[np.ndarray, "n n"]) -> float:
    """Return the difference that has the strongest colour."""
    return float(np.max(np.abs(points[np.isfinite(points)]), initial=SATURATED))


def _draw_panel(names: Sequence[str], largest: float, *, has_numbers: bool) -> Any:
    import altair

    scale = altair.Scale(domain=list(names))
    look: dict[str, Any] = {"domain": False, "ticks": False, "labelColor": "#000000", "labelExpr": charts.CLIPPED}
    columns = altair.Axis(orient="top", labelAngle=SLANT, **look)
    x = altair.X("column:N", scale=scale, axis=columns, title=None)
    y = altair.Y("row:N", scale=scale, axis=altair.Axis(**look), title=None)
    stops = np.linspace(-largest, largest, len(COLOURS)).round(6).tolist()
    colour = altair.Color("points:Q", scale=altair.Scale(domain=stops, range=list(COLOURS), clamp=True), legend=None)
    tooltip = [
        altair.Tooltip("row:N", title="error of"),
        altair.Tooltip("column:N", title="minus that of"),
        altair.Tooltip("points:Q", title="points", format="+.3f"),
        altair.Tooltip("significant:N", title="significant"),
    ]
    cells = charts.chart_on("cells")
    rectangles = cells.mark_rect(stroke="#ffffff", strokeWidth=1, cursor="pointer")
    layers = [rectangles.encode(x=x, y=y, color=colour, tooltip=tooltip)]
    if has_numbers:
        for answer, weight in (("yes", "bold"), ("no", "normal")):
            some = cells.transform_filter(f"datum.significant === '{answer}'")
            layers.append(some.mark_text(color=INK, fontWeight=weight, tooltip=None).encode(x=x, y=y, text="text:N"))
    else:
        some = cells.transform_filter("datum.significant === 'no'")
        layers.append(some.mark_circle(color=INK, size=6, opacity=1).encode(x=x, y=y))
    cell = CELL if has_numbers else SMALL_CELL
    return altair.LayerChart(layer=layers, width=altair.Step(cell[0]), height=altair.Step(cell[1]))
