"""The base class of the project's own tfds builders, which download nothing and write examples shard by shard."""

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from imagenet_repro.data import integrity
from imagenet_repro.storage import user

user.tolerate_unknown_owners()

ARRAY_RECORD = "array_record"
SHARD_BYTES = 128 << 20  # tfds keeps the examples of the shard that it writes in memory
Shard = Callable[[], Iterator[tuple[str, dict[str, Any]]]]  # returns (key, example) pairs


class ArrayRecordBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """A builder that writes labelled images in the order of its shards.

    tfds' usual base class sorts the examples by a hash, for which it needs TensorFlow above a gigabyte.
    """

    def shards(self) -> Mapping[str, Sequence[Shard]]:
        """Return the shards of each split."""
        raise NotImplementedError

    def image_info(
        self,
        description: str,
        class_names: Sequence[str],
        *,
        metadata: tfds.core.MetadataDict | None = None,
        **options: Any,
    ) -> tfds.core.DatasetInfo:
        """Return the description of a data set with the features image, label and file_name.

        Args:
            description: one sentence about the data set, stored with it.
            class_names: names of the labels from 0 on.
            metadata: what the builder records besides, to which a digest of the class names is added in place.
            options: further arguments of `tfds.core.DatasetInfo`.
        """
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=list(class_names)),
            "file_name": tfds.features.Text(),
        }
        metadata = tfds.core.MetadataDict() if metadata is None else metadata
        metadata[integrity.CLASS_NAMES] = integrity.digest_of_names(class_names)
        return tfds.core.DatasetInfo(
            builder=self,
            description=description,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
            metadata=metadata,
            **options,
        )

    def pair_info(self, description: str, metadata: tfds.core.MetadataDict) -> tfds.core.DatasetInfo:
        """Return the description of a data set with the features image, captions and file_name.

        Args:
            description: one sentence about the data set, stored with it.
            metadata: what the builder records besides.
        """
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "captions": tfds.features.Sequence(tfds.features.Text()),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=description,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=metadata,
        )

    def _shard_iterators_per_split(self, dl_manager) -> Mapping[str, Sequence[Shard]]:
        del dl_manager
        return self.shards()

    def _make_download_manager(self, download_dir, download_config) -> Any:
        """Return a stand-in; tfds' own manager would create a directory for downloads."""
        del download_dir, download_config
        return types.SimpleNamespace(downloaded_size=0)

    def _log_download_bytes(self) -> None:
        """Print nothing; tfds would print that all sizes are unknown."""

    def _log_download_done(self) -> None:
        """Print nothing; the caller reports the result."""
