"""Tests of networks crossed with recipes."""

import dataclasses

from imagenet_repro.report.sections.crossed import crossed
from tests.report import comparisons


def relabelled(names):
    comparison = comparisons.comparison(systems=len(names), seeds=1)
    systems = [
        dataclasses.replace(system, name=f"{network}_{recipe}", network=network, recipe=recipe)
        for system, (network, recipe) in zip(comparison.systems, names, strict=True)
    ]
    return dataclasses.replace(comparison, systems=tuple(systems))


def test_every_network_has_its_error_under_each_recipe_and_both_distances_are_theirs():
    names = [("alexnet", "paper"), ("alexnet", "modern"), ("resnet50", "paper"), ("resnet50", "modern")]
    comparison = relabelled(names)
    error = {key: 100 * s.runs[0].rates.top1_error for key, s in zip(names, comparison.systems, strict=True)}
    table = crossed(comparison)
    assert table.headings == ("network", "paper recipe", "modern recipe", "range over recipes, points")
    cells = {row[0]: row[1:] for row in table.rows}
    apart = []
    for network in ("alexnet", "resnet50"):
        paper, modern = error[network, "paper"], error[network, "modern"]
        assert cells[network] == (f"{paper:.1f}", f"{modern:.1f}", f"{abs(paper - modern):.1f}")
        apart.append(abs(paper - modern))
    for column, recipe in enumerate(("paper", "modern")):
        expected = abs(error["alexnet", recipe] - error["resnet50", recipe])
        assert cells["best to worst network"][column] == f"{expected:.1f}"
    assert cells["mean over networks"][-1] == f"{sum(apart) / 2:.1f}"


def test_a_missing_pair_leaves_a_gap_and_nothing_crossed_gives_no_table():
    names = [("alexnet", "paper"), ("alexnet", "modern"), ("resnet50", "paper")]
    assert crossed(relabelled(names)).rows[1][2:] == ("–", "–")
    assert crossed(relabelled([("alexnet", "paper"), ("resnet50", "paper")])) is None
    assert crossed(comparisons.comparison(systems=3, seeds=1)) is None
