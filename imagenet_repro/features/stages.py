"""The stages of a channel before its SVM trains: sample, vocabulary, quantiser, codes; each is stored on disk.

The results of a stage are in a directory whose name contains a key of everything that they depend on (stage_key.py).
So a finished stage is never repeated, and its results are never stale. An interrupted stage of codes resumes from the
codes that are stored. Several runs may share a directory: the second waits for the first.
"""

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from imagenet_repro.config import Channel, FeatureConfig
from imagenet_repro.data.bad_records import BadRecords
from imagenet_repro.data.batch import Batch
from imagenet_repro.data.order import epoch_order
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.features.channel_encoder import ChannelEncoder, Vocabulary
from imagenet_repro.features.encoding import pca, quantisation
from imagenet_repro.features.encoding.quantisation import Quantiser
from imagenet_repro.features.image_stream import ImageStream
from imagenet_repro.features.stage_key import stage_key
from imagenet_repro.features.stored_codes import UNDECODABLE, StoredCodes
from imagenet_repro.storage import files, locks

COMMIT_SECONDS = 10.0  # of computed codes that a kill may lose
SAMPLE_NUMBERS = 2**26  # numbers of descriptors that are transferred to the host at a time


@runtime_checkable
class Monitor(Protocol):
    """An observer of the stages."""

    def say(self, text: str) -> None:
        """Show one line."""

    def show(self, stage: str, done: int, total: int) -> None:
        """Show how many images a stage has done."""

    def stopping(self) -> bool:
        """Return whether the run should stop."""
        ...

    def flops(self, function: Callable, *arguments: Any) -> int:
        """Return the floating point operations of a function."""
        ...


class StoppedError(Exception):
    """The monitor requested a stop; finished work is kept."""


@dataclasses.dataclass(frozen=True)
class StageCost:
    """The cost of a stage, over all processes that worked on it.

    Attributes:
      seconds: reading and computing, without the compilation of functions of a batch of images.
      flops: floating point operations.
      bytes: on disk.
    """

    seconds: float
    flops: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class LearnedChannel:
    """The results of a channel's stages, from which its SVM trains.

    Attributes:
      vocabulary: of the channel's encoder.
      quantiser: of its codes; None where they are kept as float16.
      codes: of the training images.
      costs: by stage.
    """

    vocabulary: Vocabulary
    quantiser: Quantiser | None
    codes: StoredCodes
    costs: dict[str, StageCost]


class ChannelStages:
    """The stages of one channel.

    Args:
      name: of the channel.
      config: of the run.
      split: the training images.
      directory: the directory of the results.
      monitor: receives the progress and decides whether to stop.
    """

    def __init__(self, name: str, config: FeatureConfig, split: Split, directory: Path, monitor: Monitor):
        self.name, self._config, self._split, self._monitor = name, config, split, monitor
        self.channel: Channel = config.channels[name]
        self.encoder = ChannelEncoder(self.channel, config.data.image_size)
        self._batch_size = config.data.eval_batch_size or config.batch_size
        self._bad_records = BadRecords(split, config.data, monitor.say)
        self._stream = ImageStream(config)
        unquantised = dataclasses.replace(self.channel, quantise=0)
        vocabulary_key = stage_key(config, split, unquantised, codes=0)
        codes_key = stage_key(config, split, self.channel, codes=config.sample.codes)
        self._vocabulary_directory = directory / f"{name}.vocabulary.{vocabulary_key}"
        self._codes_directory = directory / f"{name}.codes.{codes_key}"
        self._costs: dict[str, StageCost] = {}
        self._check_sample(min(config.sample.codes, split.num_examples))

    def run(self) -> LearnedChannel:
        """Run the stages that are not finished and return the results of all.

        Raises:
          StoppedError: the monitor requested a stop; another call continues from there.
          UserError: too few images or descriptors, or too many images that cannot be decoded.
          SaveError: a file could not be written.
        """
        with self._lock(self._vocabulary_directory):
            arrays = self._load_or_compute(self._vocabulary_directory / "vocabulary.npz", self._learn_vocabulary)
        vocabulary = {name: jnp.asarray(value) for name, value in arrays.items()}
        with self._lock(self._codes_directory):
            quantiser = self._quantiser(vocabulary)
            codes = self._codes(vocabulary, quantiser)
        return LearnedChannel(vocabulary, quantiser, codes, self._costs)

    # --- vocabulary ---

    def _learn_vocabulary(self) -> dict[str, Any]:
        """Learn the principal components, then the Gaussians or words."""
        seconds = self._stream.timer()
        sample, reduction = self._sample()
        images = min(self._config.sample.images, self._split.num_examples)
        flops_per_image = self._monitor.flops(self.encoder.describe, self._stream.shape(1))
        self._costs["sample"] = StageCost(seconds(), flops_per_image * images, 0)
        seconds = self._stream.timer()
        key = self._key(0)
        x = self.encoder.project(jnp.asarray(sample), reduction)
        self._monitor.say(f"{self.name}: learning a vocabulary from {len(x):,} descriptors")
        words = jax.device_get(self.encoder.learn(x, key))
        flops = self._monitor.flops(lambda x: self.encoder.learn(x, key), jax.ShapeDtypeStruct(x.shape, jnp.float32))
        self._costs["vocabulary"] = StageCost(seconds(), flops, 0)
        return reduction | words

    def _sample(self) -> tuple[Float[np.ndarray, "n d"], Vocabulary]:
        """Return some descriptors of some images, and the reduction learned from all descriptors of these images."""
        images = min(self._config.sample.images, self._split.num_examples)
        per_image = min(self.encoder.points, -(-self._config.sample.descriptors // images))
        moments, sample = pca.Moments(self.encoder.numbers), []
        rng = np.random.default_rng(self._config.seed)
        devices = jax.local_device_count()
        batch = max(1, min(256, SAMPLE_NUMBERS // (self.encoder.points * self.encoder.numbers)) // devices) * devices
        for descriptors in self._decodable_results("sample", self.encoder.describe, images, batch):
            moments.add(descriptors.reshape(-1, descriptors.shape[-1]))
            points = np.tile(np.arange(self.encoder.points), (len(descriptors), 1))
            chosen = rng.permuted(points, axis=1)[:, :per_image]
            drawn = np.take_along_axis(descriptors, chosen[..., None], axis=1)
            sample.append(drawn.reshape(-1, descriptors.shape[-1]))
        if not sum(map(len, sample)):
            raise UserError(f"none of the images that {self.name} learns from could be decoded")
        return np.concatenate(sample)[: self._config.sample.descriptors], self.encoder.reduce(moments)

    # --- quantiser ---

    def _quantiser(self, vocabulary: Vocabulary) -> Quantiser | None:
        if not self.channel.quantise:
            return None
        learn = functools.partial(self._learn_quantiser, vocabulary)
        arrays = self._load_or_compute(self._codes_directory / "quantiser.npz", learn)
        return Quantiser(jnp.asarray(arrays["centres"]))

    def _learn_quantiser(self, vocabulary: Vocabulary) -> dict[str, Any]:
        seconds = self._stream.timer()
        images = min(self._config.sample.codes, self._split.num_examples)
        encode = functools.partial(self.encoder.encode, vocabulary=vocabulary)
        batches = list(self._decodable_results("quantiser", encode, images, self._batch_size))
        self._check_sample(sum(map(len, batches)))
        codes = jnp.concatenate(batches)
        fit = functools.partial(quantisation.fit, key=self._key(1), group=self.channel.quantise)
        flops = self._monitor.flops(encode, self._stream.shape(1)) * images
        flops += self._monitor.flops(fit, jax.ShapeDtypeStruct(codes.shape, codes.dtype))
        centres = np.asarray(fit(codes).centres)
        self._costs["quantiser"] = StageCost(seconds(), flops, centres.nbytes)
        return {"centres": centres}

    # --- codes ---

    def _codes(self, vocabulary: Vocabulary, quantiser: Quantiser | None) -> StoredCodes:
        numbers = self.encoder.features // (self.channel.quantise or 1)
        dtype = np.uint8 if quantiser else np.float16
        split = self._split
        codes = StoredCodes(self._codes_directory, split.num_examples, numbers, dtype, split.num_classes)
        if codes.problem:
            self._monitor.say(f"{self.name}: {codes.problem}; the codes are computed again")
        if not codes.is_complete:
            codes.check_space()
            self._encode_all(codes, vocabulary, quantiser)
        self._costs["codes"] = StageCost(codes.note["seconds"], codes.note["flops"], codes.bytes)
        return codes

    def _encode_all(self, codes: StoredCodes, vocabulary: Vocabulary, quantiser: Quantiser | None) -> None:
        """Encode the images whose codes are not stored yet."""

        def encode(images: jax.Array, vocabulary: Vocabulary, quantiser: Quantiser | None) -> jax.Array:
            code = self.encoder.encode(images, vocabulary)
            return code.astype(jnp.float16) if quantiser is None else quantisation.encode(code, quantiser)

        start_step = codes.n_stored // self._batch_size
        n_done, seconds_before = start_step * self._batch_size, codes.note.get("seconds", 0.0)
        flops = self._monitor.flops(encode, self._stream.shape(1), vocabulary, quantiser) * self._split.num_examples
        compiled = self._stream.compile(encode, self._batch_size, vocabulary, quantiser)
        results = self._stream.run(
            self._split,
            compiled,
            self._batch_size,
            vocabulary,
            quantiser,
            start_step=start_step,
            on_batch=self._check_batch,
        )
        start_time = committed = time.perf_counter()
        try:
            for batch, rows in results:
                is_image = batch["index"] >= 0
                labels = np.where(batch["weight"] > 0, batch["label"], UNDECODABLE)[is_image]
                codes.write(n_done, rows[is_image], labels)
                n_done += len(labels)
                self._monitor.show(f"{self.name}: codes", n_done, self._split.num_examples)
                if time.perf_counter() - committed > COMMIT_SECONDS:
                    committed = time.perf_counter()
                    codes.commit(n_done, {"seconds": seconds_before + committed - start_time, "flops": flops})
        finally:
            codes.commit(n_done, {"seconds": seconds_before + time.perf_counter() - start_time, "flops": flops})

    def _check_batch(self, batch: Batch) -> None:
        self._check_stop()
        self._bad_records.update(batch)
        self._bad_records.check()

    def _check_stop(self) -> None:
        if self._monitor.stopping():
            raise StoppedError

    def _decodable_results(self, stage: str, function: Callable, images: int, batch_size: int) -> Iterator[np.ndarray]:
        """Yield a function's results for those of some images that can be decoded, batch by batch."""
        indices = epoch_order(self._config.seed, 0, self._split.num_examples)[:images]
        subset = self._split.subset(indices.tolist())
        compiled = self._stream.compile(function, batch_size)
        n_done = 0
        # Bad records of a sample are not counted here: their indices are the sample's, and encoding meets them again.
        for batch, results in self._stream.run(subset, compiled, batch_size, on_batch=lambda _: self._check_stop()):
            n_done += int(np.sum(batch["index"] >= 0))
            self._monitor.show(f"{self.name}: {stage}", n_done, images)
            yield results[batch["weight"] > 0]

    # --- files ---

    def _load_or_compute(self, path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the arrays in a file, computed where it is missing or damaged, and record the costs beside them."""
        stored = _load(path)
        if stored is not None:
            arrays, costs = stored
            for stage, cost in costs.items():
                self._costs.setdefault(stage, cost)
            return arrays
        if path.exists():
            self._monitor.say(f"{path} is damaged and is computed again")
        arrays = compute()
        costs = {stage: dataclasses.asdict(cost) for stage, cost in self._costs.items()}
        with files.atomic_write(path, "the learned arrays") as file:
            np.savez(file, **arrays, costs=np.asarray(json.dumps(costs)))
        return arrays

    @contextlib.contextmanager
    def _lock(self, directory: Path) -> Iterator[None]:
        """Let one process at a time work in a directory."""
        path = directory / "lock"
        try:
            lock = locks.acquire(path)
            if lock is None:
                self._monitor.say(f"{self.name}: waiting for another run, which works in {directory}")
                lock = locks.acquire_waiting(path)
        except OSError as error:
            raise SaveError(
                f"{directory} cannot be written ({error.strerror}); choose another config.cache_dir"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _check_sample(self, images: int) -> None:
        """Raise UserError where there are fewer images than centres of a part."""
        if self.channel.quantise and images < quantisation.CENTRES:
            raise UserError(
                f"config.channels.{self.name}.quantise: the {quantisation.CENTRES} centres of a part need as many"
                f" images, but {self._split.name} {self._split.split} provides {images}; raise config.sample.codes,"
                " use a larger split, or set quantise to 0 to store codes as float16"
            )

    def _key(self, stage: int) -> jax.Array:
        return jax.random.fold_in(jax.random.key(self._config.seed), stage)


def _load(path: Path) -> tuple[dict[str, Any], dict[str, StageCost]] | None:
    """Return the arrays and the costs in a file; None where it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        costs = json.loads(str(arrays.pop("costs")))
        return arrays, {stage: StageCost(**cost) for stage, cost in costs.items()}
    except Exception:  # a damaged archive raises errors of zipfile, zlib, struct, json and NumPy
        return None
