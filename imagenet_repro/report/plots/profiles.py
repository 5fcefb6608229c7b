"""Performance profiles: the share of targets that a system reached with at most tau times the least amount."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes

from imagenet_repro.report.plots.curves import CROWDED, LETTER, RUN, label_lines
from imagenet_repro.report.plots.style import AS_TEXT, GRID, MUTED, STYLE, fix_layout, new_figure, styles, write
from imagenet_repro.report.sections import targets
from imagenet_repro.report.targets import MEASURES, Measure, Workload, known_measures
from imagenet_repro.report.text import clipped_name
from imagenet_repro.statistics import performance_profiles

LARGEST = performance_profiles.LARGEST_RATIO
SPACING = 0.012  # between the heights of lines that would hide each other


def plot_profiles(workloads: Sequence[Workload], path: str | Path) -> list[Path]:
    """Draw the profiles of all systems by each known measure, from 1 to 4 times the best; return .png and .svg.

    Lines at the same height are drawn a little apart, in the order of the systems.

    Raises:
      SaveError: a file cannot be written.
    """
    measures, names = known_measures(workloads), targets.lines(workloads)
    longest = max(len(clipped_name(name)) for name in names)
    width = len(measures) * (3.0 + max(1.0, LETTER * longest))
    with rc_context(STYLE | AS_TEXT):
        figure = new_figure((width, 4 if len(names) <= CROWDED else 5.2), w_pad=0.1)
        panels = list(np.atleast_1d(figure.subplots(1, len(measures))))
        for panel, measure in zip(panels, measures, strict=True):
            _draw(panel, workloads, measure)
        fix_layout(figure)  # on which the positions of the names depend
        for panel in panels:
            label_lines(panel)
        return write(figure, path, "the performance profiles")


def _draw(panel: Axes, workloads: Sequence[Workload], measure: Measure) -> None:
    rows = zip(targets.lines(workloads), targets.ratios(workloads, measure), styles(), strict=False)
    for number, (name, ratios, style) in enumerate(rows):
        tau, share = performance_profiles.steps(ratios)
        x = np.append(tau[tau <= LARGEST], LARGEST)
        y = np.append(share[tau <= LARGEST], share[tau <= LARGEST][-1])
        look = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 1.8}
        panel.step(x, y - SPACING * number, where="post", label=RUN + name, clip_on=False, **look)
    panel.set_title(MEASURES[measure].capitalize(), loc="left", fontweight="bold", fontsize=11)
    panel.set_xlabel("tau: times the least amount")
    panel.set_xlim(1, LARGEST)
    panel.set_ylim(-SPACING * len(targets.lines(workloads)), 1.02)
    panel.set_ylabel("share of targets", color=MUTED)
    panel.grid(color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
