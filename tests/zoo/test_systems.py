"""Tests of the systems that followed the challenge."""

from imagenet_repro.report.sections import history
from imagenet_repro.zoo.published import network_facts
from imagenet_repro.zoo.systems import NOT_PUBLISHED, SYSTEMS


def test_results_are_in_the_order_of_years_and_have_protocol_and_source():
    assert [one.year for one in SYSTEMS] == sorted(one.year for one in SYSTEMS)
    for one in SYSTEMS:
        assert 0 < one.top1 < 100
        assert one.protocol.startswith(("val, ", "ReaL labels, "))
        assert one.source
        assert one.weights


def test_the_lowest_errors_are_those_of_weights_that_nobody_can_have():
    by_error = sorted(SYSTEMS, key=lambda one: one.top1)
    assert [one.title for one in by_error[:2]] == ["BASIC-L with Lion", "CoCa"]
    assert {one.title for one in SYSTEMS if one.weights == NOT_PUBLISHED} == {"BASIC-L with Lion", "CoCa"}


def test_errors_of_networks_are_those_of_the_table_of_networks():
    systems = [one for one in SYSTEMS if one.network and one.protocol.startswith("val")]
    assert len(systems) == 3
    for one in systems:
        assert (one.top1, one.source) in {(row.top1, row.source) for row in network_facts(one.network).errors}


def test_the_table_of_the_page_has_every_result():
    table = history.later_systems()
    assert [row[0] for row in table.rows] == [one.title for one in SYSTEMS]
