"""The table at the end: systems side by side, sizes, what they were given, and both error rates."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imagenet_repro.scoring import sets
from imagenet_repro.scoring.metrics import ErrorRates, format_rate

FULL_WIDTH = 100  # columns; in a narrower terminal an interval stands below its error rate
FILE_WIDTH = 160  # columns, where rich would assume 80
UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
SIZES = ("system", "params", "multiply-\nadds", "images\nseen", "training\nseconds")
RATES = ("top-1\nerror %", "95 %\ninterval", "top-5\nerror %", "95 %\ninterval")


@dataclasses.dataclass(frozen=True)
class ResultRow:
    """One system: its size, the budget it used up, and what came out."""

    system: str
    parameters: int  # trainable
    multiply_adds: int  # of one image, at the size of evaluation
    images_seen: int  # in training, every epoch counted
    training_seconds: int | float  # without compilation, evaluation and checkpoints
    rates: ErrorRates
    data: str = ""  # name of the data set


def row(result: Mapping[str, Any]) -> ResultRow:
    """The line of a finished run, from its `result.json`."""
    rates = result["rates"]
    counted = {field.name: rates[field.name] for field in dataclasses.fields(ErrorRates)}
    return ResultRow(
        system=result["system"],
        parameters=result["parameters"],
        multiply_adds=result["multiply_adds"],
        images_seen=result["spent"]["images"],
        training_seconds=result["spent"]["seconds"],
        rates=ErrorRates(**counted),
        data=result["provenance"]["config"]["data"]["name"],
    )


def markdown(rows: Sequence[ResultRow]) -> str:
    """The table in Markdown, with a final newline; each error rate is followed by its 95 % Wilson interval."""
    headings = [heading.replace("-\n", "-").replace("\n", " ") for heading in SIZES + RATES]
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)]]
    lines += [[cell.replace("|", "\\|") for cell in _sizes(row) + _rates(row)] for row in rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n{_caption(rows)}\n"


def show(rows: Sequence[ResultRow], console: Console | None = None) -> None:
    """Prints the table; where the output is not a terminal, as wide as its longest name needs."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    wide = console.width >= FULL_WIDTH
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for index, heading in enumerate((*SIZES, *(RATES if wide else RATES[::2]))):
        two_lines = heading if "\n" in heading else f"\n{heading}"
        name = index == 0
        table.add_column(two_lines, overflow="fold", justify="left" if name else "right", no_wrap=not name)
    for row in rows:
        cells = _sizes(row) + (_rates(row) if wide else _stacked(_rates(row)))
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    console.print(_caption(rows), markup=False, highlight=False)


def _sizes(row: ResultRow) -> list[str]:
    amounts = (row.parameters, row.multiply_adds, row.images_seen)
    return [row.system, *map(quantity, amounts), seconds(row.training_seconds)]


def _rates(row: ResultRow) -> list[str]:
    return [
        text for wrong in (row.rates.top1_wrong, row.rates.top5_wrong) for text in format_rate(wrong, row.rates.images)
    ]


def _stacked(rates: Sequence[str]) -> list[str]:
    return [f"{error}\n{interval}" for error, interval in zip(rates[::2], rates[1::2], strict=True)]


def _caption(rows: Sequence[ResultRow]) -> str:
    counts = [f"{count:,}" for count in sorted({row.rates.images for row in rows})]
    people = "".join(f"\n{line}." for line in sets.human_error_sentences(rows[0].data))
    return f"Intervals are Wilson's; images scored: {' or '.join(counts)}.{people}"


def quantity(value: int | float) -> str:
    """Three significant digits and a unit, as papers write sizes: 61.1 M, 714 M, 4.09 G."""
    if value < 1000:
        return f"{value:g}"
    # a value that three digits round up to the next unit takes that unit: 999,999 is 1.00 M, not 1000 k
    scale, unit = next((scale, unit) for scale, unit in UNITS if value >= 0.9995 * scale)
    scaled = value / scale
    decimals = max(0, 2 - math.floor(math.log10(scaled * 1.0005)))
    return f"{scaled:.{decimals}f} {unit}"


def seconds(value: int | float) -> str:
    """Whole seconds, with one decimal below a hundred."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}"
