"""Tests of the stored sizes of networks against counts."""

import csv
import dataclasses

import pytest

from imagenet_repro import models
from imagenet_repro.models import registry
from imagenet_repro.report import zoo_listing
from imagenet_repro.zoo.published import Measured, NetworkFacts, network_facts, published_for
from imagenet_repro.zoo.sizes import STORED, Sizes, count, sizes


@pytest.mark.parametrize("name", ["alexnet_owt", "resnet18"])
def test_stored_sizes_are_those_of_the_counts(name):
    row = count(name)
    assert sizes(name) == Sizes(row["parameters"], row["multiply_adds"], row["real_multiply_adds"])
    assert row["image_size"] == 224


def test_the_sizes_of_every_published_network_are_stored():
    rows = list(csv.DictReader(STORED.open()))
    assert [row["name"] for row in rows] == list(models.published_names())
    assert all(int(row["image_size"]) == models.spec(row["name"]).preprocessing.image_size for row in rows)


def test_an_own_network_is_counted_and_has_no_facts(monkeypatch):
    published = models.spec("lenet5")
    monkeypatch.setitem(registry.SPECS, "mine", dataclasses.replace(published, reference="own", aliases=()))
    assert ("mine" in models.names(), "mine" in models.published_names()) == (True, False)
    assert sizes("mine") == sizes("lenet5")
    assert network_facts("mine") == NetworkFacts(None, "mine", "", "", ())
    assert published_for(Measured("mine", frozenset({"imagenet2012"}), 32, {})) is None
    zoo_listing.show(["mine", "lenet5"], {})
    zoo_listing.describe("mine")


QUICK = ("lenet5_1998", "lenet5", "alexnet_2012", "vgg11", "resnet18", "resnet20_cifar", "vit_tiny_patch16")


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in models.published_names()],
)
def test_every_stored_size_is_that_of_the_counts(name):
    row = count(name)
    assert sizes(name) == Sizes(row["parameters"], row["multiply_adds"], row["real_multiply_adds"])
