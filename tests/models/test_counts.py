"""Parameters and multiply-adds of every network against `parameter_counts.csv`.

A row has the expected numbers of one network with some options: trainable parameters, and multiply-adds in 1e9 on one
image of `image_size` pixels within a tolerance, absolute or in percent. An empty cell is not checked. `source` is the
library whose table has the numbers, "layout of the paper" for those that follow from the published layout, or "own
count" where we know of no other figure. The multiply-adds that timm states for the first EfficientNets are left out:
they are 1.5 to 3.6 % more than those of their convolutions and products. Rows marked slow take many seconds to trace.
"""

import csv
import functools
import json
from pathlib import Path

import pytest

from imagenet_repro import models
from imagenet_repro.zoo import counting
from imagenet_repro.zoo.sizes import sizes

with (Path(__file__).parent / "parameter_counts.csv").open(newline="") as file:
    ROWS = tuple(csv.DictReader(file))


def case(row):
    name = "-".join(row[key] for key in ("network", "options", "image_size", "source") if row[key])
    return pytest.param(row, id=name, marks=[pytest.mark.slow] if row["slow"] else [])


@functools.cache
def network(name, options):
    return models.abstract(name, **json.loads(options or "{}"))


@pytest.mark.parametrize("row", [case(row) for row in ROWS])
def test_counts_are_the_expected_ones(row):
    model = network(row["network"], row["options"])
    if row["parameters"]:
        assert counting.parameter_count(model) == int(row["parameters"])
    if row["giga_multiply_adds"]:
        work = counting.multiply_adds(model, int(row["image_size"])) / 1e9
        expected, within = float(row["giga_multiply_adds"]), row["within"]
        tolerance = float(within.removesuffix("%")) * expected / 100 if within.endswith("%") else float(within)
        assert work == pytest.approx(expected, rel=0, abs=tolerance)


def test_stored_parameters_are_the_expected_ones():
    plain = [row for row in ROWS if row["parameters"] and not row["options"]]
    assert {row["network"] for row in plain} == set(models.published_names()), "every published network has a row"
    for row in plain:
        assert sizes(row["network"]).parameters == int(row["parameters"]), row["network"]


def test_multiply_adds_of_efficientnets_are_at_the_size_of_the_published_weights():
    rows = [row for row in ROWS if row["network"].startswith("efficientnet") and row["within"] == "1 %"]
    assert len(rows) == 12
    for row in rows:
        assert models.spec(row["network"]).preprocessing.image_size == int(row["image_size"])
