"""The table at the end of a run: systems side by side with their sizes, the cost of training, and both error rates."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from imagenet_repro.report.text import quantity, seconds
from imagenet_repro.scoring import sets, terminal
from imagenet_repro.scoring.metrics import ErrorRates, format_rate
from imagenet_repro.statistics.populations import NEW_IMAGES, interval_heading, terminal_heading
from imagenet_repro.storage.workdir import system_name

FULL_WIDTH = 100  # columns; in a narrower terminal an interval stands below its error rate
FILE_WIDTH = 160  # columns of output to a file
SIZES = ("system", "params", "multiply-\nadds", "images\nseen", "training\nseconds")
INTERVAL = interval_heading(NEW_IMAGES)
RATES = ("top-1\nerror %", terminal_heading(INTERVAL), "top-5\nerror %", terminal_heading(INTERVAL))


@dataclasses.dataclass(frozen=True)
class ResultRow:
    """The numbers of one system.

    Attributes:
      system: the system's name.
      parameters: number of trainable parameters.
      multiply_adds: multiply-adds of one image at evaluation size.
      images_seen: number of images seen in training, every epoch counted.
      training_seconds: seconds of training, without compilation, evaluation and checkpoints.
      rates: both error rates.
      data: name of the data set.
      left_out: number of scored records that could not be decoded, which `rates` does not count.
    """

    system: str
    parameters: int
    multiply_adds: int
    images_seen: int
    training_seconds: int | float
    rates: ErrorRates
    data: str = ""
    left_out: int = 0


def row(result: Mapping[str, Any]) -> ResultRow:
    """Return the row of a finished run, from its `result.json`."""
    rates = result["rates"]
    counts = {field.name: rates[field.name] for field in dataclasses.fields(ErrorRates)}
    return ResultRow(
        system=system_name(result),
        parameters=result["parameters"],
        multiply_adds=result["multiply_adds"],
        images_seen=result["spent"]["images"],
        training_seconds=result["spent"]["seconds"],
        rates=ErrorRates(**counts),
        data=result["provenance"]["config"]["data"]["name"],
        left_out=result.get("left_out", {}).get("scored", 0),
    )


def markdown(rows: Sequence[ResultRow]) -> str:
    """Return the table in Markdown, with a final newline; Wilson's 95 % interval for new images follows each error."""
    headings = [heading.replace("-\n", "-").replace("\n", " ") for heading in SIZES + RATES]
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)]]
    lines += [[cell.replace("|", "\\|") for cell in _size_cells(row) + _rate_cells(row)] for row in rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n{_caption(rows)}\n"


def show(rows: Sequence[ResultRow], console: Console | None = None) -> None:
    """Print the table; if the output is a file, it is at least 160 columns wide."""
    console = console or Console()
    terminal.widen_for_file(console, FILE_WIDTH)
    is_wide = console.width >= FULL_WIDTH
    headings = (*SIZES, *(RATES if is_wide else RATES[::2]))
    cells = (_size_cells(row) + (_rate_cells(row) if is_wide else _stack(_rate_cells(row))) for row in rows)
    console.print(terminal.ruled_table(headings, cells, one_line=range(1, len(headings))))
    console.print(_caption(rows), markup=False, highlight=False)


def _size_cells(row: ResultRow) -> list[str]:
    amounts = (row.parameters, row.multiply_adds, row.images_seen)
    return [row.system, *map(quantity, amounts), seconds(row.training_seconds)]


def _rate_cells(row: ResultRow) -> list[str]:
    return [
        text for wrong in (row.rates.top1_wrong, row.rates.top5_wrong) for text in format_rate(wrong, row.rates.images)
    ]


def _stack(rates: Sequence[str]) -> list[str]:
    """Return each error rate with its interval below it."""
    return [f"{error}\n{interval}" for error, interval in zip(rates[::2], rates[1::2], strict=True)]


def _caption(rows: Sequence[ResultRow]) -> str:
    counts = [f"{count:,}" for count in sorted({row.rates.images for row in rows})]
    people = "".join(f"\n{line}." for line in sets.human_error_sentences(rows[0].data))
    left_out = max(row.left_out for row in rows)
    note = f" Left out because they cannot be decoded: {left_out:,} records." if left_out else ""
    return f"Intervals are Wilson's over {' or '.join(counts)} scored images: {NEW_IMAGES}.{note}{people}"
