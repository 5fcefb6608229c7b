"""Tests of the counts behind the published percentages of the people who took the test."""

import math

from scipy import stats

from imagenet_repro.scoring.people import PEOPLE

FIRST, SECOND = PEOPLE


def one_sided_p(person, network, images=1_500):
    """Return the p value of two shares being equal, with their pooled variance."""
    share = (person + network) / (2 * images)
    return stats.norm.sf((network - person) / math.sqrt(share * (1 - share) * 2 * images))


def test_one_count_agrees_with_all_published_numbers_of_the_first_annotator():
    assert [k for k in range(1_500) if round(100 * k / 1_500, 1) == 5.1] == [76, 77]
    network = 102
    assert round(100 * network / 1_500, 1) == 6.8
    assert [k for k in (76, 77) if round(one_sided_p(k, network), 3) == 0.022] == [FIRST.wrong]
    shares = (37, 24)  # percent of the errors: fine-grained classes, unknown classes
    fits = [k for k in (76, 77) if all(any(round(100 * j / k) == s for j in range(k)) for s in shares)]
    assert fits == [FIRST.wrong]


def test_only_one_count_rounds_to_the_error_of_the_second_annotator():
    assert [k for k in range(258) if f"{100 * k / 258:.1f}" == "12.0"] == [SECOND.wrong]


def test_lines_have_both_intervals():
    for person in PEOPLE:
        test = stats.binomtest(person.wrong, person.images)
        for method in ("wilson", "exact"):
            low, high = test.proportion_ci(method=method)
            assert f"[{100 * low:.1f}, {100 * high:.1f}]" in str(person)
    assert str(FIRST).startswith("a person, after 500 images of practice: top-5 error 5.1 %")
