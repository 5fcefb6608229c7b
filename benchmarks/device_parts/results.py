"""The file of results, in which a line is complete or absent whenever the process ends."""

import json
import os
import time
from pathlib import Path
from typing import Any

RESULTS, SUMMARY = "results.jsonl", "summary.md"


class Results:
    """Measurements as lines of JSON in `results.jsonl`.

    Each line is one call of write(2), followed by fsync(2), so that a process that is killed, or a machine that is
    taken away, leaves complete lines and loses none that was written.

    Args:
      folder: the directory of the file; it is created.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self._began = time.perf_counter()
        self._file = os.open(folder / RESULTS, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)

    def write(self, kind: str, **values: Any) -> dict[str, Any]:
        """Append a line with `kind`, `at` (seconds since the start) and the values; return it."""
        row = {"kind": kind, "at": round(time.perf_counter() - self._began, 2), **values}
        line = (json.dumps(row, default=_plain) + "\n").encode()
        if os.write(self._file, line) != len(line):
            raise OSError(f"{self.folder / RESULTS}: the disk is full")
        os.fsync(self._file)
        self.rows.append(row)
        return row


def _plain(value: Any) -> Any:
    """Return a number of NumPy or JAX as Python's, and anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of `results.jsonl` in a folder; raise ValueError where a line is not complete."""
    return [json.loads(line) for line in (folder / RESULTS).read_text(encoding="utf-8").splitlines()]


def free_folder(parent: Path, name: str) -> Path:
    """Return `parent/name`, or with -2, -3, … where a folder of that name has results."""
    number = 1
    while (parent / (name if number == 1 else f"{name}-{number}") / RESULTS).exists():
        number += 1
    return parent / (name if number == 1 else f"{name}-{number}")
