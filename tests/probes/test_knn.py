"""Tests of the weighted vote against scikit-learn."""

import numpy as np
import pytest

from imagenet_repro.config.probe import KnnProbe
from imagenet_repro.errors import UserError
from imagenet_repro.probes import device_blocks, knn
from imagenet_repro.scoring.metrics import best_classes
from tests.probes.stored import clusters, store

CLASSES, TEMPERATURE = 5, 0.07
TRAIN, QUERIES = 1500, 90


@pytest.mark.parametrize("budget", [0, 2**20])
def test_votes_are_those_of_scikit_learn(tmp_path, monkeypatch, budget):
    from sklearn.neighbors import KNeighborsClassifier

    monkeypatch.setattr(device_blocks, "HOST_BYTES", budget)
    x, y = clusters(TRAIN, 12, CLASSES)
    queries, labels = clusters(QUERIES, 12, CLASSES, seed=1)
    train = store(tmp_path / "train", y, bad=(3, 700), pooled=x).rows(("pooled",))
    scored = store(tmp_path / "scored", labels, pooled=queries).rows(("pooled",))
    settings = KnnProbe(k=(10, 200))
    (votes,) = knn.votes(train, scored, settings, CLASSES)
    is_image = ~np.isin(np.arange(TRAIN), (3, 700))
    for k in settings.k:
        reference = KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / TEMPERATURE)
        ).fit(x[is_image].astype(np.float64), y[is_image])
        expected = reference.predict_proba(queries[votes.index].astype(np.float64))
        shares = np.exp(votes.scores[k])
        np.testing.assert_allclose(shares / shares.sum(1, keepdims=True), expected, atol=1e-5)
        assert np.array_equal(best_classes(votes.scores[k])[:, 0], expected.argmax(1))
    assert np.array_equal(votes.label, labels[votes.index])


def test_k_is_at_most_the_number_of_training_images():
    with pytest.raises(UserError, match=r"k=200: there are 150 training images .* give --probe\.knn\.k=10,20,100"):
        knn.check(KnnProbe(), 150)
    knn.check(KnnProbe(), 200)
