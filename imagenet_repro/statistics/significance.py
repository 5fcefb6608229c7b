"""Which differences are real: tests and intervals on arrays, for two questions that are never mixed.

*These two checkpoints on these images*: would other images of the same kind give the same order? `mcnemar` and
`bootstrap_difference` answer from which images each of the two got wrong.

*These two recipes*: would other seeds? `seed_difference` answers from the errors of runs paired by seed, where a seed
stands for one order of the data, one augmentation and one set of initial values. A checkpoint may well beat another
on any number of images by the luck of its seed.

Of many such answers `holm` keeps the chance of a single wrong one at the level, and `groups` makes letters of them.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from string import ascii_lowercase
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

FEW_DISCORDANT = 6  # images; with fewer even the exact McNemar test cannot reach 5 %
MOST_ENUMERATED = 20  # seeds, whose flips of signs are all looked at: half a million
RANDOM_FLIPS = 99_999  # beyond that
SAME = 1e-9  # of the sum of the differences: sums that are closer are tied, whatever rounding says

Method = Literal["midp", "exact"]


# --- two checkpoints on the same images --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class McNemar:
    """How many images only one of the two got wrong, and how surprising that would be were both as good."""

    only_a: int
    only_b: int
    p: float  # two-sided


def mcnemar(wrong_a: Bool[np.ndarray, " n"], wrong_b: Bool[np.ndarray, " n"], method: Method = "midp") -> McNemar:
    """McNemar's test of equal error rates on the same images.

    Args:
      wrong_a: whether each image is wrong by the first.
      wrong_b: by the second; images in the same order.
      method: see `mcnemar_p`.
    """
    only_a, only_b = np.sum(wrong_a & ~wrong_b), np.sum(wrong_b & ~wrong_a)
    return McNemar(int(only_a), int(only_b), float(mcnemar_p(np.asarray(only_a), np.asarray(only_b), method)))


def mcnemar_p(
    only_a: Int[np.ndarray, "..."], only_b: Int[np.ndarray, "..."], method: Method = "midp"
) -> Float[np.ndarray, "..."]:
    """Two-sided p of McNemar's test from the numbers of discordant images; where there are none it is 1.

    Fagerland, Lydersen & Laake (2013), "The McNemar test for binary matched-pairs data: mid-p and asymptotic are
    better than exact conditional". `exact` is twice the smaller tail of the binomial distribution; it calls fewer
    true ties different than the level allows. `midp` counts the observed outcome by half and comes close to the
    level. Nothing guarantees that it stays below; it did in each of their 9,595 settings, and here wherever the two
    differ on at most 60 % of 20 to 10,000 images (were they to differ on all of 50, it would call 6.5 % of ties).

    Args:
      only_a: images that only the first got wrong.
      only_b: that only the second got wrong.
      method: `midp` or `exact`.
    """
    from scipy.stats import binom  # a second of import that a training process does not need

    fewer, total = np.minimum(only_a, only_b), only_a + only_b
    exact = np.minimum(1.0, 2 * binom.cdf(fewer, total, 0.5))
    if method == "exact":
        return np.asarray(exact)
    observed = binom.pmf(fewer, total, 0.5)
    midp = np.where(2 * fewer == total, 1 - observed / 2, exact - observed)  # a tie is the centre, one outcome not two
    return np.where(total == 0, 1.0, midp)


@dataclasses.dataclass(frozen=True)
class ErrorDifference:
    """How much more often the first is wrong than the second, as a share of the images, in [-1, 1]."""

    difference: float
    interval: tuple[float, float]


def bootstrap_difference(
    wrong_a: Bool[np.ndarray, " n"],
    wrong_b: Bool[np.ndarray, " n"],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> ErrorDifference:
    """Difference of two error rates on the same images, with a bootstrap interval that resamples images.

    The percentile interval of Efron & Tibshirani (1993), "An Introduction to the Bootstrap", section 13.3. An image
    drawn with replacement is wrong by both, by one, by the other or by neither; so one resample is one draw of a
    multinomial distribution, whatever the number of images, and 10,000 of them take milliseconds.

    Where fewer than six images tell the two apart, one more is added to each of the two counts first, as Bonett &
    Price (2012), "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data",
    do: plain resampling knows nothing of what it has not seen, and without any such image would be certain (of 50
    images, 4 and 2 % of them told apart, it covered 86 %). Over 10,000 simulated draws the 95 % interval covered 95.0
    to 95.8 % on 500 images and more; on 50 to 200 it covered at least 94.6 %, and more than 96 % where few images
    are told apart.

    Args:
      wrong_a: whether each image is wrong by the first.
      wrong_b: by the second; images in the same order.
      confidence: of the interval.
      resamples: how many.
      seed: of the resampling.
    """
    images = len(wrong_a)
    only_a, only_b = int(np.sum(wrong_a & ~wrong_b)), int(np.sum(wrong_b & ~wrong_a))
    added = int(only_a + only_b < FEW_DISCORDANT)
    counts = np.array([only_a + added, only_b + added, images - only_a - only_b])
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / counts.sum(), (tail, 1 - tail))
    return ErrorDifference((only_a - only_b) / images, (float(low), float(high)))


# --- two recipes over paired seeds -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SeedDifference:
    """How much more the first recipe errs than the second, over seeds that both were trained with.

    Attributes:
      seeds: how many.
      mean: of the differences.
      deviation: their standard deviation, with one degree of freedom less; None for one seed.
      interval: Student's t interval of the mean; None for one seed.
      p: of the sign-flip test, two-sided.
    """

    seeds: int
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None
    p: float

    @property
    def least_p(self) -> float:
        """The smallest p that any outcome of so many seeds can have: where it exceeds the level, they are too few."""
        return 2 / 2**self.seeds


def seed_difference(
    errors_a: Float[np.ndarray, " n"], errors_b: Float[np.ndarray, " n"], *, confidence: float = 0.95
) -> SeedDifference:
    """Difference of two recipes' errors over paired seeds.

    The interval supposes that differences are normally distributed, as means over thousands of images nearly are. The
    test supposes only that their distribution is symmetric about zero where the recipes are as good: each sign could
    then have been the other (Fisher 1935, "The Design of Experiments", section 21), and p is the share of all flips
    of signs whose sum is as far from zero. Beyond 20 seeds 99,999 flips are drawn, and the observed signs count as
    one more (Phipson & Smyth 2010, "Permutation p-values should never be zero").

    Args:
      errors_a: of the first recipe's runs.
      errors_b: of the second's, in the same order of seeds; at least one.
      confidence: of the interval.
    """
    from scipy.special import stdtrit

    differences = errors_a - errors_b
    seeds, mean, p = len(differences), float(np.mean(differences)), _sign_flip_p(differences)
    if seeds == 1:
        return SeedDifference(seeds, mean, None, None, p)
    deviation = float(np.std(differences, ddof=1))
    half = float(stdtrit(seeds - 1, (1 + confidence) / 2)) * deviation / math.sqrt(seeds)
    return SeedDifference(seeds, mean, deviation, (mean - half, mean + half), p)


def seeds_needed(pairs: int, level: float = 0.05) -> int:
    """The smallest number of seeds with which a sign-flip test can reach the level, adjusted by Holm for `pairs`."""
    return math.ceil(math.log2(2 * pairs / level))


def _sign_flip_p(differences: Float[np.ndarray, " n"]) -> float:
    bound = abs(differences.sum()) - SAME * np.abs(differences).sum()
    if len(differences) > MOST_ENUMERATED:
        signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(RANDOM_FLIPS, len(differences)))
        return float(np.sum(np.abs(signs @ differences) >= bound) + 1) / (RANDOM_FLIPS + 1)
    sums = differences[:1]  # its sign stays: flipping all signs changes no sum's distance from zero
    for difference in differences[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    return float(np.mean(np.abs(sums) >= bound))


# --- many pairs --------------------------------------------------------------------------------------------------


def holm(p_values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Adjusted p values: those at or below the level hold together, with the level as the chance of any wrong one.

    Holm (1979), "A simple sequentially rejective multiple test procedure": the smallest is multiplied by the number
    of tests, the next by one less, and none is smaller than the one before it.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return adjusted


def groups(different: Bool[np.ndarray, "n n"], order: Sequence[int]) -> list[str]:
    """A compact letter display: two systems share a letter exactly where they are not different.

    Piepho (2004), "An algorithm for a letter-based representation of all-pairwise comparisons": one group of all is
    split at every pair that differs, and groups within others are absorbed. After `z` come `a2`, `b2`, ….

    Args:
      different: whether each pair is; symmetric, false on the diagonal.
      order: all systems, the first letters going to the first of them.

    Returns:
      The letters of each system, by its index.
    """
    found = [frozenset(order)]
    for a, b in np.argwhere(np.triu(different)).tolist():
        split = (part for one in found for part in ((one - {a}, one - {b}) if {a, b} <= one else (one,)))
        found = _absorbed(split)
    place = {system: index for index, system in enumerate(order)}
    found.sort(key=lambda group: sorted(place[system] for system in group))
    of_each = [[_letter(k) for k, group in enumerate(found) if system in group] for system in range(len(order))]
    return list(map("".join, of_each))


def _letter(index: int) -> str:
    turn, place = divmod(index, len(ascii_lowercase))
    return ascii_lowercase[place] + (str(turn + 1) if turn else "")


def _absorbed(sets: Iterable[frozenset[int]]) -> list[frozenset[int]]:
    """The sets that no other contains."""
    unlike = set(sets)
    return [one for one in unlike if not any(one < other for other in unlike)]
