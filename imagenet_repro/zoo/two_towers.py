"""Parameters and multiply-adds of networks with two towers, of each tower on one image or one text.

Counting takes seconds, so the counts of the published ones are stored in `two_towers.csv`, which
`benchmarks/zoo_table.py` writes and a test compares with new counts.
"""

import csv
import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from imagenet_repro.models import image_text
from imagenet_repro.zoo import counting

STORED = Path(__file__).parent / "two_towers.csv"


@dataclasses.dataclass(frozen=True)
class TowerSizes:
    """The sizes of both towers; the scale and the bias of logits are not in them."""

    image_parameters: int
    text_parameters: int
    image_multiply_adds: int  # of one image of the published size
    text_multiply_adds: int  # of one text of the full length


@functools.cache
def tower_sizes(name: str) -> TowerSizes:
    """Return the stored sizes of a network of `image_text.TWO_TOWERS`; count them where none are stored."""
    row = _stored().get(name)
    if row is None:
        return count(name)
    return TowerSizes(*(int(row[field.name]) for field in dataclasses.fields(TowerSizes)))


def count(name: str) -> TowerSizes:
    """Return the sizes of a network, counted from its shapes."""
    network, design = image_text.abstract_image_text(name).eval(), image_text.two_towers(name)
    graphdef, state = nnx.split(network.text)
    tokens = jax.ShapeDtypeStruct((1, design.text.context), jnp.int32)
    text_flops = counting.flops(lambda state, tokens: nnx.merge(graphdef, state)(tokens), state, tokens, taps="full")
    return TowerSizes(
        counting.parameter_count(network.image),
        counting.parameter_count(network.text),
        counting.evaluation_counts(network.image, design.image_size)["full"],
        text_flops // 2,
    )


def write() -> None:
    """Count every network with two towers, and write the counts."""
    with STORED.open("w", newline="", encoding="utf-8") as file:
        fields = [field.name for field in dataclasses.fields(TowerSizes)]
        writer = csv.DictWriter(file, ["name", *fields], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"name": name} | dataclasses.asdict(count(name)) for name in image_text.TWO_TOWERS)


@functools.cache
def _stored() -> dict[str, dict[str, str]]:
    if not STORED.exists():
        return {}
    with STORED.open(newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}
