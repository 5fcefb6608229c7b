"""The history in the terminal: entries and networks by year, sizes, published errors, and our measured errors."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from imagenet_repro import models
from imagenet_repro.config.run import Taps
from imagenet_repro.models import image_text
from imagenet_repro.report.result_table import FILE_WIDTH
from imagenet_repro.report.text import quantity
from imagenet_repro.scoring.sets import IMAGENET
from imagenet_repro.scoring.terminal import ruled_table
from imagenet_repro.zoo.entries import ENTRIES, ChallengeEntry
from imagenet_repro.zoo.published import PublishedErrors, network_facts
from imagenet_repro.zoo.sizes import Sizes, sizes
from imagenet_repro.zoo.systems import NOT_PUBLISHED, SYSTEMS, LaterSystem
from imagenet_repro.zoo.two_towers import tower_sizes

HEADINGS = ("year", "name", "params", "multiply-adds", "px", "top-1 %", "top-5 %", "protocol", "ours")
VALIDATION_IMAGES = 50_000
TAPS: dict[Taps, str] = {
    "full": "with all taps of convolutions, as papers count them",
    "real": "without taps on padding",
}
WRAPPED = ("name", "protocol")
RIGHT = ("params", "multiply-adds", "px", "top-1 %", "top-5 %")


@dataclasses.dataclass(frozen=True)
class MeasuredErrors:
    """Error rates of a finished run of ours on ImageNet's validation set, in percent."""

    top1: float
    top5: float


def show(
    names: Sequence[str],
    measured: dict[str, MeasuredErrors],
    entries: Iterable[ChallengeEntry] = ENTRIES,
    systems: Iterable[LaterSystem] = SYSTEMS,
    *,
    taps: Taps = "full",
) -> None:
    """Print entries and networks by year.

    A network takes as many lines as it has published results.

    Args:
      names: networks.
      measured: our errors by network or by the system of an entry.
      entries: the entries of the challenge.
      systems: results of the years after it; those of networks are left out.
      taps: the taps of convolutions that count as multiply-adds.
    """
    console = Console()
    if not console.is_terminal:
        console.width = FILE_WIDTH
    headings = HEADINGS[: None if measured else -1]
    rows = [(entry.year, 0, _entry_lines(entry, measured.get(entry.system))) for entry in entries]
    rows += [(one.year, 2, [_system_line(one)]) for one in systems if not one.network]
    rows += [
        (network_facts(name).year or math.inf, 1, _network_lines(name, measured.get(name), taps)) for name in names
    ]
    lines = [(kind, line) for _, kind, entry in sorted(rows, key=lambda row: row[:2]) for line in entry]
    table = ruled_table(
        headings,
        [line[: len(headings)] for _, line in lines],
        left=[index for index, heading in enumerate(headings) if heading not in RIGHT],
        one_line=[index for index, heading in enumerate(headings) if heading not in WRAPPED],
    )
    for row, (kind, _) in zip(table.rows, lines, strict=True):
        row.style = "" if kind == 1 else "bold"
    console.print(table)
    console.print(
        "Errors are in percent, as published; `main.py models NAME` names the sources. Parameters are the trainable"
        " ones, with the published head and auxiliary heads. Multiply-adds are those of evaluating one image of `px`"
        f" pixels, {TAPS[taps]}.",
        markup=False,
        highlight=False,
    )


def show_two_towers(names: Sequence[str]) -> None:
    """Print networks with an image tower and a text tower, with the sizes of both."""
    console = Console()
    if not console.is_terminal:
        console.width = FILE_WIDTH
    headings = ("two towers", "image params", "text params", "image m-adds", "text m-adds", "px", "tokens", "source")
    rows = []
    for name in names:
        design, size = image_text.two_towers(name), tower_sizes(name)
        counts = map(quantity, dataclasses.astuple(size))
        rows.append([name, *counts, str(design.image_size), str(design.text.context), design.source])
    console.print(ruled_table(headings, rows, left=[0, 7], one_line=range(7)))
    console.print(
        "Multiply-adds (m-adds) are those of one image and of one text of the full length. These networks classify by"
        " texts: `main.py evaluate --protocol=zeroshot`.",
        markup=False,
        highlight=False,
    )


def describe(name: str, measured: MeasuredErrors | None = None) -> None:
    """Print all that is known about one network: paper, sizes, preprocessing, published errors, ours, and options."""
    spec, facts, size = models.spec(name), network_facts(name), sizes(name)
    console = Console(soft_wrap=True, highlight=False)
    p = spec.preprocessing
    crop = "squashed" if p.crop == "squash" else f"crop ratio {p.crop_ratio:g}"
    published = f"{facts.title} ({facts.year})" + (f"; {facts.entry}" if facts.entry else "")
    lines = [
        ("network", f"{name}: {published if facts.year else 'an own network'}"),
        *([("paper", facts.paper)] if facts.paper else []),
        ("as in", spec.reference),
        ("parameters", f"{size.parameters:,}"),
        ("multiply-adds", _describe_multiply_adds(size, p.image_size)),
        ("images", f"{p.image_size} px, {crop}, {p.kernel}, mean {p.mean}, std {p.std}"),
        *(("published", _published_text(errors)) for errors in facts.errors),
        *([("ours", f"top-1 {measured.top1:.2f} %, top-5 {measured.top5:.2f} % error")] if measured else []),
        ("options", ", ".join(f"{option}={default!r}" for option, default in spec.options.items()) or "none"),
        ("also called", ", ".join(spec.aliases) or "nothing else"),
    ]
    for label, text in lines:
        console.print(Text(f"{label:14}{text}"))


def measured_in(results: Iterable[dict[str, Any]]) -> dict[str, MeasuredErrors]:
    """Return the lowest top-1 error of each network among results of runs (`result.json`), by its name in `SPECS`.

    Only those runs count that were scored on all images of ImageNet's validation set, as the published ones were.
    """
    best: dict[str, MeasuredErrors] = {}
    for result in results:
        if not _is_on_validation(result):
            continue
        rates = result["rates"]
        errors = MeasuredErrors(100 * rates["top1_error"], 100 * rates["top5_error"])
        name = models.canonical(result["system"])
        if name not in best or errors.top1 < best[name].top1:
            best[name] = errors
    return best


def _is_on_validation(result: dict[str, Any]) -> bool:
    data = result["provenance"]["config"]["data"]
    split = data.get("test_split") or data["eval_split"]
    has_all_images = split == "validation" and result["rates"]["images"] == VALIDATION_IMAGES
    return has_all_images and IMAGENET.fullmatch(data["name"]) is not None


def _entry_lines(entry: ChallengeEntry, ours: MeasuredErrors | None) -> list[list[str]]:
    cells = [str(entry.year), f"{entry.who}: {entry.what}", "", "", "", "", f"{entry.top5:g}", entry.protocol]
    return [[*cells, _measured_cell(ours)]]


def _system_line(system: LaterSystem) -> list[str]:
    missing = "; weights not published" if system.weights == NOT_PUBLISHED else ""
    return [str(system.year), system.title, "", "", "", f"{system.top1:g}", "", system.protocol + missing, ""]


def _measured_cell(measured: MeasuredErrors | None) -> str:
    return f"{measured.top1:.2f} / {measured.top5:.2f}" if measured else ""


def _describe_multiply_adds(size: Sizes, pixels: int) -> str:
    on_padding = 100 * (1 - size.real_multiply_adds / size.multiply_adds)
    share = f"{on_padding:.1f} % of them on padding" if on_padding >= 0.05 else "none of them on padding"
    return f"{quantity(size.multiply_adds)} at {pixels} px, {share}"


def _network_lines(name: str, measured: MeasuredErrors | None, taps: Taps) -> list[list[str]]:
    facts, size, pixels = network_facts(name), sizes(name), str(models.spec(name).preprocessing.image_size)
    multiply_adds = size.multiply_adds if taps == "full" else size.real_multiply_adds
    first = [str(facts.year or "own"), name, quantity(size.parameters), quantity(multiply_adds), pixels]
    lines = [_published_cells(errors) for errors in facts.errors] or [["", "", ""]]
    ours = _measured_cell(measured)
    return [
        [*(first if index == 0 else [""] * len(first)), *cells, ours if index == 0 else ""]
        for index, cells in enumerate(lines)
    ]


def _published_cells(errors: PublishedErrors) -> list[str]:
    return ["" if error is None else f"{error:g}" for error in (errors.top1, errors.top5)] + [errors.protocol]


def _published_text(errors: PublishedErrors) -> str:
    top1, top5, protocol = _published_cells(errors)
    return f"top-1 {top1 or '-'} %, top-5 {top5 or '-'} % error ({protocol}; {errors.source})"
