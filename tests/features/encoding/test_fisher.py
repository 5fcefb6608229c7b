"""Fisher vectors against a plain transcription of the formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.features.encoding import fisher, mixture
from imagenet_repro.features.encoding.pyramid import Pyramid, layout

D, K, T = 6, 5, 80


def transcribed(x, m, with_weights, power, normalise):
    """Compute Fisher vectors by Sanchez et al. 2013, eq. 16 to 18, descriptor by descriptor."""
    w, mu, var = (np.asarray(part, np.float64) for part in (m.weights, m.means, m.variances))
    sigma = np.sqrt(var)
    g_w, g_mu, g_sigma = np.zeros(K), np.zeros((K, D)), np.zeros((K, D))
    for vector in x.astype(np.float64):
        density = w * np.exp(-0.5 * ((vector - mu) ** 2 / var).sum(1)) / np.prod(np.sqrt(2 * np.pi) * sigma, 1)
        gamma = density / density.sum()
        g_w += (gamma - w) / np.sqrt(w)
        g_mu += gamma[:, None] * (vector - mu) / sigma / np.sqrt(w)[:, None]
        g_sigma += gamma[:, None] * ((vector - mu) ** 2 / var - 1) / np.sqrt(2 * w)[:, None]
    vector = np.concatenate([*([g_w] if with_weights else []), g_mu.ravel(), g_sigma.ravel()]) / max(len(x), 1)
    vector = np.sign(vector) * np.abs(vector) ** power
    return vector / np.linalg.norm(vector) if normalise and np.any(vector) else vector


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(2, T, D)) + rng.integers(0, 3, (2, T, 1))).astype(np.float32)
    return x, mixture.fit(jnp.asarray(x.reshape(-1, D)), K, jax.random.key(0)), rng.uniform(size=(T, 2))


@pytest.mark.parametrize(
    ("with_weights", "power", "normalise"),
    [(False, 0.5, True), (True, 0.5, True), (True, 1.0, False), (False, 0.3, False)],
)
def test_vectors_of_every_cell_are_the_formulas(case, with_weights, power, normalise):
    x, m, places = case
    members = Pyramid(((1, 1), (3, 1))).members(places)
    where = layout(members)
    result = np.asarray(
        fisher.encode(
            jnp.asarray(x[:, where.order]), m, where, with_weights=with_weights, power=power, normalise=normalise
        )
    )
    assert result.shape == (2, 4, 2 * K * D + (K if with_weights else 0))
    for image, vectors in zip(x, result, strict=True):
        for cell, vector in zip(members, vectors, strict=True):
            expected = transcribed(image[cell], m, with_weights, power, normalise)
            np.testing.assert_allclose(vector, expected, atol=2e-3 if power < 1 else 1e-4)


def test_empty_cells_and_flat_images_have_finite_vectors(case):
    _, m, places = case
    where = layout(Pyramid(((1, 1), (2, 1))).members(places * [0.4, 1]))
    result = np.asarray(fisher.encode(jnp.zeros((1, T, D)), m, where))
    assert np.isfinite(result).all()
    np.testing.assert_array_equal(result[0, 2], 0)


def test_the_vector_of_the_mixtures_own_sample_is_near_zero(case):
    """The gradient of the likelihood vanishes at its maximum, for the sample from which the mixture was learned."""
    x, _, _ = case
    everything = jnp.asarray(x.reshape(1, -1, D))
    m = mixture.fit(everything[0], K, jax.random.key(0), iterations=300)
    where = layout(np.ones((1, everything.shape[1]), bool))
    result = np.asarray(fisher.encode(everything, m, where, with_weights=True, power=1.0, normalise=False))
    assert np.abs(result).max() < 1e-2
