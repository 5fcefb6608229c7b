import dataclasses

import numpy as np
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.report.sections import class_gains, classes
from tests.report import comparisons


def error_within(system, label, guesses):
    """Return the error within a class in percent, counted image by image."""
    wrong = [
        label not in run.guesses.top5[i][:guesses]
        for run in system.runs
        for i in np.flatnonzero(run.guesses.label == label)
    ]
    return 100 * sum(wrong) / len(wrong)


def renamed(comparison, **networks):
    systems = [dataclasses.replace(one, network=networks.get(one.name, one.network)) for one in comparison.systems]
    return dataclasses.replace(comparison, systems=tuple(systems))


@pytest.mark.parametrize(("number", "guesses"), [(10, 1), (25, 5)])
def test_errors_of_every_class(number, guesses):
    comparison = comparisons.comparison(systems=3, seeds=2, classes=number)
    table = classes.errors_of_classes(comparison)
    assert f"Top-{guesses} error" in table.caption
    assert len(table.rows) == number
    assert table.headings[3:] == tuple(system.name for system in comparison.systems)
    for name, images, mean, *each in table.rows:
        label = comparison.class_names.index(name)
        assert int(images) == np.sum(comparison.systems[0].runs[0].guesses.label == label)
        known = [error_within(system, label, guesses) for system in comparison.systems]
        assert each == [f"{error:.1f}" for error in known]
        assert float(mean) == pytest.approx(np.mean(known), abs=0.051)
    means = [float(row[2]) for row in table.rows]
    assert means == sorted(means, reverse=True)


def test_the_hardest_are_the_first_twenty():
    comparison = comparisons.comparison(classes=30)
    short, every_class = classes.hardest(comparison), classes.errors_of_classes(comparison)
    assert short.rows == every_class.rows[:20]
    assert short.caption.startswith("The 20 hardest of 30 classes.")


def test_steps_follow_the_years():
    comparison = comparisons.comparison(systems=5)
    mixed_up = dataclasses.replace(comparison, systems=comparison.systems[::-1])
    names = [(before.name, after.name) for before, after in classes.steps(mixed_up)]
    assert names == list(zip(comparisons.NETWORKS[:4], comparisons.NETWORKS[1:5], strict=True))


def test_a_system_of_unknown_year_is_left_out():
    comparison = renamed(comparisons.comparison(systems=3), xrce_2011="mine")
    assert [(a.name, b.name) for a, b in classes.steps(comparison)] == [("nec_uiuc_2010", "alexnet_2012")]


def test_one_system_has_no_steps():
    assert classes.gains_of_steps(comparisons.comparison(systems=1)) is None
    assert classes.gains_of_classes(comparisons.comparison(systems=1)) is None


def test_gains_are_those_of_the_lowest_common_seed():
    comparison = comparisons.comparison(systems=2, seeds=3)
    first, second = comparison.systems
    later = dataclasses.replace(second, runs=second.runs[1:])
    runs = classes.same_seed(first, later)
    assert [run.seed for run in runs] == [1, 1]
    table = classes.gains_of_steps(dataclasses.replace(comparison, systems=(first, later)))
    result = class_gains.gains(runs[0].guesses, runs[1].guesses, comparison.class_names)
    fell = 100 * (runs[0].rates.top1_error - runs[1].rates.top1_error)
    points = [one.gain(1) for one in result.classes]
    name, years, gain, gained, lost, most, least = table.rows[0]
    assert (name, years, gain) == ("nec_uiuc_2010 to xrce_2011", "2010 to 2011", class_gains.signed(fell))
    assert (int(gained), int(lost)) == (sum(x > 0 for x in points), sum(x < 0 for x in points))
    assert most.startswith(f"{result.classes[0].short} {class_gains.signed(points[0])}; ")
    assert ("name" in least) == (points[-1] < 0)


def test_systems_without_a_common_seed_use_their_lowest_seeds():
    first, second = comparisons.comparison(systems=2, seeds=4).systems
    apart = [dataclasses.replace(first, runs=first.runs[:2]), dataclasses.replace(second, runs=second.runs[2:])]
    assert [run.seed for run in classes.same_seed(*apart)] == [0, 2]


def test_gains_of_every_class_add_up():
    comparison = comparisons.comparison(systems=4)
    table = classes.gains_of_classes(comparison)
    first, last = comparison.systems[0], comparison.systems[-1]
    assert len(table.rows) == 10
    for name, *steps, total in table.rows:
        label = comparison.class_names.index(name)
        fell = error_within(first, label, 1) - error_within(last, label, 1)
        assert float(total.replace("−", "-")) == pytest.approx(fell, abs=0.051)
        assert sum(float(step.replace("−", "-")) for step in steps) == pytest.approx(fell, abs=0.2)


def test_classes_that_share_a_name_stay_apart():
    comparison = comparisons.comparison(systems=2, class_names=("crane", "crane", *map(str, range(8))))
    names = [row[0] for row in classes.gains_of_classes(comparison).rows]
    assert {"crane (class 0)", "crane (class 1)"} <= set(names)
    assert len(set(names)) == 10


def test_guesses_beyond_the_names_are_refused():
    comparison = comparisons.comparison(systems=2, class_names=tuple("abcdefghi"))
    with pytest.raises(UserError, match="choose between 10 classes; there are 9 names"):
        classes.gains_of_steps(comparison)
