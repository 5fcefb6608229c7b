"""The report on localization: a table of all methods of predicting boxes, and a figure of images with boxes."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8
from matplotlib import patheffects, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.typing import LineStyleType
from rich.console import Console

from imagenet_repro.data.decode import decode
from imagenet_repro.data.sources import Split
from imagenet_repro.inference.localizer import AnnotatedImage, BoxResult, LocalizationResult
from imagenet_repro.report import html_page
from imagenet_repro.report.plots.canvas import NO_FORMULAS, STYLE, new_figure, write
from imagenet_repro.report.plots.style import COLOURS
from imagenet_repro.report.tables import Table
from imagenet_repro.report.text import short_names
from imagenet_repro.scoring import wordnet
from imagenet_repro.scoring.localization.boxes import edges
from imagenet_repro.scoring.metrics import GUESSES, format_rate
from imagenet_repro.scoring.terminal import print_lines, print_table, score_table
from imagenet_repro.statistics.populations import NEW_IMAGES, interval_heading
from imagenet_repro.storage import files

COLUMNS = 4
UNWRAPPED = 5  # columns of the table whose cells stay on one line in a narrow terminal
NARROWEST = 5  # characters, the smallest width of a column there
SHOWN = 12
SEED = 0  # seed of the choice of images
TRUE: tuple[str, LineStyleType] = ("#000000", "-")  # colour and line style of true boxes
# Colours and line styles of guessed boxes.
GUESSED: tuple[tuple[str, LineStyleType], ...] = ((COLOURS[1], "--"), (COLOURS[0], (0, (1, 1.4))))
HALO = [patheffects.withStroke(linewidth=3.6, foreground="white")]  # so that a line is visible on any photograph


def table(found: LocalizationResult) -> Table:
    """Return the localization errors of each method of predicting boxes, in percent, with intervals for new images."""
    rows = []
    for one in found.results:
        cells = [text for k in (1, GUESSES) for text in _error_cells(one, k)]
        rows.append((one.name, *cells, f"{_wrong_box(one):.1f}", f"{_any_box(one):.1f}"))
    best, five = found.results[0].errors[0], found.results[0].errors[-1]
    return Table(
        "localization",
        (
            "boxes",
            "top-1 %",
            interval_heading(NEW_IMAGES),
            "top-5 %",
            interval_heading(NEW_IMAGES, of="top-5"),
            "wrong box %",
            "first box %",
        ),
        tuple(rows),
        f"Localization errors on {five.images:,} images; intervals are Wilson's for {NEW_IMAGES}."
        " Class alone: top-1 error"
        f" {format_rate(best.wrong_class, best.images)[0]} %, top-5 {format_rate(five.wrong_class, five.images)[0]} %;"
        " no method can be below that. Wrong box: images whose class is among the five guesses, but"
        " without a right box. First box: images whose first box is right, for any class. The central box covers"
        " half of the image's area.",
    )


def show(found: LocalizationResult) -> None:
    """Print the table and the notes."""
    _print(table(found), found.notes)


def save(found: LocalizationResult, split: Split, folder: Path) -> None:
    """Write the table (table.csv, .md) and a figure of images (images.png, .svg) into a folder, and print both paths.

    The images are chosen at random from the scored ones, the same for every network.

    Raises:
      SaveError: a file cannot be written.
    """
    shown = table(found)
    for suffix, text in ((".csv", shown.csv()), (".md", shown.markdown())):
        with files.atomic_write(folder / f"table{suffix}", "the table of boxes") as file:
            file.write(html_page.encode(text))
    count = len(found.frames)
    chosen = np.random.default_rng(SEED).permutation(count)[:SHOWN].tolist()
    images = [decode(split.records[found.frames[number].index].image) for number in chosen]
    names = wordnet.readable_names(split.class_names)
    paths = plot_boxes(found, images, chosen, names, folder / "images.png")
    print(f"table and figure: {folder / 'table.md'}, {paths[0]}")


def plot_boxes(
    found: LocalizationResult,
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    chosen: Sequence[int],
    class_names: Sequence[str],
    path: str | Path,
) -> list[Path]:
    """Draw images with their true boxes and the boxes of the methods that look at the image.

    The box of the guess with the right class is drawn, or that of the first guess if no guess is right.

    Args:
      found: all boxes.
      images: complete images, RGB.
      chosen: the index of each image among the frames.
      class_names: names by class index.
      path: the path of the figure.

    Returns:
      The two files written: `path` as .png and as .svg.

    Raises:
      SaveError: a file cannot be written.
    """
    shown = [one for one in found.results if one.looks][: len(GUESSED)]
    rows = -(-len(images) // COLUMNS)
    aspect = min(2.0, float(np.median([image.shape[0] / image.shape[1] for image in images])))
    names = short_names(class_names)
    with rc_context(STYLE | NO_FORMULAS):
        figure = new_figure((10, 0.5 + (0.55 + 2.4 * aspect) * rows), w_pad=0.06, h_pad=0.06)
        panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for panel in panels:
            panel.set_axis_off()
        for panel, image, number in zip(panels, images, chosen, strict=False):
            guesses = [(one.guessed.top5[number], one.guessed.box[number]) for one in shown]
            _draw(panel, image, found.frames[number], guesses, names)
        _legend(figure, shown)
        return write(figure, path, "the figure of boxes")


def _print(shown: Table, notes: Sequence[str]) -> None:
    console = Console()
    printed = score_table(shown.headings, shown.rows)
    for index, column in enumerate(printed.columns):
        column.no_wrap, column.min_width = index < UNWRAPPED, NARROWEST
    print_table(printed, console)
    print_lines((shown.caption, *(f"Note: {note}" for note in notes)), console)


def _error_cells(one: BoxResult, guesses: int) -> tuple[str, str]:
    row = one.errors[guesses - 1]
    return format_rate(row.wrong, row.judged)


def _wrong_box(one: BoxResult) -> float:
    return 100 * one.errors[-1].wrong_box / one.errors[-1].judged


def _any_box(one: BoxResult) -> float:
    return 100 * float(np.mean(one.right[:, 0]))


def _draw(
    panel: Axes,
    image: UInt8[np.ndarray, "_ _ 3"],
    frame: AnnotatedImage,
    guesses: Sequence[tuple[np.ndarray, np.ndarray]],
    names: Sequence[str],
) -> None:
    """Draw one image; `guesses` has five classes and boxes for each method."""
    panel.imshow(image, extent=(0, frame.width, frame.height, 0), interpolation="lanczos")
    for box in frame.instances:
        _rectangle(panel, box, *TRUE)
    title = names[frame.label]
    for (top5, boxes), style in zip(guesses, GUESSED, strict=False):
        places = np.flatnonzero(top5 == frame.label)
        _rectangle(panel, edges(boxes)[places[0] if len(places) else 0], *style)
        title = _title(names, frame.label, top5, places)
    panel.set_title(title, fontsize=8.5, loc="left")


def _title(names: Sequence[str], label: int, guessed: np.ndarray, places: np.ndarray) -> str:
    """Return the class, and the guess below it."""
    name = textwrap.shorten(names[label], 30, placeholder="…")
    if len(places):
        return f"{name}\nguess {1 + places[0]} of {GUESSES} is right"
    first = textwrap.shorten(names[int(guessed[0])], 22, placeholder="…") if guessed[0] >= 0 else "nothing"
    return f"{name}\nguessed {first}"


def _rectangle(panel: Axes, box: Num[np.ndarray, " 4"], colour: str, line: LineStyleType) -> None:
    left, top, right, bottom = box
    drawn = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linestyle=line)
    drawn.set(linewidth=1.9, path_effects=[*HALO, patheffects.Normal()], clip_on=False)
    panel.add_patch(drawn)


def _legend(figure: Figure, shown: Sequence[BoxResult]) -> None:
    styles = {"true box": TRUE} | {one.name: style for one, style in zip(shown, GUESSED, strict=False)}
    lines = [Line2D([], [], color=colour, linestyle=line, linewidth=1.9) for colour, line in styles.values()]
    figure.legend(lines, list(styles), loc="outside lower center", ncols=len(styles), frameon=False)
