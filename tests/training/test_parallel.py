"""Tests of the three ways of spreading against each other and against the step mapped by vmap on one device."""

import collections
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.data.augment import augment
from imagenet_repro.errors import UserError
from imagenet_repro.training import parallel
from imagenet_repro.training.step import AXIS, EvalStep
from tests.training import small_network

RECIPES = {
    "sgd": {"optimizer": {"name": "sgd", "nesterov": True}, "clip_norm": 0.5},
    "lamb": {"optimizer": {"name": "lamb"}, "ema_decay": 0.9},
    "accumulated": {"accumulate": 2, "cross_device_norm": True},
    "bounded": {"optimizer": {"name": "sgd", "learning_rate": 0.5}, "max_filter_rms": 0.1},
    "muon": {"optimizer": {"name": "muon"}},
    "schedule_free": {"optimizer": {"name": "schedule_free_adamw"}, "schedule": {"name": "linear", "final": 1.0}},
}


@functools.cache
def by_vmap(recipe):
    """Return the result of eight shares mapped by vmap: the same collectives on one device, without sharding."""
    config = small_network.config(**RECIPES[recipe])
    step, state = small_network.make(config, cross_device_norm=config.cross_device_norm)
    mapped = jax.jit(jax.vmap(step, axis_name=AXIS, in_axes=(None, 0, None)))
    for number in range(3):
        shares = jax.tree.map(lambda x: x.reshape(8, 4, *x.shape[1:]), small_network.batch(number))
        rate = small_network.learning_rate(number / 10, config.optimizer.learning_rate, config.schedule)
        states, measures = mapped(state, shares, rate)
        state = jax.tree.map(lambda x: x[0], states)
    return jax.device_get((state, jax.tree.map(lambda x: x[0], measures)))


MODES = ("pmap", "shard_map", "fsdp")
RARE = ("muon", "schedule_free")  # only fsdp splits their state, so the other ways are left to the slow tests


@pytest.mark.parametrize(
    ("recipe", "mode"),
    [
        pytest.param(recipe, mode, marks=[pytest.mark.slow] if recipe in RARE and mode != "fsdp" else [])
        for recipe in RECIPES
        for mode in MODES
    ],
)
def test_three_ways_agree(recipe, mode):
    assert jax.device_count() == 8
    config = small_network.config(**RECIPES[recipe])
    result = small_network.train(config, mode, cross_device_norm=config.cross_device_norm)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), result, by_vmap(recipe))


def test_fsdp_keeps_a_shard_on_each_device_through_the_step():
    config = small_network.config(optimizer={"name": "adamw"}, ema_decay=0.9)
    step, first = small_network.make(config)
    spread = parallel.create("fsdp")
    placed = spread.put_state(first)
    batch = spread.put_batch(small_network.batch(0))
    after, _ = spread.compile_training(step, placed, batch)(placed, batch, small_network.learning_rate(0))
    for state in (after,):
        held = [state.params, state.ema["params"], *[x for x in jax.tree.leaves(state.opt_state) if x.shape]]
        large = [x for x in jax.tree.leaves(held) if x.size >= 2**14]
        assert len(large) == 4  # the weight, its average, and both of Adam's moments
        for x in large:
            assert x.addressable_shards[0].data.size * 8 == x.size


def test_arrays_are_split_along_the_longest_axis_that_divides():
    assert parallel.shard_counts((3, 3, 64, 128), 8) == (1, 1, 1, 8)
    assert parallel.shard_counts((1001, 4096), 8) == (1, 8)
    assert parallel.shard_counts((1001, 4095), 8) is None
    assert parallel.shard_counts((1_000_000,), 8) is None


def test_arrays_without_such_an_axis_are_split_along_several():
    assert parallel.shard_counts((1664, 4992), 256) == (2, 128)  # the linear layers of ViT-G
    assert parallel.shard_counts((1664, 1664), 256) == (128, 2)
    assert parallel.shard_counts((1664, 8192), 256) == (1, 256)
    assert parallel.shard_counts((1664, 1664), 96) is None  # nothing has the factor 3


@pytest.mark.parametrize("mode", ["pmap", "shard_map", "fsdp"])
def test_evaluation_gives_rows_in_order_and_counts_without_padding(mode):
    config = small_network.config()
    step, first = small_network.make(config)
    spread = parallel.create(mode)
    state = spread.put_state(first)
    host = small_network.batch(1) | {"weight": np.asarray([1.0] * 29 + [0.0] * 3, np.float32)}
    device = spread.put_batch(host)

    def score(params, stats, images):
        return step.network.evaluate(params, stats, augment.normalize(images, config.augment))

    compiled = spread.compile_evaluation(EvalStep(score), state, device)
    counts, predictions = compiled(*state.evaluated, device)
    mean, std = np.asarray(config.augment.mean), np.asarray(config.augment.std)
    images = jnp.asarray((host["image"] / 255.0 - mean) / std, jnp.float32)
    logits = np.asarray(step.network.evaluate(first.params, first.stats, images))
    np.testing.assert_allclose(spread.local_rows(predictions["logits"]), logits, rtol=1e-4, atol=1e-5)
    assert int(counts["images"]) == 29
    assert int(counts["top1_correct"]) == int(np.sum((logits.argmax(1) == host["label"])[:29]))


def test_a_step_is_compiled_once():
    config = small_network.config()
    step, first = small_network.make(config)
    for mode in ("pmap", "shard_map", "fsdp"):
        spread = parallel.create(mode)
        state = spread.put_state(first)
        compiled = spread.compile_training(step, state, spread.put_batch(small_network.batch(0)))
        # An executable compiled ahead of time refuses other shapes, types or shardings instead of compiling again.
        for number in range(3):
            state, _ = compiled(state, spread.put_batch(small_network.batch(number)), small_network.learning_rate(0))


def test_donated_buffers_are_deleted():
    step, first = small_network.make(small_network.config())
    spread = parallel.create("pmap")
    state = spread.put_state(first)
    batch = spread.put_batch(small_network.batch(0))
    compiled = spread.compile_training(step, state, batch)
    compiled(state, batch, small_network.learning_rate(0))
    assert state.params["fc1.weight"].is_deleted()


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does():
    with pytest.raises(UserError, match=r"config\.batch_size: 100 images.*8 devices in 2.*; 96 would"):
        parallel.create("pmap").check_batch_size(100, 2, "batch_size")


def test_pmap_is_the_default_and_jax_still_has_it():
    assert small_network.config().parallel == "pmap"
    # The day JAX drops `pmap`, `Pmap` has to go and "shard_map", which compiles to the same program, is the default.
    assert callable(getattr(jax, "pmap", None))


@functools.cache
def compiled_text(mode):
    """Return the optimised program of a step, and the number of arrays of the state."""
    step, first = small_network.make(small_network.config(optimizer={"name": "lamb"}, ema_decay=0.9))
    spread = parallel.create(mode)
    state = spread.put_state(first)
    compiled = spread.compile_training(step, state, spread.put_batch(small_network.batch(0)))
    return compiled.as_text(), len(jax.tree.leaves(state))


# The operations that fusions do not repeat. Cheap ones, such as the bits of random numbers, may be computed once more
# beside the reshape of `pmap`, which puts an axis of devices in front of a batch.
COSTLY = (
    "all-reduce",
    "convolution",
    "custom-call",
    "dot",
    "dynamic-slice",
    "gather",
    "reduce",
    "reduce-window",
    "scatter",
    "select-and-scatter",
    "sort",
    "while",
)


def costly_operations(text):
    """Return how often each costly operation occurs with each result."""
    found = re.findall(r"= (\(.*?\)|[\w\[\],]+)\S* ([\w\-]+)\(", text)
    return collections.Counter((shape, operation) for shape, operation in found if operation in COSTLY)


def test_pmap_and_shard_map_compile_to_the_same_program():
    pmapped, mapped = (costly_operations(compiled_text(mode)[0]) for mode in ("pmap", "shard_map"))
    assert {"all-reduce", "reduce"} <= {operation for _, operation in pmapped}
    assert pmapped == mapped


@pytest.mark.parametrize("mode", ["pmap", "shard_map", "fsdp"])
def test_every_array_of_the_state_is_updated_in_place(mode):
    text, arrays = compiled_text(mode)
    header = text.splitlines()[0]
    assert len(re.findall(r"\{\d+\}: \(\d+, \{\}, (?:may|must)-alias\)", header)) == arrays


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_gradients_are_reduced_in_few_messages(mode):
    text, arrays = compiled_text(mode)
    messages = re.findall(r" all-reduce(?:-start)?\(", text)
    assert len(messages) <= 3 < arrays


def test_a_state_in_shards_says_what_stays_whole():
    _, first = small_network.make(small_network.config())
    text = parallel.create("fsdp").describe(first)
    assert "each of 8 devices holds" in text
    assert parallel.create("pmap").describe(first) == ""


class Device:
    def __init__(self, process_index):
        self.process_index = process_index


def test_devices_of_a_process_that_are_apart_are_an_error():
    parallel.check_order([Device(1), Device(1), Device(0), Device(0)])
    with pytest.raises(UserError, match="processes 0, 1, 0"):
        parallel.check_order([Device(0), Device(1), Device(0)])


def test_initial_values_are_drawn_on_the_default_device_where_jax_has_no_cpu(monkeypatch):
    spread = parallel.create("fsdp")

    def devices(backend=None):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax, "local_devices", devices)
    with spread.initial_device():
        assert jnp.ones(2).sum() == 2
