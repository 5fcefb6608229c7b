"""Rotary positions: closed forms of angles and turns, and what they are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro.models.dinov3 import ROTARY as DINOV3
from imagenet_repro.models.eva02 import ROTARY as EVA02
from imagenet_repro.models.nn import rotary
from imagenet_repro.models.nn.attention import BlockInit
from imagenet_repro.models.nn.rotary import GatedMlp, RotaryAttention, rotate

SIZE = 16  # features of a head
BOTH = pytest.mark.parametrize("positions", [EVA02, DINOV3], ids=["EVA-02", "DINOv3"])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


turn = jax.jit(rotate, static_argnums=2)


def test_angles_of_eva02_are_positions_in_the_pre_training_grid_times_powers_of_the_temperature():
    angles = EVA02.angles((32, 8), SIZE)
    frequencies = np.array([1, 0.1, 0.01, 0.001])
    row, column = 5, 3  # of 32 x 8 patches, which have the range of 16 x 16
    expected = np.concatenate([row / 2 * frequencies, column * 2 * frequencies])
    np.testing.assert_allclose(angles[row * 8 + column], expected, rtol=1e-12)


def test_angles_of_dinov3_are_coordinates_from_minus_1_to_1_on_both_axes():
    angles = DINOV3.angles((4, 2), SIZE)
    frequencies = 2 * np.pi * np.array([1, 100**-0.25, 0.1, 100**-0.75])
    np.testing.assert_allclose(angles[3 * 2 + 0], np.concatenate([0.75 * frequencies, -0.5 * frequencies]), rtol=1e-12)


@BOTH
def test_turning_preserves_lengths_and_leaves_tokens_before_the_patches_alone(positions):
    x = normal(2, 1 + 6, 3, SIZE)
    turned = turn(jnp.asarray(x), positions.table((2, 3), SIZE, 1), positions.pairs)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(turned[:, 0], x[:, 0])
    assert not np.allclose(turned[:, 1:], x[:, 1:], atol=0.01)


@BOTH
def test_products_depend_on_the_difference_of_positions_alone(positions):
    query, key = normal(2, SIZE)
    grid = 5, 4
    everywhere = [jnp.broadcast_to(v, (1, grid[0] * grid[1], 1, SIZE)) for v in (query, key)]
    table = positions.table(grid, SIZE, 0)
    q, k = (np.asarray(turn(v, table, positions.pairs))[0, :, 0].reshape(*grid, SIZE) for v in everywhere)
    for down, across in ((0, 0), (1, 2), (3, 1)):
        rows, columns = grid[0] - down, grid[1] - across
        products = (q[:rows, :columns] * k[down:, across:]).sum(-1)
        np.testing.assert_allclose(products, products[0, 0], rtol=1e-4, atol=1e-4)
    assert np.ptp((q * k[0, 0]).sum(-1)) > 0.5


@pytest.mark.parametrize(("pairs", "partner"), [("neighbours", 1), ("halves", SIZE // 2)])
def test_a_pair_is_turned_as_a_complex_number(pairs, partner):
    angle = 0.3
    x = np.zeros((1, 1, 1, SIZE), np.float32)
    x[..., 0], x[..., partner] = 2.0, -1.0
    angles = np.zeros((1, SIZE // 2))
    angles[0, 0] = angle
    table = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)]), jnp.float32)
    expected = (2 - 1j) * np.exp(1j * angle)
    turned = np.asarray(turn(jnp.asarray(x), table, pairs))[0, 0, 0]
    np.testing.assert_allclose(turned[[0, partner]], [expected.real, expected.imag], rtol=1e-6)


def test_a_head_of_odd_pairs_is_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        EVA02.angles((2, 2), 6)


def attention_layer(separate):
    return RotaryAttention(
        32,
        2,
        pairs="halves",
        bias=True,
        separate=separate,
        dropout=0,
        init=BlockInit(),
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )


def test_tokens_that_an_implementation_adds_change_nothing(monkeypatch):
    layer, x, table = attention_layer(False), jnp.asarray(normal(2, 7, 32)), DINOV3.table((2, 3), SIZE, 1)
    layer.q_bias.set_value(jnp.ones(32))
    graphdef, state = nnx.split(layer)

    def answer():
        return jax.jit(lambda state, x: nnx.merge(graphdef, state)(x, table))(state, x)

    expected = answer()
    monkeypatch.setattr(rotary, "pad_tokens", lambda x, _: jnp.pad(x, ((0, 0), (0, 3), (0, 0))))
    np.testing.assert_allclose(answer(), expected, atol=1e-6)


@pytest.mark.parametrize("separate", [True, False])
def test_keys_have_no_bias(separate):
    names = {
        ".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(attention_layer(separate), nnx.Param))
    }
    biases = {"q_proj.bias", "v_proj.bias"} if separate else {"q_bias", "v_bias"}
    assert {name for name in names if name.endswith("bias")} == biases | {"proj.bias"}


@pytest.mark.parametrize(("packed", "epsilon"), [(True, None), (False, 1e-6)])
def test_a_gated_mlp_is_its_formula(packed, epsilon):
    mlp = GatedMlp(
        4, 6, packed=packed, norm_epsilon=epsilon, dropout=0, init=BlockInit(), dtype=jnp.float32, rngs=nnx.Rngs(0)
    )
    x = normal(1, 3, 4)
    if packed:
        gate, values = np.split(x @ np.asarray(mlp.fc1.weight[...]), 2, axis=-1)
    else:
        gate, values = (x @ np.asarray(layer.weight[...]) for layer in (mlp.fc1_g, mlp.fc1_x))
    y = gate / (1 + np.exp(-gate)) * values
    y = y if epsilon is None else (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + epsilon)
    np.testing.assert_allclose(mlp(jnp.asarray(x)), y @ np.asarray(mlp.fc2.weight[...]), rtol=1e-4, atol=1e-6)
