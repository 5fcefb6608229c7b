"""Tests of logistic regression against scikit-learn, and of the search for its strength."""

import numpy as np
import pytest

from imagenet_repro.config.probe import LogisticProbe
from imagenet_repro.errors import UserError
from imagenet_repro.probes import logistic
from imagenet_repro.probes.device_blocks import DeviceBlocks
from tests.probes.stored import clusters, store

CLASSES = 4


@pytest.mark.parametrize("strength", [0.5, 300.0])
def test_predictions_are_those_of_scikit_learn(tmp_path, strength):
    from sklearn.linear_model import LogisticRegression

    x, y = clusters(1500, 8, CLASSES)
    queries, _ = clusters(500, 8, CLASSES, seed=1)
    blocks = DeviceBlocks(store(tmp_path, y, pooled=x).rows(("pooled",)), is_split=True)
    fit = logistic.fit(blocks, strength, LogisticProbe(tolerance=1e-6), num_classes=CLASSES)
    reference = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=2000).fit(x.astype(np.float64), y)
    expected = reference.predict_log_proba(queries.astype(np.float64))
    scores = fit.scores(queries).astype(np.float64)
    found = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    margin = np.diff(np.sort(expected, axis=1)[:, -2:], axis=1)[:, 0]
    assert np.array_equal(found.argmax(1)[margin > 4e-3], expected.argmax(1)[margin > 4e-3])
    assert np.mean(margin > 4e-3) > 0.99


def fit_of(strength, start):
    return logistic.Fit(strength, np.zeros((1, 2), np.float32), np.zeros(2, np.float32), 1, True)


def test_the_search_ends_at_eight_steps_a_decade_beside_the_best():
    def error_of(fit):
        return round(1000 * abs(np.log10(fit.strength) - 0.41))

    found = list(logistic.search(fit_of, error_of, LogisticProbe()))
    strengths = [fit.strength for fit, _ in found]
    assert len(strengths) == len(set(strengths)) <= logistic.n_fits(LogisticProbe()) == 15
    best = strengths[logistic.select([error for _, error in found], strengths)]
    assert np.log10(best) == pytest.approx(0.375)  # the multiple of 1/8 nearest to 0.41
    assert min(strengths) == pytest.approx(1e-6)
    assert max(strengths) == pytest.approx(1e6)


def test_of_equal_errors_the_strongest_regularisation_is_selected():
    assert logistic.select([3, 2, 2, 4], [10.0, 1.0, 0.1, 0.01]) == 1


def test_an_empty_range_is_refused():
    with pytest.raises(UserError, match="weakest must not be larger"):
        next(logistic.search(fit_of, lambda fit: 0, LogisticProbe(weakest=10.0, strongest=1.0)))
