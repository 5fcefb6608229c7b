"""A figure of the classes that gained most and least from one system to another."""

import json
import math
from collections.abc import Sequence
from typing import Any

from imagenet_repro.report.plots import charts
from imagenet_repro.report.plots.charts import Chart, ChartView
from imagenet_repro.report.plots.style import COLOURS, MUTED, rounded
from imagenet_repro.report.sections.class_gains import ClassGain, Gains, noise_note
from imagenet_repro.report.text import clipped_name, signed

MOST, LEAST = 15, 5  # classes shown at either end if there are more than these
HEADING = "\u2009"  # begins the heading of a group of rows, so that no class has its name
# Distinct by shape too, and by size where one covers the other: a dot in an open square.
COLOUR, SHAPE, SIZE = (COLOURS[1], COLOURS[0]), ("square", "circle"), (85, 45)
DASH = ([6, 3], [2, 2])  # of the error rates over all images
WIDTH, ROW = 480, 21  # pixels of the panel and of a row in the files


def draw_gains(gains: Gains, systems: tuple[str, str] = ("before", "after")) -> Chart:
    """Return the classes that gained most and least.

    Up to 20 classes are all drawn; if there are more, the first 15 and the last 5.

    Args:
      gains: the gains.
      systems: the names of the two systems.
    """
    rows = _rows(gains)
    order = [row if isinstance(row, str) else row.short for row in rows]
    overall = gains.overall.errors(gains.guesses)
    keys = [
        f"{clipped_name(name)}: {error:.1f} % over all {gains.overall.before.images:,} images"
        for name, error in zip(systems, overall, strict=True)
    ]
    classes = [row for row in rows if isinstance(row, ClassGain)]
    datasets: dict[str, charts.Rows] = {
        "nothing": [{}],
        "classes": [_class_row(one, gains) for one in classes],
        "points": [
            {"class": one.short, "which": key, "error": rounded(error)}
            for one in classes
            for key, error in zip(keys, one.errors(gains.guesses), strict=True)
        ],
        "overall": [{"which": key, "error": rounded(error)} for key, error in zip(keys, overall, strict=True)],
    }
    highest = max(error for one in (gains.overall, *classes) for error in one.errors(gains.guesses))
    panel = _draw_panel(order, keys, 10 * max(1, math.ceil(highest / 10)), gains.guesses)
    title = _title(gains, (clipped_name(systems[0]), clipped_name(systems[1])))
    specification = charts.draw_panels([panel], title=title, notes=[noise_note(gains)])
    return Chart((ChartView("", "gains", specification),), datasets, narrowest=420)


def _class_row(one: ClassGain, gains: Gains) -> dict[str, Any]:
    before, after = one.errors(gains.guesses)
    gain = one.gain(gains.guesses)
    return {
        "class": one.short,
        "before": rounded(before),
        "after": rounded(after),
        "gain": rounded(gain),
        "text": signed(gain),
        "images": one.before.images,
    }


def _title(gains: Gains, systems: Sequence[str]) -> list[str]:
    points = [one.gain(gains.guesses) for one in gains.classes]
    n_fell, n_rose = (sum(sign * x > 0 for x in points) or "none" for sign in (1, -1))
    best = f"“{gains.classes[0].short}” gained most" if points[0] > 0 else "no class gained"
    return [
        f"From {systems[0]} to {systems[1]}, {best}.",
        f"Top-{gains.guesses} error fell in {n_fell} of {len(points)} classes and rose in {n_rose}.",
    ]


def _rows(gains: Gains) -> list[ClassGain | str]:
    """Return the rows from top to bottom: classes, and headings if classes between them are left out."""
    if len(gains.classes) <= MOST + LEAST:
        return list(gains.classes)
    first, last = gains.classes[:MOST], gains.classes[-LEAST:]
    best = "Gained most" if first[-1].gain(gains.guesses) > 0 else "Gained most or lost least"
    worst = "Lost most" if last[0].gain(gains.guesses) < 0 else "Gained least or lost most"
    return [HEADING + best, *first, HEADING + worst, *last]


def _draw_panel(order: Sequence[str], keys: Sequence[str], highest: float, guesses: int) -> Any:
    import altair

    is_heading = f"slice(datum.value, 0, 1) === '{HEADING}'"
    labels = altair.Axis(
        domain=False, ticks=False, labelColor="#000000", labelPadding=8, labelLimit=200,
        labelFontWeight=altair.condition(is_heading, altair.value("bold"), altair.value("normal")),
    )  # fmt: skip
    y = altair.Y("class:N", scale=altair.Scale(domain=list(order)), axis=labels, title=None)
    x_scale = altair.Scale(domain=(0, 1.14 * highest), nice=False)
    step = next(step for step in (2, 5, 10, 20) if highest <= 5 * step)
    ticks = altair.Axis(values=list(range(0, int(highest) + 1, step)))
    title = f"top-{guesses} error within the class, %"
    x = altair.X("error:Q", scale=x_scale, axis=ticks, title=title)
    which: dict[str, Any] = {"domain": list(keys)}
    look = altair.Legend(title=None, orient="top", columns=1, labelLimit=500)
    colour = altair.Color("which:N", scale=altair.Scale(**which, range=list(COLOUR)), legend=look)
    classes = charts.chart_on("classes")
    bars = classes.mark_rule(color="#bdbdbd", strokeWidth=3).encode(
        x=altair.X("before:Q", scale=x_scale, axis=ticks, title=title), x2="after:Q", y=y, tooltip=_tooltip(guesses)
    )
    overall = charts.chart_on("overall").mark_rule(strokeWidth=1.2).encode(
        x=x, color=colour,
        strokeDash=altair.StrokeDash("which:N", scale=altair.Scale(**which, range=DASH), legend=look),
    )  # fmt: skip
    shape = altair.Shape("which:N", scale=altair.Scale(**which, range=list(SHAPE)), legend=look)
    tooltip = [
        altair.Tooltip("class:N"),
        altair.Tooltip("which:N", title="system"),
        altair.Tooltip("error:Q", title=f"top-{guesses} error, %", format=".2f"),
    ]
    points = [
        charts.chart_on("points")
        .transform_filter(f"datum.which === {json.dumps(key)}")
        .mark_point(strokeWidth=2, size=size)
        .encode(x=x, y=y, color=colour, shape=shape, tooltip=tooltip)
        for key, size in zip(keys, SIZE, strict=True)
    ]
    gain = classes.mark_text(align="right").encode(
        x=altair.value("width"), y=y, text="text:N", tooltip=_tooltip(guesses)
    )
    head = charts.chart_on("nothing").mark_text(align="right", color=MUTED, dy=-8, text="gain, points")
    layers = [bars, overall, *points, gain, head.encode(x=altair.value("width"), y=altair.value(0))]
    return altair.LayerChart(layer=layers, width=WIDTH, height=ROW * len(order))


def _tooltip(guesses: int) -> list[Any]:
    import altair

    form = ".2f"
    return [
        altair.Tooltip("class:N"),
        altair.Tooltip("before:Q", title=f"top-{guesses} error before, %", format=form),
        altair.Tooltip("after:Q", title="after, %", format=form),
        altair.Tooltip("gain:Q", title="gain, points", format="+.2f"),
        altair.Tooltip("images:Q", title="images", format=","),
    ]
