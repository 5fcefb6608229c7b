"""The differences between all pairs of systems as a picture."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from imagenet_repro.report.plots.style import AS_TEXT, MUTED, STYLE, write
from imagenet_repro.report.sections.class_gains import clipped, signed

CELL = (0.68, 0.4)  # inches
LETTER = 0.082  # inches, the mean width of a letter in the names
SATURATED = 5.0  # points, at least, that the strongest colour stands for: small differences stay pale
SLANT = 40  # degrees, of the columns' names
# Orange against purple: unlike for people with any common colour blindness. Without the darkest, so that black text
# can be read on all of them.
COLOURS = ListedColormap(colormaps["PuOr_r"](np.linspace(0.2, 0.76, 256)))
NOTE = (
    "Each cell: error of its row less that of its column, in points. Bold: told apart; (in brackets): cannot be told"
    " apart. Purple: the row errs less; orange: it errs more."
)


def plot_matrix(
    names: Sequence[str],
    points: Float[np.ndarray, "n n"],
    different: Bool[np.ndarray, "n n"],
    path: str | Path,
    *,
    title: str,
) -> list[Path]:
    """Draws the differences of all pairs as a heat map, least error first; returns the .png and the .svg.

    Args:
      names: of the systems.
      points: error of the row's system less that of the column's, in points of percent; NaN: not known.
      different: whether the two are told apart.
      path: of the picture.
      title: says of which error these are.

    Raises:
      SaveError: the files cannot be written.
    """
    order = _by_error(points)
    names = [clipped(names[index]) for index in order]
    points, different = points[np.ix_(order, order)], different[np.ix_(order, order)]
    longest = LETTER * max(map(len, names))
    width = max(5.0, CELL[0] * len(names) + 1.8 * longest + 0.4)
    height = CELL[1] * len(names) + 0.7 * longest + 1.9
    with rc_context(STYLE | AS_TEXT):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
        figure.suptitle(textwrap.fill(title, int(width * 11)), x=0.02, ha="left", fontweight="bold", fontsize=11)
        panel = figure.subplots()
        _draw_cells(panel, points, different)
        _write_names(panel, names)
        figure.supxlabel(textwrap.fill(NOTE, int(width * 15)), x=0.02, ha="left", fontsize=9, color=MUTED)
        return write(figure, path, "the matrix of differences")


def _by_error(points: Float[np.ndarray, "n n"]) -> list[int]:
    """From the least error up: a row's mean difference from all is its error less a constant."""
    known = np.isfinite(points)
    means = np.where(known, points, 0).sum(1) / np.maximum(known.sum(1), 1)
    return np.argsort(means, kind="stable").tolist()


def _draw_cells(panel: Axes, points: Float[np.ndarray, "n n"], different: Bool[np.ndarray, "n n"]) -> None:
    largest = np.max(np.abs(points[np.isfinite(points)]), initial=SATURATED)
    colour_of = ScalarMappable(Normalize(-largest, largest), COLOURS).to_rgba
    for row, column in np.ndindex(points.shape):
        value = points[row, column]
        blank = row == column or not np.isfinite(value)
        colour = "#eeeeee" if blank else colour_of(value)
        panel.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5))
        if not blank:
            _write_cell(panel, (column + 0.5, row + 0.5), value, bool(different[row, column]))
    panel.set(xlim=(0, len(points)), ylim=(len(points), 0))


def _write_cell(panel: Axes, place: tuple[float, float], value: float, different: bool) -> None:
    text = signed(value) if different else f"({signed(value)})"
    weight = "bold" if different else "normal"
    panel.text(*place, text, ha="center", va="center_baseline", fontsize=9.5, fontweight=weight)


def _write_names(panel: Axes, names: Sequence[str]) -> None:
    middles = np.arange(len(names)) + 0.5
    panel.set_yticks(middles, names)
    panel.xaxis.tick_top()
    panel.set_xticks(middles, names, rotation=SLANT, ha="left", rotation_mode="anchor")
    for label in [*panel.get_xticklabels(), *panel.get_yticklabels()]:
        label.set_color("black")
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
