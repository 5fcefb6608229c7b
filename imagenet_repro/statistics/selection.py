"""Bias of an error rate that chose the checkpoint which it scores."""

import functools
import math
from collections.abc import Sequence

# Correlation, over images, of the errors of two checkpoints of one run late in training: of networks with 25 % error
# that differ in whether they are right on 9 % of the images, 1 - 0.09 / (2 * 0.25 * 0.75).
CORRELATION = 0.75
# Checkpoints whose errors differ by fewer standard deviations of the difference could each have been chosen.
TIES = 2.0


def estimate_optimism(errors: Sequence[float], n_images: int, correlation: float = CORRELATION) -> float:
    """Estimate by how much the lowest of several error rates is too low, because it is the lowest.

    Each error rate has binomial noise. Two checkpoints share a part of it; the part of their own has a standard
    deviation of s = sqrt(e (1 - e) (1 - correlation) / n). Checkpoints within TIES deviations of a difference, sqrt(2)
    s, of the lowest count as equally good, and the lowest of k equal ones is too low by the expected maximum of k
    standard normal numbers times s.

    Args:
      errors: the error rates, in [0, 1], of the checkpoints among which one was chosen, on the same images.
      n_images: the number of images.
      correlation: of the errors of two checkpoints over images, in [0, 1].

    Returns:
      The expected difference between the error rate on new images and the lowest one; 0 for a single checkpoint.

    Raises:
      ValueError: there is no error rate or no image.
    """
    if not errors or n_images < 1:
        raise ValueError("error rates on at least one image are needed")
    lowest = min(errors)
    deviation = math.sqrt(lowest * (1 - lowest) * (1 - correlation) / n_images)
    n_tied = sum(error <= lowest + TIES * math.sqrt(2) * deviation for error in errors)
    return deviation * _expected_maximum(n_tied)


@functools.cache
def _expected_maximum(count: int) -> float:
    """Return the expected maximum of independent standard normal numbers.

    It is the integral over x > 0 of 1 - P(x)^count - P(-x)^count, with the normal distribution function P, by
    Simpson's rule.
    """
    n, end = 400, 10.0
    below = [0.5 * math.erfc(-end * i / n / math.sqrt(2)) for i in range(n + 1)]
    values = [1 - share**count - (1 - share) ** count for share in below]
    return end / n / 3 * (values[0] + values[-1] + 4 * sum(values[1:-1:2]) + 2 * sum(values[2:-1:2]))
