"""A figure of the classes that gained most and least from one system to another."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from imagenet_repro.report.plots.style import (
    COLOURS,
    MUTED,
    NO_FORMULAS,
    STYLE,
    new_figure,
    write,
)
from imagenet_repro.report.sections.class_gains import ClassGain, Gains, GuessCount, noise_note
from imagenet_repro.report.text import clipped_name, signed

MOST, LEAST = 15, 5  # classes shown at either end if there are more than these
TITLE_LENGTH = 74  # characters in a line
# Distinct by shape too, and by size where one covers the other: a dot in an open square.
MARKERS = (
    {"marker": "s", "markersize": 9, "markerfacecolor": "white", "markeredgewidth": 1.8, "color": COLOURS[1]},
    {"marker": "o", "markersize": 5.5, "color": COLOURS[0]},
)
LINES = ("--", ":")  # line styles of the error rates over all images


def plot_gains(gains: Gains, path: str | Path, *, systems: tuple[str, str] = ("before", "after")) -> list[Path]:
    """Draw the classes that gained most and least; return the two files written: `path` as .png and as .svg.

    Up to 20 classes are all drawn; if there are more, the first 15 and the last 5.

    Args:
      gains: the gains.
      path: the path of the figure.
      systems: the names of the two systems.

    Raises:
      SaveError: a file cannot be written.
    """
    names = clipped_name(systems[0]), clipped_name(systems[1])
    rows = _rows(gains)
    with rc_context(STYLE | NO_FORMULAS):
        figure = new_figure((8, 2.5 + 0.27 * len(rows)), w_pad=0.12, h_pad=0.08)
        panel = figure.subplots()
        _draw_rows(panel, rows, gains.guesses)
        _draw_overall(panel, gains, names)
        _finish(panel, rows, gains)
        figure.supxlabel(textwrap.fill(noise_note(gains), 108), x=0.015, ha="left", fontsize=9, color=MUTED)
        return write(figure, path, "the figure of the gains")


def _title(gains: Gains, systems: Sequence[str]) -> str:
    points = [one.gain(gains.guesses) for one in gains.classes]
    n_fell, n_rose = (sum(sign * x > 0 for x in points) or "none" for sign in (1, -1))
    best = f"“{gains.classes[0].short}” gained most" if points[0] > 0 else "no class gained"
    lines = textwrap.wrap(f"From {systems[0]} to {systems[1]}, {best}", TITLE_LENGTH)
    return "\n".join(
        [*lines, f"Top-{gains.guesses} error fell in {n_fell} of {len(points)} classes and rose in {n_rose}"]
    )


def _rows(gains: Gains) -> list[ClassGain | str]:
    """Return the rows from top to bottom: classes, and headings if classes between them are left out."""
    if len(gains.classes) <= MOST + LEAST:
        return list(gains.classes)
    first, last = gains.classes[:MOST], gains.classes[-LEAST:]
    best = "Gained most" if first[-1].gain(gains.guesses) > 0 else "Gained most or lost least"
    worst = "Lost most" if last[0].gain(gains.guesses) < 0 else "Gained least or lost most"
    return [best, *first, worst, *last]


def _draw_rows(panel: Axes, rows: Sequence[ClassGain | str], guesses: GuessCount) -> None:
    places = np.cumsum([1.4 if isinstance(row, str) else 1.0 for row in rows])  # a heading has more space above it
    beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
    for place, row in zip(places, rows, strict=True):
        if isinstance(row, ClassGain):
            _draw_class(panel, row.errors(guesses), place)
            panel.annotate(signed(row.gain(guesses)), (1, place), (52, 0), va="center_baseline", **beside)
    top, bottom = places[0] - 0.7, places[-1] + 0.7
    panel.annotate("gain, points", (1, top), (52, 2), va="bottom", color=MUTED, **beside)
    panel.set_ylim(bottom, top)
    panel.set_yticks(places, [row if isinstance(row, str) else row.short for row in rows])
    for label, row in zip(panel.get_yticklabels(), rows, strict=True):
        label.set(color="black", fontweight="bold" if isinstance(row, str) else "normal")
    panel.tick_params(axis="y", length=0, pad=10)
    panel.spines["left"].set_visible(False)
    panel.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    panel.set_axisbelow(True)


def _draw_class(panel: Axes, errors: tuple[float, float], place: float) -> None:
    panel.plot(errors, (place, place), color="#bdbdbd", linewidth=3, zorder=2, solid_capstyle="butt")
    for error, marker in zip(errors, MARKERS, strict=True):
        panel.plot(error, place, linestyle="none", clip_on=False, zorder=3, **marker)


def _draw_overall(panel: Axes, gains: Gains, systems: Sequence[str]) -> None:
    """Draw both error rates over all images, as lines and in the legend."""
    errors = gains.overall.errors(gains.guesses)
    for system, error, marker, line in zip(systems, errors, MARKERS, LINES, strict=True):
        panel.axvline(error, color=marker["color"], linestyle=line, linewidth=1.2, zorder=1)
        label = f"{system}: {error:.1f} % over all {gains.overall.before.images:,} images"
        panel.plot([], [], label=label, linestyle=line, linewidth=1.2, **marker)
    # The title belongs to the legend: a figure's own title would overlap a legend outside the panel.
    bold = {"size": 12, "weight": "bold"}
    legend = panel.figure.legend(
        loc="outside upper left", title=_title(gains, systems), title_fontproperties=bold, alignment="left",
        frameon=False, borderpad=0.3, handlelength=3,
    )  # fmt: skip
    legend.get_title().set_parse_math(False)


def _finish(panel: Axes, rows: Sequence[ClassGain | str], gains: Gains) -> None:
    classes = [row for row in rows if isinstance(row, ClassGain)]
    highest = max(error for one in (gains.overall, *classes) for error in one.errors(gains.guesses))
    panel.set_xlim(0, 10 * max(1, math.ceil(highest / 10)))
    panel.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10), integer=True))
    panel.set_xlabel(f"top-{gains.guesses} error within the class, %")
