"""Draw the diagrams of the documentation as SVG, in docs/images.

    python -m tools.diagrams             # write them
    python -m tools.diagrams --check     # fail if a committed one is stale

A diagram is a chain of numbered boxes that runs to and fro: the first row from left to right, the second back.
"""

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from xml.sax.saxutils import escape

from tools.generated import REPOSITORY, write_or_check

COLUMNS = 3
BOX = (236, 104)  # pixels: width, height
GAP = (28, 30)  # pixels between boxes: horizontal, vertical
MARGIN = 14
LINE = 17  # pixels from one line of text to the next
FILLS = {"host": "#eaf1fb", "device": "#fdf0e3", "stored": "#eaf6ee", "learned": "#f5ecf8"}
EDGES = {"host": "#4a76b8", "device": "#c8792b", "stored": "#3d8b5a", "learned": "#8b5aa3"}


@dataclasses.dataclass(frozen=True)
class Box:
    """One station: a title, one or two lines of explanation, and the modules that implement it."""

    kind: str  # a key of FILLS
    title: str
    lines: tuple[str, ...]
    modules: str


DATA_FLOW = (
    Box("stored", "Image files", ("JPEG, PNG, … in archives,", "folders or zip files"), "data/prepare"),
    Box("stored", "Prepared data set", ("tfds, ArrayRecord: encoded", "images with random access"), "data/sources"),
    Box("host", "Order of images", ("arithmetic: follows from", "seed, epoch and step"), "data/order"),
    Box("host", "Decode and crop", ("uint8 crops on the CPU;", "only the crop is resized"), "data/decode, data/crops"),
    Box("device", "Augment", ("flips, colour, RandAugment,", "mixup, in the compiled step"), "data/augment"),
    Box("device", "Scores", ("a network, or hand-made", "features and linear SVMs"), "models, features"),
    Box("device", "Loss and update", ("mean over devices; rate is a", "function of the budget spent"), "training"),
    Box("stored", "Checkpoint", ("parameters and progress,", "sealed with checksums"), "training/checkpoint"),
    Box("device", "Evaluate", ("every image exactly once,", "by a named protocol"), "inference"),
    Box("stored", "Predictions", ("guesses and scores of each", "image, with its own id"), "scoring/predictions"),
    Box("host", "Test", ("paired over images, paired", "over seeds, adjusted by Holm"), "statistics"),
    Box("stored", "Page", ("tables, figures, and where", "every number comes from"), "report"),
)

BEFORE_2012 = (
    Box("host", "Image", ("resized to one size, so that", "all images have equal grids"), "data/crops"),
    Box("device", "Dense patches", ("every 4 pixels, at several", "scales"), "features/descriptors/grid"),
    Box("device", "Descriptors", ("SIFT, HOG, LBP, or local", "colour statistics"), "features/descriptors"),
    Box("learned", "PCA", ("each descriptor becomes", "64 numbers"), "features/encoding/pca"),
    Box("learned", "Vocabulary", ("a Gaussian mixture, or words", "found by k-means"), "features/encoding"),
    Box("device", "Code", ("Fisher vector, super-vector,", "LLC, or bag of words"), "features/encoding"),
    Box("device", "Pyramid", ("of the whole image and of", "its strips, normalised"), "features/encoding/pyramid"),
    Box("stored", "Stored codes", ("each image coded once, eight", "numbers to a byte"), "features/stored_codes"),
    Box("learned", "Linear SVMs", ("one class against the rest;", "scores averaged over channels"), "features/svm"),
)

DIAGRAMS = {
    "data_flow.svg": (
        "The way of the data, from an image file to a cell of the page",
        DATA_FLOW,
        {"stored": "on disk", "host": "on the CPU", "device": "on the accelerator"},
    ),
    "before_2012.svg": (
        "One channel of a system before 2012",
        BEFORE_2012,
        {
            "host": "on the CPU",
            "device": "on the accelerator",
            "learned": "learned from training images",
            "stored": "on disk",
        },
    ),
}


def main() -> int:
    """Write or check every diagram."""
    folder = REPOSITORY / "docs" / "images"
    files = {folder / name: draw(*diagram) for name, diagram in DIAGRAMS.items()}
    return write_or_check(files, __doc__, "python -m tools.diagrams")


def draw(title: str, boxes: Sequence[Box], legend: dict[str, str]) -> str:
    """Return a diagram as the text of an SVG file."""
    rows = -(-len(boxes) // COLUMNS)
    width = 2 * MARGIN + COLUMNS * BOX[0] + (COLUMNS - 1) * GAP[0]
    height = 2 * MARGIN + rows * BOX[1] + (rows - 1) * GAP[1] + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="Helvetica, Arial, sans-serif" role="img">',
        f"<title>{escape(title)}</title>",
        '<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7"'
        ' orient="auto"><path d="M0 0 10 5 0 10z" fill="#555"/></marker></defs>',
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    corners = [_corner(index) for index in range(len(boxes))]
    parts += [_arrow(a, b) for a, b in itertools.pairwise(corners)]
    parts += [_box(index + 1, box, *corners[index]) for index, box in enumerate(boxes)]
    parts += _legend(legend, height - MARGIN - 6)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _corner(index: int) -> tuple[int, int]:
    """Return the upper left corner of a box in pixels; odd rows run from right to left."""
    row, column = divmod(index, COLUMNS)
    column = COLUMNS - 1 - column if row % 2 else column
    return MARGIN + column * (BOX[0] + GAP[0]), MARGIN + row * (BOX[1] + GAP[1])


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    (x0, y0), (x1, y1) = start, end
    if y0 != y1:
        x = x0 + BOX[0] // 2
        points = (x, y0 + BOX[1], x, y1 - 2)
    else:
        y = y0 + BOX[1] // 2
        points = (x0 + BOX[0], y, x1 - 2, y) if x1 > x0 else (x0, y, x1 + BOX[0] + 2, y)
    return '<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="#555" stroke-width="1.6" marker-end="url(#head)"/>'.format(
        *points
    )


def _box(number: int, box: Box, x: int, y: int) -> str:
    texts = [f'<text x="{x + 12}" y="{y + 25}" font-size="16" font-weight="bold">{number}. {escape(box.title)}</text>']
    for index, line in enumerate(box.lines):
        texts.append(f'<text x="{x + 12}" y="{y + 48 + index * LINE}" font-size="14">{escape(line)}</text>')
    texts.append(
        f'<text x="{x + 12}" y="{y + BOX[1] - 12}" font-size="12.5" fill="#555"'
        f' font-family="Menlo, Consolas, monospace">{escape(box.modules)}</text>'
    )
    frame = (
        f'<rect x="{x}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="8"'
        f' fill="{FILLS[box.kind]}" stroke="{EDGES[box.kind]}" stroke-width="1.4"/>'
    )
    return "\n".join([frame, *texts])


def _legend(legend: dict[str, str], y: int) -> list[str]:
    parts, x = [], MARGIN
    for kind, words in legend.items():
        parts.append(
            f'<rect x="{x}" y="{y - 12}" width="15" height="15" rx="3" fill="{FILLS[kind]}" stroke="{EDGES[kind]}"/>'
        )
        parts.append(f'<text x="{x + 22}" y="{y}" font-size="14">{escape(words)}</text>')
        x += 22 + 7 * len(words) + 34
    return parts


if __name__ == "__main__":
    sys.exit(main())
