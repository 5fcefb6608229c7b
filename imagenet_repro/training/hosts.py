"""Values that the processes of a run tell one another outside of a step, when nothing is in flight; their console."""

import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console


def console() -> Console:
    """Return a console that only the first process writes to."""
    return Console(highlight=False, emoji=False, quiet=jax.process_index() != 0)


def gather(value: Any) -> list[Any]:
    """Return the JSON value of every process, in the order of the processes; every process must call this.

    Args:
      value: this process's value; values may differ in length.
    """
    if jax.process_count() == 1:
        return [value]
    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.asarray(len(content)))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(content)] = content
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def from_first(value: Any) -> Any:
    """Return the JSON value of the first process, in every process; every process must call this."""
    return gather(value if jax.process_index() == 0 else None)[0]
