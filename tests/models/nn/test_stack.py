"""Stacks in a loop and with rematerialisation against the same blocks applied one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.models.nn.initialisers import initialise
from imagenet_repro.models.nn.layers import BatchNorm, Dropout, DropPath, Linear, drop_path_rates
from imagenet_repro.models.nn.stack import Stack

WIDTH = 16
HIDDEN = (8, 8, 8, 12)  # in order: one block without stochastic depth, a sequence of two, one block of another shape


class Block(nnx.Module):
    def __init__(self, hidden, rate, rngs):
        self.fc1 = Linear(WIDTH, hidden, rngs=rngs)
        self.norm = BatchNorm(hidden)
        self.drop = Dropout(0.2, rngs=rngs)
        self.fc2 = Linear(hidden, WIDTH, rngs=rngs)
        self.drop_path = DropPath(rate, rngs=rngs)

    def __call__(self, x, drop_path=None):
        y = self.fc2(self.drop(jnp.tanh(self.norm(self.fc1(x)))))
        return x + self.drop_path(y, drop_path)


def stack(scan, remat, hidden=HIDDEN):
    rates = drop_path_rates(0.5, len(hidden))  # the first block's rate is 0, so its structure differs from the others'

    def build(rngs):
        blocks = [Block(width, rate, rngs) for width, rate in zip(hidden, rates, strict=True)]
        return Stack(blocks, scan=scan, remat=remat)

    return initialise(build, jax.random.key(0))


@functools.cache
def outcome(scan, remat, training=True, policy=None):
    """Return the output, the gradient and all variables other than parameters after a call."""
    model = stack(scan, remat)
    model.remat_policy = policy or model.remat_policy
    if not training:
        model.eval()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, WIDTH)), jnp.float32)

    def loss(params):
        model = nnx.merge(graphdef, params, jax.tree.map(lambda leaf: leaf, rest))  # variables created in this trace
        y = model(x)
        return jnp.square(y).mean(), (y, jax.tree.map(jax.random.key_data, nnx.state(model, nnx.RngKey)), stats(model))

    (_, (y, keys, changed)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return jax.tree.leaves((y, keys, changed, gradient))


def stats(model):
    return nnx.state(model, (nnx.BatchStat, nnx.RngCount))


@pytest.mark.parametrize(("scan", "remat"), [(True, False), (False, True), (True, True)])
def test_outputs_masks_gradients_statistics_and_counters_equal_those_of_the_plain_form(scan, remat):
    for result, expected in zip(outcome(scan, remat), outcome(False, False), strict=True):
        np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("scan", [True, False])
def test_computing_all_but_products_again_changes_no_value(scan):
    for result, expected in zip(outcome(scan, None, policy="products"), outcome(False, False), strict=True):
        np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-6)


def test_a_policy_stores_no_more_than_it_says():
    model = stack(True, None, (8, 8, 8, 8))
    model.eval()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    x = jnp.zeros((64, WIDTH))

    def loss(params, policy):
        model = nnx.merge(graphdef, params, jax.tree.map(lambda leaf: leaf, rest))
        model.remat_policy = policy
        return model(x).sum()

    def stored(policy):
        """Return the sizes of a block's arrays of 64 rows that the backward pass reads."""
        jaxpr = jax.make_jaxpr(jax.grad(lambda params: loss(params, policy)))(params)
        first = next(equation for equation in jaxpr.jaxpr.eqns if equation.primitive.name == "scan")
        shapes = [variable.aval.shape for variable in first.outvars if len(variable.aval.shape) == 3]
        return sorted(shape[-1] for shape in shapes if shape[1] == 64)

    assert stored("blocks") == [WIDTH]  # the input
    assert stored("products") == [8, WIDTH]  # and the first layer's product; no gradient depends on the last one's
    assert len(stored("none")) > 2


class Shifted(nnx.Module):
    """A block that adds the same array in every call."""

    def __init__(self, rngs):
        self.fc = Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x, drop_path=None, *, shift):
        return jnp.tanh(self.fc(x)) + shift


def test_every_block_receives_what_they_share():
    blocks = initialise(lambda rngs: Stack([Shifted(rngs) for _ in range(3)]), jax.random.key(0))
    graphdef, state = nnx.split(blocks)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, WIDTH)), jnp.float32)

    @functools.partial(jax.jit, static_argnums=(2, 3))
    def outputs(state, shift, scan, policy):
        stack = nnx.merge(graphdef, state)
        stack.scan, stack.remat_policy = scan, policy
        return (
            stack(x, shift=shift),
            stack.outputs(x, 2, shift=shift)[-1],
            stack.last(stack.all_but_last(x, shift=shift), shift=shift),
        )

    plain = outputs(state, 2.0, False, "none")
    assert all(float(y.min()) > 1 for y in plain)  # the last block's tanh is above -1
    for form in ((True, "none"), (False, "blocks"), (True, "blocks")):
        for result in outputs(state, 2.0, *form):
            np.testing.assert_allclose(result, plain[0], atol=1e-5)


def test_evaluation_agrees_and_changes_nothing():
    for result, expected in zip(outcome(True, True, False), outcome(False, False, False), strict=True):
        np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-6)


def loops(model):
    graphdef, state = nnx.split(model)
    jaxpr = jax.make_jaxpr(lambda s, x: nnx.merge(graphdef, s)(x))(state, jnp.zeros((4, WIDTH)))
    return [equation.params["length"] for equation in jaxpr.jaxpr.eqns if equation.primitive.name == "scan"]


def test_equal_blocks_are_one_program():
    assert loops(stack(True, False)) == [2]
    assert loops(stack(True, False, (8, 8, 8, 8, 12, 12))) == [3, 2]
    assert loops(stack(False, False)) == []


def test_parameters_keep_the_names_of_their_blocks():
    names = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(stack(True, False), nnx.Param))}
    assert {"0.fc1.weight", "3.fc2.bias"} <= names


@pytest.mark.parametrize(
    ("name", "size", "training"),
    [
        ("resnet20_cifar", 16, True),
        # In training mode, batch normalisation over few values amplifies rounding in deep networks to 1 %, as much as
        # float32 differs from float64. So these networks are compared in evaluation mode.
        pytest.param("resnet50", 96, False, marks=pytest.mark.slow),
        pytest.param("resnetv2_50", 96, False, marks=pytest.mark.slow),
        pytest.param("seresnet50", 96, False, marks=pytest.mark.slow),
        pytest.param("efficientnetv2_s", 64, False, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", 64, True, marks=pytest.mark.slow),
        pytest.param("convnextv2_atto", 64, True, marks=pytest.mark.slow),
        pytest.param("eva02_tiny_patch14", 56, True, marks=pytest.mark.slow),
        pytest.param("vit_small_patch16_dinov3", 32, True, marks=pytest.mark.slow),
    ],
)
def test_networks_learn_the_same_in_a_loop_and_with_rematerialisation(name, size, training):
    images = jnp.asarray(np.random.default_rng(0).normal(size=(8, size, size, 3)), jnp.float32)
    _, params, rest = nnx.split(models.create(name, 10), nnx.Param, ...)

    def gradient(**how):
        model = models.abstract(name, 10, **how)
        graphdef = nnx.graphdef(model if training else model.eval())

        def loss(params):
            model = nnx.merge(graphdef, params, jax.tree.map(lambda leaf: leaf, rest))
            return jnp.square(model(images)).sum(), stats(model)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    (loss, plain_stats), plain = gradient(scan=False)
    (other, other_stats), result = gradient(scan=True, remat=True)
    np.testing.assert_allclose(other, loss, rtol=1e-4)
    for a, b in zip(jax.tree.leaves((result, other_stats)), jax.tree.leaves((plain, plain_stats)), strict=True):
        assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(b) + 1e-5
