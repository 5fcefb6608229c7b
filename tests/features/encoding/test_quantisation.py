"""Product quantisation: nearest centres, and the error of a code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from imagenet_repro.errors import UserError
from imagenet_repro.features.encoding import quantisation


def codes(n=600, f=32, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 6)) @ rng.normal(size=(6, f)) + 0.3 * rng.normal(size=(n, f))).astype(np.float32)


def test_each_part_is_replaced_by_its_nearest_centre():
    x = codes()
    quantiser = quantisation.fit(jnp.asarray(x), jax.random.key(0))
    numbers = np.asarray(quantisation.encode(jnp.asarray(x), quantiser))
    centres = np.asarray(quantiser.centres)
    assert (numbers.shape, numbers.dtype, centres.shape) == ((600, 4), np.uint8, (4, 256, 8))
    decoded = np.asarray(quantisation.decode(jnp.asarray(numbers), quantiser))
    for part in range(4):
        cut = x[:, 8 * part : 8 * part + 8]
        nearest = ((cut[:, None] - centres[part]) ** 2).sum(-1).argmin(1)
        np.testing.assert_array_equal(numbers[:, part], nearest)
        np.testing.assert_array_equal(decoded[:, 8 * part : 8 * part + 8], centres[part][nearest])


def test_the_error_is_no_larger_than_with_scikit_learns_centres():
    x = codes(2000)
    quantiser = quantisation.fit(jnp.asarray(x), jax.random.key(0))
    lost = np.asarray(quantisation.decode(quantisation.encode(jnp.asarray(x), quantiser), quantiser)) - x
    theirs = [
        KMeans(256, n_init=1, max_iter=10, random_state=0).fit(x[:, i : i + 8]).inertia_ for i in range(0, 32, 8)
    ]
    assert (lost**2).sum() < 1.05 * sum(theirs)


@pytest.mark.parametrize(
    ("n", "f", "message"), [(300, 30, "30 numbers cannot be cut into parts of 8"), (200, 32, "256 clusters of 200")]
)
def test_codes_that_cannot_be_quantised_are_refused(n, f, message):
    with pytest.raises(UserError, match=message):
        quantisation.fit(jnp.zeros((n, f)), jax.random.key(0))
