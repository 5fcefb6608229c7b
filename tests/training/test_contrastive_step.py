"""Tests of the step on pairs: three ways of spreading, the loss of the whole batch, the scale's bound, refusals."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imagenet_repro.data.augment import augment
from imagenet_repro.errors import UserError
from imagenet_repro.training.step import AXIS
from tests.training import small_towers


@pytest.fixture(autouse=True)
def towers(monkeypatch):
    small_towers.add(monkeypatch)


def reference_loss(step, name):
    """Return the loss of the whole batch as a function of the parameters, without any axis of devices."""
    batch = jax.tree.map(jnp.asarray, small_towers.batch(0))

    def loss(params):
        images = augment.normalize(batch["image"], step.config.augment)
        pairs = step.network.model(params, {})(images, batch["tokens"])
        logits = pairs.scale * pairs.images @ pairs.texts.T
        if name == "softmax":
            labels = np.arange(len(logits))
            both = [optax.softmax_cross_entropy_with_integer_labels(x, labels).mean() for x in (logits, logits.T)]
            return sum(both) / 2
        targets = np.eye(len(logits))
        return optax.sigmoid_binary_cross_entropy(logits + pairs.bias, targets).sum() / len(logits)

    return loss


OTHERS = {"softmax": ("pmap", "shard_map"), "sigmoid": ("pmap", "shard_map", "fsdp")}  # the same step otherwise


@pytest.mark.slow
@pytest.mark.parametrize(("name", "modes"), [("softmax", ("fsdp",)), *OTHERS.items()])
def test_every_way_has_the_loss_and_the_step_of_the_whole_batch(name, modes):
    assert jax.device_count() == 8
    config = small_towers.config(
        loss={"name": name},
        augment={"flip": False},
        optimizer={"name": "sgd", "momentum": 0.0, "weight_decay": 0.0},
        precision="float64",
    )
    with jax.enable_x64(True):
        step, first = small_towers.make(config)
        value, gradients = jax.jit(jax.value_and_grad(reference_loss(step, name)))(first.params)
        for mode in modes:
            state, measures = small_towers.train(config, mode, steps=1)
            np.testing.assert_allclose(measures["loss"], value, rtol=1e-6)
            for key, gradient in gradients.items():
                change = (first.params[key] - state.params[key]) / small_towers.RATE
                np.testing.assert_allclose(change, gradient, rtol=0, atol=1e-6, err_msg=f"{mode} {key}")
            assert 0 <= measures["top1_correct"] <= measures["top5_correct"] <= 32


def test_the_scale_is_clipped_after_a_step():
    config = small_towers.config(loss={"name": "softmax", "max_scale": 14.0})
    step, first = small_towers.make(config)
    assert float(first.params["logit_scale"]) == pytest.approx(math.log(1 / 0.07))
    bounded = step.bounded(first.params)
    assert float(bounded["logit_scale"]) == pytest.approx(math.log(14.0))
    assert step.bounded(first.params | {"logit_scale": np.float32(-1)})["logit_scale"] == 0
    sigmoid, state = small_towers.make(small_towers.config(loss={"name": "sigmoid"}))
    assert sigmoid.bounded(state.params) is state.params
    assert float(state.params["logit_bias"]) == -10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulate": 2}, r"config\.accumulate: 2 parts would each be a smaller batch"),
        ({"batch_size": 1}, r"config\.batch_size: 1 pair has no negatives"),
    ],
)
def test_parts_of_a_batch_and_single_pairs_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        small_towers.make(small_towers.config(**settings))


def test_towers_of_other_widths_are_refused():
    step, first = small_towers.make(small_towers.config())
    params = first.params | {"image.head.weight": np.zeros((64, 20), np.float32)}
    mapped = jax.vmap(step, axis_name=AXIS, in_axes=(None, 0, None))
    shares = {key: value[None] for key, value in small_towers.batch(0, 4).items()}
    other = dataclasses.replace(first, params=params)
    with pytest.raises(UserError, match=r"features of images have 20 numbers and those of texts 24"):
        jax.eval_shape(functools.partial(mapped, other), shares, np.float32(0))
