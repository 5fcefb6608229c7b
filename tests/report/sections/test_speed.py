"""Tests of the warning of unequal speeds under a budget of seconds."""

import pytest

from imagenet_repro.report.sections import speed
from tests.report import comparisons


def compared(images, *, budget="20s", systems=1):
    """Return systems whose runs saw these images in 20 seconds each, with as many seeds as fit."""
    seeds = len(images) // systems
    comparison = comparisons.comparison(systems, seeds, budget=budget)
    runs = [run for system in comparison.systems for run in system.runs]
    for run, seen in zip(runs, images, strict=True):
        run.result["spent"] |= {"images": seen, "seconds": 20.0}
        run.result["provenance"]["config"]["budget"] = budget
    return comparison


def test_seeds_that_saw_different_numbers_of_images_are_named_with_the_spread():
    assert speed.warning(compared((6592, 2400, 3744))) == (
        "The machine was not equally fast for all runs: nec_uiuc_2010, seed 0 trained at 330 images/s, and"
        " nec_uiuc_2010, seed 1 with equal work at 120, a spread of 175 %. So the budget of 20s bought 2.40 k to"
        " 6.59 k images. Part of the differences may come from that; a quiet machine, or a budget of images, is fair."
    )


@pytest.mark.parametrize(("images", "is_uneven"), [((1000, 1099), False), ((1000, 1101), True)])
def test_a_tenth_is_allowed(images, is_uneven):
    assert bool(speed.warning(compared(images))) == is_uneven


def test_other_budgets_and_other_networks_may_differ_in_speed():
    assert speed.warning(compared((1000, 2000), budget="5ep")) == ""
    assert speed.warning(compared((1000, 2000), systems=2)) == ""


def test_equal_networks_of_two_systems_are_compared_unless_their_work_differs():
    comparison = compared((1000, 2000), systems=2)
    first, second = (system.runs[0].result["provenance"]["config"] for system in comparison.systems)
    second["model"] = first["model"]
    second["optimizer"] = {"learning_rate": 1.0}
    assert "xrce_2011, seed 0 trained at 100 images/s" in speed.warning(comparison)
    larger = compared((1000, 2000), systems=2)
    first, second = (system.runs[0].result["provenance"]["config"] for system in larger.systems)
    second["model"] = first["model"]
    second["data"]["image_size"] = 32
    assert speed.warning(larger) == ""
