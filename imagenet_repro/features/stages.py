"""What a channel does before its SVM trains: sample, vocabulary, quantiser, codes. Each stage is kept on disk.

What a stage leaves lies in a directory whose name holds a hash of all that it depends on: the images (data set,
version, split and the bytes of some), their size and crop, the seed, the channel's keys, and the source of this
package's features. So a stage that is done is never repeated, and what is found is never stale. The codes are kept as
far as they have come. Several runs may share a directory: the second waits for the first.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

from imagenet_repro import data as data_room
from imagenet_repro.config import Channel, FeatureConfig
from imagenet_repro.data import loader
from imagenet_repro.data.bad_records import BadRecords
from imagenet_repro.data.order import epoch_order
from imagenet_repro.data.prefetch import prefetch_to_device
from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.features.channel_encoder import ChannelEncoder, Vocabulary
from imagenet_repro.features.encoding import pca, quantisation
from imagenet_repro.features.encoding.quantisation import Quantiser
from imagenet_repro.features.stored_codes import UNDECODABLE, StoredCodes
from imagenet_repro.storage import files, locks

AXIS = "data"
PROBED = 16  # images whose bytes tell one data set from another of the same name
SETTLE_SECONDS = 10.0  # of codes that a kill may cost
SAMPLE_NUMBERS = 2**26  # of descriptors that are on the way to the host at a time


@runtime_checkable
class Monitor(Protocol):
    """Who watches the stages."""

    def say(self, text: str) -> None:
        """One line."""

    def show(self, stage: str, done: int, total: int) -> None:
        """How many images a stage has done."""

    def stopping(self) -> bool:
        """Whether the run was told to stop."""

    def flops(self, function: Callable, *arguments: Any) -> int:
        """Floating point operations of a function."""


class StoppedError(Exception):
    """The monitor said so; what was done is kept."""


@dataclasses.dataclass(frozen=True)
class StageCost:
    """What a stage took, however many processes it took to the end.

    Attributes:
      seconds: reading and computing, without compiling what is done to every batch of images.
      flops: floating point operations.
      bytes: on disk.
    """

    seconds: float
    flops: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class LearnedChannel:
    """All that a channel's SVM needs.

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


class _Chosen(Sequence):
    """Some of the records of a split."""

    def __init__(self, records: Sequence, index: np.ndarray):
        self._records, self._index = records, index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> Record:
        return self._records[int(self._index[number])]


class ChannelStages:
    """The stages of one channel.

    Args:
      name: of the channel.
      config: of the run.
      split: the training images.
      directory: where what is learned is kept.
      monitor: watches.
    """

    def __init__(self, name: str, config: FeatureConfig, split: Split, directory: Path, monitor: Monitor):
        self.name, self._config, self._split, self._monitor = name, config, split, monitor
        self.channel = config.channels[name]
        self.encoder = ChannelEncoder(self.channel, config.data.image_size)
        self._batch_size = config.data.eval_batch_size or config.batch_size
        self._bad = BadRecords(split, config.data, monitor.say)
        learned = dataclasses.replace(self.channel, quantise=0)
        self._vocabulary_place = directory / f"{name}.vocabulary.{self._hash(learned, codes=0)}"
        self._codes_place = directory / f"{name}.codes.{self._hash(self.channel, codes=config.sample.codes)}"
        self._costs: dict[str, StageCost] = {}
        self._compiling = 0.0
        self._check_sample()

    def run(self) -> LearnedChannel:
        """Does what is not yet done.

        Raises:
          StoppedError: the monitor was told to stop; the same call goes on.
          UserError: too few images or descriptors, or too many that cannot be decoded.
          SaveError: something could not be written.
        """
        with self._alone(self._vocabulary_place):
            vocabulary = self._kept(self._vocabulary_place / "vocabulary.npz", self._learn)
        vocabulary = {name: jnp.asarray(value) for name, value in vocabulary.items()}
        with self._alone(self._codes_place):
            quantiser = self._quantiser(vocabulary)
            codes = self._codes(vocabulary, quantiser)
        return LearnedChannel(vocabulary, quantiser, codes, self._costs)

    # --- vocabulary ---

    def _learn(self) -> dict[str, Any]:
        """Principal components, then Gaussians or words."""
        took = self._timer()
        sample, reduction = self._sample()
        images = min(self._config.sample.images, self._split.num_examples)
        per_image = self._monitor.flops(self.encoder.describe, self._shape(1))
        self._cost("sample", took(), per_image * images, 0)
        took = self._timer()
        key = self._key(0)
        x = self.encoder.project(jnp.asarray(sample), reduction)
        self._monitor.say(f"{self.name}: learning a vocabulary from {len(x):,} descriptors")
        found = jax.device_get(self.encoder.learn(x, key))
        operations = self._monitor.flops(
            lambda x: self.encoder.learn(x, key), jax.ShapeDtypeStruct(x.shape, jnp.float32)
        )
        self._cost("vocabulary", took(), operations, 0)
        return reduction | found

    def _sample(self) -> tuple[Float[np.ndarray, "n d"], Vocabulary]:
        """Some descriptors of some images, and what reduces them, which is learned from all descriptors of these."""
        images = min(self._config.sample.images, self._split.num_examples)
        wanted = min(self.encoder.points, -(-self._config.sample.descriptors // images))
        moments, kept = pca.Moments(self.encoder.numbers), []
        rng = np.random.default_rng(self._config.seed)
        devices = jax.local_device_count()
        batch = max(1, min(256, SAMPLE_NUMBERS // (self.encoder.points * self.encoder.numbers)) // devices) * devices
        for _, found in self._mapped("sample", self.encoder.describe, images, batch):
            moments.add(found.reshape(-1, found.shape[-1]))
            chosen = rng.permuted(np.tile(np.arange(self.encoder.points), (len(found), 1)), axis=1)[:, :wanted]
            kept.append(np.take_along_axis(found, chosen[..., None], axis=1).reshape(-1, found.shape[-1]))
        self._require(kept)
        return np.concatenate(kept)[: self._config.sample.descriptors], self.encoder.reduce(moments)

    # --- quantiser ---

    def _quantiser(self, vocabulary: Vocabulary) -> Quantiser | None:
        if not self.channel.quantise:
            return None
        kept = self._kept(self._codes_place / "quantiser.npz", functools.partial(self._learn_quantiser, vocabulary))
        return Quantiser(jnp.asarray(kept["centres"]))

    def _learn_quantiser(self, vocabulary: Vocabulary) -> dict[str, Any]:
        took = self._timer()
        images = min(self._config.sample.codes, self._split.num_examples)
        encode = functools.partial(self.encoder.encode, vocabulary=vocabulary)
        found = [codes for _, codes in self._mapped("quantiser", encode, images, self._batch_size)]
        self._check_sample(sum(map(len, found)))
        codes = jnp.concatenate(found)
        fit = functools.partial(quantisation.fit, key=self._key(1), group=self.channel.quantise)
        operations = self._monitor.flops(encode, self._shape(1)) * images
        operations += self._monitor.flops(fit, jax.ShapeDtypeStruct(codes.shape, codes.dtype))
        centres = np.asarray(fit(codes).centres)
        self._cost("quantiser", took(), operations, centres.nbytes)
        return {"centres": centres}

    # --- codes ---

    def _codes(self, vocabulary: Vocabulary, quantiser: Quantiser | None) -> StoredCodes:
        numbers = self.encoder.features // (self.channel.quantise or 1)
        kind = np.uint8 if quantiser else np.float16
        codes = StoredCodes(self._codes_place, self._split.num_examples, numbers, kind)
        if not codes.is_complete:
            codes.check_space()
            self._fill(codes, vocabulary, quantiser)
        self._costs["codes"] = StageCost(codes.note["seconds"], codes.note["flops"], codes.bytes)
        return codes

    def _fill(self, codes: StoredCodes, vocabulary: Vocabulary, quantiser: Quantiser | None) -> None:
        """Codes of all images from where they end."""

        def encode(images: jax.Array, vocabulary: Vocabulary, quantiser: Quantiser | None) -> jax.Array:
            found = self.encoder.encode(images, vocabulary)
            return found.astype(jnp.float16) if quantiser is None else quantisation.encode(found, quantiser)

        start = codes.n_stored // self._batch_size
        done, seconds = start * self._batch_size, codes.note.get("seconds", 0.0)
        operations = self._monitor.flops(encode, self._shape(1), vocabulary, quantiser) * self._split.num_examples
        compiled = self._compile(encode, self._batch_size, vocabulary, quantiser)
        began = settled = time.perf_counter()
        try:
            for host, found in self._through(self._split, compiled, self._batch_size, (vocabulary, quantiser), start):
                real = host["index"] >= 0
                labels = np.where(host["weight"] > 0, host["label"], UNDECODABLE)[real]
                codes.write(done, found[real], labels)
                done += len(labels)
                self._monitor.show(f"{self.name}: codes", done, self._split.num_examples)
                if time.perf_counter() - settled > SETTLE_SECONDS:
                    settled = time.perf_counter()
                    codes.commit(done, {"seconds": seconds + settled - began, "flops": operations})
        finally:
            codes.commit(done, {"seconds": seconds + time.perf_counter() - began, "flops": operations})

    # --- images through the devices ---

    def _mapped(
        self, stage: str, function: Callable, images: int, batch_size: int
    ) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """What a function says of some of the images that can be decoded, batch by batch."""
        order = epoch_order(self._config.seed, 0, self._split.num_examples)[:images]
        chosen = dataclasses.replace(self._split, records=_Chosen(self._split.records, order), num_examples=images)
        compiled = self._compile(function, batch_size)
        done = 0
        for host, found in self._through(chosen, compiled, batch_size, ()):
            done += int(np.sum(host["index"] >= 0))
            self._monitor.show(f"{self.name}: {stage}", done, images)
            yield host, found[host["weight"] > 0]

    def _through(
        self, split: Split, compiled: Callable, batch_size: int, arguments: tuple, start: int = 0
    ) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Batches and what was made of them; one is on the devices while the one before is on its way back."""
        batches = loader.eval_batches(
            split, self._config.data, self._config.eval_crop, batch_size=batch_size, start_step=start
        )
        place = NamedSharding(self._mesh, PartitionSpec(AXIS))
        before = None
        for host, images in prefetch_to_device(batches, lambda batch: jax.device_put(batch["image"], place)):
            if self._monitor.stopping():
                raise StoppedError
            self._take_down(split, host)
            now = host, compiled(images, *arguments)
            if before is not None:
                yield before[0], np.asarray(before[1])
            before = now
        if before is not None:
            yield before[0], np.asarray(before[1])

    def _take_down(self, split: Split, host: dict[str, np.ndarray]) -> None:
        if split is self._split:  # the records of a sample have other numbers, and are met again
            self._bad.update(host)
            self._bad.check()

    def _compile(self, function: Callable, batch_size: int, *arguments: Any) -> Callable:
        """For a batch over all devices, each of which takes its share."""
        whole, share = PartitionSpec(), PartitionSpec(AXIS)
        mapped = jax.shard_map(
            function,
            mesh=self._mesh,
            in_specs=(share, *[whole] * len(arguments)),
            out_specs=share,
            check_vma=False,
        )
        images = jax.ShapeDtypeStruct(
            self._shape(batch_size).shape, jnp.uint8, sharding=NamedSharding(self._mesh, share)
        )
        began = time.perf_counter()
        compiled = jax.jit(mapped).lower(images, *arguments).compile()
        self._compiling += time.perf_counter() - began
        return compiled

    def _timer(self) -> Callable[[], float]:
        """Tells the seconds since now, without those in `_compile`."""
        began, compiling = time.perf_counter(), self._compiling
        return lambda: time.perf_counter() - began - (self._compiling - compiling)

    @functools.cached_property
    def _mesh(self) -> Mesh:
        return Mesh(np.asarray(jax.local_devices()), (AXIS,))

    def _shape(self, images: int) -> jax.ShapeDtypeStruct:
        size = self._config.data.image_size
        return jax.ShapeDtypeStruct((images, size, size, 3), jnp.uint8)

    # --- what is kept ---

    def _kept(self, path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The arrays in a file, made where it is missing or damaged, and the costs beside them."""
        found = _load(path)
        if found is None:
            if path.exists():
                self._monitor.say(f"{path} is damaged and made again")
            found = make()
            costs = {stage: dataclasses.asdict(cost) for stage, cost in self._costs.items()}
            with files.atomic_write(path, "what was learned") as file:
                np.savez(file, **found, costs=np.asarray(json.dumps(costs)))
            return found
        for stage, cost in json.loads(str(found.pop("costs"))).items():
            self._costs.setdefault(stage, StageCost(**cost))
        return found

    def _cost(self, stage: str, seconds: float, flops: int, size: int) -> None:
        self._costs[stage] = StageCost(seconds, flops, size)

    @contextlib.contextmanager
    def _alone(self, place: Path) -> Iterator[None]:
        """One process at a time works in a directory."""
        path = place / "lock"
        try:
            lock = locks.acquire(path)
            if lock is None:
                self._monitor.say(f"{self.name}: waiting for another run, which works in {place}")
                lock = locks.acquire_waiting(path)
        except OSError as error:
            raise SaveError(
                f"{place} cannot be written ({error.strerror}); choose another config.cache_dir"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _hash(self, channel: Channel, *, codes: int) -> str:
        """Of all that what is learned depends on."""
        config, split = self._config, self._split
        sample = dataclasses.replace(config.sample, codes=max(codes, 256))
        depends = {
            "data": (split.name, split.version, split.split, split.num_examples, _probe(split)),
            "image_size": config.data.image_size,
            "crop": dataclasses.asdict(config.eval_crop),
            "seed": config.seed,
            "sample": dataclasses.asdict(sample),
            "channel": dataclasses.asdict(channel),
            "source": _source(),
        }
        return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]

    # --- checks ---

    def _check_sample(self, images: int | None = None) -> None:
        """Raises UserError where there are fewer images, or those that could be decoded, than centres of a part."""
        images = min(self._config.sample.codes, self._split.num_examples) if images is None else images
        if self.channel.quantise and images < quantisation.CENTRES:
            raise UserError(
                f"config.channels.{self.name}.quantise: the {quantisation.CENTRES} centres of a part need as many"
                f" images, and of {self._split.name} {self._split.split} there are {images}; more of them with"
                " config.sample.codes, or 0 keeps codes as they are"
            )

    def _require(self, found: list) -> None:
        if not sum(map(len, found)):
            raise UserError(f"none of the images that {self.name} learns from could be decoded")

    def _key(self, stage: int) -> jax.Array:
        return jax.random.fold_in(jax.random.key(self._config.seed), stage)


def _load(path: Path) -> dict[str, Any] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        return None
    except (zipfile.BadZipFile, EOFError, ValueError, OSError):
        return None


def _probe(split: Split) -> str:
    """A hash of some records' bytes and labels."""
    found = hashlib.sha256()
    for number in np.linspace(0, split.num_examples - 1, PROBED).astype(int):
        record = split.records[int(number)]
        found.update(record.image + record.label.to_bytes(8, "big", signed=True))
    return found.hexdigest()


@functools.cache
def _source() -> str:
    """A hash of the code that turns encoded images into codes."""
    found = hashlib.sha256()
    decoding = Path(data_room.__file__).parent
    for path in (*sorted(Path(__file__).parent.rglob("*.py")), decoding / "crops.py", decoding / "decode.py"):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()
