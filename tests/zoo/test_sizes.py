"""Tests of the stored sizes of networks against counts."""

import csv

import pytest

from imagenet_repro import models
from imagenet_repro.zoo.sizes import STORED, Sizes, count, sizes


@pytest.mark.parametrize("name", ["alexnet_owt", "resnet18"])
def test_stored_sizes_are_those_of_the_counts(name):
    row = count(name)
    assert sizes(name) == Sizes(row["parameters"], row["multiply_adds"], row["real_multiply_adds"])
    assert row["image_size"] == 224


def test_every_networks_sizes_are_stored():
    rows = list(csv.DictReader(STORED.open()))
    assert [row["name"] for row in rows] == list(models.names())
    assert all(int(row["image_size"]) == models.spec(row["name"]).preprocessing.image_size for row in rows)


QUICK = ("lenet5_1998", "lenet5", "alexnet_2012", "vgg11", "resnet18", "resnet20_cifar", "vit_tiny_patch16")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in models.names()]
)
def test_every_stored_size_is_that_of_the_counts(name):
    row = count(name)
    assert sizes(name) == Sizes(row["parameters"], row["multiply_adds"], row["real_multiply_adds"])
