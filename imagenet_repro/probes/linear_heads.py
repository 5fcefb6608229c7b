"""Linear heads on a grid of layers and learning rates, trained together (Oquab et al. 2023, appendix B.3).

Every head is a linear layer with a bias, trained by SGD with momentum on the cross-entropy, without weight decay; its
rate falls from `learning_rate * batch_size / 256` to 0 along a cosine. The heads share their batches and nothing else,
so that each becomes what it would become alone. Weights start from N(0, 0.01^2), biases from 0. All of this is as in
facebookresearch/dinov2, eval/linear.py.
"""

import dataclasses
import functools
import math
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Int32

from imagenet_repro.probes.device_blocks import AXIS, DeviceBlocks, mesh
from imagenet_repro.probes.stored_features import FeatureRows
from imagenet_repro.scoring import metrics

STD = 0.01  # of the initial weights
REFERENCE_BATCH = 256  # images, for which learning rates are stated
SCORED_TOGETHER = 1024  # images, since the logits of all heads take their memory
IN_FLIGHT = 8  # steps whose batches may be on the devices

Params = dict[str, dict[str, Array]]  # by layer: weight [r, d, c] and bias [r, c] of its r heads
Batch = tuple[Float[Array, "b d"], Int[Array, " b"]]


class TrainingState(NamedTuple):
    """All heads after some steps, and what the next step needs.

    Attributes:
      step: the number of steps taken.
      params: the heads.
      momentum: the running sum of gradients of each array of `params`.
    """

    step: int
    params: Params
    momentum: Params


@dataclasses.dataclass(frozen=True)
class Head:
    """One head of the grid."""

    layer: str
    learning_rate: float  # for a batch of 256 images

    def __str__(self) -> str:
        return f"{self.layer}, rate {self.learning_rate:g}"


@dataclasses.dataclass(frozen=True)
class HeadGrid:
    """The heads.

    Attributes:
      layers: the columns of a row of features that each layer consists of, by name.
      learning_rates: of every layer's heads, for a batch of 256 images.
      num_classes: the number of classes.
      seed: of the initial values. Those of a head depend on its layer and rate, not on the rest of the grid.
    """

    layers: Mapping[str, slice]
    learning_rates: tuple[float, ...]
    num_classes: int
    seed: int = 0

    @property
    def heads(self) -> list[Head]:
        """All heads, in the order of `HeadScores`."""
        return [Head(layer, rate) for layer in self.layers for rate in self.learning_rates]

    def initial(self) -> Params:
        """Return the heads before the first step."""
        params = {}
        for layer, columns in self.layers.items():
            shape = (columns.stop - columns.start, self.num_classes)
            names = [str(Head(layer, rate)) for rate in self.learning_rates]
            keys = [jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(name.encode())) for name in names]
            weight = STD * jnp.stack([jax.random.normal(key, shape, jnp.float32) for key in keys])
            params[layer] = {"weight": weight, "bias": jnp.zeros((len(keys), self.num_classes), jnp.float32)}
        return params

    def initial_state(self) -> TrainingState:
        """Return the state before the first step."""
        params = self.initial()
        return TrainingState(0, params, jax.tree.map(jnp.zeros_like, params))

    def logits(self, params: Params, features: Float[Array, "b d"]) -> Float[Array, "h b c"]:
        """Return the logits of all heads, in the order of `heads`."""
        wide = features.astype(jnp.float32)
        return jnp.concatenate([_layer_logits(params[layer], wide[:, part]) for layer, part in self.layers.items()])


def _layer_logits(head: dict[str, Array], x: Float[Array, "b d"]) -> Float[Array, "r b c"]:
    return jax.vmap(lambda weight, bias: jnp.matmul(x, weight, precision=lax.Precision.HIGHEST) + bias)(
        head["weight"], head["bias"]
    )


def shuffled_batches(
    rows: FeatureRows, batch_size: int, seed: int, start_step: int = 0
) -> Iterator[tuple[Float[np.ndarray, "b d"], Int32[np.ndarray, " b"]]]:
    """Yield batches of stored features without end: blocks in a new order in each epoch, shuffled within.

    The rows of a split are in a random order on disk, so a block is a random part of it. A batch may end one block and
    begin the next, so that no image is dropped. The batches of the steps before `start_step` are left out, at the cost
    of reading at most one epoch.
    """
    features, labels = np.empty((0, rows.width), np.float16), np.empty(0, np.int32)
    epoch, n_skipped = divmod(start_step * batch_size, len(rows.labels()[0])) if start_step else (0, 0)
    while True:
        rng = np.random.default_rng((seed, epoch))
        for block in rows.blocks(rng.permutation(rows.n_blocks).tolist()):
            order = rng.permutation(len(block.label))[n_skipped:]
            n_skipped = max(0, n_skipped - len(block.label))
            features = np.concatenate([features, block.features[order]])
            labels = np.concatenate([labels, block.label[order]])
            n_whole = len(labels) // batch_size * batch_size
            for start in range(0, n_whole, batch_size):
                yield features[start : start + batch_size], labels[start : start + batch_size]
            features, labels = features[n_whole:], labels[n_whole:]
        epoch += 1


def train(
    grid: HeadGrid,
    batches: Iterator[Batch],
    *,
    steps: int,
    batch_size: int,
    momentum: float,
    start: TrainingState | None = None,
) -> Iterator[TrainingState]:
    """Train all heads; yield their state after every step.

    The arrays that are yielded are valid until the next step, which takes their memory.

    Args:
      grid: the heads.
      batches: features and labels from the first step that is taken here, for all of them.
      steps: number of steps of the whole training.
      batch_size: images of a step, by which the rates are scaled.
      momentum: of SGD.
      start: the state to continue from; None: that before the first step.
    """
    replicated = NamedSharding(mesh(), PartitionSpec())
    optimizer = optax.trace(decay=momentum)
    first, params, trace = start or grid.initial_state()
    params, trace = jax.device_put((params, trace), replicated)
    state = optax.TraceState(trace)
    scaled = jnp.asarray(grid.learning_rates, jnp.float32) * (batch_size / REFERENCE_BATCH)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Params, state: optax.OptState, features: Array, labels: Array, factor: Array) -> tuple:
        def total_loss(params: Params) -> Array:
            # A head's gradient depends on its own loss alone.
            return jax.vmap(metrics.cross_entropy, (0, None))(grid.logits(params, features), labels).mean(1).sum()

        directions, state = optimizer.update(jax.grad(total_loss)(params), state)

        def move(x: Array, direction: Array) -> Array:
            return x - factor * scaled.reshape(-1, *[1] * (x.ndim - 1)) * direction

        return jax.tree.map(move, params, directions), state

    share = NamedSharding(mesh(), PartitionSpec(AXIS) if batch_size % mesh().size == 0 else PartitionSpec())
    for step in range(first, steps):
        features, labels = jax.device_put(next(batches), share)
        factor = 0.5 * (1 + math.cos(math.pi * step / steps))
        params, state = update(params, state, features, labels, jnp.float32(factor))
        if step % IN_FLIGHT == 0:
            jax.block_until_ready(params)
        yield TrainingState(step + 1, params, state.trace)


class HeadScores(NamedTuple):
    """The scores of all heads on some images, in the order of `HeadGrid.heads`.

    Attributes:
      wrong: images that are wrong with one guess and with five.
      cross_entropy: sum over the images, nats.
      images: the number of images.
    """

    wrong: Int[np.ndarray, "h 2"]
    cross_entropy: Float[np.ndarray, " h"]
    images: int

    @property
    def best(self) -> int:
        """The head with the fewest images wrong with one guess; of equal ones, the one of the least cross-entropy."""
        return int(np.lexsort((self.cross_entropy, self.wrong[:, 0]))[0])


def score(grid: HeadGrid, params: Params, rows: FeatureRows) -> HeadScores:
    """Return the scores of all heads on some rows."""

    @jax.jit
    def count(params: Params, features: Array, labels: Array) -> tuple[Array, Array]:
        weights = (labels >= 0).astype(jnp.float32)
        logits = grid.logits(params, features)
        counts = jax.vmap(metrics.correct_counts, (0, None, None))(logits, labels, weights)
        wrong = [counts["images"] - counts[key] for key in ("top1_correct", "top5_correct")]
        entropies = jax.vmap(metrics.cross_entropy, (0, None))(logits, jnp.maximum(labels, 0))
        return jnp.stack(wrong, axis=1), jax.vmap(metrics.weighted_sum, (0, None))(entropies, weights)

    wrong, entropy, images = np.zeros((len(grid.heads), 2), np.int64), np.zeros(len(grid.heads)), 0
    size = max(1, SCORED_TOGETHER // mesh().size) * mesh().size
    for block in DeviceBlocks(rows, is_split=False, budget=0):
        images += len(block.index)
        for start in range(0, len(block.label), size):
            part = slice(start, start + size)
            counts, entropies = count(params, block.features[part], block.label[part])
            wrong += np.asarray(counts)
            entropy += np.asarray(entropies)
    return HeadScores(wrong, entropy, images)


def one_head(grid: HeadGrid, params: Params, number: int) -> tuple[slice, np.ndarray, np.ndarray]:
    """Return the columns, the weight [d, c] and the bias [c] of a head by its number in `grid.heads`."""
    head = grid.heads[number]
    rate = grid.learning_rates.index(head.learning_rate)
    weight, bias = (np.asarray(params[head.layer][name][rate]) for name in ("weight", "bias"))
    return grid.layers[head.layer], weight, bias
