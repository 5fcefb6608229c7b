"""Tests of modules as functions of flat dictionaries."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.training import small_network


def images(number=4):
    return jnp.asarray(
        np.random.default_rng(0).normal(size=(number, small_network.SIDE, small_network.SIDE, 3)), jnp.float32
    )


def test_names_are_those_of_the_modules():
    network = small_network.network(dropout=0.5)
    assert sorted(network.params) == [
        "conv.weight", "fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight", "norm.bias", "norm.weight",
    ]  # fmt: skip
    assert sorted(network.stats) == ["norm.running_mean", "norm.running_var"]


def test_evaluation_is_the_module_in_evaluation_mode_with_the_given_parameters():
    network = small_network.network(dropout=0.5)
    params = jax.tree.map(lambda x: x * 1.5, network.params)
    from flax import nnx

    module = small_network.Small(0.5, nnx.Rngs(0))
    for path, leaf in nnx.to_flat_state(nnx.state(module, nnx.Param)):
        leaf.set_value(params[".".join(map(str, path))])
        nnx.update(module, nnx.from_flat_state([(path, leaf)]))
    module.eval()
    np.testing.assert_allclose(network.evaluate(params, network.stats, images()), module(images()), rtol=1e-5)


def test_training_returns_new_statistics_and_leaves_the_old_ones_unchanged():
    network = small_network.network()
    before = jax.tree.map(np.array, network.stats)
    _, stats = network.train(network.params, network.stats, jax.random.key(0), images())
    assert not np.allclose(stats["norm.running_mean"], before["norm.running_mean"])
    np.testing.assert_array_equal(network.stats["norm.running_mean"], before["norm.running_mean"])


def test_the_key_alone_decides_dropout():
    network = small_network.network(dropout=0.5)
    outputs = [network.train(network.params, network.stats, jax.random.key(k), images())[0] for k in (1, 1, 2)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.allclose(outputs[0], outputs[2])
