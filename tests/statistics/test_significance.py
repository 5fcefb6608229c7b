import itertools
import math
import re
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats

from imagenet_repro.statistics import significance

DRAWS = 10_000
LEVEL = 0.05


def wrong_by(only_a, only_b, images, both=0):
    """Who is wrong on which image, from how many images each of them gets wrong alone."""
    at = np.arange(images)
    shared = (at >= only_a + only_b) & (at < only_a + only_b + both)
    return (at < only_a) | shared, ((at >= only_a) & (at < only_a + only_b)) | shared


# --- McNemar -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (3, 9), (9, 3), (7, 7), (40, 71), (900, 1000)])
def test_mcnemar_exact_against_statsmodels_and_scipy(only_a, only_b):
    from statsmodels.stats.contingency_tables import mcnemar

    found = significance.mcnemar(*wrong_by(only_a, only_b, 3000, both=50), method="exact")
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p == pytest.approx(mcnemar([[50, only_a], [only_b, 100]], exact=True).pvalue, rel=1e-9)
    assert found.p == pytest.approx(scipy.stats.binomtest(only_a, only_a + only_b).pvalue, rel=1e-9)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (3, 9), (9, 3), (7, 7), (1, 1), (40, 71)])
def test_midp_is_what_is_rarer_and_half_of_what_is_as_rare(only_a, only_b):
    total = only_a + only_b
    far = [abs(2 * k - total) for k in range(total + 1)]
    seen = abs(only_a - only_b)
    twice = sum(math.comb(total, k) * (2 if d > seen else d == seen) for k, d in enumerate(far))
    assert significance.mcnemar(*wrong_by(only_a, only_b, 200)).p == pytest.approx(
        float(Fraction(twice, 2 ** (total + 1)))
    )


def test_midp_of_a_published_example():
    # Fagerland et al. (2013), Table 1 and the results on Bentur et al.: 1 against 7, exact 0.0703, mid-p 0.0391
    assert significance.mcnemar(*wrong_by(1, 7, 21, both=1)).p == pytest.approx(10 / 256)
    assert significance.mcnemar(*wrong_by(1, 7, 21, both=1), method="exact").p == pytest.approx(18 / 256)


@pytest.mark.parametrize("method", ["midp", "exact"])
def test_checkpoints_that_err_alike_are_not_different(method):
    same = np.arange(100) < 30
    assert significance.mcnemar(same, same, method) == significance.McNemar(0, 0, 1.0)


def chance_of_a_wrong_call(images, share, method):
    """Of two checkpoints that are as good and differ on a share of the images; the sum over all outcomes."""
    middle, spread = images * share, math.sqrt(images * share * (1 - share))
    totals = np.arange(max(0, int(middle - 6 * spread)), min(images, int(middle + 6 * spread + 6)) + 1)
    chance = 0.0
    for total in totals:
        ways = np.arange(total + 1)
        called = significance.mcnemar_p(ways, total - ways, method) <= LEVEL
        chance += scipy.stats.binom.pmf(total, images, share) * (called @ scipy.stats.binom.pmf(ways, total, 0.5))
    return chance


@pytest.mark.parametrize("images", [20, 50, 100, 300])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.2, 0.4, 0.6])
def test_true_ties_are_rarely_called_different(images, share):
    assert chance_of_a_wrong_call(images, share, "exact") <= chance_of_a_wrong_call(images, share, "midp") <= LEVEL


@pytest.mark.slow
@pytest.mark.parametrize("images", [1_000, 5_000, 10_000])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.2, 0.4, 0.6])
def test_true_ties_of_many_images_are_rarely_called_different(images, share):
    assert chance_of_a_wrong_call(images, share, "exact") <= chance_of_a_wrong_call(images, share, "midp") <= LEVEL


@pytest.mark.parametrize(("images", "share"), [(100, 0.1), (1_000, 0.05), (1_000, 0.2)])
@pytest.mark.parametrize("method", ["midp", "exact"])
def test_simulated_ties_are_called_different_as_often_as_enumerated(images, share, method):
    drawn = np.random.default_rng(0).multinomial(images, [share / 2, share / 2, 1 - share], size=DRAWS)
    simulated = np.mean(significance.mcnemar_p(drawn[:, 0], drawn[:, 1], method) <= LEVEL)
    expected = chance_of_a_wrong_call(images, share, method)
    assert simulated == pytest.approx(expected, abs=3 * math.sqrt(LEVEL / DRAWS))


# --- the bootstrap -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("only_a", "only_b", "images"), [(40, 25, 500), (6, 1, 300), (3, 3, 100), (13, 36, 49)])
def test_bootstrap_against_scipy(only_a, only_b, images):
    wrong = wrong_by(only_a, only_b, images, both=min(20, images - only_a - only_b))
    found = significance.bootstrap_difference(*wrong)
    reference = scipy.stats.bootstrap(
        wrong, lambda a, b, axis: a.mean(axis) - b.mean(axis), paired=True, method="percentile", n_resamples=10_000,
        rng=np.random.default_rng(1), batch=1000,
    ).confidence_interval  # fmt: skip
    assert found.difference == pytest.approx((only_a - only_b) / images)
    assert found.interval == pytest.approx(tuple(reference), abs=1.01 / images)


def test_the_bootstrap_of_many_images_is_normal():
    found = significance.bootstrap_difference(*wrong_by(4_000, 3_000, 50_000), confidence=0.9)
    spread = math.sqrt(7_000 - 1_000**2 / 50_000) / 50_000
    assert found.interval == pytest.approx((0.02 - 1.645 * spread, 0.02 + 1.645 * spread), abs=0.06 * spread)


def test_swapped_checkpoints_swap_the_difference_and_a_seed_repeats_it():
    one, other = wrong_by(50, 20, 1_000)
    forwards, backwards = significance.bootstrap_difference(one, other), significance.bootstrap_difference(other, one)
    assert forwards.difference == -backwards.difference
    assert forwards.interval == pytest.approx((-backwards.interval[1], -backwards.interval[0]), abs=0.0021)
    assert forwards == significance.bootstrap_difference(one, other)
    assert forwards != significance.bootstrap_difference(one, other, seed=1, resamples=999)


def test_equal_answers_on_few_images_prove_little():
    same = np.arange(50) < 10
    low, high = significance.bootstrap_difference(same, same).interval
    assert low == pytest.approx(-high, abs=0.02)
    assert 0.03 < high < 0.1


def covered(images, only_a, only_b):
    """Share of draws in which the interval holds the true difference; equal counts are looked at once."""
    drawn = np.random.default_rng(0).multinomial(images, [only_a, only_b, 1 - only_a - only_b], size=DRAWS)[:, :2]
    counts, times = np.unique(drawn, axis=0, return_counts=True)
    hits = 0
    for seed, ((a, b), often) in enumerate(zip(counts, times, strict=True)):
        low, high = significance.bootstrap_difference(*wrong_by(a, b, images), resamples=1_999, seed=seed).interval
        hits += often * (low - 1e-12 <= only_a - only_b <= high + 1e-12)
    print("COV", images, only_a, only_b, hits / DRAWS)
    return hits / DRAWS


@pytest.mark.parametrize(("images", "only_a", "only_b"), [(100, 0.1, 0.02), (200, 0.05, 0.02), (1_000, 0.02, 0.01)])
def test_bootstrap_intervals_cover(images, only_a, only_b):
    assert 0.94 <= covered(images, only_a, only_b) <= 0.96


@pytest.mark.slow
@pytest.mark.parametrize("images", [500, 1_000, 5_000, 50_000])
@pytest.mark.parametrize(("only_a", "only_b"), [(0.02, 0.01), (0.05, 0.05), (0.06, 0.03), (0.15, 0.15), (0.2, 0.1)])
def test_bootstrap_intervals_cover_on_a_grid(images, only_a, only_b):
    assert 0.94 <= covered(images, only_a, only_b) <= 0.96


@pytest.mark.parametrize("images", [50, 100, 200])
@pytest.mark.parametrize(("only_a", "only_b"), [(0.02, 0.0), (0.04, 0.02), (0.02, 0.02), (0.1, 0.05), (0.05, 0.05)])
def test_intervals_of_few_images_cover_at_least(images, only_a, only_b):
    assert covered(images, only_a, only_b) >= 0.94


# --- seeds -------------------------------------------------------------------------------------------------------


def errors(seeds, seed=0, gap=0.003):
    rng = np.random.default_rng(seed)
    return 0.3 + 0.004 * rng.standard_normal(seeds), 0.3 + gap + 0.004 * rng.standard_normal(seeds)


@pytest.mark.parametrize("seeds", [2, 3, 8, 12])
def test_seeds_against_scipy(seeds):
    a, b = errors(seeds)
    found = significance.seed_difference(a, b)
    reference = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.interval == pytest.approx(tuple(reference))
    assert (found.seeds, found.mean) == (seeds, pytest.approx(np.mean(a) - np.mean(b)))
    assert found.deviation == pytest.approx(scipy.stats.tstd(a - b))
    flips = scipy.stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis), permutation_type="samples", n_resamples=np.inf
    )
    assert found.p == pytest.approx(flips.pvalue)


def test_flips_that_tie_but_for_rounding_count():
    differences = [Fraction(k, 1000) for k in (1, 2, 3, -1, -4, 7, 2)]
    signs = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(one, differences, strict=True))) for one in signs]
    expected = np.mean([x >= abs(sum(differences)) for x in sums])
    a = np.array([0.4 + float(d) for d in differences])
    assert significance.seed_difference(a, np.full(7, 0.4)).p == expected


def test_one_seed_has_no_spread():
    found = significance.seed_difference(np.array([0.3]), np.array([0.4]))
    assert (found.seeds, found.deviation, found.interval, found.p) == (1, None, None, 1.0)
    assert found.mean == pytest.approx(-0.1)


def test_equal_errors_are_no_difference():
    found = significance.seed_difference(np.full(7, 0.25), np.full(7, 0.25))
    assert (found.mean, found.deviation, found.interval, found.p) == (0.0, 0.0, (0.0, 0.0), 1.0)


def test_many_seeds_are_flipped_at_random():
    a, b = errors(24, gap=0.0015)
    exact = sign_flips_by_convolution(np.round((a - b) * 1e6).astype(int))
    found = significance.seed_difference(np.round((a - b) * 1e6), np.zeros(24)).p
    assert 0.01 < exact < 0.5
    assert found == pytest.approx(exact, abs=5 * math.sqrt(exact / significance.RANDOM_FLIPS))
    always = significance.seed_difference(np.full(30, 0.4), np.full(30, 0.3)).p
    assert always == 1 / (significance.RANDOM_FLIPS + 1)  # never zero


def sign_flips_by_convolution(differences):
    """The exact p of whole numbers, from the distribution of their sum."""
    reach = int(np.abs(differences).sum())
    ways = np.zeros(2 * reach + 1)
    ways[reach] = 1
    for d in np.abs(differences):
        ways = (np.roll(ways, d) + np.roll(ways, -d)) / 2
    return ways[np.abs(np.arange(-reach, reach + 1)) >= abs(differences.sum())].sum()


@pytest.mark.parametrize("seeds", range(1, 9))
def test_the_least_p_is_reached_where_all_differences_agree(seeds):
    found = significance.seed_difference(0.4 + 0.01 * np.arange(1, seeds + 1), np.full(seeds, 0.4))
    assert found.p == found.least_p
    assert (found.least_p <= LEVEL) == (seeds >= significance.seeds_needed(1) == 6)


@pytest.mark.parametrize("pairs", [1, 3, 10, 36, 66])
def test_so_many_seeds_are_needed_and_no_fewer(pairs):
    needed = significance.seeds_needed(pairs)
    assert pairs * 2 / 2**needed <= LEVEL < pairs * 2 / 2 ** (needed - 1)


def drawn_recipes(seeds, spread):
    """What is found of recipes that are truly as good."""
    errors = getattr(np.random.default_rng(0), spread)(0.3, 0.01, (DRAWS, 2, seeds))
    return [significance.seed_difference(*pair) for pair in errors]


def check_ties(found):
    """Wrong calls are as many as the flips of signs allow, which come in pairs of one size: 5 % at most."""
    flips = 2 ** found[0].seeds
    expected = 2 * (LEVEL * flips // 2) / flips
    assert expected <= LEVEL
    assert np.mean([one.p <= LEVEL for one in found]) == pytest.approx(expected, abs=3 * math.sqrt(LEVEL / DRAWS))


def check_coverage(found):
    low, high = np.array([one.interval for one in found]).T
    assert 0.94 <= np.mean((low <= 0) & (high >= 0)) <= 0.96


def test_answers_over_six_seeds_are_right_as_often_as_they_say():
    found = drawn_recipes(6, "normal")
    check_coverage(found)
    check_ties(found)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5, 8, 12])
def test_answers_over_other_numbers_of_seeds(seeds):
    found = drawn_recipes(seeds, "normal")
    check_coverage(found)
    check_ties(found)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [6, 8])
def test_the_sign_flip_test_needs_no_normal_errors(seeds):
    check_ties(drawn_recipes(seeds, "laplace"))


# --- many pairs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tests", [1, 2, 5, 36])
def test_holm_against_statsmodels(tests):
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(tests).random(tests) ** 3
    p[-1] = p[0]
    assert significance.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_holm_of_nothing():
    assert significance.holm(np.array([], np.float64)).shape == (0,)


@pytest.mark.parametrize("rates", [(0.3, 0.3, 0.3, 0.3, 0.3), (0.2, 0.3, 0.3, 0.3, 0.5)])
def test_a_family_of_ties_is_rarely_called_different(rates):
    """Any wrong call in a table of five systems that share their hard images, of which others may truly differ."""
    rng = np.random.default_rng(0)
    images = 300
    hard = np.kron(rng.random((DRAWS, 1, images), np.float32), np.ones((1, len(rates), 1), np.float32))
    own = rng.random(hard.shape, np.float32)
    wrong = np.where(own < 0.5, hard, rng.random(hard.shape, np.float32)) < np.array(rates)[:, None]
    both = wrong.astype(np.float32) @ wrong.astype(np.float32).swapaxes(1, 2)
    alone = (wrong.sum(2)[:, :, None] - both).astype(np.int64)  # wrong by the row's system, not by the column's
    a, b = np.triu_indices(len(rates), 1)
    p = significance.mcnemar_p(alone[:, a, b], alone[:, b, a])
    tied = np.array([rates[i] == rates[j] for i, j in zip(a, b, strict=True)])
    called = np.array([significance.holm(one)[tied].min() <= LEVEL for one in p])
    assert np.mean(called) <= LEVEL


def letters_of(text):
    return set(re.findall(r"[a-z]\d*", text))


def check(different, order):
    letters = significance.groups(different, order)
    assert all("".join(re.findall(r"[a-z]\d*", text)) == text != "" for text in letters)
    for i, j in itertools.combinations(range(len(different)), 2):
        assert bool(letters_of(letters[i]) & letters_of(letters[j])) != different[i, j]
    assert "a" in letters_of(letters[order[0]])
    return letters


def test_two_systems_share_a_letter_exactly_where_they_are_not_different():
    rng = np.random.default_rng(0)
    for _ in range(300):
        systems = rng.integers(1, 9)
        upper = np.triu(rng.random((systems, systems)) < rng.random(), 1)
        check(upper | upper.T, rng.permutation(systems).tolist())


def test_letters_by_hand():
    # 2 and 0 are alike, 0 and 1 are alike, 2 and 1 are not; 3 is unlike all
    different = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]], bool)
    assert check(different, [2, 0, 1, 3]) == ["ab", "b", "a", "c"]
    assert check(np.zeros((3, 3), bool), [0, 1, 2]) == ["a", "a", "a"]


def test_more_groups_than_letters():
    different = np.kron(np.eye(5), [[0, 1], [1, 0]]).astype(bool)  # one of each of five couples: 32 groups
    letters = check(different, list(range(10)))
    assert letters_of("".join(letters)) == {*map(chr, range(97, 123)), *(f"{x}2" for x in "abcdef")}
