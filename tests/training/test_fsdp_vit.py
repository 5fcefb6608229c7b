"""Tests of a vision transformer in shards, one block compiled for all, against the same step on one device."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest

from imagenet_repro.config import resolve_config
from imagenet_repro.training.step import AXIS
from imagenet_repro.training.systems import NetworkSystem

BATCH, CLASSES = 8, 10

RATE = np.float32(0.1)


def config(name, image_size, depth, scan=True, remat=True, **settings):
    options = {"depth": depth, "image_size": image_size, "scan": scan, "remat": remat}
    return resolve_config(
        {
            "model": {"name": name, "options": options},
            "batch_size": BATCH,
            "precision": "float32",
            "parallel": "fsdp",
            "data": {"image_size": image_size},
            "optimizer": {"name": "sgd", "momentum": 0.9},
        }
        | settings
    )


def batch(image_size):
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (BATCH, image_size, image_size, 3), dtype=np.uint8),
        "label": rng.integers(0, CLASSES, BATCH).astype(np.int32),
        "epoch": np.zeros(BATCH, np.int32),
        "index": np.arange(BATCH, dtype=np.int32),
    }


def held(tensors):
    """Return the largest share of the tensors on one device."""
    shares = [x.addressable_shards[0].data.size for x in tensors.values()]
    return sum(shares) / sum(x.size for x in tensors.values())


@pytest.mark.parametrize(
    ("name", "image_size", "depth", "scan", "remat"),
    [
        ("vit_tiny_patch16", 32, 3, True, True),
        pytest.param("vit_tiny_patch16", 32, 1, False, None, marks=pytest.mark.slow),
        # 78 M parameters; G at 2 of 48 blocks
        pytest.param("vit_gigantic_patch14", 28, 2, True, True, marks=pytest.mark.slow),
    ],
)
def test_fsdp_takes_the_step_of_one_device_with_an_eighth_of_the_parameters_on_each(
    name, image_size, depth, scan, remat
):
    assert jax.device_count() == 8
    system = NetworkSystem.create(config(name, image_size, depth, scan, remat), CLASSES)
    images = batch(image_size)
    step = system.train_step(1)
    state = system.initial_state()
    host = jax.device_get(state)
    assert held(state.params) < 0.14
    placed = system.spread.put_batch(images)
    compiled = system.spread.compile_training(step, state, placed)
    after, measures = compiled(state, placed, RATE)
    assert held(after.params) < 0.14
    largest = max((x for x in jax.tree.leaves(after.opt_state) if x.shape), key=lambda x: x.size)
    assert largest.addressable_shards[0].data.size * 8 == largest.size
    one = jax.jit(jax.vmap(functools.partial(step), axis_name=AXIS, in_axes=(None, 0, None)))
    expected, alone = one(host, jax.tree.map(lambda x: x[None], images), RATE)
    np.testing.assert_allclose(measures["loss"], alone["loss"][0], rtol=1e-5)
    np.testing.assert_allclose(measures["gradient_norm"], alone["gradient_norm"][0], rtol=1e-4)
    for key, value in expected.params.items():
        moved = np.linalg.norm(value[0] - host.params[key])
        assert np.linalg.norm(after.params[key] - value[0]) <= 1e-3 * moved + 1e-6, key


@pytest.mark.parametrize("policy", ["none", pytest.param("products", marks=pytest.mark.slow)])
def test_neither_all_blocks_nor_float32_are_gathered_at_once(policy):
    spread = config("vit_tiny_patch16", 32, 3, remat=None, precision="bfloat16")
    system = NetworkSystem.create(spread, CLASSES)
    state = system.initial_state()
    step = dataclasses.replace(system.train_step(1), network=system.network.with_remat(policy))
    text = system.spread.lower_training(step, state, system.spread.put_batch(batch(32))).as_text()
    gathered = re.findall(r"stablehlo.all_gather.*-> tensor<(.*)>", text)
    assert gathered
    assert {shape.rsplit("x", 1)[1] for shape in gathered} == {"bf16"}
    assert "tensor<192x768xbf16>" in text  # the weights of a linear layer
    assert "tensor<3x192x96xf32>" in text  # one device's part of those of three blocks
    assert not re.search(r"tensor<3x192x768x\w+>", text)
