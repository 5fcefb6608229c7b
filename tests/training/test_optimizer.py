"""Tests of optimizers against plain transcriptions of their published formulas in float64."""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.config import AdamW, Lamb, Lion, Muon, Optimizer, RmsProp, ScheduleFreeAdamW, Sgd, resolve_config
from imagenet_repro.training import optimizer

RATES = [0.1, 0.1, 0.02, 0.05]


def ours(spec, start, gradients, clip_norm=0.0, layers=None):
    tx = optimizer.create(spec, clip_norm, layers)
    params = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
    state = tx.init(params)
    for rate, gradient in zip(RATES, gradients, strict=True):
        gradient = {name: jnp.asarray(value, jnp.float32) for name, value in gradient.items()}
        updates, state = tx.update(gradient, state, params, learning_rate=jnp.float32(rate))
        params = jax.tree.map(jnp.add, params, updates)
    return {name: np.asarray(value) for name, value in params.items()}


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    shapes = {"conv.weight": (3, 4), "norm.weight": (4,), "pos_embed": (2, 4)}
    start = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return start, [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in RATES]


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_pytorchs(problem, nesterov):
    start, gradients = problem
    spec = Sgd(momentum=0.9, nesterov=nesterov, weight_decay=0.01)
    result = ours(spec, start, gradients)
    for name, w in start.items():
        v = np.zeros_like(w)
        for rate, gradient in zip(RATES, gradients, strict=True):
            g = gradient[name] + 0.01 * w
            v = 0.9 * v + g
            w = w - rate * (g + 0.9 * v if nesterov else v)
        np.testing.assert_allclose(result[name], w, rtol=1e-5, atol=1e-6)


def test_adamw_decouples_weight_decay_and_excludes_scales_and_biases(problem):
    start, gradients = problem
    result = ours(AdamW(weight_decay=0.1), start, gradients)
    for name, w in start.items():
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
            m = 0.9 * m + 0.1 * gradient[name]
            v = 0.999 * v + 0.001 * gradient[name] ** 2
            step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            w = w - rate * (step + 0.1 * w * (w.ndim > 1))
        np.testing.assert_allclose(result[name], w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("mask", "always", "adapted"), [("all", False, 3), ("no_norm_bias", False, 2), ("no_norm_bias", True, 3)]
)
def test_lamb_scales_each_tensor_that_decays_or_each_by_its_trust_ratio(problem, mask, always, adapted):
    start, gradients = problem
    result = ours(Lamb(weight_decay=0.1, decay_mask=mask, always_adapt=always), start, gradients)
    names = ["conv.weight", "pos_embed", "norm.weight"][:adapted]
    for name, w in start.items():
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
            m = 0.9 * m + 0.1 * gradient[name]
            v = 0.999 * v + 0.001 * gradient[name] ** 2
            step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + 0.1 * w * (w.ndim > 1 or mask == "all")
            ratio = np.linalg.norm(w) / np.linalg.norm(step) if name in names else 1.0
            w = w - rate * ratio * step
        np.testing.assert_allclose(result[name], w, rtol=1e-4, atol=1e-5)


def test_rmsprop_is_tensorflows(problem):
    """tf.compat.v1.train.RMSPropOptimizer: mean square from one, epsilon inside the root, rate inside the momentum."""
    start, gradients = problem
    result = ours(RmsProp(weight_decay=0.0), start, gradients)
    for name, w in start.items():
        square, momentum = np.ones_like(w), np.zeros_like(w)
        for rate, gradient in zip(RATES, gradients, strict=True):
            square = 0.9 * square + 0.1 * gradient[name] ** 2
            momentum = 0.9 * momentum + rate * gradient[name] / np.sqrt(square + 1e-3)
            w = w - momentum
        np.testing.assert_allclose(result[name], w, rtol=1e-5, atol=1e-6)


def test_lion_takes_the_sign_of_an_interpolated_momentum(problem):
    """Chen et al. 2023, algorithm 2."""
    start, gradients = problem
    result = ours(Lion(weight_decay=0.1), start, gradients)
    for name, w in start.items():
        m = np.zeros_like(w)
        for rate, gradient in zip(RATES, gradients, strict=True):
            w = w - rate * (np.sign(0.9 * m + 0.1 * gradient[name]) + 0.1 * w * (w.ndim > 1))
            m = 0.99 * m + 0.01 * gradient[name]
        np.testing.assert_allclose(result[name], w, rtol=1e-5, atol=1e-6)


def orthogonalize(matrix, steps=5):
    """Five iterations of Newton and Schulz with the coefficients of Jordan et al. 2024."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / np.linalg.norm(matrix)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def test_muon_orthogonalizes_hidden_matrices_and_leaves_the_rest_to_adamw():
    rng = np.random.default_rng(1)
    shapes = {
        "stem.weight": (4, 4),
        "conv.weight": (3, 3, 2, 6),
        "fc.weight": (5, 12),
        "fc.bias": (12,),
        "head.weight": (6, 3),
    }
    layers = {"stem.weight": 0, "conv.weight": 1, "fc.weight": 2, "fc.bias": 2, "head.weight": 3}
    start = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    gradients = [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in RATES]
    spec = Muon(learning_rate=0.02, adam_learning_rate=0.002, weight_decay=0.1)
    result = ours(spec, start, gradients, layers=layers)
    for name, w in start.items():
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
            g = gradient[name]
            decay = 0.1 * w * (w.ndim > 1)
            if name in ("conv.weight", "fc.weight"):
                m = 0.95 * m + 0.05 * g
                ahead = 0.95 * m / (1 - 0.95 ** (t + 1)) + 0.05 * g / (1 - 0.95**t)
                matrix = ahead.reshape(-1, w.shape[-1])
                scale = np.sqrt(max(1, matrix.shape[1] / matrix.shape[0]))
                w = w - rate * (scale * orthogonalize(matrix).reshape(w.shape) + decay)
            else:
                m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
                step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-10)
                w = w - 0.1 * rate * step - rate * 0.1 * decay
        np.testing.assert_allclose(result[name], w, rtol=1e-3, atol=1e-4)


def test_schedule_free_evaluates_the_average_of_its_iterates(problem):
    """Defazio et al. 2024, algorithm 1: x, y and z written out."""
    start, gradients = problem
    spec = ScheduleFreeAdamW(weight_decay=0.1)
    tx = optimizer.create(spec)
    params = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
    state = tx.init(params)
    for rate, gradient in zip(RATES, gradients, strict=True):
        gradient = {name: jnp.asarray(value, jnp.float32) for name, value in gradient.items()}
        updates, state = tx.update(gradient, state, params, learning_rate=jnp.float32(rate))
        params = jax.tree.map(jnp.add, params, updates)
    average = optimizer.average(spec, state, params)
    for name, w in start.items():
        x = z = y = w
        v, total = np.zeros_like(w), 0.0
        for t, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
            v = 0.999 * v + 0.001 * gradient[name] ** 2
            z = z - rate * (gradient[name] / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + 0.1 * y * (w.ndim > 1))
            weight = max(RATES[:t]) ** 2
            total += weight
            x = x + weight / total * (z - x)
            y = 0.9 * x + 0.1 * z
        np.testing.assert_allclose(params[name], y, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(average[name], x, rtol=1e-4, atol=1e-5)


def test_an_optimizer_without_a_branch_is_an_error():
    @dataclasses.dataclass(frozen=True)
    class Adamax(AdamW):
        name: str = "adamax"

    with pytest.raises(TypeError, match="Adamax has no branch"):
        optimizer.create(Adamax())


def test_clipping_bounds_the_norm_over_all_tensors(problem):
    start, gradients = problem
    spec = Sgd(momentum=0.0, weight_decay=0.0)
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients[0].values()))
    clipped = [{name: g * min(1, 0.5 / norm) for name, g in gradients[0].items()}] + [
        {name: np.zeros_like(g) for name, g in gradients[0].items()}
    ] * 3
    result = ours(spec, start, [gradients[0], *clipped[1:]], clip_norm=0.5)
    for name, w in start.items():
        np.testing.assert_allclose(result[name], w - RATES[0] * clipped[0][name], rtol=1e-5, atol=1e-6)


def test_masks_select_the_parameters_that_decay():
    params = {
        "a.weight": jnp.ones((2, 2)),
        "norm.weight": jnp.ones(2),
        "a.bias": jnp.ones(2),
        "token": jnp.ones((1, 2)),
    }
    decaying = {name: [k for k, v in optimizer.decay_mask(name)(params).items() if v] for name in
                ("all", "no_norm_bias", "kernels")}  # fmt: skip
    assert decaying == {"all": list(params), "no_norm_bias": ["a.weight", "token"], "kernels": ["a.weight"]}


LAYERS = {"conv.weight": 0, "norm.weight": 2, "pos_embed": 3}


# Muon's update depends on which layers are the first and the last.
NAMES = [kind.name for kind in typing.get_args(Optimizer) if kind is not Muon]


@pytest.mark.parametrize("name", NAMES)
def test_layer_decay_multiplies_the_rate_of_every_layer_below_the_last(problem, name):
    """Compare every parameter with a run in which all parameters have its rate."""
    start, gradients = problem
    settings = {"name": name, "weight_decay": 0.0}
    result = ours(
        resolve_config({"optimizer": settings | {"layer_decay": 0.7}}).optimizer, start, gradients, layers=LAYERS
    )
    plain = optimizer.create(resolve_config({"optimizer": settings}).optimizer)
    for key, layer in LAYERS.items():
        params = {key: jnp.asarray(start[key], jnp.float32)}
        state = plain.init(params)
        for rate, gradient in zip(RATES, gradients, strict=True):
            updates, state = plain.update(
                {key: jnp.asarray(gradient[key], jnp.float32)},
                state,
                params,
                learning_rate=jnp.float32(rate * 0.7 ** (3 - layer)),
            )
            params = jax.tree.map(jnp.add, params, updates)
        np.testing.assert_allclose(result[key], params[key], rtol=1e-4, atol=1e-5)


def test_layer_decay_needs_layers():
    for spec in (AdamW(layer_decay=0.9), Muon()):
        with pytest.raises(ValueError, match="needs the layer of each parameter"):
            optimizer.create(spec)


def test_filters_above_the_bound_are_rescaled_to_it_and_others_are_unchanged():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 4, 6)).astype(np.float32)
    kernel *= np.asarray([0.01, 0.05, 0.1, 0.2, 1, 10]) / np.sqrt(np.square(kernel).mean((0, 1, 2)))
    params = {"c.weight": kernel, "fc.weight": 9 * np.ones((4, 4), np.float32), "pos": 9 * np.ones((1, 2, 2, 3))}
    bounded = optimizer.bound_filters(jax.tree.map(jnp.asarray, params), 0.1)
    rms = np.sqrt(np.square(bounded["c.weight"]).mean((0, 1, 2)))
    np.testing.assert_allclose(rms, [0.01, 0.05, 0.1, 0.1, 0.1, 0.1], rtol=1e-5)
    np.testing.assert_array_equal(bounded["c.weight"][..., :2], kernel[..., :2])
    direction = np.asarray(bounded["c.weight"])[..., 4] / kernel[..., 4]
    np.testing.assert_allclose(direction, direction.flat[0], rtol=1e-5)
    for name in ("fc.weight", "pos"):
        np.testing.assert_array_equal(bounded[name], params[name])
