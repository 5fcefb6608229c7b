"""The difference of two recipes, estimated from runs that are paired by seed."""

import dataclasses

import numpy as np
from jaxtyping import Float

from imagenet_repro.statistics.hypothesis_tests import least_sign_flip_p, sign_flip_p
from imagenet_repro.statistics.intervals import student_interval


@dataclasses.dataclass(frozen=True)
class SeedDifference:
    """The first recipe's error minus the second's, over the seeds that both were trained with.

    Attributes:
      seeds: number of seeds.
      mean: mean of the differences.
      deviation: their standard deviation, with one degree of freedom less; None for one seed.
      interval: Student's t interval of the mean, for new seeds on these images; None for one seed.
      p: two-sided p value of the sign-flip test.
    """

    seeds: int
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None
    p: float

    @property
    def least_p(self) -> float:
        """The smallest possible p value for this number of seeds; if it exceeds the level, there are too few seeds."""
        return least_sign_flip_p(self.seeds)


def seed_difference(
    errors_a: Float[np.ndarray, " n"], errors_b: Float[np.ndarray, " n"], *, confidence: float = 0.95
) -> SeedDifference:
    """Return the difference of two recipes' errors over paired seeds.

    The interval assumes that the differences are normally distributed, as means over thousands of images nearly are.
    The test assumes only that their distribution is symmetric about zero when the recipes are equally good.

    Args:
      errors_a: error of each of the first recipe's runs; at least one.
      errors_b: error of each of the second recipe's runs, in the same order of seeds.
      confidence: coverage of the interval, in (0, 1).
    """
    differences = errors_a - errors_b
    seeds, mean, p = len(differences), float(np.mean(differences)), sign_flip_p(differences)
    if seeds == 1:
        return SeedDifference(seeds, mean, None, None, p)
    deviation = float(np.std(differences, ddof=1))
    return SeedDifference(seeds, mean, deviation, student_interval(differences, confidence), p)
