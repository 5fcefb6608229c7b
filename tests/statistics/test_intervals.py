import math

import numpy as np
import pytest
import scipy.stats

from imagenet_repro.statistics import intervals
from tests.statistics.outcomes import wrong_images

DRAWS = 10_000


# --- one proportion --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "images"), [(0, 10), (3, 10), (10, 10), (812, 2000), (11906, 50000)])
@pytest.mark.parametrize("confidence", [0.95, 0.999])
def test_wilson_interval_is_its_closed_form(wrong, images, confidence):
    z = {0.95: 1.959963984540054, 0.999: 3.290526731491926}[confidence]
    p = wrong / images
    centre = (p + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(p * (1 - p) / images + z * z / (4 * images**2))
    assert intervals.binomial_interval(wrong, images, "wilson", confidence) == pytest.approx(
        (centre - half, centre + half)
    )


@pytest.mark.parametrize("images", [1, 2, 7, 10, 999, 50_000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_wilson_interval_has_the_bits_of_scipy(images, confidence):
    for wrong in np.unique(np.linspace(0, images, 101).astype(int)).tolist():
        expected = scipy.stats.binomtest(wrong, images).proportion_ci(confidence, method="wilson")
        assert intervals.binomial_interval(wrong, images, confidence=confidence) == tuple(expected)


@pytest.mark.parametrize(("wrong", "images"), [(-1, 10), (11, 10), (0, 0)])
@pytest.mark.parametrize("method", ["wilson", "exact"])
def test_an_impossible_error_rate_is_refused(wrong, images, method):
    with pytest.raises(ValueError, match=f"{wrong} wrong of {images} images"):
        intervals.binomial_interval(wrong, images, method)


@pytest.mark.parametrize(("wrong", "images"), [(1, 20), (7, 20), (19, 20), (300, 1000)])
def test_exact_interval_puts_a_fortieth_in_each_tail(wrong, images):
    low, high = intervals.binomial_interval(wrong, images, "exact")
    mass = [math.comb(images, k) for k in range(images + 1)]
    at_least = sum(mass[k] * low**k * (1 - low) ** (images - k) for k in range(wrong, images + 1))
    at_most = sum(mass[k] * high**k * (1 - high) ** (images - k) for k in range(wrong + 1))
    assert (at_least, at_most) == pytest.approx((0.025, 0.025), rel=1e-6)


def test_exact_interval_at_the_ends():
    assert intervals.binomial_interval(0, 10, "exact") == pytest.approx((0, 1 - 0.025**0.1))
    assert intervals.binomial_interval(10, 10, "exact") == pytest.approx((0.025**0.1, 1))


# --- the bootstrap ---------------------------------------------------------------------------------------------------


def test_resamples_drawn_in_parts_are_those_of_one_draw():
    counts, resamples = np.array([40, 25, 435]), 2 * intervals.DRAWN_AT_ONCE + 77
    drawn = np.random.default_rng(3).multinomial(500, counts / 500, size=resamples)
    expected = np.quantile((drawn[:, 0] - drawn[:, 1]) / 500, (0.005, 0.995))
    actual = intervals.bootstrap_discordant(40, 25, 500, confidence=0.99, resamples=resamples, seed=3)
    assert actual.interval == pytest.approx(tuple(expected), abs=1e-15)


@pytest.mark.parametrize(("only_a", "only_b", "images"), [(40, 25, 500), (6, 1, 300), (3, 3, 100), (13, 36, 49)])
def test_bootstrap_against_scipy(only_a, only_b, images):
    wrong = wrong_images(only_a, only_b, images, both=min(20, images - only_a - only_b))
    result = intervals.bootstrap_difference(*wrong)
    reference = scipy.stats.bootstrap(
        wrong, lambda a, b, axis: a.mean(axis) - b.mean(axis), paired=True, method="percentile", n_resamples=10_000,
        rng=np.random.default_rng(1), batch=1000,
    ).confidence_interval  # fmt: skip
    assert result.difference == pytest.approx((only_a - only_b) / images)
    assert result.interval == pytest.approx(tuple(reference), abs=1.01 / images)


def test_the_bootstrap_of_many_images_is_normal():
    result = intervals.bootstrap_difference(*wrong_images(4_000, 3_000, 50_000), confidence=0.9)
    spread = math.sqrt(7_000 - 1_000**2 / 50_000) / 50_000
    assert result.interval == pytest.approx((0.02 - 1.645 * spread, 0.02 + 1.645 * spread), abs=0.06 * spread)


def test_swapped_checkpoints_swap_the_difference_and_a_seed_repeats_it():
    one, other = wrong_images(50, 20, 1_000)
    forwards, backwards = intervals.bootstrap_difference(one, other), intervals.bootstrap_difference(other, one)
    assert forwards.difference == -backwards.difference
    assert forwards.interval == pytest.approx((-backwards.interval[1], -backwards.interval[0]), abs=0.0021)
    assert forwards == intervals.bootstrap_difference(one, other)
    assert forwards != intervals.bootstrap_difference(one, other, seed=1, resamples=999)


def test_identical_errors_on_few_images_leave_a_wide_interval():
    same = np.arange(50) < 10
    low, high = intervals.bootstrap_difference(same, same).interval
    assert low == pytest.approx(-high, abs=0.02)
    assert 0.03 < high < 0.1


def coverage(images, only_a, only_b):
    """Return the share of draws whose interval holds the true difference; equal counts are computed once."""
    draws = np.random.default_rng(0).multinomial(images, [only_a, only_b, 1 - only_a - only_b], size=DRAWS)[:, :2]
    counts, times = np.unique(draws, axis=0, return_counts=True)
    hits = 0
    for seed, ((a, b), often) in enumerate(zip(counts, times, strict=True)):
        low, high = intervals.bootstrap_difference(*wrong_images(a, b, images), resamples=1_999, seed=seed).interval
        hits += often * (low - 1e-12 <= only_a - only_b <= high + 1e-12)
    return hits / DRAWS


@pytest.mark.parametrize(("images", "only_a", "only_b"), [(100, 0.1, 0.02), (200, 0.05, 0.02), (1_000, 0.02, 0.01)])
def test_bootstrap_intervals_cover(images, only_a, only_b):
    assert 0.94 <= coverage(images, only_a, only_b) <= 0.96


@pytest.mark.slow
@pytest.mark.parametrize("images", [500, 1_000, 5_000, 50_000])
@pytest.mark.parametrize(("only_a", "only_b"), [(0.02, 0.01), (0.05, 0.05), (0.06, 0.03), (0.15, 0.15), (0.2, 0.1)])
def test_bootstrap_intervals_cover_on_a_grid(images, only_a, only_b):
    assert 0.94 <= coverage(images, only_a, only_b) <= 0.96


@pytest.mark.parametrize("images", [50, 100, 200])
@pytest.mark.parametrize(("only_a", "only_b"), [(0.02, 0.0), (0.04, 0.02), (0.02, 0.02), (0.1, 0.05), (0.05, 0.05)])
def test_intervals_on_few_images_cover_at_least_94_percent(images, only_a, only_b):
    assert coverage(images, only_a, only_b) >= 0.94


# --- other shares ------------------------------------------------------------------------------------------------


def test_newcombes_interval_is_that_of_statsmodels():
    from statsmodels.stats.proportion import confint_proportions_2indep

    for first, second in (((56, 70), (48, 80)), ((0, 20), (3, 15)), ((10, 10), (0, 20))):
        expected = confint_proportions_2indep(*first, *second, method="newcomb", compare="diff", alpha=0.01)
        assert intervals.newcombe_interval(first, second, confidence=0.99) == pytest.approx(expected)


def test_a_share_of_independent_observations_has_wilsons_interval():
    is_one = np.arange(200) % 5 == 0
    names = [str(row) for row in range(200)]
    low, high = intervals.clustered_interval(is_one, names, names)
    assert (low, high) == pytest.approx(intervals.binomial_interval(40, 200), rel=1e-6)
    with pytest.raises(ValueError, match="no observations"):
        intervals.clustered_interval(is_one[:0], [], [])


def test_the_interval_of_clustered_observations_covers_the_share():
    """Effects of an object and of a texture; the plain interval of independent images covers far less often."""
    rng, objects, clustered, plain = np.random.default_rng(0), 40, 0, 0
    for _ in range(200):
        effects = rng.normal(size=objects)[:, None] + rng.normal(size=objects)[None]
        is_one = (effects + rng.normal(size=effects.shape) > 0).ravel()  # the share over all draws is one half
        index = [[str(one) for one in axis.ravel()] for axis in np.indices(effects.shape)]
        low, high = intervals.clustered_interval(is_one, *index)
        clustered += low <= 0.5 <= high
        low, high = intervals.binomial_interval(int(is_one.sum()), is_one.size)
        plain += low <= 0.5 <= high
    assert 0.90 * 200 <= clustered <= 0.985 * 200
    assert plain < 0.5 * 200
