"""Tests of the bias of a selected checkpoint, against simulations."""

import math

import numpy as np
import pytest

from imagenet_repro.statistics import selection


def simulate(true_errors, n_images, correlation, repeats=4000):
    """Return the mean bias of the lowest of correlated error rates, and the mean of its estimates."""
    generator = np.random.default_rng(0)
    true_errors = np.asarray(true_errors)
    deviation = np.sqrt(true_errors * (1 - true_errors) / n_images)
    shared, own = generator.normal(size=(repeats, 1)), generator.normal(size=(repeats, len(true_errors)))
    seen = true_errors + deviation * (math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own)
    bias = true_errors[seen.argmin(1)] - seen.min(1)
    estimates = [selection.estimate_optimism(errors, n_images, correlation) for errors in seen[:200].tolist()]
    return bias.mean(), np.mean(estimates)


@pytest.mark.parametrize(("n_images", "points"), [(50_000, 0.15), (5_000, 0.47)])
def test_ten_equal_checkpoints_are_too_good_by_the_simulated_bias(n_images, points):
    assert 100 * selection.estimate_optimism([0.25] * 10, n_images) == pytest.approx(points, abs=0.01)
    bias, estimate = simulate([0.25] * 10, n_images, selection.CORRELATION)
    assert estimate == pytest.approx(bias, rel=0.1)


def test_early_checkpoints_do_not_count():
    late, early = [0.25] * 10, [0.9, 0.6, 0.4, 0.3]
    assert selection.estimate_optimism(early + late, 50_000) == selection.estimate_optimism(late, 50_000)
    bias, estimate = simulate(early + late, 50_000, 0.5)
    assert estimate == pytest.approx(bias, rel=0.1)


@pytest.mark.parametrize(("count", "expected"), [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi))])
def test_expected_maximum_has_the_closed_forms(count, expected):
    assert selection._expected_maximum(count) == pytest.approx(expected, abs=1e-9)


def test_one_checkpoint_is_not_selected():
    assert selection.estimate_optimism([0.25], 100) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="at least one image"):
        selection.estimate_optimism([], 100)
