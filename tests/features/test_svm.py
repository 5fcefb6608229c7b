"""The linear machine against liblinear, as scikit-learn brings it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.svm import LinearSVC

from imagenet_repro.features import svm

REGULARISATION = 1e-3


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return x.astype(np.float32), y.astype(np.int32)


def trained(x, y, problem, *, epochs, batch=32, seed=0, classes=10):
    rng = np.random.default_rng(seed)
    step = jax.jit(functools.partial(svm.update, problem=problem))
    state = svm.create(x.shape[1], classes)
    key = jax.random.key(seed)
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for first in range(0, len(x) - batch + 1, batch):
            part = order[first : first + batch]
            state, _ = step(state, jnp.asarray(x[part]), jnp.asarray(y[part]), key)
    return state


def liblinear(x, y, loss):
    """The objective of each class at liblinear's solution, in float64."""
    found = LinearSVC(loss=loss, C=1 / (len(x) * REGULARISATION), tol=1e-6, max_iter=200_000, random_state=0).fit(x, y)
    signs = np.where(y[:, None] == np.arange(10), 1, -1)
    short = np.maximum(1 - signs * (x @ found.coef_.T + found.intercept_), 0)
    losses = (short**2 if loss == "squared_hinge" else short).mean(0)
    return losses + 0.5 * REGULARISATION * ((found.coef_**2).sum(1) + found.intercept_**2)


@pytest.mark.parametrize(("loss", "rate"), [("hinge", 2.0), ("squared_hinge", 0.5)])
def test_the_objective_is_within_a_hundredth_of_liblinears(digits, loss, rate):
    x, y = digits
    problem = svm.Problem(regularisation=REGULARISATION, loss=loss, rate=rate, average_from=2000)
    state = trained(x, y, problem, epochs=150)
    ours = np.asarray(svm.objective(jnp.asarray(x), jnp.asarray(y), state, problem))
    theirs = liblinear(x, y, loss)
    assert (ours < 1.01 * theirs).all()
    assert (ours > 0.999 * theirs).all()  # nothing is below the minimum


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_a_step_follows_the_gradient_of_the_objective(digits, loss):
    x, y = (jnp.asarray(part[:40]) for part in digits)
    problem = svm.Problem(regularisation=0.1, loss=loss, rate=0.3, power=0.0, bias=0.5)
    rng = np.random.default_rng(0)
    weights, bias = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((64, 10), (10,)))
    before = svm.State(weights, bias, weights, bias, jnp.asarray(7))

    def total(weights, bias):
        return svm.objective(x, y, svm.State(weights, bias, weights, bias, before.step), problem).sum()

    by_weights, by_bias = jax.grad(total, argnums=(0, 1))(weights, bias)
    after, _ = svm.update(before, x, y, jax.random.key(0), problem)
    np.testing.assert_allclose(after.weights, weights - 0.3 * by_weights, atol=1e-5)
    np.testing.assert_allclose(after.bias, bias - 0.3 * by_bias, atol=1e-5)


def test_averages_are_means_over_the_steps(digits):
    x, y = digits
    problem = svm.Problem(average_from=3)
    state, weights = svm.create(64, 10), []
    for number in range(8):
        part = slice(32 * number, 32 * number + 32)
        state, _ = svm.update(state, jnp.asarray(x[part]), jnp.asarray(y[part]), jax.random.key(0), problem)
        weights.append(state.weights)
    np.testing.assert_allclose(state.mean_weights, np.mean(weights[3:], 0), atol=1e-6)


def test_an_image_counts_for_its_class_and_so_many_others():
    labels = jnp.asarray([0, 4, 4, 9])
    signs = 2.0 * jax.nn.one_hot(labels, 10) - 1
    counts = np.asarray(svm._counting(labels, signs, jax.random.key(0), 3))
    np.testing.assert_array_equal(counts.sum(1), 4)
    np.testing.assert_array_equal(counts[np.arange(4), labels], 1)
    often = np.mean([np.asarray(svm._counting(labels, signs, jax.random.key(i), 3)) for i in range(300)], 0)
    np.testing.assert_allclose(often[0, 1:], 1 / 3, atol=0.1)


def test_sampled_negatives_still_tell_the_classes_apart(digits):
    x, y = digits
    problem = svm.Problem(regularisation=1e-4, negatives=2, rate=2.0)
    state = trained(x, y, problem, epochs=20)
    assert np.mean(np.asarray(svm.scores(jnp.asarray(x), state, problem)).argmax(1) == y) > 0.93


@pytest.mark.parametrize("classes", [1, 3])
def test_one_class_and_classes_without_images_are_defined(classes):
    x = jnp.eye(4)
    state, loss = svm.update(svm.create(4, classes), x, jnp.zeros(4, jnp.int32), jax.random.key(0), svm.Problem())
    assert np.isfinite(float(loss))
    assert np.asarray(svm.scores(x, state, svm.Problem())).argmax(1).tolist() == [0] * 4
