"""Performance profiles: the share of targets that a system reached with at most tau times the least amount."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from imagenet_repro.report.plots import charts
from imagenet_repro.report.plots.charts import Chart, ChartView
from imagenet_repro.report.plots.style import LegendEntry, entries, rounded
from imagenet_repro.report.sections import targets
from imagenet_repro.report.targets import MEASURES, Measure, Workload, known_measures
from imagenet_repro.statistics import performance_profiles

LARGEST = performance_profiles.LARGEST_RATIO
SPACING = 0.012  # between the heights of lines that would hide each other
SIZE = (280, 250)  # pixels of a panel in the files


def draw_profiles(workloads: Sequence[Workload], networks: Mapping[str, str]) -> Chart:
    """Return the profiles of all systems by each known measure, from 1 to 4 times the best.

    Lines at the same height are drawn a little apart, in the order of the systems.

    Args:
      workloads: the targets, with the runs of each system.
      networks: the network of each system, by name.
    """
    measures, names = known_measures(workloads), targets.lines(workloads)
    legend = entries([(name, networks.get(name, "")) for name in names])
    datasets = {str(measure): _rows(workloads, measure) for measure in measures}
    panels = [_draw_panel(measure, legend) for measure in measures]
    view = ChartView("", "profiles", charts.draw_panels(panels))
    return Chart((view,), datasets, legend, click="run")


def _rows(workloads: Sequence[Workload], measure: Measure) -> charts.Rows:
    """Return the corners of each line: tau, the share of targets, and the height at which the line is drawn."""
    rows = []
    for number, (name, ratios) in enumerate(
        zip(targets.lines(workloads), targets.ratios(workloads, measure), strict=True)
    ):
        tau, share = performance_profiles.steps(ratios)
        x = np.append(tau[tau <= LARGEST], LARGEST).tolist()
        shares = np.append(share[tau <= LARGEST], share[tau <= LARGEST][-1]).tolist()
        rows += [
            {"system": name, "tau": rounded(one), "share": rounded(y), "height": rounded(y - SPACING * number)}
            for one, y in zip(x, shares, strict=True)
        ]
    return rows


def _draw_panel(measure: Measure, legend: Sequence[LegendEntry]) -> Any:
    import altair

    x_scale = altair.Scale(domain=(1, LARGEST), nice=False)
    y_scale = altair.Scale(domain=(-SPACING * len(legend), 1.02), nice=False)
    ticks = altair.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], format=".1f")
    x = altair.X("tau:Q", scale=x_scale, axis=altair.Axis(tickCount=4), title="tau: times the least amount")
    y = altair.Y("height:Q", scale=y_scale, axis=ticks, title="share of targets")
    tooltip = [
        altair.Tooltip("system:N"),
        altair.Tooltip("tau:Q"),
        altair.Tooltip("share:Q", title="share of targets"),
    ]
    rows = charts.chart_on(measure)
    colour = charts.colour_of(legend)
    line = rows.mark_line(interpolate="step-after", strokeWidth=2, cursor="pointer")
    marks = rows.mark_point(filled=True, size=28, cursor="pointer")
    layers = [
        line.encode(x=x, y=y, color=colour, strokeDash=charts.dash_of(legend), **charts.opacity("strokeOpacity")),
        marks.encode(
            x=x, y=y, color=colour, shape=charts.shape_of(legend), **charts.opacity("fillOpacity"), tooltip=tooltip
        ),
    ]
    return altair.LayerChart(layer=layers, width=SIZE[0], height=SIZE[1], title=MEASURES[measure].capitalize())
