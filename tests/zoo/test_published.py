import pytest

from imagenet_repro.zoo.published import published, year
from tests.report import made


@pytest.mark.parametrize(
    ("network", "when", "errors", "protocol"),
    [
        ("nec_uiuc_2010", 2010, (None, 28.2), "test"),
        ("xrce_2011", 2011, (None, 25.8), "test"),
        ("resnet34", 2015, (26.73, 8.74), "centre"),  # after four of ten crops and of dense evaluation
        ("legacy_seresnet50", 2017, (23.29, 6.62), "centre"),
        ("googlenet", 2014, (None, 10.07), "centre"),
    ],
)
def test_the_published_number_is_of_one_view(network, when, errors, protocol):
    found = published(network)
    assert year(network) == when
    assert (found.top1, found.top5) == errors
    assert protocol in found.protocol


def test_an_unknown_name_has_neither():
    assert published("my_network") is None
    assert year("my_network") is None
    assert published("") is None


def test_made_up_systems_stand_by_year():
    years = [year(name) for name in made.NETWORKS]
    assert years[0] == 2010
    assert years == sorted(years)
