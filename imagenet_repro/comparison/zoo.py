"""The whole story as a table: entries and networks by year, sizes, published errors, and ours where measured."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imagenet_repro import models
from imagenet_repro.comparison.story import ENTRIES, Entry
from imagenet_repro.comparison.table import FILE_WIDTH, quantity
from imagenet_repro.models import counting
from imagenet_repro.models.spec import Published, Spec

HEADINGS = ("year", "name", "params", "multiply-adds", "px", "top-1 %", "top-5 %", "protocol", "ours")
RIGHT = ("params", "multiply-adds", "px", "top-1 %", "top-5 %")


@dataclasses.dataclass(frozen=True)
class Measured:
    """Errors of a finished run of ours on ImageNet's validation set, in percent."""

    top1: float
    top5: float


def show(names: Sequence[str], measured: dict[str, Measured], entries: Iterable[Entry] = ENTRIES) -> None:
    """Prints entries and networks by year; `measured` has our errors by network.

    A network takes as many lines as it has published results. Multiply-adds are those of one image of `px` pixels.
    """
    console = Console()
    if not console.is_terminal:
        console.width = FILE_WIDTH
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for heading in HEADINGS[: None if measured else -1]:
        wraps = heading in ("name", "protocol")
        table.add_column(heading, justify="right" if heading in RIGHT else "left", overflow="fold", no_wrap=not wraps)
    rows = [(entry.year, 0, _entry_lines(entry)) for entry in entries]
    rows += [(models.spec(name).year, 1, _network_lines(name, measured.get(name))) for name in names]
    for _, kind, lines in sorted(rows, key=lambda row: row[:2]):
        for line in lines:
            table.add_row(*(Text(cell) for cell in line[: len(table.columns)]), style="" if kind else "bold")
    console.print(table)
    console.print(
        "Errors are in percent as published; `main.py models NAME` says by whom. Parameters are the trainable ones for"
        " 1000 classes, auxiliary heads included; multiply-adds those of evaluation.",
        markup=False,
        highlight=False,
    )


def describe(name: str) -> None:
    """Prints all that is known of one network: paper, reference, sizes, preprocessing, results and options."""
    spec, console = models.spec(name), Console(soft_wrap=True, highlight=False)
    p = spec.preprocessing
    lines = [
        ("network", f"{name}: {spec.title} ({spec.year})" + (f"; {spec.entry}" if spec.entry else "")),
        ("paper", spec.paper),
        ("as in", spec.reference),
        ("parameters", f"{parameters(name):,}"),
        ("multiply-adds", f"{quantity(multiply_adds(name))} at {p.image_size} px"),
        ("images", f"{p.image_size} px, crop ratio {p.crop_ratio:g}, {p.kernel}, mean {p.mean}, std {p.std}"),
        *(("published", _published_text(result)) for result in spec.published),
        ("options", ", ".join(f"{option}={default!r}" for option, default in spec.options.items()) or "none"),
        ("also called", ", ".join(spec.aliases) or "nothing else"),
    ]
    for label, text in lines:
        console.print(Text(f"{label:14}{text}"))


def parameters(name: str) -> int:
    """Trainable parameters of a network with its default head."""
    return counting.parameter_count(models.abstract(name))


def multiply_adds(name: str) -> int:
    """Multiply-adds of one image of the size at which the network's results were published."""
    return counting.multiply_adds(name, models.spec(name).preprocessing.image_size)


def measured_in(results: Iterable[dict[str, Any]]) -> dict[str, Measured]:
    """The lowest top-1 error of each network among results of runs (`result.json`) on ImageNet's validation set."""
    best: dict[str, Measured] = {}
    for result in results:
        data, rates = result["provenance"]["config"]["data"], result["rates"]
        if not data["name"].startswith("imagenet2012") or not data["eval_split"].startswith("validation"):
            continue
        found = Measured(100 * rates["top1_error"], 100 * rates["top5_error"])
        name = result["system"]
        if name not in best or found.top1 < best[name].top1:
            best[name] = found
    return best


def _entry_lines(entry: Entry) -> list[list[str]]:
    cells = [str(entry.year), f"{entry.who}: {entry.what}", "", "", "", "", f"{entry.top5:g}", entry.protocol, ""]
    return [cells]


def _network_lines(name: str, ours: Measured | None) -> list[list[str]]:
    spec = models.spec(name)
    size = spec.preprocessing.image_size
    first = [str(spec.year), name, quantity(parameters(name)), quantity(multiply_adds(name)), str(size)]
    lines = [_published_cells(result) for result in spec.published] or [["", "", ""]]
    mine = f"{ours.top1:.2f} / {ours.top5:.2f}" if ours else ""
    return [
        [*(first if index == 0 else [""] * len(first)), *cells, mine if index == 0 else ""]
        for index, cells in enumerate(lines)
    ]


def _published_cells(result: Published) -> list[str]:
    return ["" if error is None else f"{error:g}" for error in (result.top1, result.top5)] + [result.protocol]


def _published_text(result: Published) -> str:
    top1, top5, protocol = _published_cells(result)
    return f"top-1 {top1 or '-'} %, top-5 {top5 or '-'} % error ({protocol}; {result.source})"


def sizes(name: str) -> dict[str, Any]:
    """One line of `results/zoo.csv`: what a network is and how large."""
    spec: Spec = models.spec(name)
    return {
        "name": name,
        "year": spec.year,
        "reference": spec.reference,
        "parameters": parameters(name),
        "image_size": spec.preprocessing.image_size,
        "multiply_adds": multiply_adds(name),
    }
