"""A figure of the differences between all pairs of systems."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize

from imagenet_repro.report.plots.style import (
    AS_TEXT,
    MUTED,
    STYLE,
    new_figure,
    write,
)
from imagenet_repro.report.text import clipped_name, signed

CELL = (0.68, 0.4)  # inches
LETTER = 0.082  # inches, the mean width of a character in the names
SATURATED = 5.0  # points; the strongest colour stands for at least this, so that small differences stay pale
SLANT = 40  # degrees by which the names of columns are turned
# Orange and purple are distinct for people with any common colour blindness. The darkest shades are left out, so that
# black text is readable on all of them.
COLOURS = ListedColormap(colormaps["PuOr_r"](np.linspace(0.2, 0.76, 256)))
BLANK = "#eeeeee"
MOST_NUMBERS = 40  # systems; in a figure of more, as wide as a page, no number could be read
SMALL_CELL = (0.17, 0.17)  # inches, without numbers
NOTE = (
    "Each cell: error of its row minus error of its column, in points. Bold: the difference is significant; (in"
    " brackets): it is not. Purple: the row has the lower error; orange: the higher."
)
NOTE_WITHOUT_NUMBERS = (
    "The colour of each cell: error of its row minus error of its column; the strongest stands for {:.1f} points."
    " Purple: the row has the lower error; orange: the higher. Dot: the difference is not significant. The table has"
    " the numbers."
)


def plot_matrix(
    names: Sequence[str],
    points: Float[np.ndarray, "n n"],
    significant: Bool[np.ndarray, "n n"],
    path: str | Path,
    *,
    title: str,
) -> list[Path]:
    """Draw the differences of all pairs as a heat map, lowest error first; return the .png and the .svg.

    Args:
      names: names of the systems.
      points: error of the row's system minus that of the column's, in percentage points; NaN: not known.
      significant: whether the two differ significantly.
      path: the path of the figure.
      title: says which error this is.

    Raises:
      SaveError: a file cannot be written.
    """
    order = _by_error(points)
    names = [clipped_name(names[index]) for index in order]
    points, significant = points[np.ix_(order, order)], significant[np.ix_(order, order)]
    longest = LETTER * max(map(len, names))
    cell = CELL if len(names) <= MOST_NUMBERS else SMALL_CELL
    width = max(5.0, cell[0] * len(names) + 1.8 * longest + 0.4)
    height = cell[1] * len(names) + 0.7 * longest + 1.9
    note = NOTE if len(names) <= MOST_NUMBERS else NOTE_WITHOUT_NUMBERS.format(_largest(points))
    with rc_context(STYLE | AS_TEXT):
        figure = new_figure((width, height), w_pad=0.1, h_pad=0.08)
        figure.suptitle(textwrap.fill(title, int(width * 11)), x=0.02, ha="left", fontweight="bold", fontsize=11)
        panel = figure.subplots()
        _draw_cells(panel, points, significant)
        _write_names(panel, names)
        figure.supxlabel(textwrap.fill(note, int(width * 15)), x=0.02, ha="left", fontsize=9, color=MUTED)
        return write(figure, path, "the matrix of differences")


def _by_error(points: Float[np.ndarray, "n n"]) -> list[int]:
    """Return the indices by rising error: a row's mean difference from all is its error minus a constant."""
    known = np.isfinite(points)
    means = np.where(known, points, 0).sum(1) / np.maximum(known.sum(1), 1)
    return np.argsort(means, kind="stable").tolist()


def _largest(points: Float[np.ndarray, "n n"]) -> float:
    """Return the difference that has the strongest colour."""
    return float(np.max(np.abs(points[np.isfinite(points)]), initial=SATURATED))


def _draw_cells(panel: Axes, points: Float[np.ndarray, "n n"], significant: Bool[np.ndarray, "n n"]) -> None:
    """Draw all cells as one artist, and in each its number or, where numbers would not be readable, a dot or none."""
    size = len(points)
    is_blank = np.eye(size, dtype=bool) | ~np.isfinite(points)
    largest = _largest(points)
    panel.pcolormesh(
        np.arange(size + 1),
        np.arange(size + 1),
        np.ma.masked_array(points, is_blank),
        cmap=COLOURS.with_extremes(bad=BLANK),
        norm=Normalize(-largest, largest),
        edgecolors="white",
        linewidth=1.5 if size <= MOST_NUMBERS else 0.5,
    )
    if size <= MOST_NUMBERS:
        for row, column in np.argwhere(~is_blank):
            _write_cell(panel, (column + 0.5, row + 0.5), float(points[row, column]), bool(significant[row, column]))
    else:
        rows, columns = np.nonzero(~is_blank & ~significant)
        panel.scatter(columns + 0.5, rows + 0.5, s=4, color="black", linewidths=0)
    panel.set(xlim=(0, size), ylim=(size, 0))


def _write_cell(panel: Axes, place: tuple[float, float], value: float, is_significant: bool) -> None:
    text = signed(value) if is_significant else f"({signed(value)})"
    weight = "bold" if is_significant else "normal"
    written = panel.text(*place, text, ha="center", va="center_baseline", fontsize=9.5, fontweight=weight)
    written.set_in_layout(False)  # it lies within the panel


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
