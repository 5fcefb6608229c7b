"""Tests of published facts: the files against the registry, and the number that is compared with ours."""

import csv

import pytest

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.zoo.published import ERRORS, NETWORKS, Measured, network_facts, published_for, year
from tests.report import comparisons


def measured(system, data="imagenet2012", image_size=224, options=None, **fields):
    return Measured(system, frozenset({data}), image_size, options or {}, **fields)


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
    result = published_for(measured(network))
    assert year(network) == when
    assert (result.top1, result.top5) == errors
    assert protocol in result.protocol


def test_an_unknown_name_has_no_facts():
    assert published_for(measured("my_network")) is None
    assert year("my_network") is None
    assert published_for(measured("")) is None
    with pytest.raises(UserError, match="no network is called 'my_network'"):
        network_facts("my_network")


@pytest.mark.parametrize(
    ("where", "top1"),
    [
        ({"system": "vit_tiny_patch16"}, 24.548),
        ({"system": "vit_tiny_patch16", "options": {"depth": 4}}, None),  # another network
        ({"system": "vit_tiny_patch16", "image_size": 32}, None),
        ({"system": "vit_tiny_patch16", "options": {"drop_path": 0.1, "image_size": 224}}, 24.548),
        ({"system": "resnet50", "options": {"stem": "small"}}, None),
        ({"system": "resnet50", "data": "tiny_imagenet_20"}, None),
        ({"system": "resnet50", "data": "imagenet2012_side400_q90:5.1.0"}, 24.01),
        ({"system": "resnet20_cifar"}, None),
        ({"system": "resnet20_cifar", "data": "cifar10", "image_size": 32}, 8.75),
        ({"system": "resnet20_cifar", "data": "cifar100", "image_size": 32}, None),
        ({"system": "senet154", "image_size": 320}, 17.28),
        ({"system": "senet154"}, 18.68),
        ({"system": "vit_small_patch14_dinov2", "image_size": 518}, None),
    ],
)
def test_published_errors_are_those_of_the_same_network_options_size_and_data(where, top1):
    result = published_for(measured(**where))
    assert (result and result.top1) == top1


def test_a_probe_is_compared_with_published_probes_alone():
    probe = measured("vit_small_patch14_dinov2", image_size=518, is_probe=True)
    assert published_for(probe).top1 == 18.9
    assert published_for(measured("resnet50", is_probe=True)) is None


def test_systems_of_the_test_data_are_ordered_by_year():
    years = [year(name) for name in comparisons.NETWORKS]
    assert years[0] == 2010
    assert years == sorted(years)


def test_every_published_network_has_a_year_a_title_and_a_paper():
    with NETWORKS.open(newline="") as file:
        assert [row["network"] for row in csv.DictReader(file)] == list(models.published_names())
    for name in models.published_names():
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
