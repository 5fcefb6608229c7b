"""A few images of every class of a split, found in the background by reading it in a random order.

tfds keeps no index of classes, so that labels are known only by reading; of balanced classes a little more than
`count` images times the number of classes are read. What was found is kept in a file, and the next process goes on
from there.
"""

import json
import threading
from pathlib import Path

import numpy as np

from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import UserError
from imagenet_repro.storage import files

COUNT = 13  # of each class, as in the study of 2014 (Karpathy 2014)


class Examples:
    """Looks for images of every class, from `start` to `stop`.

    Args:
      split: where.
      path: of the file that keeps what was found.
    """

    def __init__(self, split: Split, path: Path):
        self._split, self._path = split, path
        self._order = np.random.default_rng(0).permutation(len(split.records))
        self._read, self._found = self._kept()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the search and keeps what it found; raises SaveError."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        with files.whole(self._path, "the examples") as file:
            kept = {"of": self._of, "read": self._read, "found": self._found}
            file.write(json.dumps(kept).encode())

    def of(self, label: int) -> list[int]:
        """Indices of the images of a class that are found by now."""
        return list(self._found[label])

    def record(self, index: int) -> Record:
        """One of them."""
        return self._split.records[index]

    def complete(self, label: int) -> bool:
        """Whether no more will be found."""
        return len(self._found[label]) == COUNT or self._read == len(self._order)

    @property
    def _of(self) -> list[str]:
        return [self._split.name, self._split.version, self._split.split]

    def _kept(self) -> tuple[int, list[list[int]]]:
        """What the file has, of the same split; else nothing."""
        try:
            kept = json.loads(self._path.read_text())
        except (OSError, ValueError):
            kept = {}
        if kept.get("of") == self._of:
            return kept["read"], kept["found"]
        return 0, [[] for _ in self._split.class_names]

    def _look(self) -> None:
        while self._read < len(self._order) and not self._stopped.is_set():
            if all(len(found) == COUNT for found in self._found):
                return
            self._take(int(self._order[self._read]))
            self._read += 1

    def _take(self, index: int) -> None:
        try:
            label = self._split.records[index].label
        except UserError:  # a damaged file; there are others
            return
        if 0 <= label < len(self._found) and len(self._found[label]) < COUNT:
            self._found[label].append(index)
