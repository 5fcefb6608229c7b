"""Four optimization steps of published implementations in PyTorch, repeated by our step, optimizer and loss.

tests/goldens/README.md says what the files hold. Batch norm over eight small images amplifies rounding, so the
comparison is in float64.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from imagenet_repro import models, pretrained
from imagenet_repro.config import resolve_config
from imagenet_repro.data.augment import augment
from imagenet_repro.training import optimizer, state
from imagenet_repro.training.functional import FunctionalNetwork
from imagenet_repro.training.step import AXIS, TrainStep
from tests.goldens.formula import formula, image

GOLDENS = Path(__file__).parents[1] / "goldens" / "training"
BATCH = 8
STEPS = 4
# The references train without dropout and stochastic depth, and timm moves running statistics by a tenth.
OPTIONS = {
    "alexnet_owt": {"dropout": 0.0},
    "vgg11_bn": {"dropout": 0.0},
    "googlenet_bn": {"dropout": 0.0, "auxiliary_dropout": 0.0},
    "seresnext50_32x4d": {"dropout": 0.0},
    "convnext_tiny": {"drop_path": 0.0},
    "efficientnet_b0": {"dropout": 0.0, "drop_path": 0.0, "norm_momentum": 0.1},
}
FLOAT32 = ("alexnet_owt", "vgg11_bn")
# Rounding may move an input of a ReLU across zero, which changes gradients by a hundredth. Whether it does depends on
# the order of sums: PyTorch 2.14 on a CPU crosses none in its usual memory layout, and has these distances in the
# layout `channels_last`. Ours crosses one in the second step, whichever formula takes the variance.
RESNET18_CHANNELS_LAST = {"losses": 9.4e-5, "logits": 1.35e-3}
QUICK = ("resnet18",)  # each of the others takes up to a minute
ALL = sorted(path.stem for path in GOLDENS.glob("*.npz"))


@pytest.fixture
def float64():
    """Let JAX compute in float64 while a test runs."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True)
def given_images(monkeypatch):
    """Replace augmentation, since the references see images that are normalised already."""

    def pass_on(images, labels, epoch, index, *, seed, spec, num_classes):
        targets = jax.nn.one_hot(labels, num_classes, dtype=images.dtype)
        smoothing = spec.label_smoothing
        return images, (1 - smoothing) * targets + smoothing / num_classes if smoothing else targets

    monkeypatch.setattr(augment, "augment", pass_on)


def configuration(golden, name, precision):
    settings, loss = json.loads(str(golden["optimizer"])), json.loads(str(golden["loss"]))
    clip_norm, smoothing = settings.pop("clip_norm", 0.0), loss.pop("smoothing")
    settings["decay_mask"] = settings.pop("decays")
    return resolve_config(
        {
            "precision": precision,
            "batch_size": BATCH,
            "clip_norm": clip_norm,
            "optimizer": settings,
            "loss": loss,
            "augment": {"label_smoothing": smoothing},
            "model": {"name": name, "options": OPTIONS.get(name, {})},
        }
    )


def network(golden, config):
    classes = int(golden["classes"])
    model = models.create(config.model.name, classes, config.precision, **config.model.options)
    pairs = zip(golden["names"].tolist(), golden["shapes"].tolist(), strict=True)
    weights = {name: formula(name, json.loads(shape), int(golden["salt"])) for name, shape in pairs}
    return FunctionalNetwork(pretrained.load_torch(model, weights))


def images(golden, seed, batch, precision):
    return image(seed, int(golden["image_size"]), batch).transpose(0, 2, 3, 1).astype(precision)


def take_steps(golden, name, precision):
    """Return the functional network, the state after the steps, and the measures of each step."""
    config = configuration(golden, name, precision)
    functional = network(golden, config)
    transformation = optimizer.create(config.optimizer, config.clip_norm)
    step = TrainStep(functional, config, int(golden["classes"]), transformation)
    train_state = state.create(functional.params, functional.stats, transformation, ema=False, seed=0)
    whole = PartitionSpec()
    one_device = jax.jit(
        jax.shard_map(
            step,
            mesh=Mesh(np.asarray(jax.devices()[:1]), (AXIS,)),
            in_specs=(whole, PartitionSpec(AXIS), whole),
            out_specs=whole,
            check_vma=False,
        )
    )
    measures = []
    for number in range(STEPS):
        batch = {
            "image": images(golden, int(golden["seed"]) + number, BATCH, precision),
            "label": ((np.arange(BATCH) * 7 + number) % 10).astype(np.int32),
            "epoch": np.zeros(BATCH, np.int32),
            "index": np.arange(BATCH, dtype=np.int32),
        }
        train_state, measured = one_device(train_state, batch, config.optimizer.learning_rate)
        measures.append({key: float(value) for key, value in measured.items()})
    return functional, train_state, measures


def distances(golden, name, precision):
    """Return relative distances from the reference's float64 by quantity."""
    functional, train_state, measures = take_steps(golden, name, precision)
    model = functional.model(train_state.params, train_state.stats)
    logits = jax.jit(functional.evaluate)(
        train_state.params, train_state.stats, images(golden, int(golden["seed"]), 2, precision)
    )
    tensors = pretrained.to_torch(model)
    norms = np.array([np.linalg.norm(np.asarray(tensors[key], np.float64)) for key in golden["names"].tolist()])
    return {
        "losses": relative([one["loss"] for one in measures], golden["losses"]),
        "objectives": relative([one.get("objective", one["loss"]) for one in measures], golden["objectives"]),
        "gradient_norms": relative([one["gradient_norm"] for one in measures], golden["gradient_norms"]),
        "logits": relative(logits, golden["logits"]),
        "final_norms": largest_relative(norms, golden["final_norms"]),
    }


def relative(ours, reference):
    return np.linalg.norm(np.asarray(ours, np.float64) - reference) / np.linalg.norm(reference)


def largest_relative(ours, reference):
    return np.max(np.abs(ours - reference) / np.maximum(np.abs(reference), 1e-12))


def cases():
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ALL]


@pytest.mark.parametrize("name", cases())
def test_float64_steps_are_those_of_pytorch(name, float64):
    golden = np.load(GOLDENS / f"{name}.npz")
    for quantity, distance in distances(golden, name, "float64").items():
        assert distance < 1e-6, quantity


def float32_distances(golden):
    """Return PyTorch's own relative distances in float32 from its float64."""
    return {
        "losses": relative(golden["float32_losses"], golden["losses"]),
        "logits": relative(golden["float32_logits"], golden["logits"]),
        "final_norms": largest_relative(golden["float32_final_norms"], golden["final_norms"]),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOAT32)
def test_float32_steps_are_within_ten_times_pytorchs_own_distance(name):
    golden = np.load(GOLDENS / f"{name}.npz")
    with jax.default_matmul_precision("highest"):
        ours = distances(golden, name, "float32")
    for quantity, distance in float32_distances(golden).items():
        assert ours[quantity] < 10 * distance, quantity


@pytest.mark.slow
def test_float32_steps_of_resnet18_are_within_pytorchs_distance_with_channels_last():
    golden = np.load(GOLDENS / "resnet18.npz")
    with jax.default_matmul_precision("highest"):
        ours = distances(golden, "resnet18", "float32")
    for quantity, distance in RESNET18_CHANNELS_LAST.items():
        assert ours[quantity] < distance, quantity


def test_all_nine_networks_are_there():
    assert len(ALL) == 9


def test_parameters_of_a_float64_network_are_float64(float64):
    model = models.create("resnet18", 10, "float64")
    dtypes = {array.dtype for array in jax.tree.leaves(FunctionalNetwork(model).params)}
    assert dtypes == {jnp.dtype("float64")}
