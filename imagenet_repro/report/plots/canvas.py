"""The parts of figures that matplotlib draws: those with images, which Vega-Lite cannot draw well."""

import io
import re
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from imagenet_repro.report.plots import fonts
from imagenet_repro.report.plots.style import MUTED
from imagenet_repro.storage import files

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
NO_LAYOUT: dict[Any, Any] = {"figure.autolayout": False, "figure.constrained_layout.use": False}
NO_FORMULAS: dict[Any, Any] = {"text.parse_math": False}  # for names with dollar signs, where text becomes outlines


def new_figure(size: tuple[float, float], *, w_pad: float | None = None, h_pad: float | None = None) -> Figure:
    """Return a figure with a constrained layout.

    Args:
      size: width and height in inches.
      w_pad, h_pad: padding around the panels in inches; None: matplotlib's default.
    """
    return Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=w_pad, h_pad=h_pad))


def fix_layout(figure: Figure) -> None:
    """Compute the layout of a figure, on which positions within its panels depend."""
    engine = figure.get_layout_engine()
    if engine is not None:
        with fonts.no_warnings():
            engine.execute(figure)


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
    with fonts.drawable_characters(figure), fonts.no_warnings():
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    with files.atomic_write(svg, what) as file:
        file.write(re.sub(rb' d="[^"]*"', _shorten_path, drawn.getvalue()))
    return [png, svg]


def _shorten_path(path: re.Match[bytes]) -> bytes:
    """Return the outline of a shape in hundredths of a point instead of millionths, which halves its size."""
    return re.sub(rb"(\.\d\d)\d+", rb"\1", path[0])
