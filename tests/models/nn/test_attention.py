"""Encoder blocks against the formulas written out in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro.models.nn.attention import Attention, SwiGLU


def tokens(seed=0, shape=(2, 5, 12)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)])
def test_attention_is_the_softmax_of_scaled_products_for_each_head(dtype, tolerance):
    layer = Attention(12, 3, dropout=0.0, dtype=dtype, rngs=nnx.Rngs(0))
    layer.qkv.weight.set_value(jnp.asarray(tokens(1, (12, 36)) / 2))
    x = tokens()
    qkv = (x @ np.asarray(layer.qkv.weight[...])).reshape(2, 5, 3, 3, 4)  # batch, token, q k v, head, feature
    expected = np.zeros((2, 5, 12))
    for head in range(3):
        q, k, v = (qkv[:, :, i, head] for i in range(3))
        scores = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(4))
        expected[:, :, 4 * head : 4 * head + 4] = scores / scores.sum(-1, keepdims=True) @ v
    expected = expected @ np.asarray(layer.proj.weight[...])
    result = layer(jnp.asarray(x, dtype))
    assert result.dtype == dtype
    assert np.linalg.norm(np.asarray(result, np.float32) - expected) < tolerance * np.linalg.norm(expected)


def test_swiglu_gates_with_the_first_half():
    layer = SwiGLU(12, 8, dropout=0.0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer.fc1.weight.set_value(jnp.asarray(tokens(1, (12, 16))))
    x = tokens()
    hidden = x @ np.asarray(layer.fc1.weight[...]) + np.asarray(layer.fc1.bias[...])
    gate, value = hidden[..., :8], hidden[..., 8:]
    expected = (gate / (1 + np.exp(-gate)) * value) @ np.asarray(layer.fc2.weight[...])
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-6)


def test_the_gated_value_of_swiglu_starts_at_one():
    layer = SwiGLU(64, 128, dropout=0.0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    gate, value = np.split(np.asarray(layer.fc1.weight[...]), 2, axis=1)
    assert gate.std() == pytest.approx(0.02, rel=0.05)
    assert value.std() == pytest.approx(1e-6, rel=0.05)
    np.testing.assert_array_equal(layer.fc1.bias[...], np.repeat([0, 1], 128))
