"""A network of two layers with batch norm and dropout, and helpers to train it in tests."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imagenet_repro.config import CosineSchedule, resolve_config
from imagenet_repro.models.nn.layers import BatchNorm, Conv, Dropout, Linear, relu
from imagenet_repro.models.nn.network import WithAuxiliary
from imagenet_repro.training import optimizer, parallel, state, step
from imagenet_repro.training.functional import FunctionalNetwork
from imagenet_repro.training.learning_rate import LearningRate

SIDE, CLASSES = 8, 10
LAYERS = {"conv": 0, "norm": 0, "fc1": 1, "fc2": 2, "heads": 2}


class Small(nnx.Module):
    """A convolution, batch norm and two linear layers, one of them large enough for fsdp to split; auxiliary heads."""

    def __init__(self, dropout: float, rngs: nnx.Rngs, heads: int = 0):
        self.conv = Conv(3, 16, 3, padding=1, bias=False, rngs=rngs)
        self.norm = BatchNorm(16)
        self.fc1 = Linear(SIDE * SIDE * 16, 64, rngs=rngs)
        self.drop = Dropout(dropout, rngs=rngs)
        self.fc2 = Linear(64, CLASSES, rngs=rngs)
        self.heads = nnx.List([Linear(16, CLASSES, rngs=rngs) for _ in range(heads)])
        self.deterministic = False

    def __call__(self, x):
        x = relu(self.norm(self.conv(x)))
        auxiliary = tuple(head(x.mean((1, 2))) for head in self.heads)
        x = self.drop(relu(self.fc1(x.reshape(len(x), -1))))
        logits = self.fc2(x).astype(jnp.float32)
        return WithAuxiliary(logits, auxiliary, 0.3) if auxiliary and not self.deterministic else logits


def config(**settings):
    base = {"batch_size": 32, "precision": "float32", "data": {"image_size": SIDE}, "optimizer": {"name": "sgd"}}
    return resolve_config(base | settings)


def network(dropout=0.0, cross_device_norm=False, heads=0):
    return FunctionalNetwork(Small(dropout, nnx.Rngs(0), heads), cross_device_norm=cross_device_norm)


def batch(number, size=32):
    rng = np.random.default_rng(number)
    return {
        "image": rng.integers(0, 256, (size, SIDE, SIDE, 3), dtype=np.uint8),
        "label": rng.integers(0, CLASSES, size).astype(np.int32),
        "epoch": np.zeros(size, np.int32),
        "index": rng.permutation(1000)[:size].astype(np.int32),
    }


def make(config, **options):
    """Return the train step and the initial state on the host."""
    net = network(**options)
    layers = {name: LAYERS[name.split(".")[0]] for name in net.params}
    tx = optimizer.create(config.optimizer, config.clip_norm, layers)
    first = state.create(net.params, net.stats, tx, ema=config.keeps_average, seed=config.seed)
    return step.TrainStep(net, config, CLASSES, tx), first


def learning_rate(progress, peak=0.1, schedule=None):
    with jax.ensure_compile_time_eval():  # tests also compute a rate while a step is traced
        return LearningRate(peak, schedule or CosineSchedule())(progress)


def train(config, mode, steps=3, **options):
    """Return state and measures on the host after some steps, spread in one way over all devices."""
    train_step, first = make(config, **options)
    spread = parallel.create(mode)
    placed = spread.put_state(first)
    compiled = spread.compile_training(train_step, placed, spread.put_batch(batch(0)))
    for number in range(steps):
        rate = learning_rate(number / 10, config.optimizer.learning_rate, config.schedule)
        placed, measures = compiled(placed, spread.put_batch(batch(number)), rate)
    return jax.device_get((placed, measures))
