"""Optimizers against plain transcriptions of their published formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro import config as cfg
from imagenet_repro.training import optimizer

RATES = [0.1, 0.1, 0.02, 0.05]


def ours(spec, start, gradients, clip_norm=0.0):
    tx = optimizer.create(spec, clip_norm)
    params = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
    state = tx.init(params)
    for rate, gradient in zip(RATES, gradients, strict=True):
        gradient = {name: jnp.asarray(value, jnp.float32) for name, value in gradient.items()}
        updates, state = tx.update(gradient, state, params, rate=jnp.float32(rate))
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
    spec = cfg.Sgd(momentum=0.9, nesterov=nesterov, weight_decay=0.01)
    found = ours(spec, start, gradients)
    for name, w in start.items():
        v = np.zeros_like(w)
        for rate, gradient in zip(RATES, gradients, strict=True):
            g = gradient[name] + 0.01 * w
            v = 0.9 * v + g
            w = w - rate * (g + 0.9 * v if nesterov else v)
        np.testing.assert_allclose(found[name], w, rtol=1e-5, atol=1e-6)


def test_adamw_decays_apart_from_the_gradient_and_spares_scales_and_biases(problem):
    start, gradients = problem
    found = ours(cfg.AdamW(weight_decay=0.1), start, gradients)
    for name, w in start.items():
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
            m = 0.9 * m + 0.1 * gradient[name]
            v = 0.999 * v + 0.001 * gradient[name] ** 2
            step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            w = w - rate * (step + 0.1 * w * (w.ndim > 1))
        np.testing.assert_allclose(found[name], w, rtol=1e-4, atol=1e-5)


def test_lamb_scales_each_tensor_by_its_trust_ratio(problem):
    start, gradients = problem
    found = ours(cfg.Lamb(weight_decay=0.1, decay_mask="all"), start, gradients)
    for name, w in start.items():
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
            m = 0.9 * m + 0.1 * gradient[name]
            v = 0.999 * v + 0.001 * gradient[name] ** 2
            step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + 0.1 * w
            w = w - rate * np.linalg.norm(w) / np.linalg.norm(step) * step
        np.testing.assert_allclose(found[name], w, rtol=1e-4, atol=1e-5)


def test_rmsprop_is_tensorflows(problem):
    """tf.compat.v1.train.RMSPropOptimizer: mean square from one, epsilon inside the root, rate inside the momentum."""
    start, gradients = problem
    found = ours(cfg.RmsProp(weight_decay=0.0), start, gradients)
    for name, w in start.items():
        square, momentum = np.ones_like(w), np.zeros_like(w)
        for rate, gradient in zip(RATES, gradients, strict=True):
            square = 0.9 * square + 0.1 * gradient[name] ** 2
            momentum = 0.9 * momentum + rate * gradient[name] / np.sqrt(square + 1e-3)
            w = w - momentum
        np.testing.assert_allclose(found[name], w, rtol=1e-5, atol=1e-6)


def test_clipping_bounds_the_norm_over_all_tensors(problem):
    start, gradients = problem
    spec = cfg.Sgd(momentum=0.0, weight_decay=0.0)
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients[0].values()))
    clipped = [{name: g * min(1, 0.5 / norm) for name, g in gradients[0].items()}] + [
        {name: np.zeros_like(g) for name, g in gradients[0].items()}
    ] * 3
    found = ours(spec, start, [gradients[0], *clipped[1:]], clip_norm=0.5)
    for name, w in start.items():
        np.testing.assert_allclose(found[name], w - RATES[0] * clipped[0][name], rtol=1e-5, atol=1e-6)


def test_masks_name_what_decays():
    params = {
        "a.weight": jnp.ones((2, 2)),
        "norm.weight": jnp.ones(2),
        "a.bias": jnp.ones(2),
        "token": jnp.ones((1, 2)),
    }
    decaying = {name: [k for k, v in optimizer.decay_mask(name)(params).items() if v] for name in
                ("all", "no_norm_bias", "kernels")}  # fmt: skip
    assert decaying == {"all": list(params), "no_norm_bias": ["a.weight", "token"], "kernels": ["a.weight"]}
