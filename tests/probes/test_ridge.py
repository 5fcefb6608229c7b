"""Tests of few-shot ridge regression against scikit-learn."""

import numpy as np
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.probes import ridge
from tests.probes.stored import clusters

NAMES = ("a", "b", "c")


@pytest.mark.parametrize("images", [12, 200])  # fewer and more than features
def test_the_fit_is_scikit_learns(images):
    from sklearn.linear_model import Ridge

    x, y = clusters(images, 30, 3)
    queries, _ = clusters(40, 30, 3, seed=1)
    fit = ridge.fit(x, y, 3, l2=1024.0)
    wide = x.astype(np.float64)

    def whiten(features):
        whitened = (features.astype(np.float64) - wide.mean(0)) / (wide.std(0) + 1e-5)
        return np.hstack([whitened, np.full((len(features), 1), 100.0)])

    reference = Ridge(alpha=1024.0, fit_intercept=False, solver="svd").fit(whiten(x), 2 * np.eye(3)[y] - 1)
    np.testing.assert_allclose(fit.scores(queries), reference.predict(whiten(queries)), atol=1e-5)


def test_a_draw_is_big_visions():
    labels = np.random.default_rng(0).integers(0, 3, 60)
    rng = np.random.default_rng(2)
    expected = [rng.permutation(np.where(labels == number)[0])[:5] for number in range(3)]
    assert np.array_equal(ridge.draw(labels, 5, 2, NAMES), np.concatenate(expected))
    assert np.array_equal(labels[ridge.draw(labels, 5, 2, NAMES)], np.repeat([0, 1, 2], 5))


def test_fewer_images_than_shots_are_refused():
    labels = np.array([0, 0, 0, 1, 2, 2])
    assert len(ridge.draw(labels, 1, 0, NAMES)) == 3
    with pytest.raises(UserError, match=r"class 'b' has 1 training image\(s\) with features, and 2 are to be drawn"):
        ridge.draw(labels, 2, 0, NAMES)
