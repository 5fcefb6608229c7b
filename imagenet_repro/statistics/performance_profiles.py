"""Performance profiles: the share of workloads on which a system needs at most a multiple of what the best one needs.

Profiles are those of Dolan & Moré (2002), "Benchmarking optimization software with performance profiles". Their use
for training, with medians over repetitions and an integral as the score, follows Dahl et al. (2023), "Benchmarking
Neural Network Training Algorithms", arXiv 2306.07179. An amount that was never enough is infinite: it takes part in
medians, and such a workload stays in the profile.
"""

import math

import numpy as np
from jaxtyping import Float

LARGEST_RATIO = 4.0  # the end of the integral and of the figure, as in AlgoPerf's rules


def ratios(amounts: Float[np.ndarray, "systems workloads"]) -> Float[np.ndarray, "systems workloads"]:
    """Return each amount over the least one of its workload; infinite where a system, or every one, never got there.

    Args:
      amounts: positive; infinite where the system did not reach the workload's target.
    """
    least = amounts.min(axis=0)
    return np.where(np.isfinite(amounts), amounts / np.where(np.isfinite(least), least, 1.0), np.inf)


def profile(
    ratios_of_system: Float[np.ndarray, " workloads"], tau: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Return the share of workloads with a ratio of at most each tau: rho in Dolan and Moré's definition."""
    return (ratios_of_system[None, :] <= tau[:, None]).mean(axis=1)


def steps(
    ratios_of_system: Float[np.ndarray, " workloads"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return every tau at which a profile rises, and 1 before them, with its share from there on."""
    tau = np.unique(np.append(ratios_of_system[np.isfinite(ratios_of_system)], 1.0))
    return tau, profile(ratios_of_system, tau)


def score(ratios_of_system: Float[np.ndarray, " workloads"], largest: float = LARGEST_RATIO) -> float:
    """Return the mean of the profile over tau in [1, `largest`], which is in [0, 1].

    The profile is a step function, so each workload adds the part of the interval that lies beyond its ratio.
    """
    beyond = (largest - np.minimum(ratios_of_system, largest)) / (largest - 1)
    return float(beyond.mean())


def median(values: Float[np.ndarray, " n"]) -> float:
    """Return the median; with an even number of values, infinite if the upper one of the middle two is."""
    ordered = np.sort(values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(high if math.isinf(high) else (low + high) / 2)


def median_interval(values: Float[np.ndarray, " n"], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return an interval (low, high) for the median of the population, and its coverage.

    Its ends are values of the sample, so it needs no assumption on their distribution, and infinite values may be
    among them: the interval from the r-th lowest to the r-th highest value covers the median with probability
    1 - 2 P(B < r), where B is binomial with n draws of one half. It is the narrowest one with the wanted coverage.
    With fewer than six values none has 95 %, and the interval from the lowest to the highest is returned with its own
    coverage, 75 % for three values.

    Raises:
      ValueError: there are fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError("one value has no interval")
    below = np.cumsum([math.comb(n, k) for k in range(n)]) / 2.0**n  # P(B <= k)
    coverages = 1 - 2 * below[: n // 2]
    enough = np.flatnonzero(coverages >= confidence)
    r = int(enough[-1]) if len(enough) else 0
    ordered = np.sort(values)
    return float(ordered[r]), float(ordered[n - 1 - r]), float(coverages[r])
