"""Parameters and multiply-adds of every network.

Counting all networks takes minutes, so the counts of the published ones are stored in `sizes.csv`, which
`benchmarks/zoo_table.py` writes and a test compares with new counts. An own network is counted when it is asked for.
"""

import csv
import dataclasses
import functools
from pathlib import Path
from typing import Any

from imagenet_repro import models
from imagenet_repro.zoo import counting

STORED = Path(__file__).parent / "sizes.csv"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The size of a network with its published head."""

    parameters: int  # trainable
    multiply_adds: int  # of one image of the size at which its results were published, as papers count them
    real_multiply_adds: int  # of these, those that are not on padding (counting.py)


@functools.cache
def sizes(name: str) -> Sizes:
    """Return the stored sizes of a network; count them where none are stored for its image size."""
    row = _stored().get(name)
    if row is None or int(row["image_size"]) != models.spec(name).preprocessing.image_size:
        row = count(name)
    return Sizes(int(row["parameters"]), int(row["multiply_adds"]), int(row["real_multiply_adds"]))


def count(name: str) -> dict[str, Any]:
    """Return a row of `sizes.csv`, counted from the network's shapes; the deepest networks take some seconds."""
    network, size = models.abstract(name), models.spec(name).preprocessing.image_size
    counts = counting.evaluation_counts(network, size)
    return {
        "name": name,
        "parameters": counting.parameter_count(network),
        "image_size": size,
        "multiply_adds": counts["full"],
        "real_multiply_adds": counts["real"],
    }


@functools.cache
def _stored() -> dict[str, dict[str, str]]:
    with STORED.open(newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}
