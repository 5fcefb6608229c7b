import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from imagenet_repro.errors import UserError
from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun, TopGuesses
from imagenet_repro.report.sections.differences import differences, digits, excerpt, rows
from imagenet_repro.statistics import crossed_effects
from imagenet_repro.statistics.hypothesis_tests import mcnemar
from imagenet_repro.statistics.intervals import bootstrap_difference
from imagenet_repro.statistics.paired_seeds import seed_difference

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
        assert {pair.sign_flips for pair in pairs.values()} == {None}


def test_recipes_are_compared_by_the_crossed_effects_of_all_their_runs():
    systems = [random_system(*of) for of in (("a", 0.3, (0, 1, 2)), ("b", 0.35, (1, 2, 5)), ("c", 0.5, (2,)))]
    result = differences(compared(*systems))
    assert result.question == "recipes"
    for k in (1, 5):
        wrong = [np.stack([run.guesses.wrong(k) for run in system.runs]) for system in systems]
        expected = crossed_effects.compare(crossed_effects.summarize(wrong))
        assert list(result.pairs[k]) == list(zip(expected.first, expected.second, strict=True))
        actual = [pair.recipes for pair in result.pairs[k].values()]
        assert [one.seeds for one in actual] == [(3, 3), (3, 1), (3, 1)]
        assert [one.difference for one in actual] == pytest.approx(expected.difference)
        assert [one.interval for one in actual] == list(zip(expected.low, expected.high, strict=True))
        assert [one.adjusted for one in actual] == expected.p_values().tolist()
        assert [one.is_significant for one in actual] == expected.is_different.tolist()
        errors = [one.seed_error**2 + one.image_error**2 for one in actual]
        assert errors == pytest.approx(expected.standard_error**2)
    runs = crossed_effects.summarize([system.wrong(1) for system in systems])
    assert result.gaps == crossed_effects.minimal_gaps([3, 3, 1], IMAGES, crossed_effects.noise_of(runs))


def test_signs_are_flipped_over_shared_seeds():
    a, b, c = (random_system(*of) for of in (("a", 0.3, range(9)), ("b", 0.4, range(10)), ("c", 0.5, range(8))))
    pairs = differences(compared(a, b, c)).pairs
    for k in (1, 5):
        assert [pair.sign_flips is None for pair in pairs[k].values()] == [False, True, True]
        recipes = pairs[k][0, 1].sign_flips
        assert recipes.seeds == tuple(range(9))
        errors = [
            np.array([run.rates.top1_error if k == 1 else run.rates.top5_error for run in of])
            for of in (a.runs, b.runs[:9])
        ]
        assert recipes.difference == pytest.approx(np.mean(errors[0] - errors[1]))
        assert recipes.deviation == pytest.approx(np.std(errors[0] - errors[1], ddof=1))
        assert (recipes.p, recipes.adjusted) == (seed_difference(*errors).p, recipes.p)


def test_without_a_common_seed_the_first_runs_are_compared():
    result = differences(compared(system("a", {0: 100, 3: 5}), system("b", {1: 100, 2: 5})))
    assert result.pairs[1][0, 1].checkpoints.seeds == (0, 1)
    assert result.pairs[1][0, 1].recipes.seeds == (2, 2)
    assert result.pairs[1][0, 1].sign_flips is None


@pytest.mark.parametrize(("systems", "count", "enough"), [(2, 8, False), (2, 9, True), (6, 9, False), (6, 10, True)])
def test_signs_are_flipped_from_nine_seeds_on_where_some_outcome_is_significant_after_holm(systems, count, enough):
    systems_compared = [system(f"s{i}", seeds(count, 50 + 20 * i)) for i in range(systems)]
    result = differences(compared(*systems_compared))
    flips = [pair.sign_flips for pair in result.pairs[1].values()]
    assert {one is not None for one in flips} == {enough}
    assert all(one.is_significant for one in flips if one)  # all seeds agree here


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
    points = result.points(1, "recipes")
    assert points == pytest.approx(np.array([[0, 14.75, 14.75], [-14.75, 0, 0], [-14.75, 0, 0]]))
    recipes = {key: pair.recipes.is_significant for key, pair in result.pairs[1].items()}
    assert recipes == {(0, 1): True, (0, 2): True, (1, 2): False}
    assert result.letters(1, "recipes") == ["b", "a", "a"]
    assert result.orders[1] in ((1, 2, 0), (2, 1, 0))  # ordered by the mean over seeds
    with pytest.raises(ValueError, match="only checkpoints"):
        differences(compared(system("a", {0: 1}), system("b", {0: 2}))).letters(1, "recipes")


def test_letters_of_recipes_are_not_those_of_the_first_seed():
    """Seed 0 of one recipe is lucky, and its other seeds are not."""
    result = differences(compared(system("a", {0: 40, 1: 100, 2: 160}), system("b", {0: 100, 1: 101, 2: 102})))
    assert result.letters(1, "checkpoints") == ["a", "b"][:: 1 if result.orders[1] == (0, 1) else -1]
    assert result.letters(1, result.question) == ["a", "a"]


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
    assert [rows(result, answer)[1] for answer in ("recipes", "sign_flips", "checkpoints")] == [[], [], []]


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


# --- tables ------------------------------------------------------------------------------------------------------


def test_a_table_for_each_answer_names_the_population_of_its_intervals():
    result = differences(
        compared(system("a", seeds(9, 100)), system("b", seeds(9, 110, step=2)), system("c", {0: 50}))
    )
    heads, cells = rows(result, "checkpoints")
    assert {len(row) for row in cells} == {len(heads)}
    assert "95 % interval, new images, these checkpoints" in heads
    assert [row[:3] for row in cells[:3]] == [
        ["top-1 error", "a", "b"],
        ["top-1 error", "a", "c"],
        ["top-1 error", "b", "c"],
    ]
    assert cells[0][3:5] == ["0", "-2.5"]
    assert cells[1][3:] == ["0", "+12.5", cells[1][5], "50", "0", "<0.0001", "<0.0001", "yes"]
    assert len(cells) == 6
    heads, cells = rows(result, "sign_flips")
    assert {len(row) for row in cells} == {len(heads)}
    assert "95 % interval, these images, new seeds" in heads
    deviation = np.std([10 + s % 3 for s in range(9)], ddof=1) / IMAGES
    half = scipy.stats.t.ppf(0.975, 8) * deviation / math.sqrt(9)
    interval = f"[{100 * (-11 / IMAGES - half):+.1f}, {100 * (-11 / IMAGES + half):+.1f}]"
    assert cells[0] == ["top-1 error", "a", "b", "9", "-2.8", f"{100 * deviation:.1f}", interval, "0.0039", "0.0039",
                        "yes"]  # fmt: skip
    assert cells[1][-1] == "no"  # no system is wrong in five guesses
    assert cells[1][3:6] == ["9", "0.0", "0.0"]
    heads, cells = rows(result, "recipes")
    assert {len(row) for row in cells} == {len(heads)}
    assert "95 % interval, new images and new seeds" in heads
    pairs = list(result.pairs[1].values())
    low, high = (100 * end for end in pairs[1].recipes.interval)
    adjusted = cells[1][-2]
    assert cells[1][:6] == ["top-1 error", "a", "c", "9 and 1", "+12.8", f"[{low:+.1f}, {high:+.1f}]"]
    assert [row[3] for row in cells[:3]] == ["9", "9 and 1", "9 and 1"]
    assert adjusted == "<0.0001"
    assert [row[-1] for row in cells] == ["yes", "yes", "yes", "no", "no", "no"]


def test_a_page_shows_neighbours_and_pairs_of_the_best_where_there_are_many_systems():
    few, many = (
        differences(compared(*(system(f"s{(7 * k) % n}", {0: 10 + (7 * k) % n}) for k in range(n)))) for n in (24, 26)
    )
    assert excerpt(few, "checkpoints") is None
    cells = rows(many, "checkpoints")[1]
    shown = [cells[at] for at in excerpt(many, "checkpoints")]
    top1 = [sorted((int(a[1:]), int(b[1:]))) for metric, a, b, *_ in shown if metric == "top-1 error"]
    assert sorted(top1) == sorted([[0, k] for k in range(1, 26)] + [[k, k + 1] for k in range(1, 25)])
    assert len(shown) == 2 * len(top1)


def test_other_levels_have_other_intervals():
    for answer in ("recipes", "sign_flips", "checkpoints"):
        result = differences(compared(system("a", seeds(9, 3)), system("b", seeds(9, 4))), level=0.1)
        assert any(heading.startswith("90 % interval, ") for heading in rows(result, answer)[0])


def test_many_images_have_two_decimals():
    a, b = (system(name, {0: guessed(np.arange(10_000) < wrong)}) for name, wrong in (("a", 3000), ("b", 2975)))
    comparison = compared(a, b)
    assert rows(differences(comparison), "checkpoints")[1][0][4] == "+0.25"
    assert digits(differences(comparison)) == 2
