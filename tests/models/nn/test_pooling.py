"""Tests of maximum pooling against XLA's operation: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from imagenet_repro.models.nn import pooling, target


def both_ends(padding):
    return tuple((p, p) if isinstance(p, int) else p for p in padding)


def xla_pool(x, window, stride, padding):
    pads = [(0, 0), *both_ends(padding), (0, 0)]
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *stride, 1), pads)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def value_and_gradients(function, *arguments):
    def run(dy, *arguments):
        y, pull = jax.vjp(function, *arguments)
        return y, *pull(dy.astype(y.dtype))

    return jax.jit(run)(normal(7, *jax.eval_shape(function, *arguments).shape), *arguments)


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding"),
    [
        ((32, 32), (3, 3), (2, 2), (1, 1)),
        ((15, 14), (3, 3), (2, 2), (0, 0)),
        ((9, 7), (2, 3), (1, 4), (1, 0)),
        ((8, 8), (3, 3), (2, 2), ((0, 1), (0, 1))),
        ((6, 5), (3, 3), (1, 1), (1, 1)),
        ((6, 7), (3, 2), (1, 1), ((0, 2), (1, 0))),
    ],
)
def test_pooling_and_its_gradient_equal_xla_also_on_ties(size, window, stride, padding):
    x = jnp.round(normal(0, 2, *size, 8))  # many equal values: the first of a window takes the gradient
    ours = value_and_gradients(lambda x: pooling.max_pool(x, window, stride, both_ends(padding)), x)
    theirs = value_and_gradients(lambda x: xla_pool(x, window, stride, padding), x)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_forms_of_both_platforms_agree_bit_for_bit_on_ties(dtype):
    x = jnp.round(normal(0, 2, 15, 14, 8)).astype(dtype)
    dy = jnp.round(4 * normal(1, 2, 8, 7, 8)).astype(dtype)  # whole numbers, whose sums are exact in any order

    def run(platform):
        with target.compile_for(platform):
            y, pull = jax.vjp(lambda x: pooling.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))), x)
            return y, pull(dy)[0]

    for ours, xla in zip(run("gpu"), run("tpu"), strict=True):
        np.testing.assert_array_equal(ours.astype(jnp.float32), xla.astype(jnp.float32))


def test_gradient_on_a_gpu_has_no_scatter():
    with target.compile_for("gpu"):
        gradient = jax.grad(lambda x: pooling.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))).sum())
        text = str(jax.make_jaxpr(gradient)(normal(0, 2, 15, 14, 8)))
    assert "scatter" not in text
