import dataclasses
import itertools

import numpy as np

from imagenet_repro.report.sections.disagreements import disagreements
from imagenet_repro.report.sections.leaderboard import ranked
from tests.report import comparisons


def got(system):
    """Return the ids of the images that the run of the lowest seed classifies correctly."""
    guesses = system.runs[0].guesses
    return {
        id for id, label, row in zip(guesses.id.tolist(), guesses.label, guesses.top5, strict=True) if row[0] == label
    }


def test_counts_of_every_pair():
    comparison = comparisons.comparison(systems=4, seeds=2)
    every = set(comparison.systems[0].runs[0].guesses.id.tolist())
    right = {system.name: got(system) for system in comparison.systems}
    table = disagreements(comparison).counts
    names = [system.name for system in ranked(comparison)]
    assert [row[:2] for row in table.rows] == list(itertools.combinations(names, 2))
    for one, other, *counts in table.rows:
        a, b = right[one], right[other]
        assert list(map(int, counts)) == [len(a & b), len(a - b), len(b - a), len(every - a - b)]


def test_examples_are_what_their_title_says():
    comparison = comparisons.comparison(systems=3)
    right = {system.name: got(system) for system in comparison.systems}
    result = disagreements(comparison)
    first, second, third = (system.name for system in ranked(comparison))
    one, reverse = result.pairs[0]
    assert one.title == f"{first} is right, {second} is wrong"
    assert {e.id for e in one.examples} <= right[first] - right[second]
    assert {e.id for e in reverse.examples} <= right[second] - right[first]
    assert one.count == len(right[first] - right[second])
    assert len(one.examples) == min(6, one.count)
    only = result.only_one_right[0]
    assert only.title == f"only {first} is right"
    assert only.count == len(right[first] - right[second] - right[third])
    assert {e.id for e in only.examples} <= right[first] - right[second] - right[third]
    missed = set(comparison.systems[0].runs[0].guesses.id.tolist()) - set.union(*right.values())
    assert result.all_wrong.count == len(missed)
    assert {e.id for e in result.all_wrong.examples} <= missed


def test_examples_have_label_and_guesses():
    comparison = comparisons.comparison(systems=2)
    first = ranked(comparison)
    shown = disagreements(comparison).pairs[0][0].examples[0]
    guesses = first[0].runs[0].guesses
    i = guesses.id.tolist().index(shown.id)
    assert shown.label == f"name {guesses.label[i]}"
    assert shown.guesses == tuple((s.name, f"name {s.runs[0].guesses.top5[i, 0]}") for s in first)


def test_an_image_without_guesses():
    comparison = comparisons.comparison(systems=1)
    run = comparison.systems[0].runs[0]
    nothing = dataclasses.replace(run.guesses, top5=np.full_like(run.guesses.top5, -1))
    system = dataclasses.replace(comparison.systems[0], runs=(dataclasses.replace(run, guesses=nothing),))
    result = disagreements(dataclasses.replace(comparison, systems=(system,)))
    assert result.all_wrong.count == 400
    assert result.all_wrong.title == "nec_uiuc_2010 is wrong"
    assert result.all_wrong.examples[0].guesses == (("nec_uiuc_2010", "no guess"),)


def test_one_system_has_no_pairs():
    result = disagreements(comparisons.comparison(systems=1))
    assert (result.counts, result.pairs, result.only_one_right) == (None, (), ())


def test_two_systems_have_no_images_that_only_one_of_many_gets_right():
    assert disagreements(comparisons.comparison(systems=2)).only_one_right == ()


def test_a_perfect_system_leaves_no_examples():
    comparison = comparisons.comparison(systems=1)
    run = comparison.systems[0].runs[0]
    top5 = (run.guesses.label[:, None] + np.arange(5, dtype=np.int32)) % 10
    perfect = dataclasses.replace(run, guesses=dataclasses.replace(run.guesses, top5=top5))
    result = disagreements(
        dataclasses.replace(comparison, systems=(dataclasses.replace(comparison.systems[0], runs=(perfect,)),))
    )
    assert (result.examples, result.groups, result.ids) == (None, (), ())


def test_each_thumbnail_is_requested_once():
    comparison = comparisons.comparison(systems=5)
    result = disagreements(comparison)
    assert len(set(result.ids)) == len(result.ids)
    assert result == disagreements(comparison)
    assert {row[2] for row in result.examples.rows} == set(result.ids)


def test_examples_are_of_neighbours_and_of_the_best_system():
    comparison = comparisons.comparison(systems=5)
    names = [system.name for system in ranked(comparison)]
    shown = [first.title for first, _ in disagreements(comparison).pairs]
    telling = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4)]
    assert shown == [f"{names[i]} is right, {names[j]} is wrong" for i, j in telling]


def test_images_that_can_be_shown_are_preferred():
    comparison = comparisons.comparison(systems=3)
    pictured = set(comparison.systems[0].runs[0].guesses.id.tolist()[::3])
    for group in disagreements(comparison, pictured).groups:
        are_pictured = [example.id in pictured for example in group.examples]
        assert are_pictured == sorted(are_pictured, reverse=True)
        assert any(are_pictured)


def test_examples_of_many_systems_name_at_most_twelve_and_the_one_that_is_right():
    few = comparisons.comparison(systems=12)
    again = tuple(dataclasses.replace(one, name=f"{one.name} again") for one in few.systems[:3])
    comparison = dataclasses.replace(few, systems=(*few.systems, *again))
    result = disagreements(comparison)
    for group in (result.all_wrong, *result.only_one_right):
        for example in group.examples:
            assert len(example.guesses) == 12
            right = [name for name, guess in example.guesses if guess == example.label]
            assert right == ([group.title.split()[1]] if group.title.startswith("only") else [])
