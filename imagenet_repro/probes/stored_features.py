"""Features of a split on disk: float16 rows in a fixed random order, in shards of 1,024 images.

The order is random so that reading from front to back gives well-mixed batches, and so that the first rows are a
random part of the split. It depends on the number of images alone (`row_order`).

A directory holds `features.json`, which says what the features are of, and shards `00000.npz`, `00001.npz`, … A
shard is written whole or not at all, so that an interrupted computation continues with those that are missing. A
shard can be read without this package:

| key     | type    | shape  | meaning                                                       |
|---------|---------|--------|---------------------------------------------------------------|
| a part  | float16 | [n, d] | one array for each part, such as `pooled` or `class_token_1`  |
| `label` | int32   | [n]    | class index; -1: the image cannot be decoded, its row is zero |
| `index` | int32   | [n]    | number of the image in its split                              |
| `id`    | unicode | [n]    | the data set's own name of the image                          |
"""

import dataclasses
import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float16, Int, Int32

from imagenet_repro.data.order import epoch_order
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage import files
from imagenet_repro.storage.json_files import read_json, write_json

DESCRIPTION = "features.json"
SHARD = 1024  # images: the most that a kill loses
BLOCK = 16  # shards that are read at once
UNDECODABLE = -1
IMAGE_KEYS = ("of", "data", "images", "classes")  # of a description, which depend on the images
SEED = 0  # of the order of the rows


class Block(NamedTuple):
    """Some rows that were read together; images that cannot be decoded are left out."""

    features: Float16[np.ndarray, "n d"]
    label: Int32[np.ndarray, " n"]
    index: Int32[np.ndarray, " n"]


def row_order(images: int) -> Int32[np.ndarray, " n"]:
    """Return the number in its split of the image in each row."""
    return epoch_order(SEED, 0, images)


class StoredFeatures:
    """The features in a directory.

    Args:
      directory: created where it is missing.
      description: what the features depend on, as JSON values; `of` is a sentence for messages.
      images: the number of images of the split.
      widths: the length of each part, by name.

    Raises:
      UserError: the directory holds features of something else.
      SaveError: it cannot be written.
    """

    def __init__(self, directory: Path, description: Mapping[str, Any], images: int, widths: Mapping[str, int]):
        self.directory, self.images, self.widths = directory, images, dict(widths)
        self.description = {**description, "images": images, "widths": self.widths, "shard": SHARD}
        path = directory / DESCRIPTION
        if path.exists():
            self._refuse_others(path)
        else:
            write_json(path, self.description)

    def _refuse_others(self, path: Path) -> None:
        stored = read_json(path, "probe writes it", f"remove {self.directory}, and its features are computed again")
        if stored == self.description:
            return
        differ = [
            key for key in self.description if not isinstance(stored, dict) or stored.get(key) != self.description[key]
        ]
        stated = stored.get("of", "something else") if isinstance(stored, dict) else "something else"
        raise UserError(
            f"{self.directory} holds features of {stated}, and these are of {self.description['of']}; they differ in"
            f" {', '.join(differ) or 'the keys that they state'}. Remove that directory or name another"
        )

    @property
    def network_hash(self) -> str:
        """A hash of what the features depend on besides the images: two splits of one network have the same."""
        kept = {key: value for key, value in self.description.items() if key not in IMAGE_KEYS}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    @property
    def shards(self) -> int:
        """The number of shards of the complete split."""
        return -(-self.images // SHARD)

    @property
    def bytes(self) -> int:
        """The approximate size of all features on disk."""
        return 2 * self.images * sum(self.widths.values())

    def missing(self, rows: int) -> list[range]:
        """Return the rows, of the first `rows`, whose shards are not stored, as ranges of whole shards."""
        ranges: list[range] = []
        for shard in range(-(-rows // SHARD)):
            if self._path(shard).exists():
                continue
            start, stop = shard * SHARD, min((shard + 1) * SHARD, self.images)
            if ranges and ranges[-1].stop == start:
                start = ranges.pop().start
            ranges.append(range(start, stop))
        return ranges

    def check_space(self, rows: int) -> None:
        """Raise SaveError where the disk has too little space for what is missing of the first rows."""
        needed = 2 * sum(map(len, self.missing(rows))) * sum(self.widths.values())
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise SaveError(
                f"the features need {needed / 1e9:,.1f} GB, and {self.directory} has {free / 1e9:,.1f} GB free; choose"
                " another directory with --features"
            )

    def write(self, first: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the shard that begins with row `first`: each part, `label`, `index` and `id`.

        Raises:
          SaveError: it cannot be written.
        """
        with files.atomic_write(self._path(first // SHARD), "features") as file:
            np.savez(file, **dict(arrays))  # pyright: ignore[reportArgumentType]  # names of arrays

    def _path(self, shard: int) -> Path:
        return self.directory / f"{shard:05d}.npz"

    def read(self, shard: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return arrays of a shard by name; the archive's checksums are checked.

        Raises:
          UserError: the shard is missing or damaged.
        """
        path = self._path(shard)
        rows = min(SHARD, self.images - shard * SHARD)
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in names}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} is missing or damaged ({error}); remove it, and the same command computes it again"
            ) from error
        if any(len(array) != rows for array in arrays.values()):
            raise UserError(f"{path} does not hold {rows} rows; remove it, and the same command computes it again")
        return arrays

    def rows(self, layer: Sequence[str], start: int = 0, stop: int | None = None) -> "FeatureRows":
        """Return some rows with the concatenation of some parts as features."""
        return FeatureRows(self, tuple(layer), start, self.images if stop is None else stop)


@dataclasses.dataclass(frozen=True)
class FeatureRows:
    """Consecutive rows of stored features, which are read from disk anew each time.

    Attributes:
      stored: the features.
      parts: the parts whose concatenation is a row.
      start: the first row.
      stop: the row after the last.
    """

    stored: StoredFeatures
    parts: tuple[str, ...]
    start: int
    stop: int

    @property
    def width(self) -> int:
        """The length of a row."""
        return sum(self.stored.widths[part] for part in self.parts)

    def columns(self, layer: Sequence[str]) -> slice:
        """Return the columns of consecutive parts within a row."""
        ends = np.cumsum([0, *(self.stored.widths[part] for part in self.parts)])
        first = self.parts.index(layer[0])
        if self.parts[first : first + len(layer)] != tuple(layer):
            raise ValueError(f"{layer} are not consecutive in {self.parts}")
        return slice(int(ends[first]), int(ends[first + len(layer)]))

    def labels(self) -> tuple[Int32[np.ndarray, " n"], Int32[np.ndarray, " n"]]:
        """Return label and number in the split of every image that can be decoded, without reading features."""
        blocks = [self._arrays(shard, ("label", "index")) for shard in self._shards()]
        label, index = (np.concatenate([block[name] for block in blocks]) for name in ("label", "index"))
        return label[label >= 0], index[label >= 0]

    def blocks(self, order: Sequence[int] | None = None) -> Iterator[Block]:
        """Yield the rows, 16 shards at a time; `order` has the numbers of the blocks to yield, None is all of them."""
        shards = list(self._shards())
        for number in range(self.n_blocks) if order is None else order:
            group = shards[number * BLOCK : (number + 1) * BLOCK]
            parts = [self._arrays(shard, (*self.parts, "label", "index")) for shard in group]
            features = np.concatenate([np.concatenate([part[name] for name in self.parts], axis=1) for part in parts])
            label, index = (np.concatenate([part[name] for part in parts]) for name in ("label", "index"))
            is_image = label >= 0
            yield Block(features[is_image], label[is_image], index[is_image])

    @property
    def n_blocks(self) -> int:
        """The number of blocks."""
        return -(-len(self._shards()) // BLOCK)

    def _shards(self) -> range:
        return range(self.start // SHARD, -(-self.stop // SHARD))

    def _arrays(self, shard: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return those rows of a shard that are between `start` and `stop`."""
        first = shard * SHARD
        kept = slice(max(self.start - first, 0), self.stop - first)
        return {name: array[kept] for name, array in self.stored.read(shard, names).items()}


def take(rows: FeatureRows, index: Int[np.ndarray, " m"]) -> Float16[np.ndarray, "m d"]:
    """Return the features of images by their number in the split, in one pass over all rows.

    Raises:
      UserError: an image has no row.
    """
    order = np.argsort(index, kind="stable")
    result = np.zeros((len(index), rows.width), np.float16)
    is_there = np.zeros(len(index), bool)
    for block in rows.blocks():
        place = np.searchsorted(index[order], block.index)
        match = place < len(index)
        match[match] = index[order][place[match]] == block.index[match]
        result[order[place[match]]], is_there[order[place[match]]] = block.features[match], True
    if not is_there.all():
        raise UserError(f"image {index[~is_there][0]} of the split has no features in {rows.stored.directory}")
    return result


def check_same_network(train: StoredFeatures, scored: StoredFeatures) -> None:
    """Check that two sets of features come from one network and one preparation of images, with the same classes.

    Raises:
      UserError: they do not; the message says in what they differ.
    """
    keys = [key for key in train.description if key not in ("of", "data", "images")]
    differ = [key for key in keys if train.description[key] != scored.description.get(key)]
    if differ:
        raise UserError(
            f"features of {train.description['of']} and of {scored.description['of']} cannot be used together: they"
            f" differ in {', '.join(differ)}"
        )
