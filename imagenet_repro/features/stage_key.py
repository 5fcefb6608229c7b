"""The key of a stage: a hash of everything that its result depends on."""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path

from imagenet_repro.config import Channel, FeatureConfig
from imagenet_repro.data import crops, decode
from imagenet_repro.data.sources import Split
from imagenet_repro.data.split_hash import split_hash


def stage_key(config: FeatureConfig, split: Split, channel: Channel, *, codes: int) -> str:
    """Return the key of a stage of a channel, 16 hexadecimal digits.

    It covers the images (data set, version, split and the bytes of some), the names of their classes, their size and
    crop, the seed, the sample, the keys of the channel, and the source of the modules that turn encoded images into
    codes.

    Args:
      config: of the run.
      split: the training images.
      channel: with `quantise` 0 for a stage that does not depend on it.
      codes: images from which the quantiser is learned; 0 for a stage that does not depend on it.
    """
    sample = dataclasses.replace(config.sample, codes=max(codes, 256))
    dependencies = {
        "data": (split.name, split.version, split.split, split.num_examples, split_hash(split)),
        "classes": split.class_names,  # stored codes have labels, which count these
        "image_size": config.data.image_size,
        "crop": dataclasses.asdict(config.eval_crop),
        "seed": config.seed,
        "sample": dataclasses.asdict(sample),
        "channel": dataclasses.asdict(channel),
        "source": source_hash(),
    }
    return hashlib.sha256(json.dumps(dependencies, sort_keys=True).encode()).hexdigest()[:16]


@functools.cache
def source_hash() -> str:
    """Return a hash of the source that turns encoded images into codes: this package, decoding and crops."""
    digest = hashlib.sha256()
    for path in (*sorted(Path(__file__).parent.rglob("*.py")), Path(crops.__file__), Path(decode.__file__)):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
