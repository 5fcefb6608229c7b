"""Tests of the CPU's convolution against XLA's operation: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from imagenet_repro.models.nn import cpu_convolution
from imagenet_repro.zoo import counting

CASES = {
    "3x3 on 16x16": ((16, 16), (3, 3), (1, 1), (1, 1)),
    "3x3 on 2x2": ((2, 2), (3, 3), (1, 1), (1, 1)),
    "3x3 on one pixel": ((1, 1), (3, 3), (1, 1), (1, 1)),
    "3x3/2 on 4x4": ((4, 4), (3, 3), (2, 2), (1, 1)),
    "1x1": ((9, 9), (1, 1), (1, 1), (0, 0)),
    "1x1/2": ((8, 8), (1, 1), (2, 2), (0, 0)),
    "1x1 padded": ((4, 4), (1, 1), (1, 1), (1, 1)),
    "ResNet's stem": ((30, 31), (7, 7), (2, 2), (3, 3)),
    "AlexNet's stem": ((35, 33), (11, 11), (4, 4), (2, 2)),
    "unequal sides, remainder": ((6, 8), (5, 3), (2, 3), (1, 2)),
    "stride beyond the kernel": ((10, 11), (2, 2), (3, 3), (0, 0)),
    "TensorFlow's 3x3/2": ((8, 8), (3, 3), (2, 2), ((0, 1), (0, 1))),
    "unequal ends, large": ((20, 21), (5, 5), (2, 2), ((1, 2), (2, 0))),
}


def both_ends(padding):
    return tuple((p, p) if isinstance(p, int) else p for p in padding)


def xla(x, weight, stride, padding, **kwargs):
    pads = both_ends(padding)
    return lax.conv_general_dilated(x, weight, stride, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), **kwargs)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def value_and_gradients(function, *arguments):
    def run(dy, *arguments):
        y, pull = jax.vjp(function, *arguments)
        return y, *pull(dy.astype(y.dtype))

    return jax.jit(run)(normal(7, *jax.eval_shape(function, *arguments).shape), *arguments)


@pytest.mark.parametrize("case", CASES)
def test_convolution_and_both_gradients_equal_xla(case):
    (height, width), kernel, stride, padding = CASES[case]
    pads = both_ends(padding)
    x, weight = normal(0, 2, height, width, 3), normal(1, *kernel, 3, 5)
    ours = value_and_gradients(lambda x, w: cpu_convolution.convolve(x, w, stride=stride, padding=pads), x, weight)
    theirs = value_and_gradients(lambda x, w: xla(x, w, stride, padding), x, weight)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


# (groups, in, out), then as above
GROUPED = {
    "depthwise 3x3": ((6, 6, 6), (5, 7), (3, 3), (1, 1), (1, 1)),
    "depthwise 3x3/2, TensorFlow's": ((6, 6, 6), (8, 8), (3, 3), (2, 2), ((0, 1), (0, 1))),
    "depthwise 5x5/2, remainder": ((6, 6, 6), (9, 8), (5, 5), (2, 2), (2, 2)),
    "depthwise 7x7 on 2x2": ((6, 6, 6), (2, 2), (7, 7), (1, 1), (3, 3)),
    "depthwise, padded beyond the kernel": ((4, 4, 4), (3, 3), (2, 2), (1, 1), (2, 3)),
    "two outputs for each channel": ((4, 4, 8), (5, 5), (3, 3), (1, 1), (1, 1)),
    "ResNeXt's": ((32, 128, 128), (4, 4), (3, 3), (1, 1), (1, 1)),
    "ResNeXt's/2": ((32, 128, 64), (5, 4), (3, 3), (2, 2), (1, 1)),
    "groups that do not merge": ((2, 80, 6), (4, 4), (3, 2), (1, 1), (1, 0)),
    "three merged of six": ((6, 60, 12), (4, 4), (1, 1), (1, 1), (0, 0)),
}


@pytest.mark.parametrize("case", GROUPED)
def test_groups_and_both_gradients_equal_xla(case):
    (groups, features, out_features), size, kernel, stride, padding = GROUPED[case]
    options = {"stride": stride, "padding": both_ends(padding), "groups": groups}
    x, weight = normal(0, 3, *size, features), normal(1, *kernel, features // groups, out_features)
    ours = value_and_gradients(lambda x, w: cpu_convolution.convolve(x, w, **options), x, weight)
    theirs = value_and_gradients(lambda x, w: xla(x, w, stride, padding, feature_group_count=groups), x, weight)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("groups", [1, 8, 64])
def test_bfloat16_keeps_its_type_and_agrees_with_float32_to_its_precision(groups):
    x, weight = normal(0, 2, 4, 4, 64), normal(1, 3, 3, 64 // groups, 64)
    half = [a.astype(jnp.bfloat16) for a in (x, weight)]
    exact = [a.astype(jnp.float32) for a in half]

    def convolve(x, w):
        return cpu_convolution.convolve(x, w, padding=both_ends((1, 1)), groups=groups)

    for low, high in zip(value_and_gradients(convolve, *half), value_and_gradients(convolve, *exact), strict=True):
        assert low.dtype == jnp.bfloat16
        error = np.linalg.norm(low.astype(jnp.float32) - high) / np.linalg.norm(high)
        assert error < 2**-7


@pytest.mark.parametrize("groups", [4, 16])
def test_flops_of_groups_are_those_of_xla(groups):
    x, weight = normal(0, 2, 6, 6, 16), normal(1, 3, 3, 16 // groups, 16)
    options = {"padding": both_ends((1, 1)), "groups": groups}

    def step(convolve):
        return jax.grad(lambda x, w: jnp.square(convolve(x, w)).sum(), (0, 1))

    ours = counting.flops(step(lambda x, w: cpu_convolution.convolve(x, w, **options)), x, weight)
    theirs = counting.flops(step(lambda x, w: xla(x, w, (1, 1), (1, 1), feature_group_count=groups)), x, weight)
    assert ours == theirs > 0


def test_gradient_of_one_argument_alone():
    x, weight = normal(0, 2, 4, 4, 3), normal(1, 3, 3, 3, 5)
    for argument in (0, 1):
        ours = jax.grad(
            lambda *a: jnp.square(cpu_convolution.convolve(*a, padding=both_ends((1, 1)))).sum(), argument
        )(x, weight)
        theirs = jax.grad(lambda *a: jnp.square(xla(*a, (1, 1), (1, 1))).sum(), argument)(x, weight)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    unused = jax.grad(lambda x, w: (lax.stop_gradient(cpu_convolution.convolve(x, w)) + x.sum()).sum())(x, weight)
    np.testing.assert_allclose(unused, 2 * 2 * 2 * 5)
