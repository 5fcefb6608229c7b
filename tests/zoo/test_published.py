"""Tests of published facts: the files against the registry, and the number that is compared with ours."""

import csv

import pytest

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.zoo.published import ERRORS, NETWORKS, network_facts, published, year
from tests.report import comparisons


@pytest.mark.parametrize(
    ("network", "when", "errors", "protocol"),
    [
        ("nec_uiuc_2010", 2010, (None, 28.2), "test"),
        ("xrce_2011", 2011, (None, 25.8), "test"),
        ("resnet34", 2015, (26.73, 8.74), "centre"),  # preceded by four with ten crops or dense evaluation
        ("legacy_seresnet50", 2017, (23.29, 6.62), "centre"),
        ("googlenet", 2014, (None, 10.07), "centre"),
    ],
)
def test_the_published_number_has_one_view(network, when, errors, protocol):
    result = published(network)
    assert year(network) == when
    assert (result.top1, result.top5) == errors
    assert protocol in result.protocol


def test_an_unknown_name_has_no_facts():
    assert published("my_network") is None
    assert year("my_network") is None
    assert published("") is None
    with pytest.raises(UserError, match="no network is called 'my_network'"):
        network_facts("my_network")


def test_systems_of_the_test_data_are_ordered_by_year():
    years = [year(name) for name in comparisons.NETWORKS]
    assert years[0] == 2010
    assert years == sorted(years)


def test_every_network_has_a_year_a_title_and_a_paper():
    with NETWORKS.open(newline="") as file:
        assert [row["network"] for row in csv.DictReader(file)] == list(models.names())
    for name in models.names():
        facts = network_facts(name)
        assert facts.year > 1990
        assert facts.title
        assert facts.paper


def test_every_published_result_belongs_to_a_network_and_has_a_protocol_and_a_source():
    with ERRORS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(models.names())
    assert [names.index(row["network"]) for row in rows] == sorted(names.index(row["network"]) for row in rows)
    for row in rows:
        errors = [float(row[key]) for key in ("top1", "top5") if row[key]]
        assert errors
        assert all(0 < error < 100 for error in errors)
        assert row["protocol"]
        assert row["source"]
