"""How well boxes fit: a table of all ways of making them, and a dozen images with true and guessed boxes."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rich.table
from jaxtyping import Num, UInt8
from matplotlib import patheffects, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from rich.console import Console

from imagenet_repro.data.decode import decode
from imagenet_repro.data.sources import Split
from imagenet_repro.inference.localizer import AnnotatedImage, BoxResult, LocalizationResult
from imagenet_repro.report.plots.style import COLOURS, STYLE, write
from imagenet_repro.report.tables import Table
from imagenet_repro.report.text import short_names
from imagenet_repro.scoring import wordnet
from imagenet_repro.scoring.localization.boxes import edges
from imagenet_repro.scoring.metrics import GUESSES, format_rate
from imagenet_repro.storage import files

COLUMNS = 4
WHOLE = 5  # columns of the table whose cells stay on one line in a narrow terminal
NARROWEST = 5  # letters of a column there
SHOWN = 12
SEED = 0  # of the draw of images
TRUE = ("#000000", "-")  # colour and line of true boxes
GUESSED = ((COLOURS[1], "--"), (COLOURS[0], (0, (1, 1.4))))  # and of guessed ones
HALO = [patheffects.withStroke(linewidth=3.6, foreground="white")]  # so that a line shows on any photograph


def table(found: LocalizationResult) -> Table:
    """Localization errors of each way of making boxes, in percent with 95 % intervals (Wilson)."""
    rows = []
    for one in found.results:
        cells = [text for k in (1, GUESSES) for text in _error(one, k)]
        rows.append((one.name, *cells, f"{_wrong_box(one):.1f}", f"{_any_box(one):.1f}"))
    best, five = found.results[0].errors[0], found.results[0].errors[-1]
    return Table(
        "localization",
        (
            "boxes",
            "top-1 %",
            "top-1 95 %",
            "top-5 %",
            "top-5 95 %",
            "wrong box %",
            "first box %",
        ),
        tuple(rows),
        f"Localization error of {five.images:,} images, with intervals (Wilson). Class alone: top-1 error"
        f" {format_rate(best.wrong_class, best.images)[0]} %, top-5 {format_rate(five.wrong_class, five.images)[0]} %;"
        " no box can have less. Wrong box: images with the right class among five guesses, in no right box. First box:"
        " images whose first box is right, whatever its class. The central box has half of the image's area.",
    )


def present(found: LocalizationResult, split: Split, folder: Path) -> None:
    """Prints the table, and puts it (table.csv, .md) and a picture of images (images.png, .svg) into a folder.

    The images are the same for every network: a draw from those that are judged. Raises `SaveError` where something
    cannot be written.
    """
    shown = table(found)
    _print(shown, found.notes)
    for suffix, text in ((".csv", shown.csv()), (".md", shown.markdown())):
        with files.atomic_write(folder / f"table{suffix}", "the table of boxes") as file:
            file.write(text.encode())
    count = len(found.frames)
    chosen = np.random.default_rng(SEED).permutation(count)[:SHOWN].tolist()
    images = [decode(split.records[found.frames[number].index].image) for number in chosen]
    names = wordnet.readable_names(split.class_names)
    drawn = plot_boxes(found, images, chosen, names, folder / "images.png")
    print(f"table and picture: {folder / 'table.md'}, {drawn[0]}")


def plot_boxes(
    found: LocalizationResult,
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    chosen: Sequence[int],
    class_names: Sequence[str],
    path: str | Path,
) -> list[Path]:
    """Draws images with their true boxes and those of the ways that look at the image.

    Of a guessed class that is right its box is shown, else that of the first guess.

    Args:
      found: all boxes.
      images: whole ones, RGB.
      chosen: which of the frames these images are.
      class_names: by the class index.
      path: of the picture.

    Returns:
      The two files written: `path` as .png and as .svg.

    Raises:
      SaveError: the files cannot be written.
    """
    shown = [one for one in found.results if one.looks][: len(GUESSED)]
    rows = -(-len(images) // COLUMNS)
    aspect = min(2.0, float(np.median([image.shape[0] / image.shape[1] for image in images])))
    names = short_names(class_names)
    with rc_context(STYLE | {"text.parse_math": False}):
        figure = Figure(figsize=(10, 0.5 + (0.55 + 2.4 * aspect) * rows), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
        panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for panel in panels:
            panel.set_axis_off()
        for panel, image, number in zip(panels, images, chosen, strict=False):
            guesses = [(one.guessed.top5[number], one.guessed.box[number]) for one in shown]
            _draw(panel, image, found.frames[number], guesses, names)
        _legend(figure, shown)
        return write(figure, path, "the picture of boxes")


def _print(shown: Table, notes: Sequence[str]) -> None:
    console = Console()
    printed = rich.table.Table(*shown.headings, box=None)
    for number, column in enumerate(printed.columns):
        column.justify, column.no_wrap = "right" if number else "left", number < WHOLE
        column.min_width = NARROWEST
    for row in shown.rows:
        printed.add_row(*row)
    console.print(printed, markup=False)
    console.print()
    for line in (shown.caption, *(f"Note: {note}" for note in notes)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _error(one: BoxResult, guesses: int) -> tuple[str, str]:
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
    """One image; `guesses` are five classes and boxes in each way."""
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
    """The class, and below it what was guessed."""
    name = textwrap.shorten(names[label], 30, placeholder="…")
    if len(places):
        return f"{name}\nguess {1 + places[0]} of {GUESSES} is right"
    first = textwrap.shorten(names[guessed[0]], 22, placeholder="…") if guessed[0] >= 0 else "nothing"
    return f"{name}\nguessed {first}"


def _rectangle(panel: Axes, box: Num[np.ndarray, " 4"], colour: str, line: str | tuple) -> None:
    left, top, right, bottom = box
    drawn = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linestyle=line)
    drawn.set(linewidth=1.9, path_effects=[*HALO, patheffects.Normal()], clip_on=False)
    panel.add_patch(drawn)


def _legend(figure: Figure, shown: Sequence[BoxResult]) -> None:
    styles = {"true box": TRUE} | {one.name: style for one, style in zip(shown, GUESSED, strict=False)}
    lines = [Line2D([], [], color=colour, linestyle=line, linewidth=1.9) for colour, line in styles.values()]
    figure.legend(lines, list(styles), loc="outside lower center", ncols=len(styles), frameon=False)
