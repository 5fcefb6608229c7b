"""Codes of a complete split on disk, one row for each image, written in order and read in any order.

A row is the code (bytes of product quantisation, or float16), then the label, int32, which is -1 for a record that
cannot be decoded, and the CRC-32 of both, which begins with the number of the row. Rows are read one by one and never
memory-mapped, so memory does not grow with the number of images. A process checks each row when it first reads it: a
gigabyte takes about a second, and later epochs take nothing.
"""

import itertools
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from imagenet_repro.data.order import epoch_order
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage import files

ROWS, PROGRESS = "codes.bin", "codes.json"
UNDECODABLE = -1
FORMAT = 2  # of both files; 1 had no checksums


class StoredCodes:
    """The codes in a directory.

    Args:
      directory: created where it is missing.
      images: number of images of the complete split.
      numbers: of a code.
      dtype: uint8 or float16.
      classes: number of classes.

    Attributes:
      n_stored: images whose codes are safely on disk, from the first on.
      note: the note of the last `commit`.
      problem: why files that are there are not used and the codes are computed again; "" where there is no reason.
    """

    def __init__(self, directory: Path, images: int, numbers: int, dtype: Any, classes: int):
        self._directory, self.images, self.numbers, self.dtype = directory, images, numbers, np.dtype(dtype)
        self._classes = classes
        self._row = np.dtype([("code", self.dtype, (numbers,)), ("label", np.int32), ("checksum", np.uint32)])
        self._checked = np.zeros(images, bool)  # rows whose checksum this process has found right
        self.n_stored, self.note, self.problem = self._load_progress()
        self._file: int | None = None

    @property
    def bytes(self) -> int:
        """The size of all rows."""
        return self.images * self._row.itemsize

    @property
    def is_complete(self) -> bool:
        """Whether the codes of all images are on disk."""
        return self.n_stored == self.images

    def _load_progress(self) -> tuple[int, dict[str, Any], str]:
        path, rows = self._directory / PROGRESS, self._directory / ROWS
        try:
            progress = json.loads(path.read_text(encoding="utf-8"))
            version = progress.get("format", 1)
            content = {key: progress.get(key) for key in ("images", "known")}
            is_whole = version == FORMAT and progress["checksum"] == _json_checksum(content)
        except FileNotFoundError:
            return 0, {}, f"{path} is missing" if rows.exists() else ""
        except (OSError, ValueError, KeyError, AttributeError):
            return 0, {}, f"{path} is damaged"
        if version != FORMAT:
            return 0, {}, f"{path} was written by another version of this software (format {version})"
        if not is_whole:
            return 0, {}, f"{path} is damaged"
        n_rows = rows.stat().st_size // self._row.itemsize if rows.exists() else 0
        if n_rows < content["images"]:
            return 0, {}, f"{rows} was cut short: it holds {n_rows} of {content['images']} rows"
        return content["images"], content["known"], ""

    def check_space(self) -> None:
        """Raise SaveError where the disk has too little space for the missing rows."""
        self._directory.mkdir(parents=True, exist_ok=True)
        free, needed = shutil.disk_usage(self._directory).free, (self.images - self.n_stored) * self._row.itemsize
        if free < needed:
            raise SaveError(
                f"codes need {needed / 1e9:,.1f} GB, and {self._directory} has {free / 1e9:,.1f} GB free; choose"
                " another directory with config.cache_dir, or smaller codes with config.channels"
            )

    def write(self, first: int, codes: Shaped[np.ndarray, "n f"], labels: Int[np.ndarray, " n"]) -> None:
        """Write rows from number `first` on; they count as stored after the next `commit`.

        Args:
          first: number of the first image.
          codes: of dtype `dtype`.
          labels: class indices, or `UNDECODABLE`.

        Raises:
          SaveError: they cannot be written.
        """
        rows = np.empty(len(codes), self._row)
        rows["code"], rows["label"] = codes, labels
        rows["checksum"] = self._checksums(rows, range(first, first + len(rows)))
        try:
            if self._file is None:
                self._file = os.open(self._directory / ROWS, os.O_RDWR | os.O_CREAT, 0o644)
            _write_all(self._file, rows.view(np.uint8).data, first * self._row.itemsize)
        except OSError as error:
            raise SaveError(f"codes could not be written to {self._directory}: {error.strerror}") from error

    def commit(self, n_stored: int, note: dict[str, Any]) -> None:
        """Make the first `n_stored` rows safe against any end of the process, with a note beside them."""
        try:
            if self._file is not None:
                os.fsync(self._file)
        except OSError as error:
            raise SaveError(f"codes could not be written to {self._directory}: {error.strerror}") from error
        with files.atomic_write(self._directory / PROGRESS, "progress") as file:
            content = {"images": n_stored, "known": note}
            file.write(json.dumps(content | {"format": FORMAT, "checksum": _json_checksum(content)}).encode())
        self.n_stored, self.note = n_stored, note

    def read(self, index: Int[np.ndarray, " n"]) -> tuple[Shaped[np.ndarray, "n f"], Int[np.ndarray, " n"]]:
        """Return the codes and labels of images by number.

        Raises:
          UserError: a row cannot be read, its checksum is wrong, or its label is not one of the classes.
        """
        rows = np.empty(len(index), self._row)
        size = self._row.itemsize
        buffers = rows.view(np.uint8).data
        try:
            if self._file is None:
                self._file = os.open(self._directory / ROWS, os.O_RDONLY)
            for row, number in enumerate(index.tolist()):
                if os.preadv(self._file, [buffers[row * size : (row + 1) * size]], number * size) != size:
                    raise OSError(0, f"the file ends before image {number}")
        except OSError as error:
            message = f"codes in {self._directory} cannot be read: {error.strerror}"
            raise UserError(f"{message}; remove that directory, and they are computed again") from error
        self._check(rows, index)
        return rows["code"], rows["label"]

    def _check(self, rows: np.ndarray, index: Int[np.ndarray, " n"]) -> None:
        """Raise UserError where a row is damaged; rows that were right before are not checked again."""
        new = ~self._checked[index]
        rows, index = rows[new], index[new]
        is_right = rows["checksum"] == self._checksums(rows, index.tolist())
        is_right &= (rows["label"] >= UNDECODABLE) & (rows["label"] < self._classes)
        if not is_right.all():
            numbers = index[~is_right].tolist()
            raise UserError(
                f"{self._directory / ROWS} is damaged: the code of image {numbers[0]} is not what was stored, or its"
                f" label is not one of the {self._classes} classes; remove {self._directory}, and the same command"
                " computes the codes again and continues"
            )
        self._checked[index] = True

    def _checksums(self, rows: np.ndarray, numbers: Iterable[int]) -> np.ndarray:
        """Return the CRC-32 of code and label of each row, begun with the number of the row."""
        content = rows.view(np.uint8).reshape(len(rows), self._row.itemsize)[:, :-4]
        checksums = [zlib.crc32(row.data, number) for row, number in zip(content, numbers, strict=True)]
        return np.asarray(checksums, np.uint32)

    def close(self) -> None:
        """Close the file of rows."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _json_checksum(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _write_all(file: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def train_batches(
    codes: dict[str, StoredCodes], *, batch_size: int, seed: int, start_step: int, num_steps: int | None
) -> Iterator[dict[str, Any]]:
    """Yield batches from `start_step` on, of the images that a network sees in the same steps (data/order.py).

    An image that cannot be decoded is replaced by the next one of the split.

    Args:
      codes: of the same images, by channel.
      batch_size: images of a step.
      seed: of the order.
      start_step: step of the first batch.
      num_steps: number of batches; None: without end.

    Yields:
      `codes`, stored rows by channel; `label`; `index` in the split; `replaced`, the index of the record that cannot
      be decoded, else -1.
    """
    steps = itertools.count(start_step) if num_steps is None else range(start_step, start_step + num_steps)
    count = next(iter(codes.values())).images
    for step in steps:
        drawn = _indices(np.arange(step * batch_size, (step + 1) * batch_size), seed, count)
        index, rows, labels = drawn.copy(), {}, np.empty(0)
        for name, channel_codes in codes.items():
            rows[name], labels = channel_codes.read(index)
            while np.any(bad := labels == UNDECODABLE):
                index[bad] = (index[bad] + 1) % count
                rows[name][bad], labels[bad] = channel_codes.read(index[bad])
        replaced = np.where(index == drawn, -1, drawn)
        yield {"codes": rows, "label": labels, "index": index, "replaced": replaced}


def _indices(positions: Int[np.ndarray, " n"], seed: int, count: int) -> Int[np.ndarray, " n"]:
    """Return the indices of the images at positions of a run."""
    epochs, places = np.divmod(positions, count)
    index = np.empty_like(positions)
    for epoch in np.unique(epochs).tolist():
        index[epochs == epoch] = epoch_order(seed, epoch, count)[places[epochs == epoch]]
    return index
