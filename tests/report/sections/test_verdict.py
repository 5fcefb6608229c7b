"""Tests of the verdict: what it says of made-up systems, and that title, interval and test never contradict."""

import re

import numpy as np
import pytest

from imagenet_repro.report.sections.differences import differences
from imagenet_repro.report.sections.verdict import verdict, verdict_without_pairs
from imagenet_repro.statistics import crossed_effects
from imagenet_repro.statistics.intervals import bootstrap_difference
from tests.report.sections.test_differences import IMAGES, compared, guessed, random_system, seeds, system


def verdict_text(*systems):
    comparison = compared(*systems)
    return verdict(comparison, differences(comparison))


def interval(text):
    return [float(end.replace("−", "-")) for end in re.search(r"interval \[(\S+), (\S+)\]", text).groups()]


def test_two_checkpoints_that_differ():
    text = verdict_text(system("a", {0: 200}), system("b", {0: 120}))
    shares = bootstrap_difference(np.arange(IMAGES) < 200, np.arange(IMAGES) < 120)
    low, high = (100 * end for end in shares.interval)
    assert text == (
        "b has a lower top-1 error than a: 30.0 % against 50.0 % (one seed each).\n"
        f"The error of a is 20.0 points above that of b; 95 % interval [{low:.1f}, {high:.1f}], for new images, these"
        " checkpoints of seed 0 (McNemar's test). "
        "One seed of each system cannot show which recipe is better; that needs several seeds."
    )


def test_one_run_of_each_of_many():
    text = verdict_text(
        *(system(name, {0: wrong}) for name, wrong in (("a", 200), ("b", 120), ("c", 124), ("d", 160)))
    )
    title, details = text.split("\n")
    assert title == "b has 30.0 % top-1 error (one seed each), and c does not differ significantly from it."
    assert details.startswith("The error of c is 1.0 points above that of b; 95 % interval [")
    assert "adjusted for 6 pairs, for new images, these checkpoints of seed 0 (McNemar's test, Holm over 6" in details
    assert "a and d have a higher error." in details or "d and a have a higher error." in details
    low, high = interval(text)
    assert low <= 0 <= high


def test_three_seeds_show_a_gap_that_is_large_beside_their_noise():
    a, b = system("a", {0: 100, 1: 101, 2: 99}), system("b", {0: 60, 1: 61, 2: 59})
    runs = crossed_effects.summarize([one.wrong(1) for one in (a, b)])
    pair = crossed_effects.compare(runs)
    text = verdict_text(a, b)
    assert text.startswith(
        "b has a lower top-1 error than a: 15.0 % against 25.0 % (means of 3 seeds).\n"
        f"The error of a is 10.0 points above that of b; 95 % interval [{100 * pair.low[0]:.1f},"
        f" {100 * pair.high[0]:.1f}], for new images and new seeds (crossed effects). With these seeds and images a"
    )
    gap = crossed_effects.minimal_gap(2, 3, IMAGES, crossed_effects.noise_of(runs))
    assert text.endswith(f" a gap of {100 * gap:.1f} points would be found 80 % of the time.")


def test_a_small_gap_is_not_called_significant_whatever_the_seeds():
    text = verdict_text(random_system("a", 0.3, range(6)), random_system("b", 0.3, range(6)))
    assert re.match(r"[ab] and [ab] do not differ significantly in top-1 error: [\d.]+ % and [\d.]+ % \(means", text)
    assert "lowest" not in text


def test_a_system_of_one_seed_is_compared_with_the_variance_of_the_others():
    text = verdict_text(system("a", seeds(9, 60, step=3)), system("b", seeds(9, 100)), system("c", seeds(1, 65)))
    assert text.startswith(
        "a has 15.8 % top-1 error (means of 1 to 9 seeds), and c does not differ significantly from it.\n"
        "The error of c is 0.5 points above that of a; 95 % interval ["
    )
    assert "b has a higher error. c has one seed; it is taken to vary over seeds as the others do." in text
    assert re.search(r"a gap of [\d.]+ to [\d.]+ points, by the seeds of the pair, would be found", text)


def test_a_gap_that_no_experiment_shows_is_not_named():
    text = verdict_text(system("a", {0: 100, 1: 300}), system("b", {0: 120}))
    assert text.endswith("With these seeds and images no gap would be found 80 % of the time.")


def test_runs_that_never_differ_leave_the_gap_out():
    text = verdict_text(system("a", {0: 100, 1: 100}), system("b", {0: 100, 1: 100}))
    assert text.startswith("a and b do not differ significantly in top-1 error: 25.0 % each (means of 2 seeds).\n")
    assert "b has the same error as a; 95 % interval [0.0, 0.0], for" in text
    assert "would be found" not in text


def test_systems_that_are_all_alike_and_all_different():
    alike = verdict_text(*(system(f"s{i}", {0: 100 + i}) for i in range(3)))
    assert alike.startswith(
        "None of the other 2 systems differs significantly from s0, which has 25.0 % top-1 error (one seed each).\n"
    )
    unlike = verdict_text(*(system(f"s{i}", {0: 60 + 60 * i}) for i in range(3)))
    assert unlike.startswith("s0 has the lowest top-1 error of 3 systems: 15.0 % (one seed each).\n")
    assert "higher error" not in unlike


@pytest.mark.parametrize("gap", range(0, 40, 3))
def test_title_interval_and_test_never_contradict(gap):
    """Whatever the gap, the title calls it significant exactly where the interval beside it leaves zero out."""
    rng = np.random.default_rng(gap)
    masks = [np.roll(np.arange(IMAGES) < 100 + extra, 40 * k) for k, extra in enumerate((0, gap, 160, 170))]
    noisy = [guessed(mask ^ (rng.random(IMAGES) < 0.02)) for mask in masks]
    text = verdict_text(*(system(name, {0: guesses}) for name, guesses in zip("abcd", noisy, strict=True)))
    title = text.partition("\n")[0]
    low, _ = interval(text)
    assert ("lowest" in title) == (low > 0 and "The test decides" not in text)
    assert not ("lowest" in title and "not differ" in text)


def test_the_verdict_on_a_single_system():
    text = verdict_text(system("a", {0: guessed(np.arange(IMAGES) < 100, range(20))}))
    assert text == "a has 25.0 % top-1 and 5.0 % top-5 error (one seed); there is no other system to compare it with."


def test_different_images_have_no_order():
    text = verdict_without_pairs(compared(system("a", {0: 100}), system("b", {0: 60})))
    assert text.endswith("\nTop-1 errors, each on the images of its own runs: a 25.0 % and b 15.0 %.")
    assert "lowest" not in text


def test_many_images_have_two_decimals():
    a, b = (system(name, {0: guessed(np.arange(10_000) < wrong)}) for name, wrong in (("a", 3000), ("b", 2975)))
    assert "29.75 %" in verdict_text(a, b)
