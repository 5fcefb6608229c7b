"""A copy of a prepared data set whose large images are reduced, for faster decoding and less disk.

Decoding takes most of the time of an input pipeline and grows with the number of pixels; crops of 224 pixels need a
shorter side of no more than 256 to 400. Images with a longer one are reduced by area averaging (which is antialiased)
and stored as JPEG; all others keep their bytes. Ids, labels, splits and order are those of the source.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from imagenet_repro.data import integrity
from imagenet_repro.data.cores import available_cores
from imagenet_repro.data.decode import DecodeError, decode
from imagenet_repro.data.prepare import array_record_builder, convert, fingerprint, ordered_map
from imagenet_repro.errors import UserError
from imagenet_repro.storage.json_files import write_json


@dataclass
class _Counts:
    """Numbers of copied and reduced images, and their sizes in bytes."""

    images: int = 0
    reduced: int = 0
    undecodable: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def notes(self, short_side: int) -> tuple[str, ...]:
        saved = 1 - self.bytes_after / max(self.bytes_before, 1)
        reduced = (
            f"{self.reduced:,} of {self.images:,} images were reduced to a shorter side of {short_side}; "
            f"{_size(self.bytes_before)} became {_size(self.bytes_after)}, {saved:.1%} less"
        )
        bad = f"{self.undecodable} images cannot be decoded and were copied as they are"
        return (reduced, bad) if self.undecodable else (reduced,)


LONGEST_JPEG = 65_500  # pixels on a side, libjpeg's limit


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def reduce(image: bytes, short_side: int, quality: int) -> bytes:
    """Return an encoded image with a shorter side of at most `short_side` pixels.

    An image that is small enough is returned with the same bytes, and so is a strip that would remain longer than a
    JPEG can be; others become JPEG.

    Args:
        image: an encoded image.
        short_side: in pixels.
        quality: of the JPEG, 1 to 100.

    Raises:
        DecodeError: the image cannot be decoded.
    """
    pixels = decode(image)
    height, width = pixels.shape[:2]
    if min(height, width) <= short_side:
        return image
    scale = short_side / min(height, width)
    size = max(short_side, round(width * scale)), max(short_side, round(height * scale))
    if max(size) > LONGEST_JPEG:
        return image
    reduced = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", reduced[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def write_copy(
    source: Path,
    target: Path,
    name: str,
    short_side: int,
    quality: int,
    *,
    on_progress: Callable[[], None] = lambda: None,
) -> tuple[str, ...]:
    """Write the smaller copy of an ArrayRecord data set.

    Args:
        source: directory of the data set's version.
        target: directory of the copy.
        name: name of the copy's data set.
        short_side: shorter side of the images in pixels, at most.
        quality: of the JPEGs, 1 to 100.
        on_progress: called for every image.

    Returns:
        Sentences about the saved space and about images that cannot be decoded.

    Raises:
        UserError: the data set has no image feature, or several.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info, utils

    builder = tfds.builder_from_directory(source, file_format=array_record_builder.ARRAY_RECORD)
    key = _image_key(builder)
    info = dataset_info.read_proto_from_builder_dir(source)
    counts = _Counts()
    with utils.incomplete_dir(target) as incomplete, ThreadPoolExecutor(available_cores()) as pool:
        directory = Path(incomplete)
        for split, proto in zip(builder.info.splits.values(), info.splits, strict=True):
            before = counts.bytes_after
            for shard, file in enumerate(split.filepaths):
                assert split.filename_template is not None  # tfds reads it from the description
                template = split.filename_template.replace(dataset_name=name, data_dir=directory)
                records = ordered_map.map_in_order(
                    pool, lambda record: _reduce_record(record, key, short_side, quality), _read(file), ahead=64
                )
                path = template.sharded_filepath(shard_index=shard, num_shards=split.num_shards)
                convert.write_array_record(Path(path), _counted(records, counts, on_progress))
            proto.num_bytes = counts.bytes_after - before
        write_json(directory / fingerprint.FILE, _record(source))
        _write_metadata(builder, info, key, name, directory)
    return counts.notes(short_side)


def _record(source: Path) -> dict[str, Any]:
    """Return what the copy of a data set records: its own source, and that of the data set if that has one."""
    metadata = fingerprint.read(source)
    kept = {key: metadata[key] for key in (fingerprint.SOURCE, integrity.CLASS_NAMES) if metadata.get(key)}
    return {fingerprint.COPY_OF: fingerprint.of_prepared(source)} | kept


def _image_key(builder) -> str:
    import tensorflow_datasets as tfds

    keys = [key for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
    if len(keys) != 1:
        raise UserError(f"{builder.name} has {len(keys)} image features; a smaller copy needs exactly one")
    return keys[0]


def _read(file) -> Iterator[bytes]:
    from array_record.python import array_record_data_source

    with array_record_data_source.ArrayRecordDataSource([str(file)]) as records:
        for index in range(len(records)):
            yield records[index]


def _reduce_record(record: bytes, key: str, short_side: int, quality: int) -> tuple[bytes, int, int | None]:
    """Return a serialised example with its image reduced, its size before, and 1, 0 or None.

    The number says whether the image was reduced (1), small enough (0) or not decodable (None).
    """
    from tensorflow_datasets.proto import tf_example_pb2

    # The class is generated at import.
    example = tf_example_pb2.Example.FromString(record)  # pyright: ignore[reportAttributeAccessIssue]
    values = example.features.feature[key].bytes_list.value
    try:
        reduced = reduce(values[0], short_side, quality)
    except DecodeError:
        return record, len(record), None
    if reduced == values[0]:
        return record, len(record), 0
    values[0] = reduced
    return example.SerializeToString(), len(record), 1


def _counted(records: Iterator, counts: _Counts, on_progress: Callable[[], None]) -> Iterator[bytes]:
    for record, size, reduced in records:
        counts.images += 1
        counts.reduced += reduced or 0
        counts.undecodable += reduced is None
        counts.bytes_before += size
        counts.bytes_after += len(record)
        on_progress()
        yield record


def _write_metadata(builder, info, key: str, name: str, directory: Path) -> None:
    import tensorflow_datasets as tfds

    features = dict(builder.info.features)
    features[key] = tfds.features.Image(shape=(None, None, builder.info.features[key].shape[-1]))
    tfds.features.FeaturesDict(features).save_config(str(directory))
    info.name = name
    info.file_format = array_record_builder.ARRAY_RECORD
    del info.alternative_file_formats[:]
    convert.write_info(info, directory)
