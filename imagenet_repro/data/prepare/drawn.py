"""The common part of drawn data sets: parameters with a name, and a builder that draws in several processes.

The images are drawn, so the tfds builder needs no TensorFlow, no download and no licence. Each combination of
parameters is a configuration, named after its parameters and prepared under `data_dir/NAME/CONFIGURATION/1.0.0`, so
that two never share a directory; the data set's name alone is the default configuration.
"""

import concurrent.futures
import concurrent.futures.process
import functools
import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from imagenet_repro.data.cores import available_cores
from imagenet_repro.data.prepare import array_record_builder, ordered_map
from imagenet_repro.data.workers import follow_parent
from imagenet_repro.errors import LostProcessError

BATCH = 32  # images of a job, drawn together
SPLITS = ("train", "validation")
MAX_SEED = 2**31 - 1
_BATCHES_PER_WORKER = 24  # with less work, starting a process takes longer than it saves
Job = Callable[[], list[bytes]]  # draws and encodes consecutive images of a split; it can be pickled


class DrawnConfig(tfds.core.BuilderConfig):
    """The parameters of a drawn data set, a dataclass whose name follows from its other fields."""

    RANGES: ClassVar[dict[str, tuple[float, float]]]  # lowest and highest value of each numeric parameter
    categories: int
    train_images: int  # for each category
    validation_images: int  # for each category
    size: int  # pixels

    def images(self, split: str) -> int:
        """Return the number of images of a split."""
        return self.categories * (self.train_images if split == "train" else self.validation_images)

    def class_names(self) -> list[str]:
        """Return the names of the labels from 0 on."""
        raise NotImplementedError

    def job(self, split: str, start: int, stop: int) -> Job:
        """Return the job that draws images `start` to `stop` of a split.

        Image i is instance i // categories of category i % categories.
        """
        raise NotImplementedError

    @classmethod
    def from_name(cls, name: str) -> "DrawnConfig":
        """Return the configuration of a name; raises ValueError where no configuration has such a name."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise ValueError where a parameter is out of range."""
        for key, (low, high) in self.RANGES.items():
            if not low <= getattr(self, key) <= high:
                raise ValueError(f"{key} = {getattr(self, key)} is not in [{low}, {high}]")
        if not self.images("train") + self.images("validation"):
            raise ValueError("train_images and validation_images are both 0")

    @classmethod
    def parameters(cls) -> dict[str, type]:
        """Return the name and the type of every parameter that a caller may set."""
        return {key: kind for key, kind in cls.__annotations__.items() if key in cls.RANGES}

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "DrawnConfig":
        """Return the configuration with these values of `parameters()`; raises ValueError for one of another type."""
        for key, value in options.items():
            kind = cls.parameters()[key]
            if isinstance(value, bool) or not isinstance(value, int | kind):
                raise ValueError(f"{key} = {value!r} is not valid; a value of type {kind.__name__} is needed")
        return cls(**options)


class DrawnBuilder(array_record_builder.ArrayRecordBuilder, skip_registration=True):
    """The builder of a drawn data set; no instance is in both splits.

    The categories alternate in the stored order, so that any sub-split is balanced.
    """

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = ""  # one sentence about the data set, stored with it
    CITATION = ""  # the source of the method, stored with it

    def __init__(self, *, on_progress: Callable[[], None] = lambda: None, **options):
        self._on_progress = on_progress
        super().__init__(**options)

    @classmethod
    def default_config(cls) -> DrawnConfig:
        """Return the configuration of the data set's name alone."""
        return cls.BUILDER_CONFIGS[0]

    @property
    def _parameters(self) -> DrawnConfig:
        assert isinstance(self.builder_config, DrawnConfig)
        return self.builder_config

    def _info(self) -> tfds.core.DatasetInfo:
        return self.image_info(self.DESCRIPTION, self._parameters.class_names(), citation=self.CITATION)

    def shards(self) -> dict[str, list[array_record_builder.Shard]]:
        """Return the shards of each split, of up to `SHARD_BYTES`; an image takes less than a byte for each pixel."""
        length = max(1, array_record_builder.SHARD_BYTES // self._parameters.size**2)
        shards = {}
        for split in SPLITS:
            total = self._parameters.images(split)
            ranges = [(start, min(start + length, total)) for start in range(0, total, length)]
            if ranges:
                shards[split] = [functools.partial(self._examples, split, start, stop) for start, stop in ranges]
        return shards

    def _examples(self, split: str, start: int, stop: int) -> Iterator[tuple[str, dict]]:
        config, names = self._parameters, self._parameters.class_names()
        for index, image in zip(range(start, stop), draw_images(config, split, start, stop), strict=True):
            instance, category = divmod(index, config.categories)
            file_name = f"{split}/{names[category]}/{instance:05d}.jpg"
            self._on_progress()
            yield file_name, {"image": image, "label": category, "file_name": file_name}


def draw_images(config: DrawnConfig, split: str, start: int, stop: int) -> Iterator[bytes]:
    """Yield the encoded images `start` to `stop` of a split in order; several processes draw them where that pays."""
    jobs = [config.job(split, low, min(low + BATCH, stop)) for low in range(start, stop, BATCH)]
    workers = min(len(jobs) // _BATCHES_PER_WORKER, available_cores())
    if workers < 2:
        yield from itertools.chain.from_iterable(map(_draw, jobs))
        return
    context = multiprocessing.get_context("spawn")  # a fork would inherit the locks of other libraries' threads
    try:
        with concurrent.futures.ProcessPoolExecutor(workers, context, follow_parent) as pool:
            yield from itertools.chain.from_iterable(ordered_map.map_in_order(pool, _draw, jobs, ahead=4 * workers))
    except concurrent.futures.process.BrokenProcessPool as error:
        raise LostProcessError(
            "a process that draws images was ended from outside, probably by the system because memory ran out;"
            " run the same command again"
        ) from error


def _draw(job: Job) -> list[bytes]:
    return job()
