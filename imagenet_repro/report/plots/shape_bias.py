"""A figure of the shape bias of runs, beside published networks and people."""

from collections.abc import Sequence
from typing import Any

from imagenet_repro.report.plots import charts
from imagenet_repro.report.plots.charts import Chart, ChartView
from imagenet_repro.report.plots.style import MUTED, rounded, system_entries
from imagenet_repro.report.records import Comparison
from imagenet_repro.report.text import clipped_name
from imagenet_repro.scoring import cue_conflict
from imagenet_repro.scoring.cue_conflict import ShapeBias
from imagenet_repro.statistics.populations import NEW_IMAGES

WIDTH, ROW = 460, 24  # pixels of the panel, and of a row of it
PEOPLE = "people"
AXIS = "shapes among the answers that are one of the two cues, %"
NOTE = f"Bars: 95 % intervals for {NEW_IMAGES}. Hollow: published; each point of the last row is one person."


def draw_shape_bias(comparison: Comparison, found: Sequence[tuple[str, ShapeBias]]) -> Chart:
    """Return the chart: a row for each system with a mark for each of its runs, then the published answers.

    Args:
      comparison: the systems, whose colours are those of every chart.
      found: seed and shape bias of each run, as `sections.shape_bias.results` returns them.
    """
    decided = [(seed, one) for seed, one in found if one.shape + one.texture]
    shown = {one.observer for _, one in decided}
    legend = tuple(entry for entry in system_entries(comparison.systems) if entry.name in shown)
    published = cue_conflict.observers()
    rows = [*(clipped_name(entry.name) for entry in legend)]
    rows += [*(one.observer for one in published if not one.is_person), PEOPLE]
    datasets: dict[str, charts.Rows] = {
        "runs": [
            _row(one, clipped_name(one.observer)) | {"system": one.observer, "seed": seed} for seed, one in decided
        ],
        "published": [_row(one, PEOPLE if one.is_person else one.observer) for one in published],
    }
    panel = _panel(legend, list(dict.fromkeys(rows)))
    specification = charts.draw_panels([panel], notes=[NOTE])
    return Chart((ChartView("", "shape_bias", specification),), datasets, legend, click="system", narrowest=320)


def _row(one: ShapeBias, place: str) -> dict[str, Any]:
    row: dict[str, Any] = {"observer": one.observer, "row": place, "bias": rounded(100 * one.bias)}
    counts = {"shape": one.shape, "texture": one.texture, "neither": one.neither}
    if one.interval:
        row |= {"low": rounded(100 * one.interval[0]), "high": rounded(100 * one.interval[1])}
    return row | counts


def _panel(legend: Sequence[charts.LegendEntry], rows: Sequence[str]) -> Any:
    import altair

    y = altair.Y("row:N", sort=list(rows), title=None)
    x = altair.X("bias:Q", scale=altair.Scale(domain=(0, 100)), title=AXIS)
    tooltip = [
        altair.Tooltip("observer:N"),
        altair.Tooltip("bias:Q", title="shape bias, %", format=".1f"),
        *(altair.Tooltip(f"{name}:Q", title=f"answers by {name}") for name in ("shape", "texture", "neither")),
    ]
    published = charts.chart_on("published").mark_point(size=60, strokeWidth=1.5, color=MUTED)
    runs = charts.chart_on("runs")
    colour = charts.colour_of(legend, is_shown=False)
    bars = runs.mark_rule(strokeWidth=1.5).encode(
        x=altair.X("low:Q", title=AXIS), x2="high:Q", y=y, color=colour, **charts.opacity("strokeOpacity", 0.6)
    )
    marks = runs.mark_point(size=75, strokeWidth=2, cursor="pointer", filled=True).encode(
        x=x,
        y=y,
        color=colour,
        shape=charts.shape_of(legend, is_shown=False),
        tooltip=[*tooltip, altair.Tooltip("seed:N")],
        **charts.opacity("opacity"),
    )
    layers = [published.encode(x=x, y=y, tooltip=tooltip), bars, marks]
    return altair.LayerChart(layer=layers, width=WIDTH, height=ROW * len(rows), title="Shape bias, %")
