"""Listing of a Hugging Face data set on disk: Arrow files, as `Dataset.save_to_disk` writes them, or Parquet shards.

The format is that of the `datasets` library (https://huggingface.co/docs/datasets/about_arrow and, on the same site,
about_dataset_features): an image is a struct of `bytes` and `path`, and the schema of a file says under the key
`huggingface` which columns are images and class labels, with the names of the classes.
The files are read by pyarrow, so the library itself is not needed.

The split is the folder of a file, what `state.json` says, or a word in the file's name. Rows of Arrow files are read
in any order from disk. Those of a Parquet file are not: the images are first written to a temporary Arrow file.
"""

import contextlib
import functools
import json
import os
import sys
import tempfile
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from imagenet_repro.data.prepare import names
from imagenet_repro.data.prepare.contents import TOO_LARGE, Contents, cannot_prepare, finish, in_order, split_name
from imagenet_repro.data.prepare.listing import MAX_IMAGE_BYTES, Image, Listing, Options
from imagenet_repro.data.prepare.table_listing import find_columns
from imagenet_repro.data.prepare.tar_listing import split_of
from imagenet_repro.errors import UserError

ARROW, PARQUET = ".arrow", ".parquet"
_STATE, _INFO, _SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"  # names that `save_to_disk` gives
_LABELS = ("label", "labels", "class", "category")
_ROWS = 256  # of a Parquet file that are in memory at a time


@dataclass(frozen=True)
class _Columns:
    image: str
    label: str
    classes: tuple[str, ...]  # names by number; empty where the labels are texts or have no names


@dataclass
class _Rows:
    """The rows of all files, before their images have names."""

    images: list[Image] = field(default_factory=list)  # with their paths as names, empty for none
    classes: tuple[str, ...] = ()
    unlabelled: Counter = field(default_factory=Counter)  # rows by split
    without_image: list[str] = field(default_factory=list)


def has_images(path: Path) -> bool:
    """Return whether a Parquet file has a column of images, not of the names of files.

    Raises:
        UserError: the file cannot be read.
    """
    with _reading(path):
        schema = parquet.read_schema(path)
    return bool(_image_columns(schema, _features(schema, path)))


def scan(source: Path, files: Sequence[Path], options: Options) -> Listing:
    """List the images of Arrow files or of Parquet files.

    Args:
        source: the folder that holds them, or the only one.
        files: all of one kind.
        options: holdout, seed and columns are used.

    Raises:
        UserError: a file cannot be read, columns are missing or ambiguous, or the files differ; the message lists
            every problem.
    """
    is_parquet = files[0].suffix.lower() == PARQUET
    rows, columns = _Rows(), None
    for path, split in _with_splits(source, files):
        found = _columns(path, source, options)
        if columns not in (None, found):
            raise cannot_prepare(source, [f"its files have different columns or classes, the first: {path.name}"])
        columns = found
        _add_rows(rows, path, split, columns, source)
    assert columns is not None
    kind = f"{len(files)} {'Parquet' if is_parquet else 'Arrow'} files"
    contents = Contents(shape=f"a Hugging Face data set ({kind})", belong=f"the column {columns.image}")
    contents.rename, contents.same_classes = "Rename them in the data set", False
    contents.set_images(_named(_labelled(rows, contents)))
    contents.problems |= {"have no image: remove these rows": rows.without_image} if rows.without_image else {}
    large = [image.name for image in contents.images if image.size > MAX_IMAGE_BYTES]
    contents.problems |= {TOO_LARGE: large} if large else {}
    contents.classes = columns.classes or in_order({image.label for image in contents.images})
    if len(set(contents.classes)) < len(contents.classes):
        raise cannot_prepare(source, ["two of its classes have the same name"])
    open_archive = functools.partial(open_parquet if is_parquet else open_arrow, columns.image)
    root = source if source.is_dir() else source.parent
    return finish(
        contents,
        source,
        options,
        root=root,
        open_archive=open_archive,
        has_checksums=is_parquet,
        is_copied=is_parquet,
        is_quick=False,
    )


def _labelled(rows: _Rows, contents: Contents) -> list[Image]:
    """Return the images of splits with labels; a split without any is left out with a note."""
    counts = Counter(image.split for image in rows.images)
    for split, unlabelled in rows.unlabelled.items():
        if unlabelled == counts[split] and len(counts) > 1:
            contents.notes.append(f"split {split} has no labels and was left out: {unlabelled:,} images")
            rows.images = [image for image in rows.images if image.split != split]
        else:
            contents.problems["have no label: remove these rows"] += [f"{unlabelled:,} rows of split {split or 'all'}"]
    return rows.images


def _named(images: Sequence[Image]) -> list[Image]:
    """Return images with their paths as names if these are unique, otherwise with the split and a number."""
    paths = {image.name for image in images}
    if len(paths) == len(images) and "" not in paths:
        return list(images)
    numbers: Counter = Counter()
    named = []
    for image in images:
        if image.archive is None:  # the path is where it is read from
            named.append(image)
            continue
        named.append(image._replace(name=f"{image.split or 'image'}/{numbers[image.split]:08d}"))
        numbers[image.split] += 1
    return named


def _with_splits(source: Path, files: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield the files that belong to the data set, each with its split."""
    has_splits = (source / _SPLITS).is_file()  # of `DatasetDict.save_to_disk`, of any names
    states = {folder: _state(folder / _STATE) for folder in {path.parent for path in files}}
    for path in files:
        state = states[path.parent]
        if state is None and not has_splits:
            yield path, split_of(path, source)
        elif state is None:
            continue  # no part of the data set
        elif path.name in {one.get("filename") for one in state.get("_data_files", ())}:  # others are caches
            split = path.parent.name if has_splits else state.get("_split")
            yield path, split_name(str(split or split_of(path, source)))


def _state(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    state = _json(path)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UserError(
            f"{names.printable(str(path))}: the data set was selected or shuffled without being written anew. Save it "
            "again after dataset.flatten_indices()"
        )
    return state


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{names.printable(str(path))} cannot be read: {error}") from error
    return value if isinstance(value, dict) else {}


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the errors of pyarrow about a file into a UserError."""
    try:
        yield
    except (OSError, pyarrow.ArrowException, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{names.printable(str(path))} cannot be read: {reason}. Copy it again") from error


def _schema(path: Path) -> pyarrow.Schema:
    with _reading(path):
        if path.suffix.lower() == PARQUET:
            return parquet.read_schema(path)
        with pyarrow.memory_map(str(path)) as file:
            return _batches(file).schema


def _batches(file: Any) -> Any:
    """Return the reader of an Arrow file, of either of the two forms."""
    try:
        return pyarrow.ipc.open_stream(file)
    except pyarrow.ArrowInvalid:
        file.seek(0)
        return pyarrow.ipc.open_file(file)


def _features(schema: pyarrow.Schema, path: Path) -> dict[str, Any]:
    """Return the features that the `datasets` library has recorded, by column; empty where there are none."""
    recorded = (schema.metadata or {}).get(b"huggingface")
    try:
        info = json.loads(recorded)["info"] if recorded else {}
    except (ValueError, KeyError, TypeError):
        info = {}
    beside = path.parent / _INFO
    features = info.get("features") or (_json(beside).get("features") if beside.is_file() else None)
    return features if isinstance(features, dict) else {}


def _is_feature(feature: Any, kind: str) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == kind


def _image_columns(schema: pyarrow.Schema, features: dict[str, Any]) -> list[str]:
    stated = [name for name in schema.names if _is_feature(features.get(name), "Image")]
    return stated or [one.name for one in schema if _holds_bytes(one.type)]


def _holds_bytes(kind: pyarrow.DataType) -> bool:
    if pyarrow.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _columns(path: Path, source: Path, options: Options) -> _Columns:
    """Return the columns of image and label, and the names of the classes.

    Raises:
        UserError: a column is missing, or several could be it.
    """
    schema = _schema(path)
    features = _features(schema, path)
    images = _image_columns(schema, features)
    labels = [name for name in schema.names if _is_feature(features.get(name), "ClassLabel")]
    uses = {
        "image": [name.lower() for name in images],
        "label": [name.lower() for name in labels] or list(_LABELS),
    }
    try:
        columns = find_columns(schema.names, uses, options)
    except UserError as error:
        raise cannot_prepare(source, [str(error)]) from error
    if not _holds_bytes(schema.field(columns["image"]).type):
        raise cannot_prepare(source, [f"the column {columns['image']} does not hold images but {schema.types}"])
    feature = features.get(columns["label"])
    classes = (feature or {}).get("names", ()) if _is_feature(feature, "ClassLabel") else ()
    return _Columns(columns["image"], columns["label"], tuple(sys.intern(str(name)) for name in classes))


def _add_rows(rows: _Rows, path: Path, split: str, columns: _Columns, source: Path) -> None:
    """Add the rows of a file; of an Arrow file only the lengths of the images are read, of a Parquet file all."""
    root = source if source.is_dir() else source.parent
    with _reading(path):
        stamp, first = path.stat().st_mtime_ns, 0
        for batch in _columns_of(path, [columns.image, columns.label]):
            contents, paths = _bytes_and_paths(batch.column(columns.image))
            labels = batch.column(columns.label).to_pylist()
            for row, label in enumerate(labels):
                image = Image(split, _class_of(label, columns, path), paths[row], path, 0, stamp, place=first + row)
                rows.unlabelled[split] += not image.label
                image = _measured(image, contents[row], root)
                if image is None:
                    rows.without_image.append(f"{path.name}, row {first + row:,}")
                else:
                    rows.images.append(image)
            first += batch.num_rows
    rows.unlabelled = +rows.unlabelled


def _measured(image: Image, content: Any, root: Path) -> Image | None:
    """Return an image with its size, and of a Parquet file its checksum; None if it has neither bytes nor a file."""
    if content.is_valid:
        buffer = content.as_buffer()
        assert image.archive is not None
        is_parquet = image.archive.suffix.lower() == PARQUET
        return image._replace(size=buffer.size, stamp=zlib.crc32(buffer) if is_parquet else image.stamp)
    path = root / image.name if image.name else None
    if path is None or not path.is_file():
        return None
    status = path.stat()
    return image._replace(archive=None, size=status.st_size, stamp=status.st_mtime_ns, linked=True, place=0)


def _class_of(label: Any, columns: _Columns, path: Path) -> str:
    """Return the name of a class; empty for a row without a label."""
    if label is None or label == -1:
        return ""
    if not columns.classes:
        return sys.intern(str(label))
    if not isinstance(label, int) or not 0 <= label < len(columns.classes):
        raise UserError(
            f"{names.printable(str(path))}: the label {label} is none of its {len(columns.classes)} classes. Copy it "
            "again"
        )
    return columns.classes[label]


def _columns_of(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Yield the record batches of a file with these columns."""
    if path.suffix.lower() == PARQUET:
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(_ROWS, columns=list(columns))
        return
    with pyarrow.memory_map(str(path)) as file:
        yield from _batches(file).read_all().select(columns).to_batches()


def _bytes_and_paths(column: Any) -> tuple[Any, list[str]]:
    """Return the bytes of a column of images, and their paths, empty for none."""
    if not pyarrow.types.is_struct(column.type):
        return column, [""] * len(column)
    has_paths = column.type.get_field_index("path") >= 0
    paths = [path or "" for path in column.field("path").to_pylist()] if has_paths else [""] * len(column)
    return column.field("bytes"), paths


class _Table:
    """The images of an Arrow file, which stays in the file until they are read."""

    def __init__(self, path: Path, batches: Sequence[Any]):
        self._path, self._columns = path, batches
        self._starts = [0]
        for batch in batches[:-1]:
            self._starts.append(self._starts[-1] + len(batch))

    def read(self, image: Image) -> bytes:
        """Return the bytes of an image.

        Raises:
            UserError: the file has other images than when it was listed.
        """
        part = bisect_right(self._starts, image.place) - 1
        row = image.place - self._starts[part]
        content = self._columns[part][row].as_py() if row < len(self._columns[part]) else None
        if content is None or len(content) != image.size:
            raise UserError(
                f"{names.printable(str(self._path))} has other images than when it was listed: it is being changed. "
                "Prepare it again when it is complete"
            )
        return content


@contextlib.contextmanager
def open_arrow(column: str, path: Path, scratch: Path | None) -> Iterator[_Table]:
    """Yield the reader of an Arrow file's images, which needs no temporary files."""
    del scratch
    with _reading(path):
        file = pyarrow.memory_map(str(path))
        batches = _batches(file).read_all().select([column]).to_batches()
    with file:
        yield _Table(path, [_bytes_and_paths(batch.column(column))[0] for batch in batches])


@contextlib.contextmanager
def open_parquet(column: str, path: Path, scratch: Path | None) -> Iterator[_Table]:
    """Yield the reader of a Parquet file's images, after writing them to a temporary file without compression."""
    descriptor, temporary = tempfile.mkstemp(prefix=".prepare_", dir=scratch)
    try:
        with os.fdopen(descriptor, "wb") as sink:
            schema = pyarrow.schema([("bytes", pyarrow.large_binary())])
            with pyarrow.ipc.new_stream(sink, schema) as writer:
                for batch in _columns_of(path, [column]):
                    content, _ = _bytes_and_paths(batch.column(column))
                    writer.write_batch(pyarrow.record_batch([content.cast(pyarrow.large_binary())], schema=schema))
        file = pyarrow.memory_map(temporary)
    finally:
        os.unlink(temporary)  # its content stays until the file is closed
    with file:
        batches = pyarrow.ipc.open_stream(file).read_all().to_batches()
        yield _Table(path, [batch.column("bytes") for batch in batches])
