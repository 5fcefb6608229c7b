"""Our training steps as benchmarks measure them: configuration, resident data, and the requests to PyTorch."""

from typing import Any

import jax
import numpy as np

from benchmarks import timing
from benchmarks.pytorch_steps import PeerStep
from imagenet_repro import models
from imagenet_repro.config import Config, resolve_config

AUXILIARY_FROM = 299  # pixels; below, torchvision's auxiliary head of Inception-v3 fails, so neither side has one


def create_config(
    name: str, image_size: int, batch: int, precision: str, options: dict[str, Any] | None = None, **settings: Any
) -> Config:
    """Return the configuration of a measured step: SGD with momentum, horizontal flips and no other augmentation."""
    base = {
        "batch_size": batch,
        "precision": precision,
        "parallel": "pmap",
        "deterministic": False,
        "model": {"name": name, "options": network_options(name, image_size) | (options or {})},
        "data": {"image_size": image_size, "eval_split": "validation[:64]"},
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
    }
    base["data"] |= settings.pop("data", {})
    config = resolve_config(base | settings)
    assert isinstance(config, Config)  # it has no channels
    return config


def network_options(name: str, image_size: int) -> dict[str, Any]:
    """Return our network's options with which both sides compute the same on images of this size."""
    if "image_size" in models.spec(name).options:  # position embeddings depend on it
        return {"image_size": image_size}
    return {} if has_auxiliary_heads(name, image_size) else {"auxiliary": False}


def has_auxiliary_heads(name: str, image_size: int) -> bool:
    """Return False where auxiliary heads are left out because torchvision's do not fit the images."""
    return name != "inception_v3" or image_size >= AUXILIARY_FROM


def peer_step(name: str, image_size: int, batch: int, precision: str, *, compiled: bool = True) -> PeerStep:
    """Return the request to measure PyTorch's network of the same name."""
    spec = models.spec(name)
    return PeerStep(
        name=name,
        reference=spec.reference,
        image_size=image_size,
        batch=batch,
        precision=precision,
        sized="image_size" in spec.options,
        auxiliary=has_auxiliary_heads(name, image_size),
        compiled=compiled,
    )


def resident_batch(batch: int, image_size: int) -> dict[str, np.ndarray]:
    """Return a training batch of random images, uint8 [batch, image_size, image_size, 3], with labels 0, 1, 2, …"""
    rng = np.random.default_rng(0)
    numbers: dict[str, np.ndarray] = {name: np.arange(batch, dtype=np.int32) for name in ("label", "epoch", "index")}
    numbers["label"] %= 1000
    return numbers | {"image": rng.integers(0, 256, (batch, image_size, image_size, 3), dtype=np.uint8)}


def measure(
    compiled: Any, state: Any, batch: dict[str, jax.Array], images: int, seconds: float
) -> tuple[timing.Rate, Any]:
    """Return the images per second of a compiled step on one batch, and the state after the last step."""
    latest = {"state": state}

    def step() -> None:
        latest["state"], latest["measures"] = compiled(latest["state"], batch, np.float32(0.1))

    rate = timing.rate(step, lambda: jax.block_until_ready(latest["measures"]), images, seconds)
    return rate, latest["state"]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of XLA or PyTorch says that a device's memory does not suffice."""
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()
