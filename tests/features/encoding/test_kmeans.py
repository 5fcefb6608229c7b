"""k-means against scikit-learn's, by the distances of the vectors to their centres."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans, MiniBatchKMeans

from imagenet_repro.errors import UserError
from imagenet_repro.features.encoding import kmeans


def blobs(n=3000, d=8, k=20, seed=0):
    rng = np.random.default_rng(seed)
    return (4 * rng.normal(size=(k, d))[rng.integers(0, k, n)] + rng.normal(size=(n, d))).astype(np.float32)


def inertia(x, centres):
    return float(jnp.sum(kmeans.nearest(jnp.asarray(x), jnp.asarray(centres))[1]))


def test_centres_are_as_near_as_scikit_learns():
    x = blobs()  # the result of one start is random, so the test compares means
    ours = [inertia(x, kmeans.fit(jnp.asarray(x), 20, jax.random.key(seed))) for seed in range(8)]
    theirs = [KMeans(20, n_init=1, max_iter=25, random_state=seed).fit(x).inertia_ for seed in range(8)]
    assert np.mean(ours) < 1.05 * np.mean(theirs)


def test_mini_batches_come_near_to_lloyds_result():
    x = blobs()
    # A poor start gives a poor result in either implementation, so one run shows little.
    ours = [
        inertia(x, kmeans.fit(jnp.asarray(x), 20, jax.random.key(seed), iterations=100, batch=512))
        for seed in range(8)
    ]
    theirs = [
        MiniBatchKMeans(20, batch_size=512, n_init=1, max_iter=17, random_state=seed).fit(x).inertia_
        for seed in range(8)
    ]
    assert np.mean(ours) < 1.1 * np.mean(theirs)


def test_lloyd_from_the_same_centres_ends_at_the_same_ones():
    x = blobs()
    start = x[:20]
    ours = kmeans._lloyd(jnp.asarray(x), jnp.asarray(start), iterations=60)
    theirs = KMeans(20, init=start, n_init=1, max_iter=60, tol=0).fit(x)
    np.testing.assert_allclose(ours, theirs.cluster_centers_, atol=1e-3)


def test_the_nearest_is_found_block_by_block():
    x = np.random.default_rng(0).normal(size=(2 * kmeans.BLOCK + 5, 3)).astype(np.float32)
    centres = x[:7]
    numbers, distances = kmeans.nearest(jnp.asarray(x), jnp.asarray(centres))
    exact = ((x[:, None] - centres) ** 2).sum(-1)
    np.testing.assert_array_equal(numbers, exact.argmin(1))
    np.testing.assert_allclose(distances, exact.min(1), atol=1e-4)


def test_the_initial_centres_cover_distant_groups():
    x = np.repeat(np.eye(6, dtype=np.float32) * 100, 50, axis=0)
    centres = np.asarray(kmeans.plus_plus(jnp.asarray(x), 6, jax.random.key(3)))
    assert sorted(centres.argmax(1)) == list(range(6))


def test_an_empty_cluster_takes_the_farthest_vector():
    x = jnp.asarray([[0.0], [0.1], [0.2], [9.0]])
    start = jnp.asarray([[0.1], [50.0], [60.0]])
    centres = sorted(np.asarray(kmeans._lloyd(x, start, iterations=5))[:, 0].tolist())
    assert len(set(centres)) == 3
    assert centres[-1] == pytest.approx(9.0)


@pytest.mark.parametrize("batch", [0, 4])
def test_fewer_distinct_vectors_than_clusters_give_finite_centres(batch):
    x = jnp.ones((10, 3))
    assert np.isfinite(kmeans.fit(x, 5, jax.random.key(0), batch=batch)).all()


def test_more_clusters_than_vectors_are_refused():
    with pytest.raises(UserError, match="5 clusters of 3 descriptors"):
        kmeans.fit(jnp.zeros((3, 2)), 5, jax.random.key(0))


def test_the_same_key_gives_the_same_centres():
    x = jnp.asarray(blobs(500))
    a, b, c = (np.asarray(kmeans.fit(x, 9, jax.random.key(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
