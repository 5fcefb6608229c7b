"""Groups of images: by a column of a table, by the factors of ImageNet-X, or by how often a class was trained on.

| `--by=` | groups | source |
|---|---|---|
| a column, with `--table=FILE` | its values, such as the country of Dollar Street or GeoDE | the user's table |
| `imagenet_x` | 16 factors; an image may have several | Idrissi et al. 2022, arXiv 2211.01866 |
| `class_frequency` | classes with over 100, 20 to 100, under 20 training images | Liu et al. 2019, arXiv 1904.05160 |
"""

import csv
import dataclasses
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Int

from imagenet_repro.config import Data, build_section
from imagenet_repro.data import sources
from imagenet_repro.data.prepare.table_listing import FILE_COLUMNS
from imagenet_repro.errors import UserError, nearest
from imagenet_repro.scoring import class_names
from imagenet_repro.scoring.predictions import Predictions

IMAGENET_X = "imagenet_x"
CLASS_FREQUENCY = "class_frequency"
MANY, FEW = 100, 20  # training images: more are many, fewer are few
FREQUENCIES = (f"over {MANY} images a class", f"{FEW} to {MANY} images a class", f"under {FEW} images a class")
_NOT_FACTORS = {"file_name", "class", "justification", "one_word", "metaclass"}
_DELIMITERS = ",;\t"


@dataclasses.dataclass(frozen=True)
class Groups:
    """Groups of images.

    Attributes:
      heading: heading of their column, such as `country`.
      by_image: the groups of each image by its id; an image that is absent is left out.
      source: where they come from, a clause for a sentence.
    """

    heading: str
    by_image: Mapping[str, tuple[str, ...]]
    source: str


def find(by: str, table: str, predicted: Predictions, show: Callable[[str], None] = print) -> Groups:
    """Return the groups that `--by` names.

    Args:
      by: a column of the table, `imagenet_x` or `class_frequency`.
      table: a CSV, TSV or Parquet file with a column of files and the column `by`; empty for the other two.
      predicted: the predictions whose images are grouped.
      show: called with a sentence before something that takes time.

    Raises:
      UserError: the options do not go together, or the source cannot be read or has none of the images.
    """
    if by in (IMAGENET_X, CLASS_FREQUENCY):
        if table:
            raise UserError(f"--table does not go with --by={by}, which has groups of its own; omit one of them")
        groups = of_imagenet_x() if by == IMAGENET_X else of_class_frequency(predicted, show)
    elif not table:
        raise UserError(
            f"--by={by} needs --table=FILE, a table with a column of files and the column {by}; without a table,"
            f" groups are {IMAGENET_X} or {CLASS_FREQUENCY}"
        )
    else:
        groups = of_table(Path(table), by)
    return _with_ids(groups, predicted.id.tolist())


def _with_ids(groups: Groups, ids: Sequence[str]) -> Groups:
    """Return the same groups by the ids of predictions, which may be paths where the source has names, or reverse."""
    by_image = {id: groups.by_image[id] for id in ids if id in groups.by_image}
    if not by_image:
        by_name: dict[str, tuple[str, ...]] = {}
        for id, values in groups.by_image.items():
            if by_name.setdefault(name := PurePosixPath(id).name, values) != values:
                raise UserError(f"{groups.source}: several rows are called {name} and none has the id of an image")
        by_image = {id: by_name[name] for id in ids if (name := PurePosixPath(id).name) in by_name}
    if not by_image:
        raise UserError(
            f"{groups.source} has none of the images of the predictions: its first is"
            f" {next(iter(groups.by_image), 'absent')}, and that of the predictions is {ids[0]}"
        )
    return dataclasses.replace(groups, by_image=by_image)


# --- a table ------------------------------------------------------------------------------------------------------


def of_table(path: Path, by: str) -> Groups:
    """Return groups by a column of a table; rows with an empty cell are left out.

    Raises:
      UserError: the table cannot be read, lacks a column, or has two rows with different groups for one file.
    """
    columns, rows = _read_table(path)
    if by not in columns:
        raise UserError(f"{path} has no column {by!r}; {nearest(by, columns)}")
    files = [name for name in columns if name.strip().lower() in FILE_COLUMNS]
    if len(files) != 1:
        problem = f"the columns {', '.join(files)} could all be" if files else "no column is"
        raise UserError(f"{path}: {problem} that of the files; call one of them {FILE_COLUMNS[0]}, and no other so")
    by_image: dict[str, tuple[str, ...]] = {}
    for row in rows:
        file, value = _text(row.get(files[0])), _text(row.get(by))
        if file and value and by_image.setdefault(file, (value,)) != (value,):
            raise UserError(f"{path}: {file} has the {by} {by_image[file][0]} in one row and {value} in another")
    return Groups(by, by_image, str(path))


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _read_table(path: Path) -> tuple[Sequence[str], Iterator[Mapping[str, Any]]]:
    """Return the columns and the rows. Cells of text files stay text, so that the country NA is not a missing cell."""
    import pyarrow
    from pyarrow import parquet

    try:
        if path.suffix.lower() == ".parquet":
            table = parquet.read_table(path)
            return table.column_names, iter(table.to_pylist())
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        delimiter = max(_DELIMITERS, key=lines[0].count) if lines else ","
        reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
        return reader.fieldnames or (), iter(list(reader))
    except (OSError, UnicodeDecodeError, csv.Error, pyarrow.ArrowException) as error:
        raise UserError(f"{path} cannot be read as a table: {getattr(error, 'strerror', None) or error}") from error


# --- ImageNet-X ---------------------------------------------------------------------------------------------------


def of_imagenet_x() -> Groups:
    """Return the factors of each validation image in the package `imagenet-x`, without its prototypes.

    The package's files are read and nothing of it is imported, since it imports PyTorch.

    Raises:
      UserError: the package is not installed, or has other files.
    """
    found = importlib.util.find_spec(IMAGENET_X)
    if found is None or not found.origin:
        raise UserError(f"--by={IMAGENET_X} needs the annotations in its package: pip install --no-deps imagenet-x")
    directory = Path(found.origin).parent / "annotations"
    try:
        prototypes = (directory / "prototypical_paths.csv").read_text(encoding="utf-8")
        names = {row["file_name"] for row in csv.DictReader(prototypes.splitlines())}
        text = (directory / "imagenet_x_val_multi_factor.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
        by_image = {row["file_name"]: _factors(row) for row in rows if row["file_name"] not in names}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{directory} does not have the files of imagenet-x 0.0.7: {error!r}") from error
    return Groups("factor", by_image, f"the package {IMAGENET_X}")


def _factors(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the factors of an image: the keys whose value is 1."""
    return tuple(key.replace("_", " ") for key, value in row.items() if key not in _NOT_FACTORS and value == 1)


# --- class frequency ----------------------------------------------------------------------------------------------


def of_class_frequency(predicted: Predictions, show: Callable[[str], None] = print) -> Groups:
    """Return groups by the number of training images of each image's class, in the split the system was trained on.

    Raises:
      UserError: the predictions are not of a run, have no labels, or the split is not on this machine.
    """
    section = (predicted.provenance.get("config") or {}).get("data")
    names = class_names.of_provenance(predicted.provenance)
    if not section or not section.get("train_split") or "weights" in predicted.provenance:
        raise UserError(f"--by={CLASS_FREQUENCY} needs predictions of a run, which name its training split")
    data = build_section(Data, dict(section))
    if np.any(predicted.label < 0):
        raise UserError(f"--by={CLASS_FREQUENCY} needs labels, and these predictions are for images without labels")
    split = sources.open_split(data, data.train_split)
    if names and tuple(names) != split.class_names:
        raise UserError(f"{split.name} has other classes than the predictions, so their frequency is not known")
    show(f"counting the classes of {split.name} {split.split}: {split.num_examples:,} records")
    counts = count_labels([record.label for record in split.records], len(split.class_names))
    groups = [_frequency(int(counts[label])) for label in predicted.label.tolist()]
    by_image = {id: (group,) for id, group in zip(predicted.id.tolist(), groups, strict=True)}
    return Groups("training images", by_image, f"{split.name} {split.split}")


def count_labels(labels: Sequence[int], classes: int) -> Int[np.ndarray, " c"]:
    """Return the number of images of each class; labels below zero, which are none, are not counted."""
    return np.bincount([label for label in labels if label >= 0], minlength=classes)


def _frequency(images: int) -> str:
    return FREQUENCIES[0 if images > MANY else 1 if images >= FEW else 2]
