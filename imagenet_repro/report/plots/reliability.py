"""Figures of calibration: accuracy against confidence, and top-1 error against coverage."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from imagenet_repro.report.plots.style import (
    AS_TEXT,
    COLOURS,
    GRID,
    MUTED,
    STYLE,
    new_figure,
    write,
)
from imagenet_repro.scoring.calibration import (
    BINS,
    ScoredProbabilities,
    best_risk_curve,
    bin_images,
    bin_indices,
    risk_curve,
)
from imagenet_repro.statistics.intervals import binomial_interval

SIZE = (4.7, 5.2)  # inches: narrow enough to stand beside another
MOST_POINTS = 300  # in a curve
# Distinct by shape too, and by size where one covers the other: a dot in an open square.
MARKERS: tuple[Mapping[str, Any], ...] = (
    {"marker": "s", "markersize": 7.5, "markerfacecolor": "white", "markeredgewidth": 1.6, "color": COLOURS[1]},
    {"marker": "o", "markersize": 4.5, "color": COLOURS[0]},
)
LINES: tuple[Mapping[str, Any], ...] = (
    {"color": COLOURS[1], "linestyle": "-"},
    {"color": COLOURS[0], "linestyle": "--"},
)


@dataclasses.dataclass(frozen=True)
class CalibrationState:
    """A system's probabilities as they are, or at a temperature.

    Attributes:
      name: the name in a legend.
      judged: their calibration.
    """

    name: str
    judged: ScoredProbabilities


def plot_reliability(states: Sequence[CalibrationState], path: str | Path) -> list[Path]:
    """Draw accuracy against confidence in 15 bins with Wilson's 95 % intervals for new images, and a histogram.

    Args:
      states: one or two.
      path: the path of the figure.

    Returns:
      The two files written: `path` as .png and as .svg.

    Raises:
      SaveError: a file cannot be written.
    """
    with rc_context(STYLE | AS_TEXT):
        figure = new_figure(SIZE)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
        upper.plot((0, 100), (0, 100), color=MUTED, linestyle=":", linewidth=1.2, label="perfect calibration")
        for state, look, line in zip(states, MARKERS, LINES, strict=False):
            _draw_bins(upper, state, look)
            _draw_counts(lower, state, line)
        upper.set(ylim=(0, 100), ylabel="accuracy of first guesses, %")
        lower.set(xlim=(0, 100), ylim=(0, None), xlabel="confidence, %", ylabel="images, %")
        for panel in (upper, lower):
            _finish(panel)
        upper.yaxis.set_major_locator(MultipleLocator(20))
        lower.xaxis.set_major_locator(MultipleLocator(20))
        figure.legend(loc="outside upper left", frameon=False, borderpad=0.2)
        return write(figure, path, "the figure of reliability")


def _draw_bins(panel: Axes, state: CalibrationState, look: Mapping[str, Any]) -> None:
    bins = bin_images(state.judged, "width")
    ends = [
        binomial_interval(right, images)
        for right, images in zip(bins.right.tolist(), bins.images.tolist(), strict=True)
    ]
    panel.vlines(100 * bins.confidence, *(100 * np.array(ends).T), color=look["color"], linewidth=1.2, alpha=0.6)
    panel.plot(
        100 * bins.confidence, 100 * bins.accuracy, linestyle="none", clip_on=False, zorder=3, label=state.name, **look
    )


def _draw_counts(panel: Axes, state: CalibrationState, line: Mapping[str, Any]) -> None:
    """Draw the share of images in each bin, as an outline."""
    counts = np.bincount(bin_indices(state.judged.confidence, "width"), minlength=BINS)
    panel.stairs(100 * counts / counts.sum(), np.linspace(0, 100, BINS + 1), linewidth=1.4, **line)


def plot_risk(states: Sequence[CalibrationState], path: str | Path) -> list[Path]:
    """Draw the top-1 error among the most confident images against their share, and the lowest possible curve.

    Args:
      states: one or two.
      path: the path of the figure.

    Returns:
      The two files written: `path` as .png and as .svg.

    Raises:
      SaveError: a file cannot be written.
    """
    with rc_context(STYLE | AS_TEXT):
        figure = new_figure(SIZE)
        panel = figure.subplots()
        for state, line in zip(states, LINES, strict=False):
            curve = risk_curve(state.judged)
            label = f"{state.name}: area {100 * curve.area:.2f}"
            panel.plot(*_thinned(curve.coverage, curve.risk), linewidth=1.8, label=label, **line)
        best = best_risk_curve(states[0].judged)
        label = f"smallest possible at this error: {100 * best.area:.2f}"
        panel.plot(*_thinned(best.coverage, best.risk), color=MUTED, linestyle=":", linewidth=1.4, label=label)
        panel.set(xlim=(0, 100), ylim=(0, None), ylabel="top-1 error, %")
        panel.set_xlabel("coverage: the most confident images, %")
        _finish(panel)
        panel.xaxis.set_major_locator(MultipleLocator(20))
        figure.legend(loc="outside upper left", frameon=False, borderpad=0.2)
        return write(figure, path, "the figure of risk against coverage")


def _thinned(
    coverage: Float[np.ndarray, " n"], risk: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Return at most `MOST_POINTS` points of a curve, including the last one, in percent."""
    step = -(-len(risk) // MOST_POINTS)
    rows = np.arange(len(risk) - 1, -1, -step)[::-1]
    return 100 * coverage[rows], 100 * risk[rows]


def _finish(panel: Axes) -> None:
    panel.grid(color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
