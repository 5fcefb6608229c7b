"""Shared layers against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from imagenet_repro.models.nn import initialisers, layers, target
from imagenet_repro.models.nn.initialisers import constant, parameter, truncated_normal


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_batch_norm_and_its_statistics_follow_pytorchs_documentation():
    x = 3 + 2 * normal(4, 5, 6, 7)
    norm = layers.BatchNorm(7)
    norm.weight[...], norm.bias[...] = jnp.asarray(normal(7, seed=1)), jnp.asarray(normal(7, seed=2))
    y = norm(jnp.asarray(x))

    mean, var = x.mean((0, 1, 2), dtype=np.float64), x.var((0, 1, 2), dtype=np.float64)
    expected = (x - mean) / np.sqrt(var + 1e-5) * normal(7, seed=1) + normal(7, seed=2)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    np.testing.assert_allclose(norm.running_mean[...], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(norm.running_var[...], 0.9 + 0.1 * var * (120 / 119), rtol=1e-4)

    norm.eval()
    before = np.asarray(norm.running_mean[...])
    y = norm(jnp.asarray(x))
    moved = (x - before) / np.sqrt(np.asarray(norm.running_var[...]) + 1e-5)
    np.testing.assert_allclose(y, moved * normal(7, seed=1) + normal(7, seed=2), atol=1e-4)
    np.testing.assert_array_equal(norm.running_mean[...], before)


def test_batch_norm_statistics_are_float32_for_every_dtype():
    x = jnp.asarray(100 + normal(64, 8, 8, 3))
    norm = layers.BatchNorm(3, dtype=jnp.bfloat16)
    assert norm(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    rounded = np.asarray(x.astype(jnp.bfloat16).astype(jnp.float32), np.float64)
    assert norm.running_mean[...].dtype == jnp.float32
    np.testing.assert_allclose(norm.running_mean[...], 0.1 * rounded.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(norm.running_var[...], 0.9 + 0.1 * rounded.var((0, 1, 2), ddof=1), rtol=1e-2)


def test_batch_norm_uses_the_batch_of_all_devices():
    x = jnp.asarray(normal(8, 2, 2, 3))
    on_all = layers.BatchNorm(3)
    expected = on_all(x)
    graphdef, state = nnx.split(layers.BatchNorm(3, axis_name="data"))

    def on_one_device(state, x):
        norm = nnx.merge(graphdef, state)
        return norm(x), nnx.state(norm)

    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    along, same = PartitionSpec("data"), PartitionSpec()
    mapped = jax.shard_map(on_one_device, mesh=mesh, in_specs=(same, along), out_specs=(along, same), check_vma=False)
    y, moved = jax.jit(mapped)(state, x)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(moved[name][...], getattr(on_all, name)[...], rtol=1e-5)


def on_eight_devices(norm, function):
    """Return `function(norm, x, dy)` over eight devices, which share the statistics of `norm` as it says."""
    graphdef, state = nnx.split(norm)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    along, same = PartitionSpec("data"), PartitionSpec()

    def on_one_device(state, x, dy):
        return function(nnx.merge(graphdef, state), x, dy)

    specs = {"in_specs": (same, along, along), "out_specs": along, "check_vma": False}
    return jax.jit(jax.shard_map(on_one_device, mesh=mesh, **specs)), state


def values_and_gradient(norm, x, dy):
    """Return the output, the gradient of x, and the running statistics with an axis of devices."""
    graphdef, params, stats = nnx.split(norm, nnx.Param, nnx.BatchStat)

    def run(x):
        norm = nnx.merge(graphdef, params, jax.tree.map(jnp.array, stats))
        y = norm(x)
        return y, (norm.running_mean[...], norm.running_var[...])

    y, pull, (mean, var) = jax.vjp(run, x, has_aux=True)
    return y, pull(dy)[0], mean[None], var[None]


@pytest.mark.parametrize("group", [0, 2, 4])
def test_batch_norm_of_groups_of_devices_uses_their_batch_alone(group):
    x, dy = jnp.asarray(5 + normal(16, 2, 2, 3)), jnp.asarray(normal(16, 2, 2, 3, seed=1))
    mapped, state = on_eight_devices(layers.BatchNorm(3, axis_name="data", group=group), values_and_gradient)
    y, dx, mean, var = mapped(state, x, dy)
    images = 2 * (group or 8)
    for first in range(0, 16, images):
        share = slice(first, first + images)
        expected = values_and_gradient(layers.BatchNorm(3), x[share], dy[share])
        np.testing.assert_allclose(y[share], expected[0], atol=2e-5)
        np.testing.assert_allclose(dx[share], expected[1], atol=2e-5)
        for ours, theirs in zip((mean, var), expected[2:], strict=True):
            devices = ours[share.start // 2 : share.stop // 2]
            np.testing.assert_allclose(devices, theirs.repeat(len(devices), 0), rtol=1e-5)


def test_batch_norm_of_all_devices_takes_one_reduction_in_each_direction():
    x = jnp.asarray(normal(16, 2, 2, 3))
    mapped, state = on_eight_devices(layers.BatchNorm(3, axis_name="data"), values_and_gradient)
    assert mapped.lower(state, x, x).compile().as_text().count(" all-reduce(") == 2


def textbook(x, weight, bias, *, rectified):
    """Return the formulas of Ioffe & Szegedy, which JAX differentiates."""
    axes = tuple(range(x.ndim - 1))
    y = (x - x.mean(axes)) / jnp.sqrt(x.var(axes) + 1e-5) * weight + bias
    return jnp.maximum(y, 0) if rectified else y


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("rectified", [False, True])
def test_gradients_of_batch_norm_are_those_of_its_formulas(rectified, platform):
    x, dy, weight, bias = (jnp.asarray(a) for a in (2 + normal(4, 3, 3, 5), normal(4, 3, 3, 5, seed=1), *normal(2, 5)))

    def ours(x, weight, bias):
        norm = layers.BatchNorm(5)
        norm.weight.set_value(weight), norm.bias.set_value(bias)
        return norm.rectified(x) if rectified else norm(x)

    with target.compile_for(platform):
        y, pull = jax.vjp(ours, x, weight, bias)
        gradients = pull(dy)
    expected, pull = jax.vjp(lambda *a: textbook(*a, rectified=rectified), x, weight, bias)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for a, b in zip(gradients, pull(dy), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("offset", [1e2, 1e4])
def test_float32_variance_survives_a_mean_far_from_zero(offset):
    x = (offset + normal(64, 8, 8, 3)).astype(np.float32)
    norm = layers.BatchNorm(3, momentum=1.0)
    norm(jnp.asarray(x))
    np.testing.assert_allclose(norm.running_var[...], x.astype(np.float64).var((0, 1, 2), ddof=1), rtol=1e-5)
    np.testing.assert_allclose(norm.running_mean[...], x.astype(np.float64).mean((0, 1, 2)), rtol=1e-6)


def test_batch_norm_stores_activations_in_their_own_type():
    x = jnp.asarray(normal(4, 6, 6, 3)).astype(jnp.bfloat16)
    norm = layers.BatchNorm(3, dtype=jnp.bfloat16)
    graphdef, state = nnx.split(norm)
    _, pull = jax.vjp(lambda x: nnx.merge(graphdef, jax.tree.map(jnp.array, state)).rectified(x), x)
    assert {a.dtype for a in jax.tree.leaves(pull) if a.size == x.size} == {jnp.dtype("bfloat16")}


def test_global_response_norm_divides_the_norm_of_a_map_by_the_mean_over_maps():
    x = normal(2, 3, 4, 5)
    norm = layers.GlobalResponseNorm(5)
    np.testing.assert_array_equal(norm(jnp.asarray(x)), x)  # the identity at first
    weight, bias = normal(2, 5, seed=1)
    norm.weight.set_value(jnp.asarray(weight)), norm.bias.set_value(jnp.asarray(bias))
    lengths = np.linalg.norm(x.reshape(2, 12, 5), axis=1)
    expected = x * (1 + weight * (lengths / lengths.mean(1, keepdims=True))[:, None, None]) + bias
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_global_response_norm_is_finite_where_a_channel_is_zero():
    norm = layers.GlobalResponseNorm(2)
    norm.weight.set_value(jnp.ones(2))
    x = jnp.asarray(normal(1, 3, 3, 2) * [0, 1], jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: norm(x).sum()))(x)
    assert np.isfinite(gradient).all()


def test_relu_has_no_gradient_at_zero():
    np.testing.assert_array_equal(jax.grad(lambda x: layers.relu(x).sum())(jnp.array([-1.0, 0.0, 2.0])), [0, 0, 1])


def test_wide_linear_layer_keeps_the_float32_of_its_sums():
    x, kwargs = jnp.asarray(normal(4, 64)), {"dtype": jnp.bfloat16, "rngs": nnx.Rngs(0)}
    layer = layers.Linear(64, 8, wide=True, **kwargs)
    factors = (np.asarray(a.astype(jnp.bfloat16), np.float64) for a in (x, layer.weight[...]))
    y = layer(x)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, np.matmul(*factors) + np.asarray(layer.bias[...]), atol=1e-5)


def test_batch_norm_of_one_value_has_a_finite_running_variance():
    norm = layers.BatchNorm(3)
    norm(jnp.ones((1, 1, 1, 3)))
    assert np.isfinite(norm.running_var[...]).all()


@pytest.mark.parametrize("size", [1, 3, 5, 6, 7, 12, 13])
def test_adaptive_pooling_averages_the_documented_windows(size):
    x = normal(1, size, size + 1, 2)
    y = layers.adaptive_avg_pool(jnp.asarray(x), 6)
    for i in range(6):
        for j in range(6):
            rows = slice(i * size // 6, -(-(i + 1) * size // 6))
            columns = slice(j * (size + 1) // 6, -(-(j + 1) * (size + 1) // 6))
            np.testing.assert_allclose(y[:, i, j], x[:, rows, columns].mean((1, 2)), atol=1e-6)


def test_linear_and_convolution_start_as_pytorch_does():
    rngs = nnx.Rngs(0)
    for layer, fan_in in (
        (layers.Linear(400, 600, rngs=rngs), 400),
        (layers.Conv(64, 96, 5, groups=2, rngs=rngs), 800),
    ):
        bound = fan_in**-0.5
        for values in (layer.weight[...], layer.bias[...]):
            assert np.abs(values).max() <= bound
            assert np.abs(values).max() > 0.95 * bound
        np.testing.assert_allclose(np.std(layer.weight[...]), bound / 3**0.5, rtol=0.02)


def test_one_by_one_convolution_is_a_linear_layer():
    conv = layers.Conv(5, 4, 1, rngs=nnx.Rngs(0))
    x = normal(2, 3, 3, 5)
    expected = x @ np.asarray(conv.weight[0, 0]) + np.asarray(conv.bias[...])
    np.testing.assert_allclose(conv(jnp.asarray(x)), expected, atol=1e-5)


def test_dropout_follows_train_and_eval():
    dropout = layers.Dropout(0.25, rngs=nnx.Rngs(0))
    ones = jnp.ones((1000,))
    y = np.asarray(dropout(ones))
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.06
    assert not np.array_equal(y, dropout(ones))
    dropout.eval()
    np.testing.assert_array_equal(dropout(ones), ones)


@pytest.mark.parametrize(("n", "window", "stride"), [(8, 3, 2), (7, 3, 2), (9, 5, 1), (4, 1, 2), (10, 2, 3)])
def test_same_padding_gives_tensorflows_positions(n, window, stride):
    (low, high), _ = layers.pads("same", n, window, stride)
    assert 0 <= high - low <= 1
    assert (n + low + high - window) // stride + 1 == -(-n // stride)


def padded_mean(row, window, stride, padding, *, count_padding):
    """Return the average pooling of one row, window by window, as torch.nn.AvgPool2d documents it."""
    means = []
    for position in range((len(row) + 2 * padding - window) // stride + 1):
        start = position * stride - padding
        inside = row[max(start, 0) : start + window]
        means.append(inside.sum() / (window if count_padding else len(inside)))
    return np.array(means)


@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize(("n", "windows"), [(7, (3, 2, 1)), (8, (3, 2, 0)), (6, (2, 2, 1)), (5, (5, 3, 2))])
def test_average_pooling(n, windows, count_padding):
    x, (window, stride, padding) = normal(1, n, n, 1), windows
    pool = layers.AvgPool(window, stride=stride, padding=padding, count_padding=count_padding)
    columns = np.stack([padded_mean(row, *windows, count_padding=count_padding) for row in x[0, :, :, 0]])
    expected = np.stack([padded_mean(column, *windows, count_padding=count_padding) for column in columns.T], 1)
    np.testing.assert_allclose(pool(jnp.asarray(x))[0, :, :, 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("n", "places"), [(112, 56), (56, 28), (7, 3), (8, 4)])
def test_pooling_that_rounds_up_covers_all_pixels(n, places):
    x = jnp.arange(float(n)).reshape(1, n, 1, 1)
    y = layers.MaxPool((3, 1), stride=(2, 1), ceil=True)(x)
    assert y.shape == (1, places, 1, 1)
    assert y.max() == n - 1


def test_response_normalisation_is_the_papers_formula():
    a = normal(1, 2, 2, 7)[0]
    y = layers.LocalResponseNorm()(jnp.asarray(a[None]))[0]
    for i in range(7):
        total = np.square(a[..., max(0, i - 2) : i + 3]).sum(-1)
        np.testing.assert_allclose(y[..., i], a[..., i] / (2 + 1e-4 * total) ** 0.75, rtol=1e-5)


def test_layer_norm():
    x = 5 + 3 * normal(2, 3, 8)
    norm = layers.LayerNorm(8, epsilon=1e-5)
    norm.weight[...], norm.bias[...] = jnp.asarray(normal(8, seed=1)), jnp.asarray(normal(8, seed=2))
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected * normal(8, seed=1) + normal(8, seed=2), atol=1e-4)


def test_stochastic_depth_drops_branches_at_its_rate_and_preserves_the_mean():
    layer = layers.DropPath(0.25, rngs=nnx.Rngs(0))
    x = jnp.ones((4000, 2, 3))
    y = np.asarray(layer(x))
    retained = y[:, 0, 0] > 0
    assert np.array_equal(y, np.broadcast_to(retained[:, None, None] / 0.75, y.shape).astype(np.float32))
    assert abs(retained.mean() - 0.75) < 4 * np.sqrt(0.25 * 0.75 / 4000)
    assert layer.eval() is None
    np.testing.assert_array_equal(layer(x), x)
    assert layers.drop_path_rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert layers.drop_path_rates(0.3, 1) == [0]


def test_initialisers():
    rngs = nnx.Rngs(0)
    weights = parameter(rngs, truncated_normal(0.02), (200, 300))[...]
    assert np.abs(weights).max() <= 0.04
    np.testing.assert_allclose(np.std(weights), 0.88 * 0.02, rtol=0.01)
    np.testing.assert_allclose(np.std(parameter(rngs, initialisers.normal(0.5), (200, 300))[...]), 0.5, rtol=0.01)
    np.testing.assert_array_equal(parameter(rngs, constant(-7.0), (3,))[...], -7)
