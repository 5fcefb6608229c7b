"""Listing of a table of images: a CSV, TSV or Parquet file with the columns file, label and perhaps split.

A table without a label and with a column caption holds image-text pairs; a file may then have several rows, each with
another caption.

Files are named by their paths relative to the table. Columns are found by their names, whatever their letter case:

| use | names |
|---|---|
| file | file, file_name, filename, path, filepath, image, image_path, img |
| label | label, class, class_name, category |
| caption | caption, captions, text, sentence |
| split | split, subset, set |
"""

import csv
import os
import stat
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
_OF_PAIRS = {
    "file": FILE_COLUMNS,
    "caption": ("caption", "captions", "text", "sentence"),
    "split": _COLUMNS["split"],
}
_DELIMITERS = ",;\t"
_ROWS = 65_536  # of a Parquet file that are read at a time
_MAX_LINES = 10  # that a message names


class Row(NamedTuple):
    """The cells of a row."""

    file: str
    text: str  # the label or the caption
    split: str
    use: str  # of the text, "label" or "caption"


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
    captions: dict[str, list[str]] = defaultdict(list)
    for number, (file, text, split, use) in rows:
        if not file or not text:
            incomplete["file" if not file else use].append(number)
            continue
        label = "" if use == "caption" else sys.intern(text)
        image = Image(sys.intern(split_name(split)), label, _relative(file, root), None, 0)
        if use == "caption":
            captions[image.name].append(text)
        if status := _status(root / image.name, contents):
            images.append(image._replace(size=status.st_size, stamp=status.st_mtime_ns, linked=True))
    problems = [_incomplete(column, lines) for column, lines in incomplete.items()]
    if problems:
        raise cannot_prepare(source, problems)
    if captions:
        return _pairs(contents, images, captions, source, options)
    _require_one_row_each(images, source)
    contents.set_images(images)
    contents.classes = in_order({image.label for image in images})
    return finish(contents, source, options, root=root)


def _incomplete(column: str, lines: Sequence[int]) -> str:
    if column != "caption":
        return f"{len(lines)} rows have no {column}, the first in line {lines[0]:,}"
    shown = ", ".join(f"{line:,}" for line in lines[:_MAX_LINES])
    more = f" and {len(lines) - _MAX_LINES:,} more" if len(lines) > _MAX_LINES else ""
    return f"{len(lines)} rows have an empty caption, in lines {shown}{more}. Write one, or remove the rows"


def _pairs(
    contents: Contents, images: Sequence[Image], captions: Mapping[str, list[str]], source: Path, options: Options
) -> Listing:
    """Return the listing of images with captions, each image once.

    Raises:
        UserError: an image is in several splits, or as `contents.finish`.
    """
    if options.holdout is None:  # pairs are for training, so they need no other split
        images = [image._replace(split=image.split or "train") for image in images]
    unique = {(image.split, image.name): image for image in images}
    contents.shape, contents.has_labels = f"a table of files and captions ({source.name})", False
    several = [name for name, count in Counter(name for _, name in unique).items() if count > 1]
    if several:
        contents.conflicts.append(f"{len(several)} files are in several splits: {names.some(several)}. Keep one each")
        unique = {image.name: image for image in images}
    contents.set_images(list(unique.values()))
    stored = {name: tuple(texts) for name, texts in captions.items()}
    return finish(contents, source, options, root=source.parent, captions=stored)


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
    """Yield the number of each line with its cells."""
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
                use = _text_use(cells)
                text = cells[use].strip() if use == "caption" else cells[use]
                yield reader.line_num, Row(cells["file"].strip(), text, cells.get("split", "").strip(), use)
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
                use = _text_use(cells)
                for row in zip(cells["file"], cells[use], splits, strict=True):
                    number += 1
                    name, text, split = map(_text, row)
                    yield number, Row(name, text.strip() if use == "caption" else text, split, use)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{names.printable(str(source))} cannot be read as Parquet: {error}") from error


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)


def _text_use(cells: Mapping[str, Any]) -> str:
    return "caption" if "caption" in cells else "label"


def _columns(source: Path, available: Sequence[str], options: Options) -> dict[str, str]:
    try:
        return find_columns(available, _OF_PAIRS if _has_captions(available, options) else _COLUMNS, options)
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


def _has_captions(available: Sequence[str], options: Options) -> bool:
    """Return whether a table holds captions: where the options name such a column, or there is one and no label."""
    named, usual = dict(options.columns), {name.strip().lower() for name in available}
    if "caption" in named or "label" in named:
        return "caption" in named
    return bool(usual & set(_OF_PAIRS["caption"])) and not usual & set(_COLUMNS["label"])
