"""Tests of losses against their closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.config import SigmoidLoss, SoftmaxLoss
from imagenet_repro.training import loss

LOGITS = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32) * 3
# Targets: one class, smoothed, a mix of two classes, and a mix with a small share of the second class.
TARGETS = np.asarray(
    [[1, 0, 0, 0, 0], [0.02, 0.92, 0.02, 0.02, 0.02], [0.6, 0, 0, 0.4, 0], [0, 0.9, 0.1, 0, 0]], np.float32
)


def losses(spec):
    return np.asarray(loss.per_image(spec, jnp.asarray(LOGITS), jnp.asarray(TARGETS)))


def binary(targets):
    p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    return -(targets * np.log(p) + (1 - targets) * np.log(1 - p))


def test_softmax_is_the_cross_entropy_with_shares():
    logits = LOGITS.astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(losses(SoftmaxLoss()), -(TARGETS * log_p).sum(1), rtol=1e-5)


@pytest.mark.parametrize(("reduction", "reduce"), [("mean", np.mean), ("sum", np.sum)])
def test_sigmoid_is_the_binary_cross_entropy_over_the_classes(reduction, reduce):
    np.testing.assert_allclose(losses(SigmoidLoss(reduction=reduction)), reduce(binary(TARGETS), 1), rtol=1e-5)


def test_a_threshold_sets_the_target_of_every_class_above_it_to_one():
    targets = np.asarray([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 1, 0], [0, 1, 0, 0, 0]])
    np.testing.assert_allclose(losses(SigmoidLoss(threshold=0.2)), binary(targets).mean(1), rtol=1e-5)


def test_large_logits_do_not_overflow():
    logits, targets = jnp.full((1, 2), 1e4, jnp.float32), jnp.asarray([[1.0, 0.0]], jnp.float32)
    np.testing.assert_allclose(loss.per_image(SigmoidLoss(reduction="sum"), logits, targets), [1e4])
