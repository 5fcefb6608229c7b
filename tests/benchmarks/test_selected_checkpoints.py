"""Tests of the simulation of selected checkpoints: its moments, and the bias that is known in closed form."""

import math

import numpy as np
import pytest

from benchmarks.selected_checkpoints import Checkpoints, bias, draw


def test_errors_have_the_mean_and_the_correlation_of_the_setting():
    setting = Checkpoints(3, 2_000, 0.09, is_falling=True)
    errors = draw(setting, 40_000, np.random.default_rng(0))
    np.testing.assert_allclose(errors.mean(0), setting.true_errors, atol=3e-4)
    assert setting.true_errors[-1] == pytest.approx(0.25, abs=1e-4)
    equal = draw(Checkpoints(3, 2_000, 0.09), 40_000, np.random.default_rng(0))
    assert np.corrcoef(equal[:, 0], equal[:, 1])[0, 1] == pytest.approx(setting.correlation, abs=0.02)
    assert equal.std() == pytest.approx(math.sqrt(0.25 * 0.75 / 2_000), rel=0.02)


@pytest.mark.parametrize(("images", "points"), [(50_000, 0.15), (5_000, 0.47)])
def test_ten_equal_checkpoints_have_the_bias_that_the_documentation_states(images, points):
    simulated, estimated = bias(Checkpoints(10, images, 0.09), 4_000, np.random.default_rng(0))
    # The mean of the largest of ten standard normal numbers is 1.53875 (Harter 1961, table 1).
    closed_form = 1.53875 * math.sqrt(0.09 / 2 / images)
    assert simulated == pytest.approx(closed_form, rel=0.03)
    assert (100 * simulated, 100 * estimated) == (pytest.approx(points, abs=0.015), pytest.approx(points, abs=0.03))
