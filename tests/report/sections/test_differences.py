import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun, TopGuesses
from imagenet_repro.report.sections.differences import _digits, differences, rows, verdict
from imagenet_repro.statistics.hypothesis_tests import mcnemar
from imagenet_repro.statistics.intervals import bootstrap_difference

IMAGES = 400


def guessed(top1_wrong, top5_wrong=()):
    """Return guesses on images of class 0: the first is wrong where `top1_wrong`, all five where `top5_wrong`."""
    images = len(top1_wrong)
    top5 = np.tile(np.arange(5, dtype=np.int32), (images, 1))
    top5[np.asarray(top1_wrong)] = (1, 0, 2, 3, 4)
    top5[list(top5_wrong)] = (1, 2, 3, 4, 5)
    ids = np.array([f"image{i:05}" for i in range(images)])
    return TopGuesses(ids, np.zeros(images, np.int32), top5)


def run(seed, guesses):
    return FinishedRun(Path(f"runs/{seed}"), seed, {"rates": {"cross_entropy": 1.0}}, (), guesses)


def system(name, runs):
    """Return a system from {seed: number of wrong images}, the first ones, or {seed: mask or guesses}."""
    finished = []
    for seed, wrong in runs.items():
        mask = np.arange(IMAGES) < wrong if isinstance(wrong, int) else wrong
        finished.append(run(seed, mask if isinstance(mask, TopGuesses) else guessed(mask)))
    return ComparedSystem(name, name, "", tuple(finished))


def compared(*systems):
    return Comparison(systems, ("dog",), "1ep", "fractal", "train", "validation")


def seeds(count, wrong, step=1):
    """Return numbers of wrong images by seed, which differ a little from seed to seed."""
    return {seed: wrong + step * (seed % 3) for seed in range(count)}


def random_system(name, share, seed_numbers, images=IMAGES):
    rng = np.random.default_rng(ord(name))
    masks = {seed: rng.random(images) < share for seed in seed_numbers}
    return system(name, {seed: guessed(mask, np.flatnonzero(mask)[::3]) for seed, mask in masks.items()})


# --- numbers -----------------------------------------------------------------------------------------------------


def test_each_difference_is_that_of_its_runs():
    from statsmodels.stats.multitest import multipletests

    a, b, c = (random_system(*of) for of in (("a", 0.3, (0, 1, 2)), ("b", 0.35, (1, 2, 5)), ("c", 0.5, (2,))))
    result = differences(compared(a, b, c))
    for k in (1, 5):
        pairs = result.pairs[k]
        runs = {(0, 1): (a.runs[1], b.runs[0]), (0, 2): (a.runs[2], c.runs[0]), (1, 2): (b.runs[1], c.runs[0])}
        assert list(pairs) == list(runs)
        for key, two in runs.items():
            one, wrong = pairs[key].checkpoints, [run.guesses.wrong(k) for run in two]
            assert one.seeds == tuple(run.seed for run in two)
            assert one.difference == pytest.approx(np.mean(wrong[0]) - np.mean(wrong[1]))
            assert (one.only_a, one.only_b) == (np.sum(wrong[0] > wrong[1]), np.sum(wrong[0] < wrong[1]))
            assert one.p == mcnemar(*wrong).p
            assert one.interval == bootstrap_difference(*wrong).interval
        p = [pair.checkpoints.p for pair in pairs.values()]
        different, adjusted, *_ = multipletests(p, method="holm")
        assert [pair.checkpoints.adjusted for pair in pairs.values()] == pytest.approx(adjusted)
        assert [pair.checkpoints.is_significant for pair in pairs.values()] == different.tolist()
        recipes = pairs[0, 1].recipes
        assert recipes.seeds == (1, 2)
        errors = [
            np.array([run.rates.top1_error if k == 1 else run.rates.top5_error for run in of])
            for of in (a.runs[1:], b.runs[:2])
        ]
        assert recipes.difference == pytest.approx(np.mean(errors[0] - errors[1]))
        assert recipes.deviation == pytest.approx(np.std(errors[0] - errors[1], ddof=1))
        assert (recipes.p, recipes.has_too_few_seeds, recipes.is_significant) == (
            pytest.approx(recipes.adjusted),
            True,
            False,
        )
        assert pairs[0, 2].recipes is None
        assert pairs[1, 2].recipes is None


def test_without_a_common_seed_the_first_runs_are_compared():
    result = differences(compared(system("a", {0: 100, 3: 5}), system("b", {1: 100, 2: 5})))
    assert result.pairs[1][0, 1].checkpoints.seeds == (0, 1)
    assert result.pairs[1][0, 1].recipes is None


@pytest.mark.parametrize(("systems", "count", "enough"), [(2, 5, False), (2, 6, True), (3, 6, False), (3, 7, True)])
def test_seeds_are_enough_where_some_outcome_is_significant_after_holm(systems, count, enough):
    systems_compared = [system(f"s{i}", seeds(count, 50 + 20 * i)) for i in range(systems)]
    result = differences(compared(*systems_compared))
    assert {pair.recipes.has_too_few_seeds for pair in result.pairs[1].values()} == {not enough}
    assert {pair.recipes.is_significant for pair in result.pairs[1].values()} == {enough}  # all seeds agree here
    assert result.question == ("recipes" if enough else "checkpoints")


def test_tables_are_antisymmetric_and_follow_the_answers():
    result = differences(compared(system("a", {0: 100, 1: 102}), system("b", {0: 40, 1: 44}), system("c", {0: 42})))
    points = result.points(1, "checkpoints")
    assert points == pytest.approx(np.array([[0, 15, 14.5], [-15, 0, -0.5], [-14.5, 0.5, 0]]))
    assert result.significant(1, "checkpoints").tolist() == [
        [False, True, True],
        [True, False, False],
        [True, False, False],
    ]
    assert result.letters(1, "checkpoints") == ["b", "a", "a"]
    recipes = result.points(1, "recipes")
    assert (recipes[0, 1], recipes[1, 0]) == (pytest.approx(14.75), pytest.approx(-14.75))
    assert np.isnan(recipes[0, 2])
    assert not result.significant(1, "recipes").any()
    assert result.letters(1, "recipes") == ["a", "a", "a"]
    assert result.orders[1] == (2, 1, 0)  # ordered by the mean over seeds


def test_both_error_rates_have_their_own_order_and_letters():
    wrong = np.arange(IMAGES) < 100
    a = system("a", {0: guessed(wrong, range(90))})
    b = system("b", {0: guessed(np.arange(IMAGES) < 160, range(10))})
    result = differences(compared(a, b))
    assert (result.orders[1], result.orders[5]) == ((0, 1), (1, 0))
    assert (result.letters(1, "checkpoints"), result.letters(5, "checkpoints")) == (["a", "b"], ["b", "a"])


def test_one_system_alone():
    result = differences(compared(system("a", {0: 100, 1: 104})))
    assert (result.pairs[1], result.question, result.letters(1, "checkpoints")) == ({}, "checkpoints", ["a"])
    assert rows(result, "checkpoints")[1] == rows(result, "recipes")[1] == []


# --- runs that are not comparable ------------------------------------------------------------------------------------


def changed(guesses, **fields):
    return dataclasses.replace(guesses, **fields)


def all_but(guesses, images):
    remaining = np.setdiff1d(np.arange(IMAGES), images)
    return changed(guesses, **{key: getattr(guesses, key)[remaining] for key in ("id", "label", "top5")})


def with_id(guesses, index, name):
    ids = guesses.id.copy()
    ids[index] = name
    return changed(guesses, id=ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda g: with_id(g, -1, "image99999"),
            r"different images; only a \(seed 0\): image00399; only b \(seed 7\): image99999;",
        ),
        (lambda g: all_but(g, range(5)), r"images; only a \(seed 0\): image00000, image00001, image00002 and 2 more;"),
        (lambda g: with_id(g, 1, "image00000"), r"only a \(seed 0\): image00001; only b \(seed 7\): image00000;"),
        (
            lambda g: changed(g, label=(np.arange(IMAGES) == 7).astype(np.int32)),
            "different labels, those of image00007; score both with the same labels$",
        ),
    ],
)
def test_runs_on_other_images_or_labels_are_refused(change, message):
    usual = guessed(np.arange(IMAGES) < 50)
    with pytest.raises(UserError, match=message):
        differences(compared(system("a", {0: usual}), system("b", {3: usual, 7: change(usual)})))


def test_no_images_are_refused():
    empty = guessed(np.zeros(0, bool))
    with pytest.raises(UserError, match="no image was scored"):
        differences(compared(system("a", {0: empty}), system("b", {0: empty})))


# --- words -------------------------------------------------------------------------------------------------------


def verdict_text(*systems, **options):
    comparison = compared(*systems)
    return verdict(comparison, differences(comparison, **options))


def test_one_run_of_each_of_many():
    text = verdict_text(
        *(system(name, {0: wrong}) for name, wrong in (("a", 200), ("b", 120), ("c", 124), ("d", 160)))
    )
    assert text == (
        "b has the lowest top-1 error: 30.0 % (one seed). "
        "On these images, its checkpoint of seed 0 does not differ significantly from c's and has a lower error than "
        "every other system's (McNemar's test, Holm over 6 pairs). "
        "One shared seed cannot show which recipe is better; at least 8 are needed for that."
    )


def test_two_systems_with_too_few_seeds():
    text = verdict_text(system("a", {0: 100, 1: 101, 2: 99}), system("b", {0: 60, 1: 61, 2: 59}))
    assert text == (
        "b has the lowest top-1 error: 15.0 % (mean of 3 seeds). On these images, its checkpoint of seed 0 has a "
        "lower error than a's (McNemar's test). "
        "3 shared seeds cannot show which recipe is better; at least 6 are needed for that."
    )


def test_two_recipes_with_enough_seeds():
    text = verdict_text(system("a", seeds(6, 100)), system("b", seeds(8, 100, step=2)))
    assert text.startswith("a has the lowest top-1 error: 25.2 % (mean of 6 seeds). Over 6 shared seeds, its recipe ")
    assert text.endswith("its recipe does not differ significantly from b's (sign-flip test).")
    text = verdict_text(system("a", seeds(6, 100)), system("b", seeds(6, 110)))
    assert text.endswith("Over 6 shared seeds, its recipe has a lower error than b's (sign-flip test).")


def test_each_other_system_by_the_question_that_its_seeds_allow():
    text = verdict_text(system("a", seeds(9, 60)), system("b", seeds(9, 100)), system("c", seeds(1, 63)))
    assert text == (
        "a has the lowest top-1 error: 15.2 % (mean of 9 seeds). "
        "Over 9 shared seeds, its recipe has a lower error than b's (sign-flip test). "
        "On these images, its checkpoint of seed 0 does not differ significantly from c's "
        "(McNemar's test, Holm over 3 pairs). "
        "One shared seed cannot show which recipe is better; at least 7 are needed for that."
    )


def test_ties():
    masks = [np.roll(np.arange(IMAGES) < 100, shift) for shift in (0, 50)]
    text = verdict_text(system("a", {0: masks[0]}), system("b", {0: masks[1]}), system("c", {1: 300}))
    assert text == (
        "a and b have the lowest top-1 error: 25.0 % each (one seed). On these images, a's checkpoint does not differ "
        "significantly from b's and has a lower error than c's (McNemar's test, Holm over 3 pairs). "
        "0 to 1 shared seeds cannot show which recipe is better; at least 7 are needed for that."
    )


def test_a_checkpoint_can_lose_although_its_mean_is_the_lowest():
    text = verdict_text(system("a", {0: 120, 1: 20}), system("b", {0: 100, 1: 100}), system("c", {0: 100, 1: 100}))
    assert "seed 0 has a higher error than every other system's" in text
    assert text.startswith("a has the lowest top-1 error: 17.5 %")


def test_all_alike_and_none_alike():
    alike = verdict_text(*(system(f"s{i}", {0: 100 + i}) for i in range(3)))
    assert "its checkpoint of seed 0 does not differ significantly from every other system's" not in alike
    assert "does not differ significantly from any other system's (McNemar's test, Holm over 3 pairs)" in alike
    unlike = verdict_text(*(system(f"s{i}", {0: 60 + 60 * i}) for i in range(3)))
    assert (
        "its checkpoint of seed 0 has a lower error than every other system's (McNemar's test, Holm over 3 pairs)"
        in unlike
    )


def test_the_verdict_on_a_single_system():
    text = verdict_text(system("a", {0: guessed(np.arange(IMAGES) < 100, range(20))}))
    assert text == "a has 25.0 % top-1 and 5.0 % top-5 error (one seed); there is no other system to compare it with."


# --- tables ------------------------------------------------------------------------------------------------------


def test_a_table_for_each_question():
    result = differences(
        compared(system("a", seeds(6, 100)), system("b", seeds(6, 110, step=2)), system("c", {0: 50}))
    )
    heads, cells = rows(result, "checkpoints")
    assert {len(row) for row in cells} == {len(heads)}
    assert [row[:3] for row in cells[:3]] == [
        ["top-1 error", "a", "b"],
        ["top-1 error", "a", "c"],
        ["top-1 error", "b", "c"],
    ]
    assert cells[0][3:5] == ["0", "-2.5"]
    assert cells[1][3:] == ["0", "+12.5", cells[1][5], "50", "0", "<0.0001", "<0.0001", "yes"]
    assert len(cells) == 6
    heads, cells = rows(result, "recipes")
    assert {len(row) for row in cells} == {len(heads)}
    deviation = np.std([10 + s % 3 for s in range(6)], ddof=1) / IMAGES
    half = 2.5705818 * deviation / math.sqrt(6)
    interval = f"[{100 * (-11 / IMAGES - half):+.1f}, {100 * (-11 / IMAGES + half):+.1f}]"
    assert cells[0] == [
        "top-1 error",
        "a",
        "b",
        "6",
        "-2.8",
        f"{100 * deviation:.1f}",
        interval,
        "0.031",
        "0.031",
        "yes",
    ]
    assert cells[1][-1] == "no"  # no system is wrong in five guesses
    assert cells[1][3:6] == ["6", "0.0", "0.0"]


def test_the_table_says_where_seeds_are_too_few():
    result = differences(compared(system("a", seeds(3, 100)), system("b", seeds(3, 110))))
    assert [row[-1] for row in rows(result, "recipes")[1]] == ["too few seeds", "too few seeds"]
    assert (
        "90 % interval"
        in rows(differences(compared(system("a", {0: 3}), system("b", {0: 4})), level=0.1), "recipes")[0]
    )


def test_many_images_have_two_decimals():
    a, b = (system(name, {0: guessed(np.arange(10_000) < wrong)}) for name, wrong in (("a", 3000), ("b", 2975)))
    comparison = compared(a, b)
    assert rows(differences(comparison), "checkpoints")[1][0][4] == "+0.25"
    assert "b has the lowest top-1 error: 29.75 %" in verdict(comparison, differences(comparison))
    assert _digits(differences(comparison)) == 2
