import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats

from imagenet_repro.statistics import hypothesis_tests
from tests.statistics.outcomes import wrong_images

DRAWS = 10_000
LEVEL = 0.05


# --- McNemar -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (3, 9), (9, 3), (7, 7), (40, 71), (900, 1000)])
def test_mcnemar_exact_against_statsmodels_and_scipy(only_a, only_b):
    from statsmodels.stats.contingency_tables import mcnemar

    result = hypothesis_tests.mcnemar(*wrong_images(only_a, only_b, 3000, both=50), method="exact")
    assert (result.only_a, result.only_b) == (only_a, only_b)
    assert result.p == pytest.approx(mcnemar([[50, only_a], [only_b, 100]], exact=True).pvalue, rel=1e-9)
    assert result.p == pytest.approx(scipy.stats.binomtest(only_a, only_a + only_b).pvalue, rel=1e-9)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (3, 9), (9, 3), (7, 7), (1, 1), (40, 71)])
def test_midp_counts_rarer_outcomes_and_half_of_the_equally_rare(only_a, only_b):
    total = only_a + only_b
    far = [abs(2 * k - total) for k in range(total + 1)]
    seen = abs(only_a - only_b)
    twice = sum(math.comb(total, k) * (2 if d > seen else d == seen) for k, d in enumerate(far))
    assert hypothesis_tests.mcnemar(*wrong_images(only_a, only_b, 200)).p == pytest.approx(
        float(Fraction(twice, 2 ** (total + 1)))
    )


def test_midp_of_a_published_example():
    # Fagerland et al. (2013), Table 1 and the results on Bentur et al.: 1 against 7, exact 0.0703, mid-p 0.0391
    assert hypothesis_tests.mcnemar(*wrong_images(1, 7, 21, both=1)).p == pytest.approx(10 / 256)
    assert hypothesis_tests.mcnemar(*wrong_images(1, 7, 21, both=1), method="exact").p == pytest.approx(18 / 256)


@pytest.mark.parametrize("method", ["midp", "exact"])
def test_checkpoints_with_the_same_errors_do_not_differ(method):
    same = np.arange(100) < 30
    assert hypothesis_tests.mcnemar(same, same, method) == hypothesis_tests.McNemar(0, 0, 1.0)


def false_positive_rate(images, share, method):
    """Return the false positive rate for two equally good checkpoints that differ on a share of the images.

    The sum is over all outcomes.
    """
    middle, spread = images * share, math.sqrt(images * share * (1 - share))
    totals = np.arange(max(0, int(middle - 6 * spread)), min(images, int(middle + 6 * spread + 6)) + 1)
    rate = 0.0
    for total in totals:
        ways = np.arange(total + 1)
        is_significant = hypothesis_tests.mcnemar_p(ways, total - ways, method) <= LEVEL
        rate += scipy.stats.binom.pmf(total, images, share) * (
            is_significant @ scipy.stats.binom.pmf(ways, total, 0.5)
        )
    return rate


@pytest.mark.parametrize("images", [20, 50, 100, 300])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.2, 0.4, 0.6])
def test_true_ties_are_rarely_significant(images, share):
    assert false_positive_rate(images, share, "exact") <= false_positive_rate(images, share, "midp") <= LEVEL


@pytest.mark.slow
@pytest.mark.parametrize("images", [1_000, 5_000, 10_000])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.2, 0.4, 0.6])
def test_true_ties_on_many_images_are_rarely_significant(images, share):
    assert false_positive_rate(images, share, "exact") <= false_positive_rate(images, share, "midp") <= LEVEL


@pytest.mark.parametrize(("images", "share"), [(100, 0.1), (1_000, 0.05), (1_000, 0.2)])
@pytest.mark.parametrize("method", ["midp", "exact"])
def test_simulated_ties_are_significant_as_often_as_enumerated(images, share, method):
    counts = np.random.default_rng(0).multinomial(images, [share / 2, share / 2, 1 - share], size=DRAWS)
    simulated = np.mean(hypothesis_tests.mcnemar_p(counts[:, 0], counts[:, 1], method) <= LEVEL)
    expected = false_positive_rate(images, share, method)
    assert simulated == pytest.approx(expected, abs=3 * math.sqrt(LEVEL / DRAWS))


# --- seeds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", [1, 3, 10, 36, 66])
def test_the_number_of_seeds_needed_is_the_smallest_that_suffices(pairs):
    needed = hypothesis_tests.seeds_needed(pairs)
    assert pairs * 2 / 2**needed <= LEVEL < pairs * 2 / 2 ** (needed - 1)


# --- many pairs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tests", [1, 2, 5, 36])
def test_holm_against_statsmodels(tests):
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(tests).random(tests) ** 3
    p[-1] = p[0]
    assert hypothesis_tests.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_holm_of_no_tests():
    assert hypothesis_tests.holm(np.array([], np.float64)).shape == (0,)


@pytest.mark.parametrize("rates", [(0.3, 0.3, 0.3, 0.3, 0.3), (0.2, 0.3, 0.3, 0.3, 0.5)])
def test_a_family_of_ties_is_rarely_significant(rates):
    """Count any false positive among five systems that share their hard images, where others may truly differ."""
    rng = np.random.default_rng(0)
    images = 300
    hard = np.kron(rng.random((DRAWS, 1, images), np.float32), np.ones((1, len(rates), 1), np.float32))
    own = rng.random(hard.shape, np.float32)
    wrong = np.where(own < 0.5, hard, rng.random(hard.shape, np.float32)) < np.array(rates)[:, None]
    both = wrong.astype(np.float32) @ wrong.astype(np.float32).swapaxes(1, 2)
    alone = (wrong.sum(2)[:, :, None] - both).astype(np.int64)  # wrong for the row's system alone
    a, b = np.triu_indices(len(rates), 1)
    p = hypothesis_tests.mcnemar_p(alone[:, a, b], alone[:, b, a])
    tied = np.array([rates[i] == rates[j] for i, j in zip(a, b, strict=True)])
    is_significant = np.array([hypothesis_tests.holm(one)[tied].min() <= LEVEL for one in p])
    assert np.mean(is_significant) <= LEVEL
