"""What the pictures share: colours, style, units, error bars, and how a figure becomes two files."""

import io
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imagenet_repro.report.records import ComparedSystem
from imagenet_repro.statistics.intervals import binomial_interval
from imagenet_repro.storage import files

# Okabe & Ito (2008): told apart by people with any common colour blindness; its yellow is too pale for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Beyond seven systems the colours return with the next kind of line and of marker.
LINES = ("-", "--", ":")
MARKERS = ("o", "s", "^")
MUTED = "#666666"
GRID = "#e6e6e6"
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.hashsalt": "curves",  # the same input gives the same file
}
# Text stays text in the SVG, a third of the size of its shapes, which can be searched and read aloud; other fonts than
# the one measured are narrower. A name may hold dollar signs.
AS_TEXT = {"svg.fonttype": "none", "text.parse_math": False}


def styles() -> Iterator[dict[str, str]]:
    """Colour, kind of line and marker of each system in turn, without end; the same in every picture."""
    kinds = itertools.cycle(zip(LINES, MARKERS, strict=True))
    return ({"color": colour, "linestyle": line, "marker": mark} for line, mark in kinds for colour in COLOURS)


def clipped(name: str, letters: int = 34) -> str:
    """The name, or its beginning where it is too long for a picture."""
    return name if len(name) <= letters else name[: letters - 1].rstrip() + "…"


def power(largest: float) -> tuple[float, str]:
    """The power of a thousand in which numbers up to `largest` read best, and it in words: (1e9, " (× 10⁹)")."""
    exponent = 0
    while largest >= 1000 * 10.0**exponent:
        exponent += 3
    written = str(exponent).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return 10.0**exponent, f" (× 10{written})" if exponent else ""


def error_range(system: ComparedSystem, guesses: int) -> tuple[float, float, float]:
    """(error, low, high) with 1 or 5 guesses, in percent.

    Of one seed the error and its 95 % interval (Wilson 1927), which is about other images; of several seeds the mean,
    the lowest and the highest, which is about other seeds.
    """
    errors = system.errors(guesses)
    low, high = min(errors), max(errors)
    if len(errors) == 1:
        rates = system.runs[0].rates
        low, high = binomial_interval(rates.top1_wrong if guesses == 1 else rates.top5_wrong, rates.images)
    return 100 * system.mean_error(guesses), 100 * low, 100 * high


def describe_ranges(systems: Sequence[ComparedSystem]) -> str:
    """What the bars of `error_range` are, as half a sentence."""
    one, several = ("95 % intervals (Wilson)", "lowest to highest seed, around the mean")
    seeds = {len(system.runs) for system in systems}
    if seeds == {1}:
        return one
    return several if 1 not in seeds else f"{several}; of one seed {one}"


def limit_errors(panel: Axes, low: Float[np.ndarray, " n"], high: Float[np.ndarray, " n"]) -> None:
    """The upright axis of errors in percent: what the bars need, five points at least, and room for names."""
    centre = (high.max() + low.min()) / 2
    half = 0.62 * max(high.max() - low.min(), 5.0)
    panel.set_ylim(max(0.0, centre - half), min(100.0, centre + half))
    panel.yaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))


def write(figure: Figure, path: str | Path, what: str) -> list[Path]:
    """Writes the figure to `path` as .png and as .svg, each whole or not at all, and returns both.

    Raises `SaveError`, which names `what` could not be written.
    """
    png, svg = (Path(path).with_suffix(suffix) for suffix in (".png", ".svg"))
    with files.atomic_write(png, what) as file:
        figure.savefig(file, format="png", dpi=160)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    with files.atomic_write(svg, what) as file:
        file.write(re.sub(rb' d="[^"]*"', _shorter, drawn.getvalue()))
    return [png, svg]


def _shorter(path: re.Match[bytes]) -> bytes:
    """The outline of a shape in hundredths of a point, which halves it, instead of millionths."""
    return re.sub(rb"(\.\d\d)\d+", rb"\1", path[0])
