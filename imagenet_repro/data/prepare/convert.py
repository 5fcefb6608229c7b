"""Conversion of prepared tfds data sets from TFRecord to ArrayRecord, record by record.

tfds 4.9.10's converter (`tfds convert_format`) needs TensorFlow and Apache Beam, and Beam needs older versions of
packages that this project pins. The result is the same as that converter's: the ArrayRecord shards are beside the
TFRecord ones and `dataset_info.json` names them as an alternative format, so that either opens.
"""

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from imagenet_repro.data.prepare import array_record_builder
from imagenet_repro.errors import UserError


def add_array_record(path: Path, *, on_progress: Callable[[], None] = lambda: None) -> None:
    """Write the ArrayRecord shards of a TFRecord data set next to its own.

    Finished shards of an interrupted conversion are kept; the data set opens as ArrayRecord once all exist.

    Args:
        path: `data_dir/NAME/[CONFIG/]VERSION`.
        on_progress: called for every example.

    Raises:
        UserError: a shard is missing, damaged or not as long as `dataset_info.json` says.
    """
    from tensorflow_datasets.core import dataset_info

    info = dataset_info.read_proto_from_builder_dir(path)
    if info.file_format not in ("", "tfrecord"):
        raise UserError(f"{path} is stored as {info.file_format}; only TFRecord can be converted")
    if not os.access(path, os.W_OK):
        raise UserError(
            f"{path} is not writable, and the converted files go there. Copy the data set, or ask its owner"
        )
    for source, target, length in _shards(info, path):
        _convert_shard(source, target, length, on_progress)
    info.file_format = info.file_format or "tfrecord"
    if array_record_builder.ARRAY_RECORD not in info.alternative_file_formats:
        info.alternative_file_formats.append(array_record_builder.ARRAY_RECORD)
    write_info(info, path)


def _shards(info, path: Path) -> Iterator[tuple[Path, Path, int]]:
    """Yield each shard's TFRecord file, its future ArrayRecord file, and its number of examples."""
    from tensorflow_datasets.core import dataset_info

    splits = dataset_info.get_split_dict_from_proto(info, path, file_format="tfrecord")
    for split in splits.values():
        assert split.filename_template is not None  # tfds reads it from the description
        template = split.filename_template.replace(filetype_suffix=array_record_builder.ARRAY_RECORD)
        for index, (source, length) in enumerate(zip(split.filepaths, split.shard_lengths, strict=True)):
            target = template.sharded_filepath(shard_index=index, num_shards=split.num_shards)
            yield Path(source), Path(target), length


def _convert_shard(source: Path, target: Path, length: int, on_progress: Callable[[], None]) -> None:
    if target.exists() and _array_record_length(target) == length:
        for _ in range(length):
            on_progress()
        return
    if not source.exists():
        raise UserError(f"{source} is missing. Copy it back, or remove {source.parent} and prepare the data set again")
    partial = target.with_name(target.name + ".partial")
    try:
        count = write_array_record(partial, counted(read_tfrecord(source), on_progress))
        if count != length:
            raise UserError(
                f"{source} holds {count} examples and dataset_info.json says {length}: copy the file again"
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _array_record_length(path: Path) -> int:
    from tensorflow_datasets.core import file_adapters

    try:
        return file_adapters.ArrayRecordFileAdapter.num_examples(path)
    except Exception:  # array_record raises RuntimeError or ValueError; the shard is written again
        return -1


def counted(records: Iterable[bytes], on_progress: Callable[[], None]) -> Iterator[bytes]:
    """Yield the same records and call `on_progress` for each."""
    for record in records:
        on_progress()
        yield record


def write_array_record(path: Path, records: Iterable[bytes]) -> int:
    """Write serialised examples as tfds does and return their number."""
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # C extension

    writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
    count = 0
    try:
        for record in records:
            writer.write(record)
            count += 1
    finally:
        writer.close()
    return count


def write_info(info, path: Path) -> None:
    """Replace `dataset_info.json` atomically."""
    from tensorflow_datasets.core import dataset_info

    partial = path / "dataset_info.json.partial"
    partial.write_text(dataset_info.get_dataset_info_json(info), encoding="utf-8")
    partial.replace(path / "dataset_info.json")


def read_tfrecord(path: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file after verifying both of their checksums.

    A record is its length (uint64), a masked CRC-32C of that, the data, and a masked CRC-32C of the data.

    Raises:
        UserError: the file is cut short or a checksum differs.
    """
    with path.open("rb") as file:
        while header := file.read(12):
            if len(header) < 12 or _masked_crc(header[:8]) != header[8:]:
                raise _damaged(path, file.tell() - len(header))
            (length,) = struct.unpack("<Q", header[:8])
            data, checksum = file.read(length), file.read(4)
            if len(data) < length or _masked_crc(data) != checksum:
                raise _damaged(path, file.tell() - len(data) - len(checksum))
            yield data


def _masked_crc(data: bytes) -> bytes:
    import google_crc32c

    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _damaged(path: Path, offset: int) -> UserError:
    return UserError(f"{path} is cut short or damaged at byte {offset:,}. Copy the file again")
