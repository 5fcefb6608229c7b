"""A figure of two descriptors from before 2012: oriented gradients (HOG) and local binary patterns (LBP)."""

import math
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from imagenet_repro.errors import UserError
from imagenet_repro.features.descriptors import hog, lbp
from imagenet_repro.features.descriptors.grid import grey
from imagenet_repro.report.plots.canvas import STYLE, new_figure, write
from imagenet_repro.report.plots.style import MUTED

DIRECTIONS = 9  # in half a turn
STRONGEST = 0.4  # where `hog.felzenszwalb` clips a direction: half the sum of four normalisations, each up to 0.2
GAMMA = 3  # clipping makes a cell's directions similar; this makes them distinct again
FAINTEST = 0.05  # brightness, relative to the strongest, below which a stroke cannot be seen on black
SMALLEST_CELL = 8  # pixels, as in the papers
MOST_CELLS = 16  # on a side; smaller glyphs are illegible
LARGE = 300  # pixels, from which the figure shrinks an image rather than enlarging it
# Six kinds of patterns, by how many of eight neighbours are as bright as the pixel; distinct in lightness and hue.
KINDS = ("bright spot", "bright corner or line end", "edge", "dark corner or line end", "flat or dark spot", "mixed")
KIND_COLOURS = ("#F0E442", "#E69F00", "#0072B2", "#000000", "#e4e4e4", "#CC79A7")
_KIND_OF_ONES = (0, 1, 1, 2, 2, 2, 3, 3, 4, 5)
BETWEEN = 3  # widths of a bar left free between patterns with different numbers of bright neighbours
MIXED_APART = 8.0  # the same before the last bar, whose label is a word
TITLE = "An image as HOG (histograms of oriented gradients) and LBP (local binary patterns) describe it"
CAPTION = (
    "HOG: each stroke lies along an edge; a brighter stroke is an edge that is stronger than its surroundings.\n"
    "LBP: which of the eight pixels around a pixel are at least as bright. Patterns in which these pixels are"
    " contiguous are counted separately;\nall others, mostly noise and fine texture, are counted together as mixed."
)


def plot_descriptors(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]] | UInt8[np.ndarray, "n h w 3"], path: str | Path
) -> list[Path]:
    """Draw a row for each image: the image, its HOG, its LBP codes and their histogram.

    Args:
      images: RGB images, [h, w, 3] each; they may differ in size.
      path: the path of the figure.

    Returns:
      The two files written: `path` as .png and as .svg.

    Raises:
      UserError: there is no image, or one is smaller than two cells of 8 pixels on a side.
      SaveError: a file cannot be written.
    """
    _check_sizes(images)
    with rc_context(STYLE):
        figure = new_figure((11, 2.0 + 2.3 * len(images)), w_pad=0.1, h_pad=0.08)
        figure.suptitle(TITLE, x=0.01, ha="left", fontweight="bold")
        panels = figure.subplots(len(images), 4, squeeze=False, width_ratios=(1, 1, 1, 1.5))
        for row, image in zip(panels, images, strict=True):
            _draw_image(row[0], image)
            _draw_hog(row[1], image)
            _draw_lbp(list(row[2:]), np.asarray(_lbp(image)))
        _explain(figure, panels)
        return write(figure, path, "the figure of the descriptors")


def strokes(
    cells: Float[np.ndarray, "r c 9"], cell: int
) -> tuple[Float[np.ndarray, "s 2 2"], Float[np.ndarray, " s"]]:
    """Return the strokes of the glyphs, weakest first: both ends (x, y) in pixels, and the brightness in (0, 1].

    Direction k has gradients at k ninths of half a turn, clockwise from the right. Its stroke is perpendicular to
    them, along the edge, and as long as a cell. Strokes that are too faint to be seen are left out.

    Args:
      cells: strengths of the directions in each cell.
      cell: size of a cell in pixels.
    """
    angle = np.arange(DIRECTIONS) * np.pi / DIRECTIONS + np.pi / 2
    half = cell / 2 * np.stack([np.cos(angle), np.sin(angle)], -1)  # [9, 2]: the image's rows count downwards
    rows, columns = np.indices(cells.shape[:2])
    centres = cell * (np.stack([columns, rows], -1) + 0.5)[:, :, None]  # [r, c, 1, 2]
    ends = np.stack([centres - half, centres + half], -2).reshape(-1, 2, 2)
    brightness = np.minimum(cells.reshape(-1) / STRONGEST, 1) ** GAMMA
    order = np.argsort(brightness, kind="stable")
    order = order[brightness[order] >= FAINTEST]
    return ends[order], brightness[order]


def cell_size(height: int, width: int) -> int:
    """Return the size of a cell in pixels: 8, or more if the shorter side would otherwise have over 16 cells."""
    return max(SMALLEST_CELL, math.ceil(min(height, width) / MOST_CELLS))


def kinds(codes: Int[np.ndarray, "*s"]) -> Int[np.ndarray, "*s"]:
    """Return the kind of each of LBP's 59 codes, as an index of `KINDS`."""
    return np.asarray(_KIND_OF_ONES)[_ones(codes)]


def _ones(codes: Int[np.ndarray, "*s"]) -> Int[np.ndarray, "*s"]:
    """Return how many neighbours are at least as bright as the pixel; 9 for the code of all mixed patterns."""
    between = (codes - 1) // lbp.NEIGHBOURS + 1
    return np.select([codes == 0, codes == lbp.CODES - 1], [0, 9], between)


# --- describing -------------------------------------------------------------------------------------------------


def _check_sizes(images: Sequence[np.ndarray] | np.ndarray) -> None:
    if not len(images):
        raise UserError("there is no image to draw descriptors of")
    for image in images:
        if min(image.shape[:2]) < 2 * SMALLEST_CELL:
            raise UserError(
                f"an image of {image.shape[0]} x {image.shape[1]} pixels is too small for a figure of its"
                f" descriptors, which needs {2 * SMALLEST_CELL} pixels on each side"
            )


def _hog(image: UInt8[np.ndarray, "h w 3"], cell: int) -> Float[np.ndarray, "r c 9"]:
    """Return the nine unsigned directions of every complete cell of the image.

    `felzenszwalb` leaves out the cells at the border, so the image is first padded with its outermost pixels.
    """
    padded = np.pad(image[None], ((0, 0), (cell, cell), (cell, cell), (0, 0)), mode="edge")
    # Division by 256 is exact. Division by 255 rounds, so equal pixels could differ, which would draw a stroke.
    described = _compiled_hog(padded.astype(np.float32) / 256, cell=cell)
    return np.asarray(described[0, :, :, 2 * DIRECTIONS : 3 * DIRECTIONS])


_compiled_hog = jax.jit(hog.felzenszwalb, static_argnames="cell")


@jax.jit
def _lbp(image: UInt8[Array, "h w 3"]) -> Int[Array, "h w"]:
    return lbp.codes(grey(image[None].astype(jnp.float32) / 255))[0]


# --- drawing ----------------------------------------------------------------------------------------------------


def _draw_image(panel: Axes, image: UInt8[np.ndarray, "h w 3"]) -> None:
    panel.imshow(image, interpolation="nearest" if max(image.shape) < LARGE else "auto")
    _bare(panel, f"{image.shape[1]} × {image.shape[0]} pixels")


def _draw_hog(panel: Axes, image: UInt8[np.ndarray, "h w 3"]) -> None:
    height, width = image.shape[:2]
    cell = cell_size(height, width)
    cells = _hog(image, cell)
    ends, brightness = strokes(cells, cell)
    panel.add_collection(LineCollection(list(ends - 0.5), colors=[str(b) for b in brightness], linewidths=1.2))
    panel.set(facecolor="black", xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    _bare(panel, f"{cells.shape[1]} × {cells.shape[0]} cells of {cell} × {cell} pixels")


def _draw_lbp(panels: Sequence[Axes], codes: Int[np.ndarray, "h w"]) -> None:
    picture, bars = panels
    picture.imshow(to_rgba_array(KIND_COLOURS)[kinds(codes)], interpolation="nearest")
    _bare(picture, "the pattern at each pixel")
    share = 100 * np.bincount(codes.ravel(), minlength=lbp.CODES) / codes.size
    number = np.arange(lbp.CODES)
    colours = [KIND_COLOURS[kind] for kind in kinds(number)]
    bars.bar(_places(), share, width=1, color=colours, edgecolor=MUTED, linewidth=0.4)
    bars.set_xticks(_middles(), [*map(str, range(9)), "mixed"])
    bars.yaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 5, 10), integer=True))
    bars.set_ylabel("% of pixels")
    bars.tick_params(axis="x", length=0)


def _places() -> Float[np.ndarray, " 59"]:
    """Return the positions of the codes' bars, grouped by the number of bright neighbours."""
    number = np.arange(lbp.CODES)
    return number + BETWEEN * _ones(number) + MIXED_APART * (number == lbp.CODES - 1)


def _middles() -> Float[np.ndarray, " 10"]:
    ones = _ones(np.arange(lbp.CODES))
    return np.array([_places()[ones == group].mean() for group in range(10)])


def _bare(panel: Axes, label: str) -> None:
    panel.set(xticks=[], yticks=[], xlabel=label, anchor="N")
    panel.spines[:].set_visible(False)


def _explain(figure: Figure, panels: np.ndarray) -> None:
    titles = ("Image", "HOG: edges", "LBP: kinds of patterns", "LBP: frequency of patterns")
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title, loc="left", fontsize=11, fontweight="bold")
    panels[-1, 3].set_xlabel(
        "number of the 8 neighbours that are at least as\nbright; the bars of a group differ in their side"
    )
    handles = [
        Patch(facecolor=c, edgecolor=MUTED, linewidth=0.4, label=k) for c, k in zip(KIND_COLOURS, KINDS, strict=True)
    ]
    figure.legend(
        handles=handles, loc="outside lower left", ncols=len(KINDS), title=CAPTION, alignment="left", frameon=False,
        columnspacing=1.4, handlelength=1.2,
    )  # fmt: skip
