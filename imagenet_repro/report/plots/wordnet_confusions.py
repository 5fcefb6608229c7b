"""Figures of wrong first guesses in the WordNet tree: their distance from the label, and confused super-classes."""

import textwrap
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import FigureBase
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from imagenet_repro.report.plots.style import (
    COLOURS,
    MUTED,
    NO_FORMULAS,
    STYLE,
    new_figure,
    write,
)
from imagenet_repro.report.sections.confusions import ConfusionTree
from imagenet_repro.report.text import clipped_name

# The greatest height of each band, with kinds of that height; heights between ImageNet's classes end at 19.
BANDS = ((5, "dog, car"), (7, "bird, vehicle"), (9, "mammal, device"), (13, "animal, artifact"), (19, "entity"))
SHADES = ("#cfe1f2", "#93c4de", "#4a97c9", "#1764ab", "#08306b")  # darker is farther
DARK = 3  # shades from this one on carry white text
LETTER = 0.012  # width of one character within a bar, as a share of the axis
FAINTEST = 1.5  # percent, below which a cell has no number, so that large numbers stand out
CELL = 0.27  # inches


def plot_heights(tree: ConfusionTree, path: str | Path) -> list[Path]:
    """Draw each system's top-1 error as a bar, divided by the height of the nearest kind of both label and guess.

    Args:
      tree: the wrong guesses of all systems.
      path: the path of the figure.

    Returns:
      The two files written: `path` as .png and as .svg.

    Raises:
      SaveError: a file cannot be written.
    """
    systems = tree.wrong.systems
    with rc_context(STYLE | NO_FORMULAS):
        figure = new_figure((9, 2.0 + 0.36 * len(systems)), w_pad=0.12, h_pad=0.08)
        panel = figure.subplots()
        shares = _band_shares(tree)
        _limit(panel, shares)
        _draw_bars(panel, shares)
        _draw_numbers(panel, tree, shares)
        panel.set_yticks(range(len(systems)), [clipped_name(name) for name in systems])
        panel.set_ylim(len(systems) - 0.5, -0.5)
        _finish_bars(panel)
        return write(figure, path, "the figure of how far errors go up the tree")


def plot_super_classes(tree: ConfusionTree, system: str, path: str | Path) -> list[Path]:
    """Draw one system's wrong first guesses by the super-classes of label and guess, in percent of the label's images.

    The figure needs at least two super-classes (`tree.groups`) to be useful.

    Args:
      tree: the wrong guesses of all systems.
      system: the name of one of them.
      path: the path of the figure.

    Returns:
      The two files written: `path` as .png and as .svg.

    Raises:
      SaveError: a file cannot be written.
    """
    shares = _group_shares(tree, tree.wrong.systems.index(system))
    with rc_context(STYLE | NO_FORMULAS):
        side = CELL * len(tree.groups)
        width = max(side + 3.4, 7)
        figure = new_figure((width, max(side, 1.5) + 3))
        panel = figure.subplots()
        _draw_cells(panel, shares)
        _label_cells(panel, tree)
        title = f"{clipped_name(system)}: super-classes of wrong first guesses, % of a row’s images"
        figure.suptitle(textwrap.fill(title, int(9 * width)), x=0.015, ha="left", fontsize=11, fontweight="bold")
        _explain(
            figure,
            "Rows: super-class of the image, with its number of classes. Columns: super-class of the first guess.\n"
            "Outlined: another class of the same super-class.",
        )
        return write(figure, path, "the figure of confused super-classes")


def _band_shares(tree: ConfusionTree) -> Float[np.ndarray, "s b"]:
    """Return the wrong first guesses in each band, in percent of all images."""
    band = np.searchsorted([top for top, _ in BANDS], tree.cost)
    return 100 * tree.wrong.images_by(band, len(BANDS)) / tree.wrong.images.sum()


def _limit(panel: Axes, shares: Float[np.ndarray, "s b"]) -> None:
    panel.set_xlim(0, max(1.0, shares.sum(axis=1).max()))


def _draw_bars(panel: Axes, shares: Float[np.ndarray, "s b"]) -> None:
    left, bottom = np.zeros(len(shares)), 0
    for column, ((top, kinds), shade) in enumerate(zip(BANDS, SHADES, strict=True)):
        width, label = shares[:, column], f"{bottom + 1}–{top} ({kinds})"
        panel.barh(range(len(shares)), width, 0.72, left, color=shade, edgecolor="white", linewidth=0.8, label=label)
        _draw_shares(panel, left, width, "white" if column >= DARK else "black")
        left, bottom = left + width, top


def _draw_shares(panel: Axes, left: Float[np.ndarray, " s"], width: Float[np.ndarray, " s"], colour: str) -> None:
    for place, (start, share) in enumerate(zip(left, width, strict=True)):
        text = f"{share:.1f}"
        if share > (len(text) + 1) * LETTER * panel.get_xlim()[1]:
            panel.text(start + share / 2, place, text, color=colour, fontsize=8, ha="center", va="center_baseline")


def _draw_numbers(panel: Axes, tree: ConfusionTree, shares: Float[np.ndarray, "s b"]) -> None:
    """Write error, share inside the super-class and mean cost of each system in columns right of the bars."""
    columns = {
        "error": [f"{error:.1f}" for error in shares.sum(axis=1)],
        "inside": [f"{100 * share:.0f} %" if np.isfinite(share) else "–" for share in tree.share_inside()],
        "cost": [f"{cost:.2f}" for cost in tree.mean_cost()],
    }
    beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
    for number, (name, texts) in enumerate(columns.items()):
        offset = 44 * (number + 1)
        panel.annotate(name, (1, -0.5), (offset, 2), va="bottom", color=MUTED, annotation_clip=False, **beside)
        for place, text in enumerate(texts):
            panel.annotate(text, (1, place), (offset, 0), va="center_baseline", annotation_clip=False, **beside)


def _finish_bars(panel: Axes) -> None:
    panel.set_xlabel("wrong first guesses, % of all images")
    _explain(
        panel.figure,
        "inside: % of the wrong guesses that are of the label’s super-class;"
        " cost: mean height over all images, with 0 for a right guess",
    )
    panel.xaxis.set_major_locator(MaxNLocator(6))
    panel.tick_params(axis="y", length=0, labelcolor="black")
    panel.spines["left"].set_visible(False)
    title = "Wrong first guesses by the height in WordNet of the nearest kind of both label and guess"
    legend = panel.figure.legend(
        loc="outside upper left", ncols=len(BANDS), title=title, alignment="left", frameon=False,
        title_fontproperties={"size": 11, "weight": "bold"}, fontsize=9.5, borderpad=0.2, handlelength=1.2,
        columnspacing=1.4,
    )  # fmt: skip
    legend.get_title().set_parse_math(False)


def _explain(figure: FigureBase, text: str) -> None:
    """Write a sentence below everything, aligned to the left."""
    figure.supxlabel(text, x=0.015, ha="left", fontsize=9, color=MUTED)


def _group_shares(tree: ConfusionTree, system: int) -> Float[np.ndarray, "g g"]:
    """Return the wrong first guesses by super-class of label (row) and guess, in percent of the row's images."""
    wrong, size = tree.wrong, len(tree.groups)
    pairs = wrong.guessed[system]
    pairs = pairs[wrong.has_guess[pairs]]
    code = tree.group[wrong.label[pairs]] * size + tree.group[wrong.guess[pairs]]
    counts = np.bincount(code, minlength=size**2).reshape(size, size) / wrong.seeds[system]
    return 100 * counts / np.maximum(tree.images(), 1)[:, None]


def _draw_cells(panel: Axes, shares: Float[np.ndarray, "g g"]) -> None:
    size, norm = (
        len(shares),
        PowerNorm(0.5, 0, max(1.0, shares.max())),
    )  # the square root shows differences between small shares
    panel.imshow(shares, cmap="Blues", norm=norm, extent=(0, size, size, 0), interpolation="nearest")
    for row, column in zip(*np.nonzero(shares >= FAINTEST), strict=True):
        letters = "white" if norm(shares[row, column]) > 0.6 else "black"
        middle = (column + 0.5, row + 0.5)
        panel.text(*middle, f"{shares[row, column]:.0f}", color=letters, fontsize=7, ha="center", va="center_baseline")
    for place in range(size):
        panel.add_patch(Rectangle((place, place), 1, 1, fill=False, edgecolor=COLOURS[1], linewidth=1.2))
    panel.spines[:].set_visible(True)


def _label_cells(panel: Axes, tree: ConfusionTree) -> None:
    middles = np.arange(len(tree.groups)) + 0.5
    of_each = zip(tree.groups, np.bincount(tree.group), strict=True)
    panel.set_yticks(middles, [f"{name} ({classes})" for name, classes in of_each])
    panel.set_xticks(middles, tree.groups, rotation=90)
    panel.xaxis.tick_top()
    panel.tick_params(length=0, labelcolor="black", labelsize=8)
