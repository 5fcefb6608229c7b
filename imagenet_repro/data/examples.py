"""A few images of every class of a split, found in the background by reading the split in a random order.

tfds keeps no index of classes, so a label is known only once its record is read; with balanced classes a little more
than `COUNT` images times the number of classes are read. The indices are saved in a file, and the next process
continues from there.
"""

import json
import threading
from pathlib import Path

import numpy as np

from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import UserError
from imagenet_repro.storage import files

COUNT = 13  # images of each class, as in the study of 2014 (Karpathy 2014)


class ClassExamples:
    """Examples of every class, which a thread looks for from `start` to `stop`.

    Args:
      split: the images.
      path: the file of the indices found so far.
    """

    def __init__(self, split: Split, path: Path):
        self._split, self._path = split, path
        self._order = np.random.default_rng(0).permutation(len(split.records))
        self._n_read, self._indices = self._load()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._search, daemon=True)

    def start(self) -> None:
        """Begin the search."""
        self._thread.start()

    def stop(self) -> None:
        """End the search and save the indices; raises SaveError."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        content = {"of": self._split_key, "read": self._n_read, "found": self._indices}
        with files.atomic_write(self._path, "the examples") as file:
            file.write(json.dumps(content).encode())

    def indices(self, label: int) -> list[int]:
        """Return the indices of the images of a class that have been found so far."""
        return list(self._indices[label])

    def record(self, index: int) -> Record:
        """Return the record of an index."""
        return self._split.records[index]

    def is_complete(self, label: int) -> bool:
        """Return whether the search for images of a class has ended."""
        return len(self._indices[label]) == COUNT or self._n_read == len(self._order)

    @property
    def _split_key(self) -> list[str]:
        return [self._split.name, self._split.version, self._split.split]

    def _load(self) -> tuple[int, list[list[int]]]:
        """Return the saved number of records read and indices by class; 0 and none where another split was saved."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            n_read, n_found = content["read"], content["found"]
            indices = [index for of_class in n_found for index in of_class]
            are_records = 0 <= n_read <= len(self._order) and all(0 <= index < len(self._order) for index in indices)
            if content["of"] == self._split_key and len(n_found) == len(self._split.class_names) and are_records:
                return n_read, n_found
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none, or a damaged file; they are found again
        return 0, [[] for _ in self._split.class_names]

    def _search(self) -> None:
        while self._n_read < len(self._order) and not self._stopped.is_set():
            if all(len(indices) == COUNT for indices in self._indices):
                return
            self._examine(int(self._order[self._n_read]))
            self._n_read += 1

    def _examine(self, index: int) -> None:
        try:
            label = self._split.records[index].label
        except UserError:  # a damaged file; other records of the class can replace this one
            return
        if 0 <= label < len(self._indices) and len(self._indices[label]) < COUNT:
            self._indices[label].append(index)
