import json
import re

import pytest

from imagenet_repro import models
from imagenet_repro.report import zoo_listing
from imagenet_repro.report.plots import history
from imagenet_repro.zoo.entries import ENTRIES
from imagenet_repro.zoo.published import network_facts, year
from tests.report import plot_helpers


def two(**fields):
    systems = (
        plot_helpers.system("deep", plot_helpers.run(top5=120), network="resnet50"),
        plot_helpers.system(
            "vectors", plot_helpers.run(0, top5=300), plot_helpers.run(1, top5=320), network="xrce_2011"
        ),
    )
    return plot_helpers.comparison(*systems, **fields)


def test_years_are_those_of_networks_their_aliases_and_entries():
    assert year("resnet50") == network_facts("resnet50").year == 2015
    assert year(models.aliases()[0]) == network_facts(models.aliases()[0]).year
    assert year("nec_uiuc_2010") == 2010
    assert year("nobody_knows") is None


def titles(chart):
    return [panel["title"] for panel in chart.views[0].specification["concat"]]


def test_entries_stand_at_their_years_and_the_person_is_a_line():
    datasets = history.draw_history(two()).datasets
    points = {(row["year"], row["error"]) for name in ("winners", "others") for row in datasets[name]}
    assert points == {(entry.year, entry.top5) for entry in ENTRIES if "person" not in entry.who}
    assert [row["error"] for row in datasets["person"]] == [5.1]
    labels = {row["label"] for row in datasets["names"]}
    assert {"XRCE 25.8", "WMW 2.25", "VGG, second 7.3"} <= labels
    assert datasets["person"][0]["label"] == "a person: 5.1 on 1,500 test images"
    assert sorted(row["error"] for row in datasets["others"]) == [7.3, 11.7, 16.4]


def test_other_data_has_a_panel_of_its_own():
    chart = history.draw_history(two())
    assert [(row["year"], row["error"]) for row in chart.datasets["ours"]] == [(2015, 12), (2011, 31)]
    assert len(titles(chart)) == 2
    assert "folder:/flowers" in titles(chart)[1]
    assert "cannot be compared" in json.dumps(chart.views[0].specification["title"])
    scales = re.findall(r'"field": "year".*?"domain": (\[.*?\])', json.dumps(chart.views[0].specification))
    assert len(set(scales)) == 1


@pytest.mark.parametrize(
    ("scored", "panels"),
    [
        (("imagenet2012", "validation", 50), 1),
        (("imagenet2012_side400_q90:5.1.0", "validation", 50), 1),
        (("imagenet2012", "validation[:50%]", 50), 2),
        (("imagenet2012", "validation", 49), 2),
        (("imagenet_v2", "validation", 50), 2),
    ],
)
def test_only_all_of_imagenets_validation_set_shares_the_axis(monkeypatch, scored, panels):
    data, split, images = scored
    monkeypatch.setattr(zoo_listing, "VALIDATION_IMAGES", 50)
    one = plot_helpers.system("net", plot_helpers.run(top1=20, top5=10, images=images))
    chart = history.draw_history(plot_helpers.comparison(one, data=data, split=split))
    assert len(titles(chart)) == panels
    (ours,) = chart.datasets["ours"]
    assert (ours["year"], ours["error"]) == (2015, pytest.approx(100 * 10 / images, rel=1e-5))
    assert ("net" in {row["system"] for row in chart.datasets["names"]}) == (panels == 1)


def test_a_network_of_unknown_year_is_left_out_and_named():
    unknown = plot_helpers.system("mine", plot_helpers.run(), network="my_own")
    chart = history.draw_history(plot_helpers.comparison(unknown, *two().systems))
    assert len(chart.datasets["ours"]) == 2
    assert "Not shown (no known year): mine." in json.dumps(chart.views[0].specification["title"])
    assert len(titles(history.draw_history(plot_helpers.comparison(unknown)))) == 1
