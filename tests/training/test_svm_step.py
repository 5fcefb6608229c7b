"""Tests of the step of linear SVMs against scikit-learn's liblinear, and spread over devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from sklearn.datasets import load_digits
from sklearn.svm import LinearSVC

from imagenet_repro.config import Svm
from imagenet_repro.features import svm
from imagenet_repro.training import parallel, state, svm_step
from imagenet_repro.training.step import AXIS
from imagenet_repro.training.svm_step import CODES, SvmStep

REGULARISATION = 1e-3


@functools.cache
def digits():
    x, y = load_digits(return_X_y=True)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return x.astype(np.float32), y.astype(np.int32)


def batch_of(index, channels):
    x, y = digits()
    return {CODES + name: x[index] for name in channels} | {"label": y[index]}


def first_state(channels, features=64, classes=10):
    params = svm_step.initial(dict.fromkeys(channels, features), classes)
    return state.create(params, {"a.mixture.means": jnp.ones(3)}, optax.identity(), ema=True, seed=0)


class OneDevice(parallel.ShardMap):
    """One device for thousands of steps, because eight devices on two cores would wait for each other."""

    def __init__(self):
        super().__init__()
        self.mesh = Mesh(np.asarray(jax.devices()[:1]), (AXIS,))


def trained(problem, *, average_from=0, epochs, batch=32, spread=None, channels=("a",)):
    spread = spread or OneDevice()
    step = SvmStep(tuple(channels), problem, average_from)
    now = spread.put_state(first_state(channels))
    compiled = spread.compile_training(step, now, spread.put_batch(batch_of(np.arange(batch), channels)))
    rng, count = np.random.default_rng(0), len(digits()[0])
    for _ in range(epochs):
        order = rng.permutation(count)
        for first in range(0, count - batch + 1, batch):
            device = spread.put_batch(batch_of(order[first : first + batch], channels))
            now, measures = compiled(now, device, parallel.NO_RATE)
            jax.block_until_ready(measures)
    return now, jax.device_get(measures)


def liblinear(loss):
    """Return the objective of each class at liblinear's solution, in float64."""
    x, y = digits()
    result = LinearSVC(loss=loss, C=1 / (len(x) * REGULARISATION), tol=1e-6, max_iter=200_000, random_state=0).fit(
        x, y
    )
    signs = np.where(y[:, None] == np.arange(10), 1, -1)
    short = np.maximum(1 - signs * (x @ result.coef_.T + result.intercept_), 0)
    losses = (short**2 if loss == "squared_hinge" else short).mean(0)
    return losses + 0.5 * REGULARISATION * ((result.coef_**2).sum(1) + result.intercept_**2)


@pytest.mark.parametrize(("loss", "rate"), [("hinge", 2.0), ("squared_hinge", 0.5)])
def test_the_objective_is_within_a_hundredth_of_liblinears(loss, rate):
    problem = Svm(regularisation=REGULARISATION, loss=loss, rate=rate)
    params, _ = trained(problem, average_from=2000, epochs=150)[0].evaluated
    x, y = map(jnp.asarray, digits())
    ours = np.asarray(svm.objective(x, y, params["a.weight"], params["a.bias"], problem))
    theirs = liblinear(loss)
    assert (ours < 1.01 * theirs).all()
    assert (ours > 0.999 * theirs).all()  # nothing is below the minimum


@pytest.mark.parametrize("mode", ["pmap", "shard_map", "fsdp"])
def test_eight_devices_take_the_steps_of_one(mode):
    problem = Svm(rate=2.0, loss="squared_hinge")
    expected, expected_measures = trained(problem, epochs=1, average_from=5, channels=("a", "b"))
    result, measures = trained(problem, epochs=1, average_from=5, spread=parallel.create(mode), channels=("a", "b"))
    for name, value in expected.params.items():
        np.testing.assert_allclose(result.params[name], value, atol=1e-5)
        np.testing.assert_allclose(result.ema["params"][name], expected.ema["params"][name], atol=1e-5)
    assert measures["top1_correct"] == expected_measures["top1_correct"]
    assert measures["loss"] == pytest.approx(expected_measures["loss"], rel=1e-4)


def test_channels_learn_by_themselves_and_their_scores_are_averaged():
    problem = Svm(rate=2.0)
    alone, _ = trained(problem, epochs=1)
    both, _ = trained(problem, epochs=1, channels=("a", "b"))
    np.testing.assert_allclose(both.params["a.weight"], alone.params["a.weight"], atol=1e-6)
    np.testing.assert_allclose(both.params["b.weight"], alone.params["a.weight"], atol=1e-6)
    x = jnp.asarray(digits()[0][:50])
    mixed = svm_step.scores(both.params, {"a": x, "b": 0 * x}, problem)
    single = svm_step.scores(alone.params, {"a": x}, problem)
    bias = both.params["b.bias"]
    np.testing.assert_allclose(mixed, (single + bias) / 2, atol=1e-5)


def test_sampled_negatives_still_separate_the_classes():
    problem = Svm(regularisation=1e-4, negatives=2, rate=2.0)
    params, _ = trained(problem, epochs=20)[0].evaluated
    x, y = digits()
    result = np.asarray(svm_step.scores(params, {"a": jnp.asarray(x)}, problem))
    assert np.mean(result.argmax(1) == y) > 0.93


@pytest.mark.parametrize("classes", [1, 3])
def test_one_class_and_classes_without_images_are_defined(classes):
    spread = parallel.create("shard_map")
    params = svm_step.initial({"a": 4}, classes)
    now = spread.put_state(state.create(params, {}, optax.identity(), ema=True, seed=0))
    batch = spread.put_batch({CODES + "a": np.eye(8, 4, dtype=np.float32), "label": np.zeros(8, np.int32)})
    after, measures = spread.compile_training(SvmStep(("a",), Svm(), 0), now, batch)(now, batch, parallel.NO_RATE)
    assert np.isfinite(float(measures["loss"]))
    result = svm_step.scores(after.evaluated[0], {"a": jnp.eye(4)}, Svm())
    assert np.asarray(result).argmax(1).tolist() == [0] * 4


def test_the_vocabulary_travels_with_the_state_unchanged():
    after, _ = trained(dataclasses.replace(Svm(), rate=1.0), epochs=1)
    np.testing.assert_array_equal(after.evaluated[1]["a.mixture.means"], 1)
