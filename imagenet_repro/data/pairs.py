"""Image-text pairs of a prepared data set, through the records of sources.py."""

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from imagenet_repro.config import AnyConfig, ContrastiveConfig, Data, StoredCaptions
from imagenet_repro.data import sources
from imagenet_repro.data.sources import Split, Splits, StoredRecords
from imagenet_repro.errors import UserError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def open_splits(config: AnyConfig) -> Splits:
    """Open the splits that a run reads.

    The training split of a run on stored captions is that of the pairs, with the names of the classes that the run is
    evaluated on.

    Raises:
        UserError: as `sources.open_splits` and `open_pairs`.
    """
    if not isinstance(config, ContrastiveConfig) or not isinstance(config.captions, StoredCaptions):
        return sources.open_splits(config.data)
    data = config.data
    evaluated, scored = (sources.open_split(data, split) for split in (data.eval_split, data.scored_split))
    sources.check_ids(scored)
    pairs = dataclasses.replace(data, name=config.captions.data or data.name)
    train = open_pairs(pairs, config.captions.split, config.captions.feature)
    return Splits(dataclasses.replace(train, class_names=scored.class_names), evaluated, scored)


def open_pairs(data: Data, split: str, feature: str) -> Split:
    """Open a split of images with captions; it has no classes.

    Args:
        data: data_dir and name are used.
        split: in tfds' syntax.
        feature: the name of a text or of a list of texts; "captions/text" is the text in a list of dictionaries.

    Raises:
        UserError: the data set is unknown, not prepared or prepared as TFRecord; it has no image or no such feature;
            the split is unknown or empty; or a file is missing or damaged.
    """
    builder = sources.find_readable(data, split, has_labels=False)
    check_feature(builder, feature)
    return Split(
        name=sources.full_name(builder),
        split=split,
        version=str(builder.version),
        class_names=(),
        num_examples=sources.split_info(builder, split).num_examples,
        records=StoredRecords(os.fspath(builder.data_dir), split, feature),
    )


def check_feature(builder: "tfds.core.DatasetBuilder", feature: str) -> None:
    """Raise UserError unless a data set has this text, or list of texts."""
    texts = dict(_texts(builder.info.features, ""))
    if feature not in texts:
        known = ", ".join(sorted(texts)) or "none"
        raise UserError(
            f"config.captions.feature: data set {builder.name!r} has no text {feature!r}; its texts are: {known}. A"
            " table with the columns file and caption becomes such a data set with `main.py prepare folder:TABLE.csv`"
        )


def _texts(feature: Any, name: str) -> Any:
    """Yield the name of each text or list of texts below a feature, with its feature."""
    import tensorflow_datasets as tfds

    inner = getattr(feature, "feature", None)
    if isinstance(feature, tfds.features.FeaturesDict):
        for key, value in feature.items():
            yield from _texts(value, f"{name}/{key}" if name else key)
    elif isinstance(feature, tfds.features.Sequence) and inner is not None:
        yield from _texts(inner, name)
    elif isinstance(feature, tfds.features.Text):
        yield name, feature
