"""Figures of calibration: accuracy against confidence, and top-1 error against coverage."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from imagenet_repro.report.plots import charts
from imagenet_repro.report.plots.charts import Chart, ChartView
from imagenet_repro.report.plots.style import COLOURS, MUTED, rounded
from imagenet_repro.scoring.calibration import (
    BINS,
    ScoredProbabilities,
    best_risk_curve,
    bin_images,
    bin_indices,
    risk_curve,
)
from imagenet_repro.statistics.intervals import binomial_interval

WIDTH, HEIGHT, LOW_HEIGHT = 340, 300, 90  # pixels of the panels in the files
MOST_POINTS = 300  # in a curve
# Distinct by shape too, and by size where one covers the other: a dot in an open square.
COLOUR, SHAPE, SIZE = (COLOURS[1], COLOURS[0]), ("square", "circle"), (85, 45)
DASH = ([1, 0], [6, 3], [2, 2])
TICKS = (0, 20, 40, 60, 80, 100)


@dataclasses.dataclass(frozen=True)
class CalibrationState:
    """A system's probabilities as they are, or at a temperature.

    Attributes:
      name: the name in a legend.
      judged: their calibration.
    """

    name: str
    judged: ScoredProbabilities


def draw_reliability(states: Sequence[CalibrationState]) -> Chart:
    """Return accuracy against confidence in 15 bins with Wilson's 95 % intervals for new images, and a histogram.

    Args:
      states: one or two.
    """
    import altair

    names = [state.name for state in states]
    datasets = {
        "bins": [row for state in states for row in _bin_rows(state)],
        "counts": [row for state in states for row in _count_rows(state)],
        "diagonal": [{"at": 0}, {"at": 100}],
    }
    legend = altair.Legend(title=None, orient="top", columns=1, labelLimit=340)
    colour = altair.Color("state:N", scale=altair.Scale(domain=names, range=list(COLOUR[: len(names)])), legend=legend)
    shape = altair.Shape("state:N", scale=altair.Scale(domain=names, range=list(SHAPE[: len(names)])), legend=legend)
    x, y = _percent("confidence", "confidence, %"), _percent("accuracy", "accuracy of first guesses, %", is_x=False)
    diagonal = charts.chart_on("diagonal").mark_line(color=MUTED, strokeDash=[2, 3], strokeWidth=1.2)
    bins = charts.chart_on("bins")
    bars = bins.mark_rule(strokeWidth=1.4).encode(
        x=x, y=_percent("low", "accuracy of first guesses, %", is_x=False), y2="high:Q", color=colour,
        strokeOpacity=altair.value(0.6),
    )  # fmt: skip
    marks = [
        bins.transform_filter(f"datum.state === {json.dumps(name)}")
        .mark_point(strokeWidth=2, size=size)
        .encode(x=x, y=y, color=colour, shape=shape, tooltip=_tooltip())
        for name, size in zip(names, SIZE, strict=False)
    ]
    upper = altair.LayerChart(
        layer=[
            diagonal.encode(
                x=_percent("at", "confidence, %"), y=_percent("at", "accuracy of first guesses, %", is_x=False)
            ),
            bars, *marks,
        ],
        width=WIDTH, height=HEIGHT,
    )  # fmt: skip
    steps = charts.chart_on("counts").mark_line(interpolate="step-after", strokeWidth=1.6)
    share = altair.Y("share:Q", title="images, %", axis=altair.Axis(tickCount=3, minExtent=34))
    lower = altair.LayerChart(
        layer=[
            steps.encode(
                x=_percent("edge", "confidence, %"), y=share, color=colour, strokeDash=_dash(names, legend),
                tooltip=[altair.Tooltip("state:N"), altair.Tooltip("share:Q", title="images, %", format=".2f")],
            )
        ],
        width=WIDTH, height=LOW_HEIGHT,
    )  # fmt: skip
    specification = charts.draw_panels([upper, lower], columns=1)
    return Chart((ChartView("", "reliability", specification),), datasets, is_narrow=True)


def draw_risk(states: Sequence[CalibrationState]) -> Chart:
    """Return the top-1 error among the most confident images against their share, and the lowest possible curve.

    Args:
      states: one or two.
    """
    import altair

    curves = [(f"{state.name}: area {{:.2f}}", risk_curve(state.judged)) for state in states]
    curves.append(("smallest possible at this error: {:.2f}", best_risk_curve(states[0].judged)))
    rows, keys = [], []
    for label, curve in curves:
        keys.append(label.format(100 * curve.area))
        coverage, risk = _thinned(curve.coverage, curve.risk)
        rows += [
            {"curve": keys[-1], "coverage": rounded(x), "risk": rounded(y)}
            for x, y in zip(coverage.tolist(), risk.tolist(), strict=True)
        ]
    colours = [*COLOUR[: len(states)], MUTED]
    legend = altair.Legend(title=None, orient="top", columns=1, labelLimit=340, symbolType="stroke")
    line = charts.chart_on("curves").mark_line(strokeWidth=2).encode(
        x=_percent("coverage", "coverage: the most confident images, %"),
        y=altair.Y("risk:Q", scale=altair.Scale(domainMin=0), title="top-1 error, %"),
        color=altair.Color("curve:N", scale=altair.Scale(domain=keys, range=colours), legend=legend),
        strokeDash=altair.StrokeDash(
            "curve:N", scale=altair.Scale(domain=keys, range=[*DASH[: len(states)], DASH[2]]), legend=legend
        ),
        tooltip=[
            altair.Tooltip("curve:N"), altair.Tooltip("coverage:Q", title="coverage, %", format=".2f"),
            altair.Tooltip("risk:Q", title="top-1 error, %", format=".2f"),
        ],
    )  # fmt: skip
    panel = altair.LayerChart(layer=[line], width=WIDTH, height=HEIGHT)
    specification = charts.draw_panels([panel])
    return Chart((ChartView("", "risk", specification),), {"curves": rows}, is_narrow=True)


def _bin_rows(state: CalibrationState) -> charts.Rows:
    bins = bin_images(state.judged, "width")
    columns = (bins.right, bins.images, bins.confidence, bins.accuracy)
    rows = []
    for right, images, confidence, accuracy in zip(*(column.tolist() for column in columns), strict=True):
        low, high = binomial_interval(right, images)
        shares = {"confidence": confidence, "accuracy": accuracy, "low": low, "high": high}
        row: dict[str, Any] = {"state": state.name, "images": images}
        rows.append(row | {key: rounded(100 * share) for key, share in shares.items()})
    return rows


def _count_rows(state: CalibrationState) -> charts.Rows:
    """Return the share of images in each bin at its lower edge, and again the last one at its upper edge."""
    counts = np.bincount(bin_indices(state.judged.confidence, "width"), minlength=BINS)
    shares = (100 * counts / counts.sum()).tolist()
    edges = np.linspace(0, 100, BINS + 1).tolist()
    return [
        {"state": state.name, "edge": rounded(edge), "share": rounded(share)}
        for edge, share in zip(edges, [*shares, shares[-1]], strict=True)
    ]


def _percent(field: str, title: str, *, is_x: bool = True) -> Any:
    import altair

    scale = altair.Scale(domain=(0, 100), nice=False)
    if is_x:
        return altair.X(f"{field}:Q", scale=scale, axis=altair.Axis(values=list(TICKS)), title=title)
    return altair.Y(f"{field}:Q", scale=scale, axis=altair.Axis(values=list(TICKS), minExtent=34), title=title)


def _dash(names: Sequence[str], legend: Any) -> Any:
    import altair

    scale = altair.Scale(domain=list(names), range=list(DASH[: len(names)]))
    return altair.StrokeDash("state:N", scale=scale, legend=legend)


def _tooltip() -> list[Any]:
    import altair

    form = ".2f"
    return [
        altair.Tooltip("state:N"),
        altair.Tooltip("confidence:Q", title="mean confidence, %", format=form),
        altair.Tooltip("accuracy:Q", title="accuracy, %", format=form),
        altair.Tooltip("low:Q", title="from", format=form),
        altair.Tooltip("high:Q", title="to", format=form),
        altair.Tooltip("images:Q", format=","),
    ]


def _thinned(
    coverage: Float[np.ndarray, " n"], risk: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Return at most `MOST_POINTS` points of a curve, including the last one, in percent."""
    step = -(-len(risk) // MOST_POINTS)
    rows = np.arange(len(risk) - 1, -1, -step)[::-1]
    return 100 * coverage[rows], 100 * risk[rows]
