"""Two small towers, and helpers to train them in tests."""

import dataclasses

import jax
import numpy as np
from flax import nnx

from imagenet_repro.config import resolve_config
from imagenet_repro.models import image_text
from imagenet_repro.training import optimizer, parallel, state
from imagenet_repro.training.contrastive_step import ContrastiveStep
from imagenet_repro.training.functional import FunctionalNetwork
from imagenet_repro.training.systems import contrastive

NAME, SIDE, LENGTH = "towers_for_tests", 8, 16
RATE = np.float32(2**-10)


def add(monkeypatch):
    """Add the towers to the table of networks for one test."""
    like = image_text.TWO_TOWERS["ours_tiny_clip"]
    small = {"width": 64, "depth": 1, "heads": 2, "hidden": 64}  # the embedding is large enough for fsdp to split
    text = dataclasses.replace(like.text, **small, context=LENGTH)
    row = dataclasses.replace(
        like, image=dataclasses.replace(like.image, **small, patch=4), text=text, features=24, image_size=SIDE
    )
    monkeypatch.setitem(image_text.TWO_TOWERS, NAME, row)


def config(**settings):
    base = {
        "batch_size": 32,
        "precision": "float32",
        "model": {"name": NAME, "options": {"image_size": SIDE}},
        "data": {"image_size": SIDE},
        "captions": {"name": "class_names"},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
    }
    return resolve_config(base | settings)


def batch(number, size=32):
    rng = np.random.default_rng(number)
    tokens = rng.integers(1, 257, (size, LENGTH)).astype(np.int32)
    tokens[:, -1] = 258
    return {
        "image": rng.integers(0, 256, (size, SIDE, SIDE, 3), dtype=np.uint8),
        "tokens": tokens,
        "epoch": np.zeros(size, np.int32),
        "index": rng.permutation(1000)[:size].astype(np.int32),
    }


def make(config):
    """Return the step and the initial state on the host."""
    network = FunctionalNetwork(contrastive.build(config, nnx.Rngs(0)))
    transformation = optimizer.create(config.optimizer, config.clip_norm, None)
    first = state.create(network.params, network.stats, transformation, ema=config.keeps_average, seed=config.seed)
    return ContrastiveStep(network, config, transformation), first


def train(config, mode, steps=2):
    """Return state and measures on the host after some steps, spread in one way over all devices."""
    step, first = make(config)
    spread = parallel.create(mode)
    placed = spread.put_state(first)
    compiled = spread.compile_training(step, placed, spread.put_batch(batch(0)))
    for number in range(steps):
        placed, measures = compiled(placed, spread.put_batch(batch(number)), RATE)
    return jax.device_get((placed, measures))
