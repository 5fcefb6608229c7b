"""The default data set: fractals, with one iterated function system for each category (Kataoka et al., ACCV 2020).

The images are drawn, so the tfds builder needs no TensorFlow, no download and no licence. Each combination of
parameters is a configuration, named after its parameters and prepared under `data_dir/fractal/<configuration>/1.0.0`,
so that two never share a directory; `fractal` alone is the default configuration.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import multiprocessing
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds

from imagenet_repro.data.cores import available_cores
from imagenet_repro.data.prepare import array_record_builder, ifs, ordered_map
from imagenet_repro.data.workers import follow_parent

_BATCH = 32  # images drawn together
_BATCHES_PER_WORKER = 64  # with less work, starting a process takes longer than it saves
_SPLITS = ("train", "validation")


@dataclasses.dataclass(eq=False, kw_only=True)
class FractalConfig(tfds.core.BuilderConfig):
    """The parameters of a fractal data set.

    The name follows from the parameters; those after the first four are left out where they have their defaults.
    `perturbation` (every parameter of a map is multiplied by a factor from [1 - x, 1 + x]) and `turn` (largest
    rotation, as a share of half a turn) set how hard the data set is.
    """

    name: str = ""
    categories: int = 10
    train_images: int = 500  # for each category
    validation_images: int = 100  # for each category
    size: int = 64  # pixels
    seed: int = 0
    perturbation: float = ifs.Look.perturbation
    turn: float = ifs.Look.turn

    def __post_init__(self):
        parts = [f"c{self.categories}", f"n{self.train_images}", f"v{self.validation_images}", f"s{self.size}"]
        parts += [f"seed{self.seed}"] if self.seed else []
        parts += [f"p{self.perturbation:g}"] if self.perturbation != ifs.Look.perturbation else []
        parts += [f"t{self.turn:g}"] if self.turn != ifs.Look.turn else []
        self.name = "_".join(parts)
        self.description = f"{self.categories} categories, {self.train_images} + {self.validation_images} images each."

    def images(self, split: str) -> int:
        """Return the number of images of a split."""
        return self.categories * (self.train_images if split == "train" else self.validation_images)

    def check(self) -> None:
        """Raise ValueError where a parameter is out of range."""
        ranges = {
            "categories": (1, 100_000),
            "train_images": (0, 10_000_000),
            "validation_images": (0, 10_000_000),
            "size": (8, 4096),
            "seed": (0, 2**31 - 1),
            "perturbation": (0, 1),
            "turn": (0, 1),
        }
        for key, (low, high) in ranges.items():
            if not low <= getattr(self, key) <= high:
                raise ValueError(f"{key} = {getattr(self, key)} is not in [{low}, {high}]")
        if not self.images("train") + self.images("validation"):
            raise ValueError("train_images and validation_images are both 0")

    @classmethod
    def parameters(cls) -> dict[str, type]:
        """Return the name and the type of every parameter that a caller may set."""
        return {key: kind for key, kind in cls.__annotations__.items() if key != "name"}

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "FractalConfig":
        """Return the configuration with these values of `parameters()`; raises ValueError for one of another type."""
        for key, value in options.items():
            kind = cls.parameters()[key]
            if isinstance(value, bool) or not isinstance(value, int | kind):
                raise ValueError(f"{key} = {value!r} is not valid; a value of type {kind.__name__} is needed")
        return cls(**options)

    @classmethod
    def from_name(cls, name: str) -> "FractalConfig":
        """Return the configuration of a name such as `c20_n500_v100_s64_seed3`.

        Raises:
            ValueError: the name does not have the form of a configuration's name.
        """
        match = re.fullmatch(r"c(\d+)_n(\d+)_v(\d+)_s(\d+)(?:_seed(\d+))?(?:_p([\d.e-]+))?(?:_t([\d.e-]+))?", name)
        if not match:
            raise ValueError(f"{name!r} is not of the form {cls().name}[_seed1][_p0.2][_t0.5]")
        *integers, perturbation, turn = match.groups()
        categories, train_images, validation_images, size, seed = (int(group or 0) for group in integers)
        return cls(
            categories=categories,
            train_images=train_images,
            validation_images=validation_images,
            size=size,
            seed=seed,
            perturbation=float(perturbation) if perturbation else ifs.Look.perturbation,
            turn=float(turn) if turn else ifs.Look.turn,
        )

    @property
    def look(self) -> ifs.Look:
        """The parameters of the drawing."""
        return ifs.Look(size=self.size, perturbation=self.perturbation, turn=self.turn)


class Fractal(array_record_builder.ArrayRecordBuilder):
    """The builder of a fractal data set; no instance is in both splits.

    The categories alternate in the stored order, so that any sub-split is balanced.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [FractalConfig()]  # noqa: RUF012 (tfds reads it as a list)

    def __init__(self, *, on_progress: Callable[[], None] = lambda: None, **options):
        self._on_progress = on_progress
        super().__init__(**options)

    @property
    def _parameters(self) -> FractalConfig:
        assert isinstance(self.builder_config, FractalConfig)
        return self.builder_config

    def _info(self) -> tfds.core.DatasetInfo:
        return self.image_info(
            "Iterated-function-system fractals drawn by the chaos game, one system to a category.",
            [_class_name(category) for category in range(self._parameters.categories)],
            citation="Kataoka et al., Pre-training without Natural Images, ACCV 2020",
        )

    def shards(self) -> dict[str, list[array_record_builder.Shard]]:
        """Return the shards of each split, of up to `SHARD_BYTES`; an image takes less than a byte for each pixel."""
        length = max(1, array_record_builder.SHARD_BYTES // self._parameters.size**2)
        shards = {}
        for split in _SPLITS:
            total = self._parameters.images(split)
            ranges = [(start, min(start + length, total)) for start in range(0, total, length)]
            if ranges:
                shards[split] = [functools.partial(self._examples, split, start, stop) for start, stop in ranges]
        return shards

    def _examples(self, split: str, start: int, stop: int) -> Iterator[tuple[str, dict]]:
        config = self._parameters
        for index, image in zip(range(start, stop), _images(config, split, start, stop), strict=True):
            instance, category = divmod(index, config.categories)
            file_name = f"{split}/{_class_name(category)}/{instance:05d}.jpg"
            self._on_progress()
            yield file_name, {"image": image, "label": category, "file_name": file_name}


def _class_name(category: int) -> str:
    return f"ifs_{category:03d}"


def _images(config: FractalConfig, split: str, start: int, stop: int) -> Iterator[bytes]:
    """Yield the encoded images `start` to `stop` of a split in order; several processes draw them where that pays."""
    jobs = [
        ifs.DrawingJob(config.seed, _SPLITS.index(split), config.categories, low, min(low + _BATCH, stop), config.look)
        for low in range(start, stop, _BATCH)
    ]
    workers = min(len(jobs) // _BATCHES_PER_WORKER, available_cores())
    if workers < 2:
        yield from itertools.chain.from_iterable(map(ifs.draw, jobs))
        return
    context = multiprocessing.get_context("spawn")  # a fork would inherit the locks of other libraries' threads
    with concurrent.futures.ProcessPoolExecutor(workers, context, follow_parent) as pool:
        yield from itertools.chain.from_iterable(ordered_map.map_in_order(pool, ifs.draw, jobs, ahead=4 * workers))
