"""Counts against closed forms, XLA's own analysis and published figures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from imagenet_repro import models
from imagenet_repro.models.nn import cpu_convolution, pooling
from imagenet_repro.zoo import counting


def shape(*dimensions):
    return jax.ShapeDtypeStruct(dimensions, jnp.float32)


def test_multiply_adds_of_a_module_are_those_of_its_name():
    model = models.abstract("resnet18", 10)
    assert counting.multiply_adds(model, 64) == counting.multiply_adds("resnet18", 64, num_classes=10)
    assert not model.bn1.use_running_average, "counting leaves the mode alone"


def test_matrix_product_in_closed_form_and_as_xla_counts_it():
    def product(a, b):
        return jnp.einsum("bij,bjk->bik", a, b)

    a, b = shape(5, 7, 11), shape(5, 11, 13)
    assert counting.flops(product, a, b) == 2 * 5 * 7 * 11 * 13
    assert counting.flops(product, a, b) == jax.jit(product).lower(a, b).cost_analysis()["flops"]


CONVOLUTIONS = {
    "valid": {"window_strides": (1, 1), "padding": [(0, 0), (0, 0)]},
    "padded": {"window_strides": (1, 1), "padding": [(1, 1), (1, 1)]},
    "strided, uneven padding": {"window_strides": (2, 3), "padding": [(2, 0), (1, 2)]},
    "holes in the input": {"window_strides": (1, 1), "padding": [(2, 2), (1, 1)], "lhs_dilation": (2, 3)},
    "holes in the kernel": {"window_strides": (2, 1), "padding": [(2, 2), (2, 2)], "rhs_dilation": (2, 2)},
    "groups": {"window_strides": (1, 1), "padding": [(1, 1), (1, 1)], "feature_group_count": 2},
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution_as_xla_counts_it(case):
    groups = CONVOLUTIONS[case].get("feature_group_count", 1)

    def conv(x, w):
        return lax.conv_general_dilated(x, w, dimension_numbers=("NHWC", "HWIO", "NHWC"), **CONVOLUTIONS[case])

    x, w = shape(2, 9, 8, 4), shape(3, 3, 4 // groups, 6)
    assert counting.flops(conv, x, w) == jax.jit(conv).lower(x, w).cost_analysis()["flops"]


def test_convolution_in_closed_form():
    def conv(x, w):
        return cpu_convolution.convolve(x, w, padding=((1, 1), (1, 1)))

    # With a 3x3 kernel on n x n pixels, padded by one, (3n - 2)^2 pairs of position and tap are inside the image.
    for n in (2, 9):
        assert counting.flops(conv, shape(2, n, n, 4), shape(3, 3, 4, 6)) == 2 * 2 * (3 * n - 2) ** 2 * 4 * 6


def test_full_taps_of_a_convolution_by_hand():
    def conv(x, w):
        return cpu_convolution.convolve(x, w, stride=(2, 2), padding=((1, 1), (1, 1)))

    # 3x3 taps on 5x5 pixels with stride 2 and a border of one: 3x3 outputs. Along one axis the outputs read pixels -1
    # to 1, 1 to 3 and 3 to 5. These are 9 taps, 7 of them on the image.
    x, w = shape(2, 5, 5, 4), shape(3, 3, 4, 6)
    assert counting.flops(conv, x, w, taps="full") == 2 * 2 * 9**2 * 4 * 6
    assert counting.flops(conv, x, w, taps="real") == counting.flops(conv, x, w) == 2 * 2 * 7**2 * 4 * 6


@pytest.mark.parametrize(("size", "kernel", "stride"), [(9, 3, 1), (8, 2, 2), (8, 3, 2), (20, 7, 2)])
def test_full_taps_of_gradients_have_no_holes(size, kernel, stride):
    def loss(x, w):
        return cpu_convolution.convolve(x, w, stride=(stride, stride), padding=((kernel // 2, kernel // 2),) * 2).sum()

    x, w = shape(2, size, size, 4), shape(kernel, kernel, 4, 6)
    outputs = (size + 2 * (kernel // 2) - kernel) // stride + 1
    full = 2 * 2 * (outputs * kernel) ** 2 * 4 * 6
    assert counting.flops(loss, x, w, taps="full") == full
    assert counting.flops(jax.grad(loss, 1), x, w, taps="full") == 2 * full
    # Each tap reads every pixel of the input once for its gradient, where the stride leads it there.
    pairs = sum((pixel + kernel // 2 - tap) % stride == 0 for pixel in range(size) for tap in range(kernel))
    assert counting.flops(jax.grad(loss, 0), x, w, taps="full") == full + 2 * 2 * pairs**2 * 4 * 6


def test_a_network_without_padding_has_equal_counts_by_both_conventions():
    vit = counting.evaluation_counts(models.abstract("vit_tiny_patch16", 10), 224)
    assert vit["real"] == vit["full"], "patches do not overlap the border"


@pytest.mark.parametrize(("size", "kernel", "stride"), [(2, 3, 1), (9, 3, 2), (8, 1, 2), (20, 7, 2)])
def test_each_requested_gradient_counts_as_much_as_the_convolution(size, kernel, stride):
    def loss(x, w):
        return cpu_convolution.convolve(x, w, stride=(stride, stride), padding=((kernel // 2, kernel // 2),) * 2).sum()

    x, w = shape(2, size, size, 4), shape(kernel, kernel, 4, 6)
    once = counting.flops(loss, x, w)
    assert counting.flops(jax.grad(loss, (0, 1)), x, w) == 3 * once
    assert counting.flops(jax.grad(loss, 0), x, w) == 2 * once
    assert counting.flops(jax.jit(jax.grad(loss, 1)), x, w) == 2 * once


def test_flops_are_the_same_on_every_platform(monkeypatch):
    def step(x, first, second):
        def loss(first, second):
            y = cpu_convolution.convolve(x, first, stride=(2, 2), padding=((3, 3), (3, 3)))
            y = pooling.max_pool(y, (3, 3), (2, 2), ((1, 1), (1, 1)))
            return cpu_convolution.convolve(y, second, padding=((1, 1), (1, 1))).sum()

        return jax.value_and_grad(loss, (0, 1))(first, second)

    arguments = shape(2, 16, 16, 3), shape(7, 7, 3, 8), shape(3, 3, 8, 8)
    on_cpu = counting.flops(step, *arguments)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()
    assert counting.flops(step, *arguments) == on_cpu


def test_loops_branches_and_inner_programs():
    def product(a, b):
        return a @ b

    a = shape(8, 8)
    once = 2 * 8**3
    cases = {
        "jit": (jax.jit(product), 1),
        "remat": (jax.checkpoint(product), 1),
        "scan": (lambda a, b: lax.scan(lambda c, _: (c @ b, None), a, length=5)[0], 5),
        "cond": (lambda a, b: lax.cond(a[0, 0] > 0, lambda: a @ b @ b, lambda: a @ b), 2),
        "while": (lambda a, b: lax.while_loop(lambda c: c[0, 0] < 0, lambda c: c @ b, a), 1),
        "vmap": (lambda a, b: jax.vmap(lambda row: row @ b)(a), 1),
        "fori": (lambda a, b: lax.fori_loop(0, 3, lambda _, c: c @ b, a), 3),
    }
    for name, (function, times) in cases.items():
        assert counting.flops(function, a, a) == times * once, name


def test_a_mapped_program_counts_on_every_device():
    mesh = Mesh(np.asarray(jax.devices()[:4]), ("data",))
    along = PartitionSpec("data")
    mapped = jax.shard_map(lambda a, b: a @ b, mesh=mesh, in_specs=(along, PartitionSpec()), out_specs=along)
    assert counting.flops(mapped, shape(8, 3), shape(3, 5)) == 2 * 8 * 3 * 5
