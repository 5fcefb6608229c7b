"""Sources of images on disk, written as tfds data sets in ArrayRecord form (shapes.py lists them).

The bytes of each image are stored unchanged. Images are stored in one fixed shuffled order, so that a part of a split
(`train[:99%]`) contains all classes. Files stream from the source to the shards.
"""

import functools
import re
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from imagenet_repro.data.cores import available_cores
from imagenet_repro.data.prepare import array_record_builder, fingerprint, names, ordered_map, shapes, table_listing
from imagenet_repro.data.prepare.listing import Image, Listing, Reader
from imagenet_repro.data.sources import DRAWN
from imagenet_repro.errors import UserError

VERSION = "1.0.0"


def data_set_name(source: Path, as_name: str | None = None) -> str:
    """Return the data set's name: the last part of the path in lower case, with other characters replaced by `_`.

    A table, which usually has a name such as `labels.csv`, gives its folder's name.

    Args:
        source: the folder or file.
        as_name: a name in place of the last part of the path.

    Raises:
        UserError: the name is not valid in tfds, or is that of one of tfds' data sets.
    """
    path, suffix = source.resolve(), source.suffix.lower()
    file_name = path.parent.name if suffix in table_listing.ENDINGS else source.stem
    stem = as_name or (file_name if suffix in shapes.FILES and not source.is_dir() else path.name)
    name = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_").lower()
    if not re.fullmatch(r"[a-z]\w*", name):
        raise UserError(f"{stem!r} cannot name a data set (a letter, then letters, digits and _); give a --name")
    if name in {*tfds.list_builders(with_community_datasets=False), *DRAWN}:
        raise UserError(f"{name!r} is the name of another data set; choose a different one with --name=NAME")
    return name


def describe(source: Path) -> str:
    """Return the description of the prepared data set, which names its origin."""
    return f"Images of {names.printable(str(source.resolve()))}"


class Folder(array_record_builder.ArrayRecordBuilder, skip_registration=True):
    """The builder of a tfds data set of a given name from the images of a listing."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, listing: Listing, name: str, root: Path, read: Callable, on_progress: Callable[[], None]):
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]  # tfds declares it as a class attribute
        self.undecodable: list[str] = []
        self._damaged = 0
        self._listing = listing
        self._read = read
        self._on_progress = on_progress
        self._contents = fingerprint.Digest()
        self._record = tfds.core.MetadataDict({fingerprint.SOURCE: fingerprint.record(listing, name)})
        super().__init__(data_dir=root)

    def _info(self) -> tfds.core.DatasetInfo:
        description = describe(self._listing.source)
        if self._listing.captions is not None:
            return self.pair_info(description, self._record)
        return self.image_info(description, self._listing.classes, metadata=self._record)

    def _download_and_prepare(self, *arguments, **options) -> None:
        super()._download_and_prepare(*arguments, **options)
        record = self._record[fingerprint.SOURCE]
        record["contents"] = str(self._contents)  # tfds writes the record after this
        if self._damaged:
            record[fingerprint.DAMAGED] = self._damaged

    def shards(self) -> dict[str, list[array_record_builder.Shard]]:
        """Return the shards of each split, whose images are shuffled once."""
        splits = dict.fromkeys(image.split for image in self._listing.images)
        return {
            split: [functools.partial(self._examples, images) for images in _shards(self._listing, split)]
            for split in splits
        }

    def _examples(self, images: list[Image]) -> Iterator[tuple[str, dict]]:
        with ThreadPoolExecutor(available_cores()) as pool:
            for image, content, problem in ordered_map.map_in_order(pool, self._read, images, ahead=64):
                if problem:
                    self.undecodable.append(f"{image.name} ({problem})")
                    self._damaged += not content
                self._contents.add(image.name, zlib.crc32(content))
                self._on_progress()
                captions = self._listing.captions
                text = {"label": image.label} if captions is None else {"captions": captions[image.name]}
                yield image.name, {"image": content, **text, "file_name": image.name}


def _shards(listing: Listing, split: str) -> list[list[Image]]:
    """Return the images of a split in shuffled order, in parts of at most `SHARD_BYTES`."""
    images = [image for image in listing.images if image.split == split]
    shards, size = [[]], 0
    for index in np.random.default_rng(0).permutation(len(images)):
        image = images[index]
        if shards[-1] and size + image.size > array_record_builder.SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(image)
        size += image.size
    return shards


def write(
    listing: Listing, name: str, root: Path, *, on_progress: Callable[[], None] = lambda: None
) -> tuple[str, ...]:
    """Write the images of a listing to `root/name/1.0.0`.

    Images that cannot be decoded are stored like the others: training replaces, counts and names them. So are damaged
    members of zip files, as empty images.

    Args:
        listing: from `scan`.
        name: of the data set.
        root: the directory of data sets.
        on_progress: called for every image.

    Returns:
        A sentence that counts and names the images that cannot be decoded; empty where there are none.

    Raises:
        UserError: a file cannot be read.
    """
    with Reader(listing, root) as reader:
        builder = Folder(listing, name, root, reader.read, on_progress)
        builder.download_and_prepare(file_format=array_record_builder.ARRAY_RECORD)
    bad = builder.undecodable
    return (f"{len(bad)} images cannot be decoded: {names.some(bad)}",) if bad else ()
