"""Tests of errors by group, against counts by hand and SciPy's and statsmodels' forms."""

import numpy as np
import pytest
from scipy.stats import chi2

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import group_errors
from imagenet_repro.scoring.image_groups import Groups
from tests.scoring.synthetic_predictions import from_logits

IMAGES = 400


@pytest.fixture(scope="module")
def predicted():
    """First guesses are wrong on every second image of the first half, and on every eighth of the second."""
    rows = np.arange(IMAGES)
    wrong = np.where(rows < 200, rows % 2 == 0, rows % 8 == 0)
    logits = np.tile(np.arange(8.0)[::-1], (IMAGES, 1))  # class 0 first, class 7 last
    return from_logits(logits, np.where(wrong, 7, 0), ids=[str(row) for row in rows])


def groups(of):
    return Groups("country", {str(row): of(row) for row in range(IMAGES) if of(row) is not None}, "test")


def test_errors_and_their_gap(predicted):
    errors = group_errors.score(predicted, groups(lambda row: ("A" if row < 200 else "B",)))
    assert [(one.name, one.images, one.top1_wrong, one.top5_wrong) for one in errors.groups] == [
        ("A", 200, 100, 100),
        ("B", 200, 25, 25),
    ]
    gap, (low, high) = errors.gap()
    assert gap == 0.375
    assert 0.28 < low < gap < high < 0.46
    expected = 400 * (100 * 175 - 25 * 100) ** 2 / (200 * 200 * 125 * 275)  # the closed form of a 2 × 2 table
    assert errors.p_value() == pytest.approx(chi2.sf(expected, 1))
    assert "differ (chi-square test" in errors.sentences()[1]
    assert errors.everything.top1_wrong == 125


def test_images_in_several_groups_count_once_in_all_and_have_no_test(predicted):
    errors = group_errors.score(predicted, groups(lambda row: ("A", "B") if row < 100 else None if row > 299 else ()))
    assert [one.images for one in errors.groups] == [100, 100]
    assert (errors.everything.images, errors.left_out, errors.overlap) == (300, 100, True)
    assert errors.p_value() is None
    assert any("several groups" in line for line in errors.sentences())
    assert any("100 images have no group" in line for line in errors.sentences())


def test_the_interval_of_the_gap_allows_for_the_choice_among_many_groups(predicted):
    two = group_errors.score(predicted, groups(lambda row: ("A" if row < 200 else "B",)))
    names = groups(lambda row: ("A" if row < 200 else "B" if row < 360 else f"small{row % 10}",))
    many = group_errors.score(predicted, names)
    width = [high - low for _, (low, high) in (two.gap(), many.gap())]
    assert width[1] > width[0]


def test_images_without_labels_are_refused():
    predicted = from_logits(np.eye(3), [-1, -1, -1], ids=["0", "1", "2"])
    with pytest.raises(UserError, match="without labels"):
        group_errors.score(predicted, groups(lambda row: ("A",)))
