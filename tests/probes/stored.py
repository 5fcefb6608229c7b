"""Stored features of invented images."""

import numpy as np

from imagenet_repro.probes.stored_features import SHARD, StoredFeatures, row_order

DESCRIPTION = {"of": "a network on invented images", "data": ["invented"], "parameters": "abc"}


def clusters(images, width, classes, *, seed=0, spread=2.0):
    """Return features [images, width] around a centre for each class, rounded to float16, and labels."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    labels = rng.integers(0, classes, images).astype(np.int32)
    return (centres[labels] + spread * rng.normal(size=(images, width))).astype(np.float16), labels


def store(directory, labels, bad=(), **parts):
    """Write features by part, and labels, in the order of the split; images in `bad` cannot be decoded."""
    labels = np.where(np.isin(np.arange(len(labels)), bad), -1, labels).astype(np.int32)
    stored = StoredFeatures(directory, DESCRIPTION, len(labels), {name: x.shape[1] for name, x in parts.items()})
    order = row_order(len(labels))
    for first in range(0, len(labels), SHARD):
        index = order[first : first + SHARD]
        ids = np.array([f"image {number}" for number in index])
        arrays = {name: x[index] for name, x in parts.items()}
        stored.write(first, {**arrays, "label": labels[index], "index": index, "id": ids})
    return stored
