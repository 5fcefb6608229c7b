import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats

from imagenet_repro.statistics.hypothesis_tests import RANDOM_FLIPS, seeds_needed
from imagenet_repro.statistics.paired_seeds import seed_difference

DRAWS = 10_000
LEVEL = 0.05


def errors(seeds, seed=0, gap=0.003):
    rng = np.random.default_rng(seed)
    return 0.3 + 0.004 * rng.standard_normal(seeds), 0.3 + gap + 0.004 * rng.standard_normal(seeds)


@pytest.mark.parametrize("seeds", [2, 3, 8, 12])
def test_seeds_against_scipy(seeds):
    a, b = errors(seeds)
    result = seed_difference(a, b)
    reference = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    assert result.interval == pytest.approx(tuple(reference))
    assert (result.seeds, result.mean) == (seeds, pytest.approx(np.mean(a) - np.mean(b)))
    assert result.deviation == pytest.approx(scipy.stats.tstd(a - b))
    flips = scipy.stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis), permutation_type="samples", n_resamples=np.inf
    )
    assert result.p == pytest.approx(flips.pvalue)


def test_sums_that_tie_apart_from_rounding_are_counted():
    differences = [Fraction(k, 1000) for k in (1, 2, 3, -1, -4, 7, 2)]
    signs = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(one, differences, strict=True))) for one in signs]
    expected = np.mean([x >= abs(sum(differences)) for x in sums])
    a = np.array([0.4 + float(d) for d in differences])
    assert seed_difference(a, np.full(7, 0.4)).p == expected


def test_one_seed_has_no_deviation_and_no_interval():
    result = seed_difference(np.array([0.3]), np.array([0.4]))
    assert (result.seeds, result.deviation, result.interval, result.p) == (1, None, None, 1.0)
    assert result.mean == pytest.approx(-0.1)


def test_equal_errors_have_no_difference():
    result = seed_difference(np.full(7, 0.25), np.full(7, 0.25))
    assert (result.mean, result.deviation, result.interval, result.p) == (0.0, 0.0, (0.0, 0.0), 1.0)


def test_many_seeds_are_flipped_at_random():
    a, b = errors(24, gap=0.0015)
    exact = sign_flips_by_convolution(np.round((a - b) * 1e6).astype(int))
    result = seed_difference(np.round((a - b) * 1e6), np.zeros(24)).p
    assert 0.01 < exact < 0.5
    assert result == pytest.approx(exact, abs=5 * math.sqrt(exact / RANDOM_FLIPS))
    always = seed_difference(np.full(30, 0.4), np.full(30, 0.3)).p
    assert always == 1 / (RANDOM_FLIPS + 1)  # never zero


def sign_flips_by_convolution(differences):
    """Return the exact p value for integers, from the distribution of their sum."""
    reach = int(np.abs(differences).sum())
    ways = np.zeros(2 * reach + 1)
    ways[reach] = 1
    for d in np.abs(differences):
        ways = (np.roll(ways, d) + np.roll(ways, -d)) / 2
    return ways[np.abs(np.arange(-reach, reach + 1)) >= abs(differences.sum())].sum()


@pytest.mark.parametrize("seeds", range(1, 9))
def test_the_least_p_is_reached_if_all_differences_have_one_sign(seeds):
    result = seed_difference(0.4 + 0.01 * np.arange(1, seeds + 1), np.full(seeds, 0.4))
    assert result.p == result.least_p
    assert (result.least_p <= LEVEL) == (seeds >= seeds_needed(1) == 6)


def drawn_recipes(seeds, spread):
    """Return the estimated differences of recipes that are truly equally good."""
    errors = getattr(np.random.default_rng(0), spread)(0.3, 0.01, (DRAWS, 2, seeds))
    return [seed_difference(*pair) for pair in errors]


def check_ties(result):
    """Check that false positives are as frequent as sign flips allow, at most 5 %, since flips come in pairs."""
    flips = 2 ** result[0].seeds
    expected = 2 * (LEVEL * flips // 2) / flips
    assert expected <= LEVEL
    assert np.mean([one.p <= LEVEL for one in result]) == pytest.approx(expected, abs=3 * math.sqrt(LEVEL / DRAWS))


def check_coverage(result):
    low, high = np.array([one.interval for one in result]).T
    assert 0.94 <= np.mean((low <= 0) & (high >= 0)) <= 0.96


def test_intervals_and_tests_over_six_seeds_have_their_stated_rates():
    result = drawn_recipes(6, "normal")
    check_coverage(result)
    check_ties(result)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5, 8, 12])
def test_intervals_and_tests_over_other_numbers_of_seeds(seeds):
    result = drawn_recipes(seeds, "normal")
    check_coverage(result)
    check_ties(result)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [6, 8])
def test_the_sign_flip_test_needs_no_normal_errors(seeds):
    check_ties(drawn_recipes(seeds, "laplace"))
