"""Principal components against scikit-learn's."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA

from imagenet_repro.errors import UserError
from imagenet_repro.features.encoding import pca


def correlated(n=500, d=12, seed=0):
    rng = np.random.default_rng(seed)
    return (5 + rng.normal(size=(n, d)) @ rng.normal(size=(d, d))).astype(np.float32)


def fitted(x, components, parts=7):
    moments = pca.Moments(x.shape[1])
    for part in np.array_split(x, parts):
        moments.add(part)
    return pca.fit(moments, components)


@pytest.mark.parametrize("whiten", [False, True])
def test_components_from_a_stream_are_scikit_learns(whiten):
    x = correlated()
    ours = fitted(x, 5)
    theirs = PCA(5, whiten=whiten, svd_solver="full").fit(x.astype(np.float64))
    np.testing.assert_allclose(ours.variances, theirs.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(np.abs(ours.components @ theirs.components_.T), np.eye(5), atol=1e-5)
    signs = np.sign(np.sum(ours.components * theirs.components_, 1))
    result = np.asarray(pca.project(jnp.asarray(x), ours, whiten=whiten))
    np.testing.assert_allclose(result, theirs.transform(x) * signs, rtol=1e-4, atol=1e-4)


def test_moments_do_not_depend_on_the_parts_of_the_stream():
    x = correlated()
    complete, cut = fitted(x, 3, parts=1), fitted(x, 3, parts=123)
    np.testing.assert_allclose(cut.components, complete.components, atol=1e-6)


def test_directions_without_variance_are_not_amplified():
    x = correlated()
    x[:, 4] = 1.0
    result = np.asarray(pca.project(jnp.asarray(x), fitted(x, 12), whiten=True))
    assert np.abs(result[:, -1]).max() < 10


@pytest.mark.parametrize(("n", "components", "message"), [(50, 13, "12 at most"), (1, 2, "at least two descriptors")])
def test_too_many_components_or_too_few_descriptors_are_refused(n, components, message):
    with pytest.raises(UserError, match=message):
        fitted(correlated(n), components, parts=1)
