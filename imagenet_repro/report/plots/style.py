"""The parts that all figures share: colours, style, units, error bars, and writing a figure to two files."""

import io
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from imagenet_repro.report.plots import fonts
from imagenet_repro.report.records import ComparedSystem
from imagenet_repro.statistics.intervals import binomial_interval
from imagenet_repro.statistics.populations import NEW_IMAGES
from imagenet_repro.storage import files

# Okabe & Ito (2008): distinct for people with any common colour blindness. Its yellow is too pale for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Beyond seven systems the colours repeat with the next line style and marker.
LINES = ("-", "--", ":")
MARKERS = ("o", "s", "^")
MUTED = "#666666"
GRID = "#e6e6e6"
STYLE: dict[Any, Any] = {  # for rcParams
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.hashsalt": "curves",  # so that the same input gives the same file
}
# Text stays text in the SVG: it can be searched and read aloud, and takes a third of the size of its outlines. Fonts
# other than the one measured are narrower. Dollar signs in a name must not start a formula.
AS_TEXT: dict[Any, Any] = {"svg.fonttype": "none", "text.parse_math": False}
NO_LAYOUT: dict[Any, Any] = {"figure.autolayout": False, "figure.constrained_layout.use": False}
NO_FORMULAS: dict[Any, Any] = {"text.parse_math": False}  # for names with dollar signs, where text becomes outlines


def new_figure(
    size: tuple[float, float], *, w_pad: float | None = None, h_pad: float | None = None, hspace: float | None = None
) -> Figure:
    """Return a figure with a constrained layout.

    Args:
      size: width and height in inches.
      w_pad, h_pad: padding around the panels in inches; None: matplotlib's default.
      hspace: space between rows of panels, as a share of their height; None: matplotlib's default.
    """
    return Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=w_pad, h_pad=h_pad, hspace=hspace))


def fix_layout(figure: Figure) -> None:
    """Compute the layout of a figure, on which positions within its panels depend."""
    engine = figure.get_layout_engine()
    if engine is not None:
        with fonts.no_warnings():
            engine.execute(figure)


def draw_leads(
    panel: Axes, starts: Float[np.ndarray, "n 2"], ends: Float[np.ndarray, "n 2"], colours: Sequence[str], **style: Any
) -> None:
    """Draw thin straight lines between names and their points, all as one artist.

    matplotlib's arrows do the same, but each takes some 10 ms to clip at its ends whenever it is measured or drawn.

    Args:
      panel: the axes.
      starts, ends: in shares of the panel's width and height.
      colours: the colour of each line.
      style: more properties of the lines.
    """
    if not len(starts):
        return
    segments = list(np.stack([starts, ends], 1))
    lines = LineCollection(segments, colors=colours, transform=panel.transAxes, clip_on=False, **style)
    lines.set_in_layout(False)
    panel.add_collection(lines, autolim=False)


def shorten(
    starts: Float[np.ndarray, "n 2"], ends: Float[np.ndarray, "n 2"], at_start: float, at_end: float
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
    """Return both ends of lines, moved towards each other by these lengths, at most to the middle of the line."""
    along = ends - starts
    length = np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    unit = along / length
    return starts + unit * np.minimum(at_start, length / 2), ends - unit * np.minimum(at_end, length / 2)


def styles() -> Iterator[dict[str, str]]:
    """Yield colour, line style and marker for each system in turn, without end; they are the same in every figure."""
    kinds = itertools.cycle(zip(LINES, MARKERS, strict=True))
    return ({"color": colour, "linestyle": line, "marker": mark} for line, mark in kinds for colour in COLOURS)


def power(largest: float) -> tuple[float, str]:
    """Return the power of a thousand that suits numbers up to `largest`, and its text: (1e9, " (× 10⁹)")."""
    exponent = 0
    while largest >= 1000 * 10.0**exponent:
        exponent += 3
    written = str(exponent).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return 10.0**exponent, f" (× 10{written})" if exponent else ""


def error_range(system: ComparedSystem, guesses: int) -> tuple[float, float, float]:
    """Return (error, low, high) with 1 or 5 guesses, in percent.

    For one seed these are the error and Wilson's 95 % interval, for new images and these checkpoints. For several
    seeds they are the mean, the lowest and the highest.
    """
    errors = system.errors(guesses)
    low, high = min(errors), max(errors)
    if len(errors) == 1:
        rates = system.runs[0].rates
        low, high = binomial_interval(rates.top1_wrong if guesses == 1 else rates.top5_wrong, rates.images)
    return 100 * system.mean_error(guesses), 100 * low, 100 * high


def describe_ranges(systems: Sequence[ComparedSystem]) -> str:
    """Return the meaning of the bars of `error_range`, as part of a sentence."""
    one, several = (f"Wilson's 95 % intervals for {NEW_IMAGES}", "lowest to highest seed, around the mean")
    seeds = {len(system.runs) for system in systems}
    if seeds == {1}:
        return one
    return several if 1 not in seeds else f"{several}; for one seed {one}"


def limit_errors(panel: Axes, low: Float[np.ndarray, " n"], high: Float[np.ndarray, " n"]) -> None:
    """Set the vertical axis of errors in percent: the range of the bars, at least five points, and space for names."""
    centre = (high.max() + low.min()) / 2
    half = 0.62 * max(high.max() - low.min(), 5.0)
    panel.set_ylim(max(0.0, centre - half), min(100.0, centre + half))
    panel.yaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))


def write(figure: Figure, path: str | Path, what: str) -> list[Path]:
    """Write the figure to `path` as .png and as .svg, each in one piece, and return both paths.

    Args:
      figure: the figure.
      path: its suffix is replaced.
      what: the name of the figure in an error.

    Raises:
      SaveError: a file cannot be written.
    """
    png, svg = (Path(path).with_suffix(suffix) for suffix in (".png", ".svg"))
    with fonts.drawable_characters(figure), files.atomic_write(png, what) as file:
        fix_layout(figure)  # once: each file would otherwise compute it again, which takes as long as drawing
        with rc_context(NO_LAYOUT):
            figure.set_layout_engine(None)  # with "none", each file would be drawn twice
        figure.savefig(file, format="png", dpi=160)
    drawn = io.BytesIO()
    # Text that stays text is drawn by the reader's program, which has other fonts.
    is_escaped = fonts.is_unprintable if rcParams["svg.fonttype"] == "none" else fonts.is_missing
    with fonts.drawable_characters(figure, is_escaped), fonts.no_warnings():
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    with files.atomic_write(svg, what) as file:
        file.write(re.sub(rb' d="[^"]*"', _shorten_path, drawn.getvalue()))
    return [png, svg]


def _shorten_path(path: re.Match[bytes]) -> bytes:
    """Return the outline of a shape in hundredths of a point instead of millionths, which halves its size."""
    return re.sub(rb"(\.\d\d)\d+", rb"\1", path[0])
