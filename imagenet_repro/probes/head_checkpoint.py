"""A checkpoint of linear heads in training, so that an interrupted probe continues where it was, with the same bits.

There is one file for each training, named after a hash of everything that its result depends on. It is a NumPy archive
with `step`, int64, and the arrays of `linear_heads.TrainingState` in a fixed order.
"""

import hashlib
import json
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from imagenet_repro.probes.linear_heads import HeadGrid, TrainingState
from imagenet_repro.storage import files

SECONDS = 60.0  # of training between two checkpoints, the most that an interruption costs
SHARE = 0.05  # of the time that writing may take, on slow disks and with many large heads


class HeadCheckpoint:
    """The checkpoint of one training.

    Args:
      directory: of the file.
      grid: the heads.
      dependencies: whatever else the trained heads depend on, as JSON values.
      seconds: of training between two checkpoints; 0: one after every step.
    """

    def __init__(
        self, directory: Path, grid: HeadGrid, dependencies: Mapping[str, Any], *, seconds: float | None = None
    ):
        layers = {name: [part.start, part.stop] for name, part in grid.layers.items()}
        heads = [layers, list(grid.learning_rates), grid.num_classes, grid.seed]
        key = hashlib.sha256(json.dumps([heads, dict(dependencies)], sort_keys=True).encode()).hexdigest()[:16]
        self.path = directory / f"heads_in_training.{key}.npz"
        self._grid = grid
        self._seconds = SECONDS if seconds is None else seconds
        self._saved, self._took = time.monotonic(), 0.0

    def load(self) -> TrainingState | None:
        """Return the state of the last checkpoint; None if there is none, or it cannot be read."""
        start = self._grid.initial_state()
        structure = jax.tree.structure((start.params, start.momentum))
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = [file[f"{number:05d}"] for number in range(structure.num_leaves)]
                return TrainingState(int(file["step"]), *jax.tree.unflatten(structure, arrays))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            print(f"{self.path} cannot be read ({error}); the heads are trained from the first step")
        return None

    def save_if_due(self, state: TrainingState) -> None:
        """Write the state if enough time has passed since the last checkpoint.

        Raises:
          SaveError: the file cannot be written.
        """
        began = time.monotonic()
        if began - self._saved < max(self._seconds, self._took / SHARE if self._seconds else 0):
            return
        leaves = map(np.asarray, jax.tree.leaves((state.params, state.momentum)))
        arrays = {f"{number:05d}": array for number, array in enumerate(leaves)}
        with files.atomic_write(self.path, "a checkpoint of linear heads") as file:
            np.savez(file, step=np.int64(state.step), **arrays)  # pyright: ignore[reportArgumentType]
        self._saved = time.monotonic()
        self._took = self._saved - began

    def remove(self) -> None:
        """Remove the file once the heads have been scored."""
        self.path.unlink(missing_ok=True)
