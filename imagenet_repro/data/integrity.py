"""Checks of a prepared data set's files before anything is read from them, cheap enough for every start.

Damage within a record is not found here: ArrayRecord has checksums and reports it when the record is read.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagenet_repro.data import shards
from imagenet_repro.errors import UserError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

METADATA = "metadata.json"  # tfds' name of the file with what a builder adds
CLASS_NAMES = "imagenet_repro_class_names"  # key of the digest in that file
DESCRIPTIONS = ("dataset_info.json", "features.json")  # tfds' names
_THREADS = 16  # opening a file takes 0.1 ms on a local disk, and more on one in a network


def check_files(builder: "tfds.core.DatasetBuilder", split: Any) -> None:
    """Raise UserError where a file of a split is missing, cut short, or holds too few or too many records.

    The error of too many open files is another, because the data is not damaged.

    Args:
        builder: of the prepared data set.
        split: tfds' description of the split or sub-split.
    """
    expected = {part.filename: part.examples_in_shard for part in split.file_instructions}
    missing = [path for path in expected if not os.path.exists(path)]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(expected)} files of data set {builder.name!r} are missing, the first: "
            f"{missing[0]}. {_remedy(builder.data_dir)}"
        )
    with ThreadPoolExecutor(min(_THREADS, len(expected))) as pool:
        problems = pool.map(_problem, expected, expected.values())
        damaged = [(path, problem) for path, problem in zip(expected, problems, strict=True) if problem]
    if damaged:
        path, problem = damaged[0]
        raise UserError(
            f"{len(damaged)} of {len(expected)} files of data set {builder.name!r} are damaged, the first: {path} "
            f"({problem}). {_remedy(builder.data_dir)}"
        )


def _problem(path: str, n_records: int) -> str:
    """Return why a file cannot hold `n_records` records, or "" where it can."""
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # compiled

    try:
        reader = array_record_module.ArrayRecordReader(os.fspath(path))
        n_found = reader.num_records()
        reader.close()
    except Exception as error:  # the format's reader raises many types
        if shards.is_file_limit(error):
            raise shards.file_limit_error(path, error) from error
        return _first_line(error)
    return "" if n_found == n_records else f"it holds {n_found} records, and {n_records} were written"


def digest_of_names(names: Sequence[str]) -> str:
    """Return a digest of class names in their order, which `prepare` records."""
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()


def check_class_names(builder: "tfds.core.DatasetBuilder", label_key: str) -> None:
    """Raise UserError where the file of class names has another number of names than classes, or not those prepared.

    Args:
        builder: of the prepared data set.
        label_key: the name of the label feature. A data set without class names has no file of them.
    """
    directory = Path(os.fspath(builder.data_dir))
    description = json.loads(_read_text(directory / "features.json"))
    feature = description.get("featuresDict", {}).get("features", {}).get(label_key, {})
    n_classes = int(feature.get("classLabel", {}).get("numClasses", 0))
    path = directory / f"{label_key}.labels.txt"
    if not n_classes or not path.exists():
        return
    lines = _read_text(path, errors="replace").split("\n")
    n_names = sum(bool(line.strip()) for line in lines)
    if n_names != n_classes:
        raise UserError(
            f"{path} has {n_names} class names, and the data set has {n_classes} classes: the file is damaged. "
            f"{_remedy(directory)}"
        )
    recorded = _metadata(directory).get(CLASS_NAMES)  # of the data sets that this program wrote
    features: Any = builder.info.features
    if recorded and recorded != digest_of_names(features[label_key].names):
        raise UserError(
            f"{path} has other class names than those that were prepared: the file is damaged, or was edited. "
            f"{_remedy(directory)}"
        )


def _metadata(directory: Path) -> dict[str, Any]:
    path = directory / METADATA
    return json.loads(_read_text(path)) if _is_json_object(path) else {}


def unreadable(directory: Path, error: Exception) -> UserError:
    """Return the error of a data set whose description tfds cannot read.

    Args:
        directory: of the data set, above its versions.
        error: the exception of tfds. One of too many open files does not mean damage.
    """
    if shards.is_file_limit(error):
        return shards.file_limit_error(directory, error)
    paths = sorted(path for name in DESCRIPTIONS for path in directory.rglob(name))
    damaged = [path for path in paths if not _is_json_object(path)]
    first = damaged[0] if damaged else directory
    remedy = _remedy(first.parent if damaged else directory)
    return UserError(f"{first} is damaged: tfds cannot read the data set ({_first_line(error)}). {remedy}")


def _read_text(path: Path, errors: str = "strict") -> str:
    try:
        return path.read_text(encoding="utf-8", errors=errors)
    except OSError as error:
        if shards.is_file_limit(error):
            raise shards.file_limit_error(path, error) from error
        raise


def _is_json_object(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "the file was cut short")


def _remedy(directory: Any) -> str:
    return f"Copy it back from where it was prepared, or remove {os.fspath(directory)} and prepare the data set again."
