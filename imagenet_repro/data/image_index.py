"""The ids and sizes of all images of a split, in its order, so that nothing must read the split to learn them.

An evaluation reads every record and stores this index. Whoever looks for some images by their ids, or groups images
by their shape, then reads no record for that. The index is kept beside the prepared data or, where that directory
cannot be written, in the user's cache. Its file is named after a digest of the split, the data set's version, and
the names and sizes of the split's files, so that data that was prepared anew has another index.
"""

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Shaped

from imagenet_repro.data import decode
from imagenet_repro.data.sources import RelabelledRecords, Split, StoredRecords
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage import files, user

DIRECTORY = "image_index"  # beside the files of a prepared data set, and in the cache
UNKNOWN = (0, 0)  # the size of an image that cannot be decoded


@dataclasses.dataclass(frozen=True)
class ImageIndex:
    """The images of a split in its order.

    Attributes:
      id: the data set's own name of each image, unicode.
      size: height and width in pixels; 0 where the image cannot be decoded.
    """

    id: Shaped[np.ndarray, " n"]
    size: Int32[np.ndarray, "n 2"]

    def positions(self) -> dict[str, int]:
        """Return the position of each image in the split by its id."""
        return {id: position for position, id in enumerate(self.id.tolist())}


def find(split: Split) -> ImageIndex | None:
    """Return the stored index of a split; None if there is none, or it is damaged."""
    for path in _paths(split):
        try:
            with np.load(path, allow_pickle=False) as file:
                index = ImageIndex(file["id"], file["size"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            continue
        if len(index.id) == len(index.size) == split.num_examples:
            return index
    return None


def store(split: Split, index: ImageIndex) -> None:
    """Store an index unless the split has one; an index that cannot be written is not stored, which costs only time.

    Records that are not those of a prepared data set, such as a choice of some, have none. Where a record could not
    be read, nothing is stored, since its file may be repaired.
    """
    paths = list(_paths(split))
    if not index.id.all() or any(path.exists() for path in paths):
        return
    for path in paths:
        try:
            with files.atomic_write(path, "the index of images") as file:
                np.savez_compressed(file, id=index.id, size=index.size)
            return
        except SaveError:
            continue


def read(split: Split, threads: int) -> ImageIndex:
    """Return the index of a split by reading all its records; one that cannot be read has the id "" and size 0."""
    with ThreadPoolExecutor(threads) as pool:
        images = list(pool.map(lambda position: _id_and_size(split, position), range(split.num_examples)))
    ids, sizes = zip(*images, strict=True) if images else ((), ())
    return ImageIndex(np.array(ids, np.str_), np.array(sizes, np.int32).reshape(-1, 2))


def stored_records(split: Split) -> StoredRecords | None:
    """Return the records in the files of a prepared data set, which other labels do not change; None for others."""
    records = split.records
    while isinstance(records, RelabelledRecords):
        records = records.records
    return records if isinstance(records, StoredRecords) else None


def _id_and_size(split: Split, position: int) -> tuple[str, tuple[int, int]]:
    try:
        record = split.records[position]
    except UserError:  # a damaged file, which whoever needs its images reports
        return "", UNKNOWN
    try:
        return record.id, decode.size(record.image)
    except decode.DecodeError:
        return record.id, UNKNOWN


def _paths(split: Split) -> Iterator[Path]:
    """Yield the places of a split's index, the preferred one first; none if the records are not in files."""
    records = stored_records(split)
    if records is None:
        return
    try:
        identity = [split.name, split.version, split.split, split.num_examples, records.file_parts()]
    except OSError:  # a file is missing
        return
    name = f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]}.npz"
    yield Path(records.directory) / DIRECTORY / name
    try:
        yield user.cache_directory() / DIRECTORY / name
    except UserError:  # the directory belongs to somebody else
        return
