"""Performance profiles against their definitions, a numerical integral, and every order of signs."""

import itertools
import math

import numpy as np
import pytest

from imagenet_repro.statistics import performance_profiles

INF = math.inf
AMOUNTS = np.array([[10.0, 30.0, INF, INF], [20.0, 10.0, 7.0, INF], [10.0, INF, 28.0, INF]])


def by_definition(tau, system):
    """Return rho(tau) of Dolan and Moré, word for word."""
    near = 0
    for workload in range(AMOUNTS.shape[1]):
        best = min(AMOUNTS[:, workload])
        near += best < INF and AMOUNTS[system, workload] / best <= tau
    return near / AMOUNTS.shape[1]


@pytest.mark.parametrize("system", range(3))
def test_profiles_steps_and_scores_are_those_of_the_definition(system):
    ratios = performance_profiles.ratios(AMOUNTS)[system]
    tau = np.arange(1, 6, 0.25)
    assert performance_profiles.profile(ratios, tau).tolist() == [by_definition(t, system) for t in tau]
    for t, share in zip(*performance_profiles.steps(ratios), strict=True):
        assert share == by_definition(t, system)
    grid = 1 + 3 * (np.arange(30_000) + 0.5) / 30_000  # midpoints
    integral = np.mean([by_definition(t, system) for t in grid[::10]])
    assert performance_profiles.score(ratios) == pytest.approx(integral, abs=1e-3)


def test_a_median_counts_runs_that_never_got_there():
    assert performance_profiles.median(np.array([3.0, INF, 1.0])) == 3.0
    assert performance_profiles.median(np.array([3.0, INF, INF])) == INF
    assert performance_profiles.median(np.array([3.0, INF])) == INF
    assert performance_profiles.median(np.array([INF, INF])) == INF
    assert performance_profiles.median(np.array([4.0, 1.0, 3.0, 2.0])) == 2.5


@pytest.mark.parametrize("n", [2, 3, 5, 6, 9, 12])
def test_coverage_of_the_interval_is_that_of_all_orders_of_signs(n):
    """A value is above or below the population's median with equal chance, whatever the distribution."""
    values = np.arange(n, dtype=float)
    low, high, coverage = performance_profiles.median_interval(values)
    r = int(low)
    assert high == n - 1 - r
    covered = sum(r < sum(signs) < n - r for signs in itertools.product((0, 1), repeat=n))
    assert coverage == pytest.approx(covered / 2**n)
    assert coverage >= 0.95 or (r == 0 and n < 6)
    narrower = sum(r + 1 < sum(signs) < n - r - 1 for signs in itertools.product((0, 1), repeat=n))
    assert narrower / 2**n < 0.95


def test_an_interval_may_end_where_a_run_never_got_there():
    low, high, coverage = performance_profiles.median_interval(np.array([5.0, INF, 3.0]))
    assert (low, high, coverage) == (3.0, INF, 0.75)
    with pytest.raises(ValueError, match="one value"):
        performance_profiles.median_interval(np.array([1.0]))
