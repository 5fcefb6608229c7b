"""Weights and inputs of the goldens: the same arrays on every machine, from names and seeds only."""

import functools
import zlib

import numpy as np


def formula(name, shape, salt=0):
    """Return a float32 array for the parameter `name` of `shape`, the same on every machine."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), salt])
    n = rng.standard_normal(shape, dtype=np.float32)
    if len(shape) <= 1:
        if name.endswith("bias") or name.endswith("running_mean"):
            return (0.1 * n).astype(np.float32)
        if name.endswith("running_var"):
            return (1.0 + 0.25 * np.abs(n)).astype(np.float32)
        return (1.0 + 0.1 * n).astype(np.float32)
    if "pos_embed" in name or "token" in name or "pos_embedding" in name:
        return (0.02 * n).astype(np.float32)
    if "layer_scale" in name or name.endswith("gamma"):
        return (1.0 + 0.1 * n).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    return (n * np.sqrt(2.0 / fan_in)).astype(np.float32)


def image(seed, size, batch=2):
    return np.random.default_rng(seed).standard_normal((batch, 3, size, size), dtype=np.float32)


@functools.cache
def photograph(height=331, width=457, seed=0):
    """Return uint8 [height, width, 3]: smooth colours with fine texture, the same on every machine."""
    rng = np.random.default_rng(seed)
    rows, columns = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    waves = sum(
        rng.uniform(10, 40, 3) * np.sin(2 * np.pi * (rng.uniform(0, k, 3) * rows + rng.uniform(0, k, 3) * columns))
        for k in (1, 3, 9, 27)
    )
    return np.clip(128 + waves + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
