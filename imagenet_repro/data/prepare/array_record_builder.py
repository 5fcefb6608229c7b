"""The base of the project's own tfds builders: nothing to download, examples handed over shard by shard."""

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

ARRAY_RECORD = "array_record"
SHARD_BYTES = 128 << 20  # tfds keeps the examples of the shard that it writes in memory
Shard = Callable[[], Iterator[tuple[str, dict[str, Any]]]]  # makes (key, example) pairs


class ArrayRecordBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Writes labelled images in the order in which they come.

    tfds' usual base class sorts the examples by a hash, for which it needs TensorFlow above a gigabyte.
    """

    def shards(self) -> Mapping[str, Sequence[Shard]]:
        """The shards of each split."""
        raise NotImplementedError

    def image_info(self, description: str, class_names: Sequence[str], **options: Any) -> tfds.core.DatasetInfo:
        """The features that every data set of the project has: image, label and file_name."""
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=list(class_names)),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=description,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
            **options,
        )

    def _shard_iterators_per_split(self, dl_manager) -> Mapping[str, Sequence[Shard]]:
        del dl_manager
        return self.shards()

    def _make_download_manager(self, **options) -> Any:
        """tfds would make a directory for downloads."""
        del options
        return types.SimpleNamespace(downloaded_size=0)

    def _log_download_bytes(self) -> None:
        """tfds would print that all sizes are unknown."""

    def _log_download_done(self) -> None:
        """What was prepared is for the caller to say."""
