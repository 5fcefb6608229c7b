"""Codes of a whole split on disk, a row for each image, written in order and read in any.

A row is the code (bytes of product quantisation, or float16) and then the label, int32, which is -1 for a record that
cannot be decoded. Rows are read one by one and never mapped, so memory does not grow with the number of images.
"""

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from imagenet_repro.data.order import epoch_order
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage import files

ROWS, PROGRESS = "codes.bin", "codes.json"
UNDECODABLE = -1


class StoredCodes:
    """The codes in a directory.

    Args:
      directory: made where it is missing.
      images: how many there will be.
      numbers: of a code.
      dtype: uint8 or float16.

    Attributes:
      done: images whose codes are safely there, from the first on.
      known: what was noted beside them at the last `commit`.
    """

    def __init__(self, directory: Path, images: int, numbers: int, dtype: Any):
        self._directory, self.images, self.numbers, self.dtype = directory, images, numbers, np.dtype(dtype)
        self._row = np.dtype([("code", self.dtype, (numbers,)), ("label", np.int32)])
        self.n_stored, self.note = self._progress()
        self._file: int | None = None

    @property
    def bytes(self) -> int:
        """Of all rows."""
        return self.images * self._row.itemsize

    @property
    def is_complete(self) -> bool:
        """Whether all codes are there."""
        return self.n_stored == self.images

    def _progress(self) -> tuple[int, dict[str, Any]]:
        rows = self._directory / ROWS
        try:
            noted = json.loads((self._directory / PROGRESS).read_text())
            done, known = int(noted["images"]), dict(noted["known"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0, {}
        there = rows.stat().st_size // self._row.itemsize if rows.exists() else 0
        return (done, known) if there >= done else (0, {})

    def check_space(self) -> None:
        """Raises SaveError where the disk has too little room for the rows that are missing."""
        self._directory.mkdir(parents=True, exist_ok=True)
        free, needed = shutil.disk_usage(self._directory).free, (self.images - self.n_stored) * self._row.itemsize
        if free < needed:
            raise SaveError(
                f"codes need {needed / 1e9:,.1f} GB, and {self._directory} has {free / 1e9:,.1f} GB free; choose"
                " another place with config.cache_dir, or fewer numbers with config.channels"
            )

    def write(self, first: int, codes: Shaped[np.ndarray, "n f"], labels: Int[np.ndarray, " n"]) -> None:
        """Puts rows from number `first` on in place; they count once `commit` was called.

        Raises:
          SaveError: they cannot be written.
        """
        rows = np.empty(len(codes), self._row)
        rows["code"], rows["label"] = codes, labels
        try:
            if self._file is None:
                self._file = os.open(self._directory / ROWS, os.O_RDWR | os.O_CREAT, 0o644)
            self._write_all(memoryview(rows).cast("B"), first * self._row.itemsize)
        except OSError as error:
            raise SaveError(f"codes could not be written to {self._directory}: {error.strerror}") from error

    def _write_all(self, data: memoryview, offset: int) -> None:
        while data:
            written = os.pwrite(self._file, data, offset)
            data, offset = data[written:], offset + written

    def commit(self, done: int, known: dict[str, Any]) -> None:
        """Makes the first `done` rows safe against anything that ends the process, with a note beside them."""
        try:
            if self._file is not None:
                os.fsync(self._file)
        except OSError as error:
            raise SaveError(f"codes could not be written to {self._directory}: {error.strerror}") from error
        with files.atomic_write(self._directory / PROGRESS, "progress") as file:
            file.write(json.dumps({"images": done, "known": known}).encode())
        self.n_stored, self.note = done, known

    def read(self, index: Int[np.ndarray, " n"]) -> tuple[Shaped[np.ndarray, "n f"], Int[np.ndarray, " n"]]:
        """Codes and labels of images by number.

        Raises:
          UserError: a row cannot be read.
        """
        rows = np.empty(len(index), self._row)
        size = self._row.itemsize
        try:
            if self._file is None:
                self._file = os.open(self._directory / ROWS, os.O_RDONLY)
            for row, number in enumerate(index.tolist()):
                if os.preadv(self._file, [memoryview(rows[row : row + 1]).cast("B")], number * size) != size:
                    raise OSError(0, f"the file ends before image {number}")
        except OSError as error:
            why = f"codes in {self._directory} cannot be read: {error.strerror}"
            raise UserError(f"{why}; remove that directory, and they are computed again") from error
        return rows["code"], rows["label"]

    def close(self) -> None:
        """Gives the file back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def train_batches(
    codes: dict[str, StoredCodes], *, batch_size: int, seed: int, start_step: int, num_steps: int | None
) -> Iterator[dict[str, Any]]:
    """Batches from `start_step` on, of the images that networks see in the same steps (data/loader.py).

    In the place of an image that cannot be decoded is the next one of the split.

    Args:
      codes: of the same images, by channel.
      batch_size: images of a step.
      seed: of the order.
      start_step: of the first batch.
      num_steps: how many; None: without end.

    Returns:
      `codes`, stored rows by channel; `label`; `index` in the split; `replaced`, the number of the record that cannot
      be decoded, else -1.
    """
    steps = itertools.count(start_step) if num_steps is None else range(start_step, start_step + num_steps)
    count = next(iter(codes.values())).images
    for step in steps:
        wanted = _order(np.arange(step * batch_size, (step + 1) * batch_size), seed, count)
        index, found, labels = wanted.copy(), {}, np.empty(0)
        for name, one in codes.items():
            found[name], labels = one.read(index)
            while np.any(bad := labels == UNDECODABLE):
                index[bad] = (index[bad] + 1) % count
                found[name][bad], labels[bad] = one.read(index[bad])
        replaced = np.where(index == wanted, -1, wanted)
        yield {"codes": found, "label": labels, "index": index, "replaced": replaced}


def _order(positions: Int[np.ndarray, " n"], seed: int, count: int) -> Int[np.ndarray, " n"]:
    """The images at positions of a run."""
    epochs, places = np.divmod(positions, count)
    index = np.empty_like(positions)
    for epoch in np.unique(epochs).tolist():
        index[epochs == epoch] = epoch_order(seed, epoch, count)[places[epochs == epoch]]
    return index
