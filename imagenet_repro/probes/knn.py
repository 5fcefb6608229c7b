"""The weighted vote of the nearest neighbours (Wu et al. 2018, arXiv 1805.01978; DINO, Caron et al. 2021, sec. 4.1).

Features are divided by their norms. The k training images of the largest cosine similarity s vote for their classes
with weight exp(s / temperature). The search is exact: products of blocks, and the best of all blocks so far. Of equal
similarities, the one of the earlier row counts as larger.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float16, Float32, Int32

from imagenet_repro.config.probe import KnnProbe
from imagenet_repro.errors import UserError
from imagenet_repro.probes.device_blocks import AXIS, DeviceBlocks, mesh
from imagenet_repro.probes.stored_features import FeatureRows

QUERIES = 1024  # images whose neighbours are found in one product


class Votes(NamedTuple):
    """The votes on some images.

    Attributes:
      label: the class of each image.
      index: the number of each image in its split.
      scores: by k, the logarithm of each class's votes; minus infinity for a class without any.
    """

    label: Int32[np.ndarray, " n"]
    index: Int32[np.ndarray, " n"]
    scores: dict[int, Float32[np.ndarray, "n c"]]


class _Nearest(NamedTuple):
    """The most similar training images so far, the most similar first."""

    similarity: Float32[Array, "q k"]
    label: Int32[Array, "q k"]


def check(settings: KnnProbe, images: int) -> None:
    """Raise UserError where k is larger than the number of training images."""
    largest = max(settings.k)
    if largest > images:
        fitting = [k for k in settings.k if k <= images] or [images]
        raise UserError(
            f"--probe.knn.k={largest}: there are {images:,} training images to compare with, and an image cannot have"
            f" more neighbours than that; give --probe.knn.k={','.join(map(str, fitting))}"
        )


def votes(
    train: FeatureRows,
    queries: FeatureRows,
    settings: KnnProbe,
    num_classes: int,
    show: Callable[[int], None] = lambda images: None,
) -> Iterator[Votes]:
    """Yield the votes on all query images, 16,384 at a time: in one pass over the training rows each.

    Raises:
      UserError: as `check`.
    """
    check(settings, len(train.labels()[0]))
    bank = DeviceBlocks(train, is_split=False)
    devices = mesh()
    size = -(-min(QUERIES, queries.stop - queries.start) // devices.size) * devices.size
    sharding = NamedSharding(devices, PartitionSpec(AXIS))
    largest = max(settings.k)
    for block in queries.blocks():
        starts = range(0, len(block.label), size)
        parts = [jax.device_put(_padded(block.features[start : start + size], size), sharding) for start in starts]
        nearest = [_nothing(size, largest)] * len(parts)
        for training in bank:
            for number, part in enumerate(parts):
                nearest[number] = _merge(nearest[number], part, training.features, training.label)
        scores: dict[int, list[np.ndarray]] = {k: [] for k in settings.k}
        for start, found in zip(starts, nearest, strict=True):
            count = min(size, len(block.label) - start)
            for k in settings.k:
                scores[k].append(np.asarray(vote(*found, k, settings.temperature, num_classes))[:count])
            show(count)
        yield Votes(block.label, block.index, {k: np.concatenate(arrays) for k, arrays in scores.items()})


def _padded(features: np.ndarray, size: int) -> np.ndarray:
    return np.pad(features, ((0, size - len(features)), (0, 0)))


def _nothing(size: int, k: int) -> _Nearest:
    return _Nearest(jnp.full((size, k), -jnp.inf, jnp.float32), jnp.zeros((size, k), jnp.int32))


@jax.jit
def _merge(
    nearest: _Nearest, queries: Float16[Array, "q d"], features: Float16[Array, "b d"], label: Int32[Array, " b"]
) -> _Nearest:
    """Return the most similar images of those found before and those of a block."""
    similarity = jnp.matmul(_normalise(queries), _normalise(features).T, precision=lax.Precision.HIGHEST)
    similarity = jnp.where(label >= 0, similarity, -jnp.inf)
    both = jnp.concatenate([nearest.similarity, similarity], axis=1)
    labels = jnp.concatenate([nearest.label, jnp.broadcast_to(label, similarity.shape)], axis=1)
    best, place = lax.top_k(both, nearest.similarity.shape[1])
    return _Nearest(best, jnp.take_along_axis(labels, place, axis=1))


def _normalise(x: Float16[Array, "n d"]) -> Float32[Array, "n d"]:
    wide = x.astype(jnp.float32)
    return wide / jnp.maximum(jnp.linalg.norm(wide, axis=1, keepdims=True), 1e-12)


@functools.partial(jax.jit, static_argnums=(2, 4))
def vote(
    similarity: Float32[Array, "q m"],
    label: Int32[Array, "q m"],
    k: int,
    temperature: float | Float[Array, ""],
    num_classes: int,
) -> Float32[Array, "q c"]:
    """Return the logarithm of each class's votes, by the first k of m >= k neighbours in decreasing similarity."""
    weights = jnp.exp((similarity[:, :k] - similarity[:, :1]) / temperature)  # the largest is 1: nothing overflows
    rows = jnp.arange(len(similarity))[:, None]
    return jnp.log(jnp.zeros((len(similarity), num_classes), jnp.float32).at[rows, label[:, :k]].add(weights))
