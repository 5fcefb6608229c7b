"""Mixtures against scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from imagenet_repro.errors import UserError
from imagenet_repro.features.encoding import mixture
from imagenet_repro.features.encoding.mixture import Mixture


def sample(n=4000, d=6, k=8, seed=0):
    rng = np.random.default_rng(seed)
    which = rng.choice(k, n, p=rng.dirichlet(np.ones(k)))
    centres, scales = 3 * rng.normal(size=(k, d)), rng.uniform(0.3, 1.5, (k, d))
    return (7 + centres[which] + scales[which] * rng.normal(size=(n, d))).astype(np.float32)


def theirs_with(parameters):
    """Return scikit-learn's mixture with the parameters of ours."""
    result = GaussianMixture(len(parameters.weights), covariance_type="diag")
    result.weights_, result.means_, result.covariances_ = (
        np.asarray(x, np.float64) for x in (parameters.weights, parameters.means, parameters.variances)
    )
    result.weights_ /= result.weights_.sum()
    result.precisions_cholesky_ = 1 / np.sqrt(result.covariances_)
    return result


def test_likelihood_is_no_worse_than_scikit_learns():
    x = sample()
    ours = mixture.fit(jnp.asarray(x), 8, jax.random.key(0), iterations=100, restarts=2)
    theirs = GaussianMixture(8, covariance_type="diag", n_init=2, max_iter=100, tol=0, random_state=0).fit(x)
    assert float(mixture.log_likelihood(jnp.asarray(x), ours)) > theirs.score(x) - 0.01


def test_an_iteration_is_scikit_learns():
    x = sample()
    start = mixture.fit(jnp.asarray(x), 8, jax.random.key(0), iterations=1)
    theirs = GaussianMixture(
        8,
        covariance_type="diag",
        max_iter=5,
        tol=0,
        reg_covar=0,
        weights_init=np.asarray(start.weights, np.float64) / np.asarray(start.weights, np.float64).sum(),
        means_init=np.asarray(start.means),
        precisions_init=1 / np.asarray(start.variances),
    ).fit(x.astype(np.float64))
    ours = mixture._maximise_likelihood(jnp.asarray(x), start, jnp.zeros(6), iterations=5)
    np.testing.assert_allclose(ours.weights, theirs.weights_, atol=1e-4)
    np.testing.assert_allclose(ours.means, theirs.means_, atol=1e-3)
    np.testing.assert_allclose(ours.variances, theirs.covariances_, rtol=1e-2)


def test_densities_and_responsibilities_are_scikit_learns():
    x = sample()
    ours = mixture.fit(jnp.asarray(x), 5, jax.random.key(1))
    theirs = theirs_with(ours)
    assert float(mixture.log_likelihood(jnp.asarray(x), ours)) == pytest.approx(theirs.score(x), abs=1e-4)
    np.testing.assert_allclose(mixture.responsibilities(jnp.asarray(x), ours), theirs.predict_proba(x), atol=1e-3)


def test_far_from_every_component_responsibilities_still_sum_to_one():
    m = Mixture(jnp.asarray([0.5, 0.5]), jnp.zeros((2, 3)), jnp.full((2, 3), 1e-3))
    result = np.asarray(mixture.responsibilities(jnp.full((1, 3), 1e4), m))
    assert result.sum() == pytest.approx(1)


def test_variances_do_not_fall_below_the_floor():
    x = np.repeat(sample(50), 20, axis=0)  # copies: without a floor a component shrinks around one of them
    result = mixture.fit(jnp.asarray(x), 30, jax.random.key(0), floor=0.01)
    assert (np.asarray(result.variances) >= 0.0099 * x.var(0)).all()
    assert np.isfinite(result.means).all()


def test_repeated_vectors_and_incomplete_blocks():
    result = mixture.fit(jnp.ones((10, 2)), 3, jax.random.key(0))
    assert all(np.isfinite(np.asarray(part)).all() for part in (result.weights, result.means, result.variances))
    x = jnp.asarray(sample(mixture.BLOCK + 3))
    m = mixture.fit(x[:1000], 4, jax.random.key(0))
    assert float(mixture.log_likelihood(x, m)) == pytest.approx(theirs_with(m).score(np.asarray(x)), abs=1e-3)


def test_more_components_than_vectors_are_refused():
    with pytest.raises(UserError, match="9 clusters of 5"):
        mixture.fit(jnp.zeros((5, 2)), 9, jax.random.key(0))
