"""The parts of linear SVMs: gradients, averages, and sampled negatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.config import Svm
from imagenet_repro.features import svm


def problem_of(rng, images=40, features=64, classes=10):
    x = jnp.asarray(rng.normal(size=(images, features)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, classes, images))
    weights, bias = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((features, classes), (classes,)))
    return x, labels, weights, bias


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_a_step_follows_the_gradient_of_the_objective(loss):
    x, labels, weights, bias = problem_of(np.random.default_rng(0))
    problem = Svm(regularisation=0.1, loss=loss, rate=0.3, power=0.0, bias=0.5)

    def complete(weights, bias):
        return svm.objective(x, labels, weights, bias, problem).sum()

    def mean_loss(weights, bias):
        return svm.loss(svm.scores(x, weights, bias, problem), labels, jax.random.key(0), problem).mean()

    expected = jax.grad(complete, argnums=(0, 1))(weights, bias)
    gradients = jax.grad(mean_loss, argnums=(0, 1))(weights, bias)
    length = svm.rate(jnp.asarray(7), problem)
    for value, gradient, slope in zip((weights, bias), gradients, expected, strict=True):
        np.testing.assert_allclose(
            svm.descend(value, gradient, length, problem), value - 0.3 * slope, atol=1e-4, rtol=1e-5
        )


def test_the_learning_rate_falls_as_in_asgd():
    problem = Svm(regularisation=1e-3, rate=2.0, power=0.75)
    steps = np.asarray([0, 1, 1000, 100_000])
    result = [float(svm.rate(jnp.asarray(step), problem)) for step in steps]
    np.testing.assert_allclose(result, 2 * (1 + 1e-3 * 2 * steps) ** -0.75, rtol=1e-5)


def test_averages_are_means_over_the_steps():
    values = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    mean = jnp.zeros(5)
    for step, value in enumerate(values):
        mean = svm.update_average(mean, jnp.asarray(value), jnp.asarray(step), 3)
        np.testing.assert_allclose(mean, values[min(3, step) : step + 1].mean(0), atol=1e-6)


def test_an_image_counts_for_its_class_and_the_sampled_negatives():
    labels = jnp.asarray([0, 4, 4, 9])
    signs = 2.0 * jax.nn.one_hot(labels, 10) - 1
    counts = np.asarray(svm._class_weights(signs, jax.random.key(0), 3))
    np.testing.assert_array_equal(counts.sum(1), 4)
    np.testing.assert_array_equal(counts[np.arange(4), labels], 1)
    often = np.mean([np.asarray(svm._class_weights(signs, jax.random.key(i), 3)) for i in range(300)], 0)
    np.testing.assert_allclose(often[0, 1:], 1 / 3, atol=0.1)
