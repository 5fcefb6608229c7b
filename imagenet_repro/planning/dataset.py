"""The size of a run's data set, which need not be prepared on the machine that plans it."""

import dataclasses

from imagenet_repro.config import Config
from imagenet_repro.data import sources
from imagenet_repro.errors import UserError

IMAGENET = {"train": 1_281_167, "validation": 50_000}  # Russakovsky et al. 2015, table 2
IMAGENET_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class DatasetSize:
    """The number of classes of a data set, and of images in its training split."""

    num_classes: int
    num_examples: int


def dataset_size(config: Config, num_classes: int = 0, num_examples: int = 0) -> DatasetSize:
    """Return the size of a configuration's data set: as given, else as published, else as prepared here.

    Args:
      config: the configuration of a run.
      num_classes: 0: that of the data set.
      num_examples: of the training split; 0: that of the data set.

    Raises:
      UserError: a number is needed, and the data set is neither ImageNet nor prepared on this machine.
    """
    if num_classes and num_examples:
        return DatasetSize(num_classes, num_examples)
    known = _imagenet(config) if config.data.name == "imagenet2012" else _prepared(config)
    return DatasetSize(num_classes or known.num_classes, num_examples or known.num_examples)


def _imagenet(config: Config) -> DatasetSize:
    from tensorflow_datasets.core import splits

    split = config.data.train_split
    infos = splits.SplitDict(
        [splits.SplitInfo(name=name, shard_lengths=[size], num_bytes=0) for name, size in IMAGENET.items()]
    )
    try:
        parts = splits.ReadInstruction.from_spec(split).to_absolute(infos)
    except (KeyError, ValueError) as error:
        raise UserError(f"config.data.train_split={split}: imagenet2012 has no such split; {error}") from error
    sizes = [(IMAGENET[part.splitname] if part.to is None else part.to) - (part.from_ or 0) for part in parts]
    return DatasetSize(IMAGENET_CLASSES, sum(sizes))


def _prepared(config: Config) -> DatasetSize:
    try:
        split = sources.open_split(config.data, config.data.train_split, may_repeat=True)
    except UserError as error:
        raise UserError(
            f"{config.data.name} is not prepared here ({error}); say its size with --num_classes and --num_examples"
        ) from error
    return DatasetSize(split.num_classes, split.num_examples)
