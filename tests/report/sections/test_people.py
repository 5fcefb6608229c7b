"""Tests of the comparison of people with systems on the images that each person saw."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import binom
from statsmodels.stats.multitest import multipletests

from imagenet_repro.report.records import HumanPlayer, TopGuesses
from imagenet_repro.report.sections import leaderboard, people
from tests.report import comparisons


def played(comparison, images=40, wrong=8, name="Ada"):
    """Return a person who saw every tenth image and was wrong on the first `wrong` of them."""
    run = comparison.systems[0].runs[0].guesses
    rows = np.arange(0, len(run.id), len(run.id) // images)[:images]
    label = run.label[rows]
    top5 = np.full((images, 5), -1, np.int32)
    top5[:, 0] = np.where(np.arange(images) < wrong, (label + 1) % 10, label)
    return HumanPlayer(name, TopGuesses(run.id[rows], label, top5))


@pytest.fixture
def comparison():
    result = comparisons.comparison(systems=3, seeds=2)
    return dataclasses.replace(result, people=(played(result), played(result, 20, 0, "Bo")))


def test_without_people_there_is_no_table():
    assert people.table(comparisons.comparison()) is None


def test_a_row_for_each_person_and_one_for_each_system_on_the_same_images(comparison):
    rows = people.table(comparison).rows
    assert [row[:3] for row in rows[:4]] == [("Ada", "–", "40")] + [
        ("Ada", system.name, "40") for system in leaderboard.ranked(comparison)
    ]
    assert rows[0][3:7] == ("20.0", "[10.5, 34.8]", "20.0", "[10.5, 34.8]")
    assert rows[4][:5] == ("Bo", "–", "20", "0.0", "[0.0, 16.1]")


def test_a_system_is_scored_on_those_images_alone(comparison):
    system, player = comparison.systems[1], comparison.people[0]
    part = people.part_of(system, player.guesses)
    np.testing.assert_array_equal(part.id, player.guesses.id)
    run = system.runs[0].guesses
    expected = [(run.top5[run.id == one][0] == run.label[run.id == one]).any() for one in player.guesses.id]
    np.testing.assert_array_equal(~part.wrong(5), expected)


def test_p_is_paired_by_image_and_adjusted_for_the_number_of_systems(comparison):
    player = comparison.people[0]
    wrong = player.guesses.wrong(5)
    midp = []
    for system in leaderboard.ranked(comparison):
        other = people.part_of(system, player.guesses).wrong(5)
        fewer, total = min(np.sum(wrong & ~other), np.sum(other & ~wrong)), np.sum(wrong ^ other)
        midp.append(min(1.0, 2 * binom.cdf(fewer, total, 0.5) - binom.pmf(fewer, total, 0.5)))
    shown = [float(row[7]) for row in people.table(comparison).rows[1:4]]
    assert shown == pytest.approx(multipletests(midp, method="holm")[1], rel=5e-3)


def test_people_stand_in_the_leaderboard(comparison):
    board = leaderboard.leaderboard(comparison)
    (row,) = [row for row in board.rows if row[0] == "Ada"]
    assert row[1:3] == ("20.0", "[10.5, 34.8]")
    assert row[-1] == "a person, 40 of the images"
    assert len({len(row) for row in board.rows}) == 1
