"""Encoder blocks against the formulas written out in NumPy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro.config import resolve_config
from imagenet_repro.models.nn import attention, target
from imagenet_repro.models.nn.attention import Attention, SwiGLU, attend
from imagenet_repro.planning.compiled_step import abstract_step, compile_step
from imagenet_repro.planning.topology import open_topology


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


def test_causal_attention_is_that_to_the_tokens_before_alone():
    q, k, v = (tokens(seed, (2, 5, 3, 4)) for seed in range(3))
    result = attend(*map(jnp.asarray, (q, k, v)), 5, causal=True)
    with jax.enable_x64(True):
        wide = attend(*(jnp.asarray(x, jnp.float64) for x in (q, k, v)), 5, causal=True)
    for i in range(5):
        scores = np.exp(np.einsum("bhd,bkhd->bhk", q[:, i], k[:, : i + 1]) / 2)
        expected = np.einsum("bhk,bkhd->bhd", scores / scores.sum(-1, keepdims=True), v[:, : i + 1])
        np.testing.assert_allclose(result[:, i], expected, atol=1e-5)
        np.testing.assert_allclose(wide[:, i], expected, atol=1e-6)


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


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_tokens_added_up_to_a_multiple_change_nothing(dtype):
    rng = np.random.default_rng(0)
    q, k, v, weights = (jnp.asarray(rng.normal(size=(2, 16, 3, 8)), dtype) for _ in range(4))
    tokens = 13

    def loss(qkv, length):
        return (attend(*(x[:, :length] for x in qkv), tokens) * weights[:, :tokens]).sum(), None

    gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    padded, exact = (gradient((q, k, v), length)[0] for length in (16, tokens))
    for result, expected in zip(padded, exact, strict=True):
        np.testing.assert_array_equal(result[:, tokens:], 0)
        np.testing.assert_allclose(
            result.astype(np.float32),
            expected.astype(np.float32),
            rtol=2e-2 if dtype == jnp.bfloat16 else 1e-5,
            atol=1e-5,
        )
    np.testing.assert_allclose(
        attend(q, k, v, tokens).astype(np.float32),
        attend(q[:, :tokens], k[:, :tokens], v[:, :tokens], tokens).astype(np.float32),
        rtol=1e-2,
        atol=1e-2 if dtype == jnp.bfloat16 else 1e-6,
    )


def test_attention_on_a_gpu_is_cudnn_s_where_that_takes_the_type_and_the_head(monkeypatch):
    chosen = []

    def record(q, k, v, tokens, *, causal, implementation):
        assert not causal
        chosen.append((implementation, q.shape[1]))
        return attend(q, k, v, tokens)

    monkeypatch.setattr(attention, "attend", record)
    cases = [(48, 3, jnp.bfloat16), (48, 3, jnp.float16), (48, 3, jnp.float32), (36, 3, jnp.bfloat16)]
    for platform in ("gpu", "tpu", "cpu"):
        for width, heads, dtype in cases:
            layer = Attention(width, heads, dropout=0.0, dtype=dtype, rngs=nnx.Rngs(0))
            with target.compile_for(platform):
                jax.eval_shape(layer, jnp.zeros((2, 13, width), dtype))
    assert chosen == [("cudnn", 16), ("cudnn", 16)] + [("xla", 13)] * 10  # heads of 12 numbers; float32; no GPU


@pytest.mark.slow
def test_the_step_of_a_vit_compiled_for_a_gpu_calls_cudnn():
    pytest.importorskip("jax_cuda13_plugin")
    programs = {}
    for deterministic in (True, False):
        settings = {"deterministic": deterministic, "batch_size": 8, "precision": "bfloat16"}
        model = {"name": "vit_tiny_patch16", "options": {"depth": 1}}
        config = resolve_config({"model": model, "optimizer": {"name": "sgd"}, **settings})
        topology = open_topology("h200:1")
        programs[deterministic] = compile_step(abstract_step(config, 10, topology), topology).text
    for text in programs.values():
        assert len(re.findall(r'custom_call_target="__cudnn\$fmhaSoftmax(?:Backward)?"', text)) == 2
