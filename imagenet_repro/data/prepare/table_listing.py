"""Listing of a table of images: a CSV, TSV or Parquet file with the columns file, label and perhaps split.

Files are named by their paths relative to the table. Columns are found by their names, whatever their letter case:

| use | names |
|---|---|
| file | file, file_name, filename, path, filepath, image, image_path, img |
| label | label, class, class_name, category |
| split | split, subset, set |
"""

import csv
import os
import stat
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imagenet_repro.data.prepare import names
from imagenet_repro.data.prepare.contents import TOO_LARGE, Contents, cannot_prepare, finish, in_order, split_name
from imagenet_repro.data.prepare.listing import MAX_IMAGE_BYTES, Image, Listing, Options
from imagenet_repro.errors import UserError

ENDINGS = (".csv", ".tsv", ".parquet")
FILE_COLUMNS = ("file", "file_name", "filename", "path", "filepath", "image", "image_path", "img")
_COLUMNS = {
    "file": FILE_COLUMNS,
    "label": ("label", "class", "class_name", "category"),
    "split": ("split", "subset", "set"),
}
_DELIMITERS = ",;\t"
_ROWS = 65_536  # of a Parquet file that are read at a time
Row = tuple[str, str, str]  # file, label and split


def scan(source: Path, options: Options) -> Listing:
    """List the images of a table.

    Raises:
        UserError: the table cannot be read or lacks a column or a cell, or a file is missing; the message lists every
            problem.
    """
    rows = _parquet_rows(source, options) if source.suffix.lower() == ".parquet" else _text_rows(source, options)
    contents = Contents(shape=f"a table of files ({source.name})", belong="the paths of its rows")
    contents.rename, contents.same_classes = "Rename them in the table", False
    images, root = [], source.parent
    incomplete: dict[str, list[int]] = defaultdict(list)
    for number, (file, label, split) in rows:
        if not file or not label:
            incomplete["file" if not file else "label"].append(number)
            continue
        image = Image(sys.intern(split_name(split)), sys.intern(label), _relative(file, root), None, 0)
        if status := _status(root / image.name, contents):
            images.append(image._replace(size=status.st_size, stamp=status.st_mtime_ns, linked=True))
    problems = [
        f"{len(lines)} rows have no {column}, the first in line {lines[0]:,}" for column, lines in incomplete.items()
    ]
    if problems:
        raise cannot_prepare(source, problems)
    _require_one_row_each(images, source)
    contents.set_images(images)
    contents.classes = in_order({image.label for image in images})
    return finish(contents, source, options, root=root)


def find_columns(available: Sequence[str], uses: Mapping[str, Sequence[str]], options: Options) -> dict[str, str]:
    """Return the column of each use: the one that the options name, else the one that has one of the usual names.

    Args:
        available: names of the table's columns.
        uses: usual names of each use, in small letters; `split` may be absent.
        options: columns are used.

    Raises:
        UserError: a column is missing, or several have one of the names; the message says what to type.
    """
    named = dict(options.columns)
    if unknown := set(named) - set(uses):
        raise UserError(f"--columns: {names.some(unknown)} is no use of a column; valid: {', '.join(uses)}")
    chosen = {}
    for use, usual in uses.items():
        if use in named and named[use] not in available:
            raise UserError(f"--columns: there is no column {named[use]!r}; there are: {', '.join(available)}")
        candidates = [named[use]] if use in named else [name for name in available if name.strip().lower() in usual]
        exact = [name for name in candidates if name.strip().lower() == use]
        candidates = exact if len(exact) == 1 else candidates
        if len(candidates) > 1 or (not candidates and use != "split"):
            problem = f"the columns {', '.join(candidates)} could all be" if candidates else "no column is"
            raise UserError(
                f"{problem} the {use}; the columns are {', '.join(map(names.printable, available)) or 'without names'}"
                f". Name one of the columns {', '.join(usual)}, or type --columns={use}=NAME"
            )
        if candidates:
            chosen[use] = candidates[0]
    return chosen


def _text_rows(source: Path, options: Options) -> Iterator[tuple[int, Row]]:
    """Yield the number of each line with its file, label and split."""
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = max(_DELIMITERS, key=header.count)
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            columns = _columns(source, [name or "" for name in reader.fieldnames or ()], options)
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(
                        f"folder:{names.printable(str(source))}: line {reader.line_num:,} has another number of cells "
                        f"than the first line, which names {len(reader.fieldnames or ())} columns. Correct it"
                    )
                cells = {use: row[column] for use, column in columns.items()}
                # Blanks around a label are an error that is reported, because other tables may have it without.
                yield reader.line_num, (cells["file"].strip(), cells["label"], cells.get("split", "").strip())
    except UnicodeDecodeError as error:
        raise UserError(f"{names.printable(str(source))} is not UTF-8 ({error}). Save the table as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"{names.printable(str(source))} cannot be read as a table: {error}") from error


def _parquet_rows(source: Path, options: Options) -> Iterator[tuple[int, Row]]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(source) as file:
            columns = _columns(source, file.schema_arrow.names, options)
            for batch in file.iter_batches(_ROWS, columns=list(columns.values())):
                cells = {use: batch.column(column).to_pylist() for use, column in columns.items()}
                splits = cells.get("split", [""] * batch.num_rows)
                for row in zip(cells["file"], cells["label"], splits, strict=True):
                    number += 1
                    yield number, (_text(row[0]), _text(row[1]), _text(row[2]))
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{names.printable(str(source))} cannot be read as Parquet: {error}") from error


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)


def _columns(source: Path, available: Sequence[str], options: Options) -> dict[str, str]:
    try:
        return find_columns(available, _COLUMNS, options)
    except UserError as error:
        raise cannot_prepare(source, [str(error)]) from error


def _relative(file: str, root: Path) -> str:
    """Return a path with forward slashes and without `.` parts; one inside the table's folder is relative to it."""
    path = os.path.normpath(file.replace("\\", "/") if "/" not in file else file)
    if os.path.isabs(path):
        inside = os.path.relpath(path, root.resolve())
        return path if inside.startswith("..") else inside
    return path


def _status(path: Path, contents: Contents) -> os.stat_result | None:
    """Return the status of an image file; None after recording why it is none."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        contents.unreadable.append(f"{path} ({reason})")
        return None
    if not stat.S_ISREG(status.st_mode):
        contents.problems["are not files: correct the table"].append(str(path))
        return None
    if status.st_size > MAX_IMAGE_BYTES:
        contents.problems[TOO_LARGE].append(str(path))
    return status


def _require_one_row_each(images: Sequence[Image], source: Path) -> None:
    counts = Counter(image.name for image in images)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        labels = {name: set() for name in repeated}
        for image in images:
            if image.name in labels:
                labels[image.name].add(image.label)
        contradictory = sum(len(one) > 1 for one in labels.values())
        also = f", {contradictory} of them with different labels" if contradictory else ""
        raise cannot_prepare(
            source, [f"{len(repeated)} files have more than one row{also}: {names.some(repeated)}. Keep one row each"]
        )
