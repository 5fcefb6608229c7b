"""The learning curves of a comparison as one CSV file: every logged training row and evaluation of every run."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imagenet_repro.report import html_page
from imagenet_repro.report.records import Comparison

NAME = "curves.csv"
AMOUNTS = ("step", "progress", "epochs", "images", "flops", "seconds", "joules")
VALUES = ("loss", "top1_error", "top5_error", "cross_entropy", "images_per_second")
HEADINGS = ("system", "seed", "state", "kind", *AMOUNTS, *VALUES)
KINDS = ("train", "eval")


def write(comparison: Comparison, out: Path) -> Path:
    """Write `curves.csv` into a directory and return its path; where a step was repeated, its last row counts.

    Errors are shares in [0, 1], as in `metrics.jsonl`; a value that a row does not have is empty.

    Raises:
      SaveError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADINGS)
    writer.writerows(_lines(comparison))
    html_page.save(out / NAME, text.getvalue())
    return out / NAME


def _lines(comparison: Comparison) -> Iterator[list[Any]]:
    for system in comparison.systems:
        for run in system.runs:
            yield from _lines_of_run((system.name, run.seed, "finished"), run.rows)
    for run in comparison.running:
        yield from _lines_of_run((run.name, run.seed, "running" if run.is_active else "stopped"), run.rows)


def _lines_of_run(run: tuple[str, int, str], rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    last = {(row["step"], row["kind"]): row for row in rows if row.get("kind") in KINDS}
    for (_, kind), row in sorted(last.items(), key=lambda pair: (pair[0][0], KINDS.index(pair[0][1]))):
        yield [*run, kind, *(row.get(key, "") for key in (*AMOUNTS, *VALUES))]
