"""Features of a frozen network: one pass over the images of a split, written to disk in shards.

The network is in evaluation mode: dropout and stochastic depth are off, and normalisation uses the running statistics.
"""

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float16, Int, UInt8

from imagenet_repro import models
from imagenet_repro.config import Config, InceptionCrop, Kernel, config_to_dict
from imagenet_repro.data import crops, decode, loader
from imagenet_repro.data.augment import augment
from imagenet_repro.data.bad_records import BadRecords
from imagenet_repro.data.batch import TRAINING_KEYS, Batch
from imagenet_repro.data.prefetch import prefetch_to_device
from imagenet_repro.data.sources import Split
from imagenet_repro.data.split_hash import split_hash
from imagenet_repro.errors import UserError
from imagenet_repro.models.nn.network import Network
from imagenet_repro.probes.stored_features import SHARD, UNDECODABLE, StoredFeatures, row_order
from imagenet_repro.scoring.predictions import FLOAT16_MAX
from imagenet_repro.training.functional import FunctionalNetwork, Tensors

AXIS = "data"


@dataclasses.dataclass(frozen=True)
class Extraction:
    """The cost of a pass over the images.

    Attributes:
      images: that were computed; 0 where all features were stored already.
      seconds: of reading, computing and writing, without compilation.
    """

    images: int
    seconds: float


class FeatureExtractor:
    """A frozen network without its head, as functions from images to features.

    Args:
      config: of the network and the preparation of images: `model`, `data`, `eval_crop`, `augment` and `precision`.
      params: the network's parameters by name; those of a head are ignored.
      stats: its running statistics by name.
      say: called with a line about records that cannot be decoded.

    Attributes:
      layers: the parts that each layer of features is a concatenation of, by name.
      widths: the length of each part, by name.
      compilation_seconds: spent on compilation.

    Raises:
      UserError: the network does not take images of this size.
    """

    def __init__(
        self,
        config: Config,
        network: Network,
        params: Tensors,
        stats: Tensors,
        say: Callable[[str], None] = print,
    ):
        self.config, self._say = config, say
        self.layers = network.feature_layers
        self._network = FunctionalNetwork(network)
        values = (
            {name: params[name] for name in self._network.params},
            {name: stats[name] for name in self._network.stats},
        )
        self._mesh = Mesh(np.asarray(jax.local_devices()), (AXIS,))
        self._params, self._stats = jax.device_put(values, NamedSharding(self._mesh, PartitionSpec()))
        side = config.data.size_evaluated
        image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8)
        parts = jax.eval_shape(self._parts_of_crops, self._params, self._stats, image)
        self.widths = {name: part.shape[1] for name, part in parts.items()}
        self.compilation_seconds = 0.0
        self.batch_size = config.data.eval_batch_size or config.batch_size

    def _parts_of_crops(
        self, params: Tensors, stats: Tensors, images: UInt8[Array, "b h w 3"]
    ) -> dict[str, Float[Array, "b _"]]:
        return self._parts(params, stats, augment.normalize(images, self.config.augment))

    def _parts(
        self, params: Tensors, stats: Tensors, pixels: Float[Array, "b h w 3"]
    ) -> dict[str, Float[Array, "b _"]]:
        """Return the parts of the features in evaluation mode, float32."""
        return cast(Network, self._network.model(params, stats)).feature_parts(pixels)

    # --- stored features ---

    def describe(self, split: Split) -> dict[str, Any]:
        """Return everything that the features of a split depend on, as JSON values."""
        config = self.config
        return json.loads(
            json.dumps(
                {
                    "of": f"{config.model.name} on {split.name} {split.split}",
                    "network": [config.model.name, config.model.options],
                    "parameters": self._parameter_hash,
                    "layers": self.layers,
                    "precision": config.precision,
                    "preprocessing": [
                        config.data.size_evaluated,
                        config_to_dict(config.eval_crop),
                        config.augment.mean,
                        config.augment.std,
                    ],
                    "source": _source_hash(),
                    "classes": hashlib.sha256(json.dumps(split.class_names).encode()).hexdigest(),
                    "data": [split.name, split.version, split.split, split_hash(split)],
                }
            )
        )

    @functools.cached_property
    def _parameter_hash(self) -> str:
        digest = hashlib.sha256()
        for tensors in (self._params, self._stats):
            for name in sorted(tensors):
                array = np.asarray(tensors[name])
                digest.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def open(self, split: Split, directory: Path) -> StoredFeatures:
        """Return the stored features of a split, in a directory named after a hash of what they depend on.

        Raises:
          UserError: the directory holds features of something else.
          SaveError: it cannot be written.
        """
        description = self.describe(split)
        key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
        name = f"{self.config.model.name}.{split.name.replace('/', '_')}.{key}"
        return StoredFeatures(directory / name, description, split.num_examples, self.widths)

    def extract(
        self, split: Split, stored: StoredFeatures, rows: int, show: Callable[[int], None] = lambda images: None
    ) -> Extraction:
        """Compute the features that are missing of the first `rows` rows, shard by shard.

        Args:
          split: the images.
          stored: the result of `open`.
          rows: the number of rows; the last shard is always computed whole.
          show: called with the number of images of each batch.

        Raises:
          UserError: too many images cannot be decoded, or a feature is not finite.
          SaveError: a shard cannot be written.
        """
        stored.check_space(rows)
        began, compiling, images = time.perf_counter(), self.compilation_seconds, 0
        for missing in stored.missing(rows):
            pending: list[dict[str, np.ndarray]] = []
            first = missing.start
            for arrays in self._batches_of_rows(split, missing):
                pending.append(arrays)
                images += len(arrays["label"])
                show(len(arrays["label"]))
                while (count := sum(len(part["label"]) for part in pending)) >= SHARD or first + count == missing.stop:
                    if not count:
                        break
                    joined = {name: np.concatenate([part[name] for part in pending]) for name in pending[0]}
                    stored.write(first, {name: array[:SHARD] for name, array in joined.items()})
                    first += min(SHARD, count)
                    pending = [{name: array[SHARD:] for name, array in joined.items()}]
        return Extraction(images, time.perf_counter() - began - (self.compilation_seconds - compiling))

    def _batches_of_rows(self, split: Split, rows: range) -> Iterator[dict[str, np.ndarray]]:
        """Yield the arrays of a shard for some rows, batch by batch."""
        order = row_order(split.num_examples)[rows.start : rows.stop]
        subset = split.subset(order.tolist())
        # The share of the split that may be undecodable, which may all be in this part of it.
        share = min(1.0, self.config.data.max_bad_share * split.num_examples / len(order))
        data = dataclasses.replace(self.config.data, max_bad_share=share)
        bad = BadRecords(subset, data, self._say)
        batches = loader.eval_batches(subset, data, self.config.eval_crop, batch_size=self.batch_size)
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
        previous: tuple[Batch, dict[str, Array]] | None = None
        for host, images in prefetch_to_device(batches, lambda batch: jax.device_put(batch["image"], sharding)):
            bad.update(host)
            bad.check()
            current = host, self._compiled(images.shape)(self._params, self._stats, images)
            if previous is not None:
                yield self._fetch(*previous, order)
            previous = current
        if previous is not None:
            yield self._fetch(*previous, order)

    def _fetch(self, batch: Batch, parts: dict[str, Array], order: Int[np.ndarray, " n"]) -> dict[str, np.ndarray]:
        is_image = batch["index"] >= 0
        can_decode = batch["weight"][is_image] > 0
        arrays: dict[str, np.ndarray] = {}
        for name, values in parts.items():
            rows = np.asarray(values)[is_image]
            if not np.isfinite(rows[can_decode]).all():
                raise UserError(
                    f"features of {self.config.model.name} ({name}) are not finite for image"
                    f" {batch['id'][is_image][can_decode][~np.isfinite(rows[can_decode]).all(1)][0]}; the weights are"
                    " damaged, or the training diverged"
                )
            arrays[name] = np.where(can_decode[:, None], rows, np.float16(0))
        arrays["label"] = np.where(can_decode, batch["label"][is_image], UNDECODABLE).astype(np.int32)
        arrays["index"] = order[batch["index"][is_image]]
        arrays["id"] = batch["id"][is_image]
        return arrays

    @functools.cache  # noqa: B019 (an extractor lives as long as its command)
    def _compiled(self, shape: tuple[int, ...]) -> Callable[..., dict[str, Array]]:
        """Return the compiled function from crops to float16 parts; numbers beyond float16's range become its ends."""

        def compute(params: Tensors, stats: Tensors, images: Array) -> dict[str, Float16[Array, "b _"]]:
            parts = self._parts_of_crops(params, stats, images)
            return {
                name: jnp.clip(part, -FLOAT16_MAX, FLOAT16_MAX).astype(jnp.float16) for name, part in parts.items()
            }

        return self._compile(compute, jax.ShapeDtypeStruct(shape, jnp.uint8))

    def _compile(self, function: Callable, *batch: jax.ShapeDtypeStruct) -> Callable:
        """Compile a function of parameters, statistics and a batch that the devices share."""
        replicated, share = PartitionSpec(), PartitionSpec(AXIS)
        specs = (replicated, replicated, *[share] * len(batch))
        mapped = jax.shard_map(function, mesh=self._mesh, in_specs=specs, out_specs=share, check_vma=False)
        sharding = NamedSharding(self._mesh, share)
        arguments = [jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding) for array in batch]
        began = time.perf_counter()
        compiled = jax.jit(mapped).lower(self._params, self._stats, *arguments).compile()
        self.compilation_seconds += time.perf_counter() - began
        return compiled

    # --- features of random crops ---

    def random_batches(
        self,
        split: Split,
        parts: Sequence[str],
        *,
        batch_size: int,
        seed: int,
        first_row: int,
        steps: int,
        start_step: int = 0,
    ) -> Iterator[tuple[Float[Array, "b d"], Int[Array, " b"]]]:
        """Yield features of random-resized and mirrored crops, with labels, for training: computed step by step.

        The crop is DINOv2's: `InceptionCrop` with the kernel of the evaluation crop, antialiased.

        Args:
          split: the images.
          parts: names of the parts that are concatenated.
          batch_size: images of a step.
          seed: of order, crops and mirroring.
          first_row: the rows before it are held out.
          steps: number of batches.
          start_step: the step of the first batch.
        """
        subset = split.subset(row_order(split.num_examples)[first_row:].tolist())
        crop = InceptionCrop(kernel=cast(Kernel, self.config.eval_crop.kernel), antialias=True)
        data = dataclasses.replace(self.config.data, image_size=self.config.data.size_evaluated, repeats=1)
        spec = dataclasses.replace(
            type(self.config.augment)(), mean=self.config.augment.mean, std=self.config.augment.std
        )

        def compute(params: Tensors, stats: Tensors, *batch: Array) -> tuple[Array, Array]:
            images, label, epoch, index = batch
            pixels, _ = augment.augment(
                images, label, epoch, index, seed=seed, spec=spec, num_classes=split.num_classes
            )
            arrays = self._parts(params, stats, pixels)
            return jnp.concatenate([arrays[name] for name in parts], axis=1), label

        batches = loader.train_batches(
            subset, data, crop, batch_size=batch_size, seed=seed, start_step=start_step, num_steps=steps
        )
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
        bad, compiled = BadRecords(subset, data, self._say), None

        def put(batch: Batch) -> list[Array]:
            return [jax.device_put(batch[name], sharding) for name in TRAINING_KEYS]

        for host, arrays in prefetch_to_device(batches, put):
            bad.update(host)
            bad.check()
            if compiled is None:
                shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays]
                compiled = self._compile(compute, *shapes)
            yield compiled(self._params, self._stats, *arrays)


@functools.cache
def _source_hash() -> str:
    """Return a hash of the source that turns encoded images into features: networks, decoding, crops, augmentation."""
    networks = sorted(Path(models.__file__).parent.rglob("*.py"))
    digest = hashlib.sha256()
    for path in (*networks, *(Path(str(module.__file__)) for module in (crops, decode, augment))):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
