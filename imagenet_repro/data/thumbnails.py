"""Small JPEGs of a split's images, for a page."""

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from imagenet_repro.data import image_index
from imagenet_repro.data.decode import DecodeError, decode
from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import UserError

SIDE = 128  # pixels of the shorter side at most
QUALITY = 80  # of JPEG
LONGEST_SIDE = 16_384  # pixels; a JPEG has at most 65,535 on a side
THREADS = 16  # that read records for their ids
NO_INDEX = "no index of them is stored. An evaluation on this split stores it"
SAMPLED = 2_000  # records read for their ids: 0.2 GB of ImageNet's 6 GB of validation images


def sample_positions(split: Split, say: Callable[[str], None] = print) -> dict[str, int]:
    """Return the position of images in the split by their ids, for images that a page may choose from.

    These are all images where ids are positions or an index of them is stored (`data.image_index`), and nothing is
    read. Otherwise a record must be read to learn its id, and these are at most 2,000 records at equal distances. A
    record that cannot be read is left out.

    Args:
      split: the images.
      say: called with a sentence if records are read.
    """
    known = _known_positions(split)
    if known is not None:
        return known
    records = split.records
    n_sampled = min(len(records), SAMPLED)
    say(f"reading {n_sampled:,} records of {split.name} {split.split} for their ids: {NO_INDEX}")
    indices = [k * len(records) // n_sampled for k in range(n_sampled)]
    sampled = ((index, _read(split, index)) for index in indices)
    return {record.id: index for index, record in sampled if record is not None}


def thumbnails_at(split: Split, positions: Mapping[str, int], ids: Sequence[str]) -> dict[str, bytes]:
    """Return JPEGs by image id as `thumbnails_by_id` does, of the images whose position is known.

    Args:
      split: the images.
      positions: positions in the split by image id, from `sample_positions`.
      ids: the requested images; one without a position is left out, as is one that is not at its position.
    """
    records = {id: _read(split, positions[id]) for id in dict.fromkeys(ids) if id in positions}
    jpegs = {id: thumbnail(record) for id, record in records.items() if record is not None and record.id == id}
    return {id: jpeg for id, jpeg in jpegs.items() if jpeg is not None}


def thumbnails_by_id(split: Split, ids: Sequence[str], say: Callable[[str], None] = print) -> dict[str, bytes]:
    """Return JPEGs by image id, with a shorter side of at most 128 pixels.

    An image that is absent or cannot be read or decoded is left out. Where the ids are positions or an index of them
    is stored (`data.image_index`), only these records are read. Otherwise all records are read once, and the index
    is stored; records that are not those of a prepared data set have no index, and are read until all ids have been
    met.

    Args:
      split: the images.
      ids: the requested images.
      say: called with a sentence if the whole split is read.
    """
    if not ids:
        return {}
    positions = _known_positions(split)
    if positions is None:
        say(f"reading the records of {split.name} {split.split} for their ids: {NO_INDEX}")
        if image_index.stored_records(split) is None:
            return _thumbnails_from_start(split, ids)
        index = image_index.read(split, THREADS)
        image_index.store(split, index)
        positions = index.positions()
    return thumbnails_at(split, positions, ids)


def _known_positions(split: Split) -> dict[str, int] | None:
    """Return the positions of all images by their ids without reading a record; None if that is not possible."""
    records = image_index.stored_records(split)
    if records is not None and not records.has_ids:
        return {records.position_id(index): index for index in range(len(records))}
    index = image_index.find(split)
    return None if index is None else index.positions()


def _thumbnails_from_start(split: Split, ids: Sequence[str]) -> dict[str, bytes]:
    jpegs, missing = {}, set(ids)
    for index in range(len(split.records)):
        record = _read(split, index)
        if record is not None and record.id in missing:
            missing.remove(record.id)
            jpegs[record.id] = thumbnail(record)
        if not missing:
            break
    return {id: jpeg for id, jpeg in jpegs.items() if jpeg is not None}


def _read(split: Split, index: int) -> Record | None:
    try:
        return split.records[index]
    except UserError:  # a damaged file; the page shows predictions, which do not need it
        return None


def thumbnail(record: Record, side: int = SIDE, quality: int = QUALITY) -> bytes | None:
    """Return a JPEG without metadata, its shorter side `side` pixels at most; None where it cannot be decoded."""
    try:
        pixels = decode(record.image)
    except DecodeError:
        return None
    return _jpeg(pixels, side, quality)


def _jpeg(pixels: UInt8[np.ndarray, "h w 3"], side: int, quality: int) -> bytes:
    height, width = pixels.shape[:2]
    scale = min(1.0, side / min(height, width), LONGEST_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(resized, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()
