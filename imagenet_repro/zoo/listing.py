"""The whole story as a table: entries and networks by year, sizes, published errors, and ours where measured."""

import csv
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imagenet_repro import models
from imagenet_repro.models.spec import Published
from imagenet_repro.report.result_table import FILE_WIDTH, quantity
from imagenet_repro.scoring.sets import IMAGENET
from imagenet_repro.zoo import counting
from imagenet_repro.zoo.entries import ENTRIES, Entry

# Counting the whole zoo takes minutes, so the counts are stored; benchmarks/zoo_table.py writes them, a test recounts.
STORED = Path(__file__).parent / "sizes.csv"
HEADINGS = ("year", "name", "params", "multiply-adds", "px", "top-1 %", "top-5 %", "protocol", "ours")
VALIDATION_IMAGES = 50_000
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
    rows = [(entry.year, 0, _entry_lines(entry, measured.get(entry.system))) for entry in entries]
    rows += [(models.spec(name).year, 1, _network_lines(name, measured.get(name))) for name in names]
    for _, kind, lines in sorted(rows, key=lambda row: row[:2]):
        for line in lines:
            table.add_row(*(Text(cell) for cell in line[: len(table.columns)]), style="" if kind else "bold")
    console.print(table)
    console.print(
        "Errors are in percent as published; `main.py models NAME` says by whom. Parameters are the trainable ones,"
        " with the published head and auxiliary heads; multiply-adds those of evaluation.",
        markup=False,
        highlight=False,
    )


def describe(name: str, measured: Measured | None = None) -> None:
    """Prints all that is known of one network: paper, reference, sizes, preprocessing, results, ours, and options."""
    spec, size, console = models.spec(name), sizes(name), Console(soft_wrap=True, highlight=False)
    p = spec.preprocessing
    crop = "squashed" if p.crop == "squash" else f"crop ratio {p.crop_ratio:g}"
    lines = [
        ("network", f"{name}: {spec.title} ({spec.year})" + (f"; {spec.entry}" if spec.entry else "")),
        ("paper", spec.paper),
        ("as in", spec.reference),
        ("parameters", f"{size.parameters:,}"),
        ("multiply-adds", f"{quantity(size.multiply_adds)} at {p.image_size} px"),
        ("images", f"{p.image_size} px, {crop}, {p.kernel}, mean {p.mean}, std {p.std}"),
        *(("published", _published_text(result)) for result in spec.published),
        *([("ours", f"top-1 {measured.top1:.2f} %, top-5 {measured.top5:.2f} % error")] if measured else []),
        ("options", ", ".join(f"{option}={default!r}" for option, default in spec.options.items()) or "none"),
        ("also called", ", ".join(spec.aliases) or "nothing else"),
    ]
    for label, text in lines:
        console.print(Text(f"{label:14}{text}"))


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large a network is with its published head."""

    parameters: int  # trainable
    multiply_adds: int  # of one image of the size at which its results were published


def sizes(name: str) -> Sizes:
    """The stored sizes of a network; counted where none are stored for the size of its images now."""
    row = _stored().get(name)
    if row is None or int(row["image_size"]) != models.spec(name).preprocessing.image_size:
        row = count(name)
    return Sizes(int(row["parameters"]), int(row["multiply_adds"]))


def count(name: str) -> dict[str, Any]:
    """A row of `STORED`, counted from the network's shapes; some seconds for the deepest."""
    network, size = models.abstract(name), models.spec(name).preprocessing.image_size
    return {
        "name": name,
        "parameters": counting.parameter_count(network),
        "image_size": size,
        "multiply_adds": counting.multiply_adds(network, size),
    }


@functools.cache
def _stored() -> dict[str, dict[str, str]]:
    with STORED.open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def measured_in(results: Iterable[dict[str, Any]]) -> dict[str, Measured]:
    """The lowest top-1 error of each network, by its name in `SPECS`, among results of runs (`result.json`).

    Only those count that were scored on all images of ImageNet's validation set, as the published ones were.
    """
    best: dict[str, Measured] = {}
    for result in results:
        if not _on_validation(result):
            continue
        rates = result["rates"]
        found = Measured(100 * rates["top1_error"], 100 * rates["top5_error"])
        name = models.canonical(result["system"])
        if name not in best or found.top1 < best[name].top1:
            best[name] = found
    return best


def _on_validation(result: dict[str, Any]) -> bool:
    data = result["provenance"]["config"]["data"]
    split = data.get("test_split") or data["eval_split"]
    whole = split == "validation" and result["rates"]["images"] == VALIDATION_IMAGES
    return whole and IMAGENET.fullmatch(data["name"]) is not None


def _entry_lines(entry: Entry, ours: Measured | None) -> list[list[str]]:
    cells = [str(entry.year), f"{entry.who}: {entry.what}", "", "", "", "", f"{entry.top5:g}", entry.protocol]
    return [[*cells, _ours(ours)]]


def _ours(measured: Measured | None) -> str:
    return f"{measured.top1:.2f} / {measured.top5:.2f}" if measured else ""


def _network_lines(name: str, ours: Measured | None) -> list[list[str]]:
    spec = models.spec(name)
    size, pixels = sizes(name), str(spec.preprocessing.image_size)
    first = [str(spec.year), name, quantity(size.parameters), quantity(size.multiply_adds), pixels]
    lines = [_published_cells(result) for result in spec.published] or [["", "", ""]]
    mine = _ours(ours)
    return [
        [*(first if index == 0 else [""] * len(first)), *cells, mine if index == 0 else ""]
        for index, cells in enumerate(lines)
    ]


def _published_cells(result: Published) -> list[str]:
    return ["" if error is None else f"{error:g}" for error in (result.top1, result.top5)] + [result.protocol]


def _published_text(result: Published) -> str:
    top1, top5, protocol = _published_cells(result)
    return f"top-1 {top1 or '-'} %, top-5 {top5 or '-'} % error ({protocol}; {result.source})"
