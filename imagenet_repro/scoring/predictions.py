"""Predictions of one system for every image, stored once and read by everything downstream.

A file of predictions is a NumPy `.npz` archive (a zip of `.npy` members) of n images and c classes:

| key          | type    | shape          | meaning                                                                 |
|--------------|---------|----------------|-------------------------------------------------------------------------|
| `id`         | unicode | [n]            | the data set's own name of the image, unique                            |
| `label`      | int32   | [n]            | class index of the ground truth; -1: the split has no labels            |
| `top5`       | int32   | [n, min(5, c)] | best classes first, as the metric ordered the float32 scores; -1: none  |
| `logits`     | float16 | [n, c]         | scores before any softmax                                               |
| `provenance` | unicode | []             | a JSON object: the origin of the predictions; `classes`: their names    |

The file can be read without this package:

    with np.load("predictions.npz") as file:
        frame = pd.DataFrame({"id": file["id"], "label": file["label"], "best": file["top5"][:, 0]})

float16 has three significant digits and ends at 65,504. Finite scores beyond it are stored as ±65,504, never as
infinities; scores that are infinite (a masked class) or NaN stay so. Rounding can make scores equal that differ in
float32, so error rates are always computed from `top5` and never from `logits`.
"""

import dataclasses
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float16, Int, Int32, Shaped

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import class_names
from imagenet_repro.scoring.metrics import GUESSES, ErrorRates, is_wrong
from imagenet_repro.storage import files

FLOAT16_MAX = float(np.finfo(np.float16).max)
KEYS = ("id", "label", "top5", "logits", "provenance")
GUESS_KEYS = ("id", "label", "top5")
NO_LABEL = -1  # label of an image without ground truth
MAX_NAMED = 3  # ids in one message
COPY = re.compile(r"_side\d+_q\d+|:.*")  # parts of a data set's name that do not change its images: size and version
CHALLENGE_ID = re.compile(r"(.*/)?(ILSVRC\d{4}_\w+_\d{8}|n\d{8}_\d+)(\.\w+)?")  # names that the challenge gave images


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions of one system on the images of one split; the module's docstring describes the fields."""

    id: Shaped[np.ndarray, " n"]  # unicode
    label: Int32[np.ndarray, " n"]
    top5: Int32[np.ndarray, "n k"]
    logits: Float16[np.ndarray, "n c"]
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.id)

    def error_rates(self) -> ErrorRates:
        """Return both error rates, from `top5`. Raises `UserError` if the images have no labels."""
        if np.any(self.label < 0):
            raise UserError("these predictions are of images without labels; score them against a file of labels")
        wrong = [int(np.sum(is_wrong(self.top5, self.label, guesses))) for guesses in (1, GUESSES)]
        return ErrorRates(len(self), *wrong)


class Collector:
    """Gathers the batches of one process's share of an evaluation, without padding."""

    def __init__(self):
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(
        self,
        ids: Sequence[str],
        labels: Int[np.ndarray, " b"],
        top5: Int[np.ndarray, "b k"],
        logits: Float[np.ndarray, "b c"],
        weights: Float[np.ndarray, " b"],
    ) -> None:
        """Add the images whose weight is not zero; `ids` has one entry for each row, including padding."""
        is_image = np.asarray(weights) != 0
        arrays = np.asarray(labels, np.int32), np.asarray(top5, np.int32), to_float16(logits)
        self._parts.append((np.asarray(ids, dtype=np.str_)[is_image], *(array[is_image] for array in arrays)))

    def predictions(self, provenance: dict[str, Any]) -> Predictions:
        """Return all images added, in order. Raises `UserError` if there are none."""
        if not any(len(part[0]) for part in self._parts):
            raise UserError("no image was predicted: the split is empty, or none of its images could be decoded")
        ids, labels, top5, logits = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
        return Predictions(ids, labels, top5, logits, provenance)


def to_float16(logits: Float[np.ndarray, "n c"]) -> Float16[np.ndarray, "n c"]:
    """Round scores to float16; finite ones are clipped to ±65,504, infinities and NaN stay."""
    clipped = np.clip(logits, -FLOAT16_MAX, FLOAT16_MAX)
    return np.where(np.isfinite(logits), clipped, logits).astype(np.float16)


def merge(shares: Sequence[Predictions], ids: Sequence[str] | None = None) -> Predictions:
    """Merge the shares of several processes, with the first share's provenance.

    The images are in the order of `ids`, or sorted by id if it is None: an order that does not depend on the number of
    processes.

    Raises:
      UserError: an id occurs twice, is absent from `ids` or has no prediction, or the shares have different numbers of
        classes.
    """
    classes = sorted({share.logits.shape[1] for share in shares})
    if len(classes) != 1:
        raise UserError(f"shares of predictions have different numbers of classes: {classes}")
    every = {f.name: np.concatenate([getattr(share, f.name) for share in shares]) for f in _array_fields()}
    _check_unique(every["id"], "the merged predictions")
    order = np.argsort(every["id"])
    if ids is not None:
        _check_same_ids(every["id"], ids)
        order = order[np.searchsorted(every["id"], np.asarray(ids, np.str_), sorter=order)]
    return Predictions(**{name: array[order] for name, array in every.items()}, provenance=shares[0].provenance)


def save(path: str | Path, predictions: Predictions) -> None:
    """Write the file atomically: it is either complete or absent, and an older file survives a failure.

    Raises:
      SaveError: the file cannot be written (disk full, read-only).
      UserError: an id occurs twice.
    """
    path = Path(path)
    _check_unique(predictions.id, str(path))
    arrays = {f.name: getattr(predictions, f.name) for f in _array_fields()}
    provenance = np.asarray(json.dumps(predictions.provenance))
    with files.atomic_write(path, "predictions") as file:
        np.savez(file, **arrays, provenance=provenance)


def load(path: str | Path) -> Predictions:
    """Read and check a file of predictions.

    Raises:
      UserError: the file is absent, truncated or not an archive, lacks a key, has arrays of other types or shapes or
        classes out of range, or has an id twice.
    """
    path = Path(path)
    arrays = _read(path)
    _check_arrays(path, arrays)
    _check_unique(arrays["id"], str(path))
    provenance = _parse_provenance(path, str(arrays.pop("provenance")))
    integers = {key: arrays[key].astype(np.int32) for key in ("label", "top5")}
    return Predictions(id=arrays["id"], logits=arrays["logits"], **integers, provenance=provenance)


def load_provenance(path: str | Path) -> dict[str, Any]:
    """Return the provenance of stored predictions without reading them. Raises `UserError` as `load_guesses` does."""
    path = Path(path)
    return _parse_provenance(path, str(_read(path, ("provenance",))["provenance"]))


def load_guesses(path: str | Path) -> dict[str, np.ndarray]:
    """Read `id`, `label` and `top5` of a file of predictions, sorted by id, without the scores, which are most of it.

    Raises:
      UserError: the file is absent, truncated or not an archive, lacks a key, has arrays of other types or shapes, an
        image without a label, or an id twice.
    """
    path = Path(path)
    arrays = _read(path, GUESS_KEYS)
    _check_forms(path, arrays)
    _check_lengths(path, arrays)
    is_in_order = bool(np.all(arrays["id"][1:] > arrays["id"][:-1]))  # as `merge` stores them; no id is there twice
    if not is_in_order:
        _check_unique(arrays["id"], str(path))
    if np.any(arrays["label"] < 0):
        raise UserError(f"{path}: there are images without labels, on which no error rate can be counted")
    order = slice(None) if is_in_order else np.argsort(arrays["id"])
    integers = {key: arrays[key][order].astype(np.int32, copy=False) for key in ("label", "top5")}
    return {"id": arrays["id"][order]} | integers


def check_disjoint(scored: Predictions, held_out: Predictions, purpose: str) -> None:
    """Raise UserError if scored images are among those from which something was estimated.

    Args:
      scored: predictions of the scored images.
      held_out: predictions of the images used for the estimate.
      purpose: the estimate as a clause, such as "weights are found".
    """
    both = np.intersect1d(scored.id, held_out.id)
    if len(both) and not are_of_other_data(scored.id, scored.provenance, held_out.provenance):
        raise UserError(
            f"{len(both):,} of the scored images are among those on which {purpose}: {format_ids(both)}; a"
            " result cannot be measured on the images that it was fitted to: use another split"
        )


def align(
    first: Predictions, first_name: str, one: Predictions, name: str, say: Callable[[str], None] = print
) -> Predictions:
    """Return predictions with their classes and their images in the order of another system's.

    Args:
      first: predictions whose order is used.
      first_name: name of `first` in messages.
      one: predictions to be reordered.
      name: name of `one` in messages.
      say: called with a sentence if classes were reordered, or if they have no names to compare.

    Raises:
      UserError: the two have different classes, images or labels.
    """
    both = f"{first_name} and {name}"
    one = align_classes(first, first_name, one, name, say)
    only = np.setxor1d(first.id, one.id)
    if len(only):
        raise UserError(f"{both} are of different images; only one of the two has {format_ids(only)}")
    if are_of_other_data(first.id, first.provenance, one.provenance):
        names = " and ".join(data_name(source) for source in (first.provenance, one.provenance))
        raise UserError(
            f"{both} are of the data sets {names}: names of images such as {first.id[0]} do not say that these are"
            " the same images; make both predictions on one data set"
        )
    if np.array_equal(first.id, one.id):
        aligned = one
    else:
        order = np.argsort(one.id)
        rows = order[np.searchsorted(one.id, first.id, sorter=order)]
        arrays = {key: getattr(one, key)[rows] for key in ("id", "label", "top5", "logits")}
        aligned = dataclasses.replace(one, **arrays)
    differ = aligned.label != first.label
    if np.any(differ):
        raise UserError(f"{both} have different labels of {format_ids(first.id[differ])}")
    return aligned


def align_classes(
    first: Predictions, first_name: str, one: Predictions, name: str, say: Callable[[str], None] = print
) -> Predictions:
    """Return predictions whose class indices count the classes of another system's; arguments as `align`.

    Raises:
      UserError: the two have different classes.
    """
    return with_classes(one, name, _names(first), first_name, say)


def with_classes(
    one: Predictions, name: str, others: Sequence[str], other_owner: str, say: Callable[[str], None] = print
) -> Predictions:
    """Return predictions whose class indices count the classes of a list.

    Args:
      one: predictions, with or without names of their classes.
      name: name of `one` in messages.
      others: names of the classes by index; without names, `class_names.numbered` of their count.
      other_owner: what has those classes, for messages.
      say: called with a sentence if classes were reordered, or if they have no names to compare.

    Raises:
      UserError: the predictions have other classes.
    """
    matching = class_names.match(_names(one), name, others, other_owner)
    if matching.note:
        say(matching.note)
    if matching.is_same_order:
        return one
    logits = np.empty_like(one.logits)
    logits[:, matching.index] = one.logits
    label, top5 = (renumber(array, matching.index) for array in (one.label, one.top5))
    return Predictions(one.id, label, top5, logits, one.provenance | {"classes": list(others)})


def renumber(classes: Int[np.ndarray, "*shape"], index: Int[np.ndarray, " c"]) -> Int32[np.ndarray, "*shape"]:
    """Return class indices by another list, in which each class has the given index; negative numbers stay."""
    return np.where(classes < 0, classes, index[np.maximum(classes, 0)]).astype(np.int32)


def _names(one: Predictions) -> tuple[str, ...]:
    """Return the names of the classes, or their numbers if the file has no names or another number of them."""
    names, count = class_names.of_provenance(one.provenance), one.logits.shape[1]
    return names if len(names) == count else class_names.numbered(count)


# --- the data set of predictions ------------------------------------------------------------------------------


def data_name(provenance: Mapping[str, Any]) -> str:
    """Return the name of the data set in stored predictions; empty if they do not have it."""
    # A person's labels have their data set under "data" directly.
    return _nested(provenance, "config", "data", "name") or _nested(provenance, "data", "name")


def _nested(value: Any, *keys: str) -> str:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return str(value or "")


def are_of_other_data(
    ids: Shaped[np.ndarray, " n"], provenance: Mapping[str, Any], other_provenance: Mapping[str, Any]
) -> bool:
    """Return whether equal ids may be of different images, since two predictions state different data sets.

    Smaller copies, other versions and the default config of a data set have its images. The challenge's own names
    of images, such as ILSVRC2012_val_00000001.JPEG, mean the same image in every data set.
    """
    name, other = (COPY.sub("", data_name(source)) for source in (provenance, other_provenance))
    is_unknown = not name or not other
    if is_unknown or name == other or name.startswith(f"{other}/") or other.startswith(f"{name}/"):
        return False
    return not all(map(CHALLENGE_ID.fullmatch, ids.tolist()))


def format_ids(ids: Shaped[np.ndarray, " n"]) -> str:
    """Return the first few ids, and how many more there are, for a message."""
    more = f" and {len(ids) - MAX_NAMED:,} more" if len(ids) > MAX_NAMED else ""
    return ", ".join(map(str, ids[:MAX_NAMED])) + more


def _array_fields() -> list[dataclasses.Field]:
    return [f for f in dataclasses.fields(Predictions) if f.name != "provenance"]


def _read(path: Path, keys: Sequence[str] = KEYS) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
        missing = [key for key in keys if key not in names]
        if missing:
            raise UserError(f"{path} is not a file of predictions: it lacks {', '.join(missing)}")
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in keys}
    except FileNotFoundError:
        raise UserError(f"there is no file of predictions {path}") from None
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise UserError(
            f"{path} is truncated, damaged or not an .npz archive ({error}); create the predictions again"
        ) from error
    except OSError as error:
        raise UserError(f"could not read {path}: {error.strerror or error}") from error


def _check_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    _check_forms(path, arrays)
    classes = arrays["logits"].shape[1]
    _check_lengths(path, {key: arrays[key] for key in ("id", "label", "top5", "logits")})
    if arrays["top5"].shape[1] != min(GUESSES, classes):
        raise UserError(f"{path}: 'top5' has {arrays['top5'].shape[1]} columns for {classes} classes")
    for key in ("label", "top5"):
        low, high = arrays[key].min(), arrays[key].max()
        if low < -1 or high >= classes:
            raise UserError(f"{path}: '{key}' runs from {low} to {high}, outside the {classes} classes of 'logits'")


def _check_forms(path: Path, arrays: dict[str, np.ndarray]) -> None:
    kinds = {"id": ("U", 1), "label": ("i", 1), "top5": ("i", 2), "logits": ("f", 2), "provenance": ("U", 0)}
    for key, array in arrays.items():
        kind, dimensions = kinds[key]
        if array.dtype.kind != kind or array.ndim != dimensions or (key == "logits" and array.itemsize != 2):
            raise UserError(
                f"{path}: '{key}' is {array.dtype} of shape {array.shape}, which is not the documented form "
                "(imagenet_repro/scoring/predictions.py)"
            )


def _check_lengths(path: Path, arrays: dict[str, np.ndarray]) -> None:
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise UserError(f"{path}: different numbers of images: {lengths}")
    if 0 in lengths.values():
        raise UserError(f"{path} holds no image")


def _parse_provenance(path: Path, text: str) -> dict[str, Any]:
    try:
        provenance = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: 'provenance' is not JSON: {error}") from error
    if not isinstance(provenance, dict):
        raise UserError(f"{path}: 'provenance' is not a JSON object")
    return provenance


def _check_unique(ids: Shaped[np.ndarray, " n"], where: str) -> None:
    names, counts = np.unique(ids, return_counts=True)
    if len(names) != len(ids):
        raise UserError(f"{where}: the same id more than once: {format_ids(names[counts > 1])}")


def _check_same_ids(ids: Shaped[np.ndarray, " n"], expected: Sequence[str]) -> None:
    expected_ids = np.asarray(expected, np.str_)
    _check_unique(expected_ids, "the expected ids")
    missing, unknown = np.setdiff1d(expected_ids, ids), np.setdiff1d(ids, expected_ids)
    if len(missing):
        raise UserError(f"{len(missing):,} images have no prediction: {format_ids(missing)}")
    if len(unknown):
        raise UserError(f"{len(unknown):,} predictions are of images outside the split: {format_ids(unknown)}")
