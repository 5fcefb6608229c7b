"""Quantiles of the Beta distribution from a table, against SciPy's distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from imagenet_repro.data.augment.beta import draw_share, quantile

ALPHAS = pytest.mark.parametrize("alpha", [0.1, 0.2, 0.8, 1.0, 2.0, 32.0])


@ALPHAS
def test_quantiles_are_scipys(alpha):
    """In single precision; above 2, a table of powers is less exact for probabilities below 1e-4."""
    probability = np.linspace(0, 0.5, 30011, dtype=np.float32)[1:-1]
    lower = np.asarray(quantile(jnp.asarray(probability), alpha), float)
    exact = stats.beta(alpha, alpha)
    representable = lower > 1e-30
    error = np.abs(exact.cdf(lower) - probability)[representable]
    assert error.max() < (3e-7 if alpha <= 1 else 1e-4)
    assert error[500:].max() < 3e-7
    upper = 1 - jnp.asarray(probability)
    np.testing.assert_array_equal(quantile(upper, alpha), 1 - quantile(1 - upper, alpha))
    assert (np.diff(lower) >= 0).all()
    np.testing.assert_array_equal(quantile(jnp.array([0.0, 1.0]), alpha), [0, 1])


@ALPHAS
def test_draws_have_the_distribution_of_scipy(alpha):
    """Counts below thresholds; numbers near one are rounded to it."""
    count, thresholds = 20000, np.array([1e-5, 1e-3, 0.1, 0.3, 0.45, 0.6, 0.8, 0.99, 1 - 1e-4])
    draws = np.asarray(jax.vmap(lambda key: draw_share(key, alpha))(jax.random.split(jax.random.key(3), count)))
    expected = stats.beta(alpha, alpha).cdf(thresholds)
    actual = (draws[:, None] <= thresholds).mean(0)
    assert (np.abs(actual - expected) <= 4 * np.sqrt(expected * (1 - expected) / count) + 1e-4).all()


def test_a_draw_has_no_loop_of_unknown_length():
    def has_loop(draw) -> bool:
        program = jax.jit(draw).lower(jax.random.key(0)).compile().as_text()
        return any("while(" in line and "known_trip_count" not in line for line in program.splitlines())

    assert has_loop(lambda key: jax.random.beta(key, 0.2, 0.2))
    assert not has_loop(lambda key: draw_share(key, 0.2))
