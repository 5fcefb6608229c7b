"""Hypothesis tests for two questions that are never mixed, and Holm's adjustment for many tests.

*These two checkpoints on these images*: would other images of the same kind give the same order? `mcnemar` answers
from the images that each of the two got wrong; `intervals.bootstrap_difference` gives the interval.

*These two recipes on these images*: would other seeds give the same order? `sign_flip_p` answers from the errors of
runs paired by seed, where a seed stands for one order of the data, one augmentation and one set of initial values. A
checkpoint may beat another on any number of images by the luck of its seed. `paired_seeds.seed_difference` adds the
interval. `crossed_effects` compares recipes over new seeds and new images at once.

When many such tests are made, `holm` keeps the probability of a single wrong rejection at the level.
"""

import dataclasses
import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

MAX_ENUMERATED = 20  # seeds up to which every combination of signs is enumerated: half a million
RANDOM_FLIPS = 99_999  # combinations of signs drawn for more seeds than that
TIE_TOLERANCE = 1e-9  # two sums that differ by less, relative to the sum of absolute differences, are tied

Method = Literal["midp", "exact"]


# --- two checkpoints on the same images --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class McNemar:
    """Numbers of images that only one of two systems got wrong, and the p value of McNemar's test."""

    only_a: int
    only_b: int
    p: float  # two-sided


def mcnemar(wrong_a: Bool[np.ndarray, " n"], wrong_b: Bool[np.ndarray, " n"], method: Method = "midp") -> McNemar:
    """Return McNemar's test of equal error rates on the same images.

    Args:
      wrong_a: whether the first system is wrong on each image.
      wrong_b: the same for the second system, images in the same order.
      method: see `mcnemar_p`.
    """
    only_a, only_b = np.sum(wrong_a & ~wrong_b), np.sum(wrong_b & ~wrong_a)
    return McNemar(int(only_a), int(only_b), float(mcnemar_p(np.asarray(only_a), np.asarray(only_b), method)))


def mcnemar_p(
    only_a: Int[np.ndarray, "..."], only_b: Int[np.ndarray, "..."], method: Method = "midp"
) -> Float[np.ndarray, "..."]:
    """Return the two-sided p value of McNemar's test from the numbers of discordant images; 1 if there are none.

    Fagerland, Lydersen & Laake (2013), "The McNemar test for binary matched-pairs data: mid-p and asymptotic are
    better than exact conditional". `exact` is twice the smaller tail of the binomial distribution; it rejects true
    ties less often than the level allows. `midp` counts the observed outcome by half and comes close to the level.
    Nothing guarantees that it stays below the level. It did in each of their 9,595 settings, and here whenever the two
    systems differ on at most 60 % of 20 to 10,000 images. If they differed on all of 50 images, it would reject 6.5 %
    of true ties.

    Args:
      only_a: number of images that only the first system got wrong.
      only_b: number of images that only the second system got wrong.
      method: `midp` or `exact`.
    """
    from scipy.special import bdtr  # `scipy.stats.binom` has the same function, and takes a second to import

    fewer, total = np.minimum(only_a, only_b), only_a + only_b
    up_to = bdtr(fewer.astype(float), total, 0.5)  # probability of so few or fewer
    if method == "exact":
        return np.asarray(np.minimum(1.0, 2 * up_to))
    below = np.where(fewer > 0, bdtr(np.maximum(fewer, 1) - 1.0, total, 0.5), 0.0)
    # The observed outcome counts by half; a tie is one outcome, and any other is two.
    midp = np.where(2 * fewer == total, 1 - (up_to - below) / 2, up_to + below)
    return np.where(total == 0, 1.0, midp)


# --- two recipes over paired seeds -------------------------------------------------------------------------------


def sign_flip_p(differences: Float[np.ndarray, " n"]) -> float:
    """Return the two-sided p value of the sign-flip test that paired differences are symmetric about zero.

    If two recipes are equally good, each difference could as well have had the other sign (Fisher 1935, "The Design of
    Experiments", section 21). The p value is the share of all combinations of signs whose sum is at least as far from
    zero as the observed one. Beyond 20 differences 99,999 combinations are drawn, and the observed one is counted as
    one more (Phipson & Smyth 2010, "Permutation p-values should never be zero").

    `scipy.stats.permutation_test` has this test too, but its tolerance for ties is relative to the sum itself, so
    rounding decides ties near zero there.
    """
    bound = abs(differences.sum()) - TIE_TOLERANCE * np.abs(differences).sum()
    if len(differences) > MAX_ENUMERATED:
        signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(RANDOM_FLIPS, len(differences)))
        return float(np.sum(np.abs(signs @ differences) >= bound) + 1) / (RANDOM_FLIPS + 1)
    sums = differences[:1]  # its sign stays fixed: flipping all signs leaves the distance of a sum from zero as it is
    for difference in differences[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    return float(np.mean(np.abs(sums) >= bound))


def least_sign_flip_p(seeds: int) -> float:
    """Return the smallest possible p value of the sign-flip test on a number of paired seeds."""
    return 2 / 2**seeds


def seeds_needed(pairs: int, level: float = 0.05) -> int:
    """Return the smallest number of seeds for which a sign-flip test, Holm-adjusted for `pairs`, can reach a level."""
    return math.ceil(math.log2(2 * pairs / level))


# --- many tests --------------------------------------------------------------------------------------------------


def holm(p_values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return p values adjusted for their number, so that the family-wise error rate is at most the level.

    Holm (1979), "A simple sequentially rejective multiple test procedure": the smallest p value is multiplied by the
    number of tests, the next one by one less, and so on; none becomes smaller than the one before it.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return adjusted
