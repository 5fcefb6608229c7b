"""Small JPEGs of a split's images, for a page."""

from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from imagenet_repro.data.decode import DecodeError, decode
from imagenet_repro.data.sources import Record, Split, StoredRecords
from imagenet_repro.errors import UserError

SIDE = 128  # pixels of the shorter side at most
QUALITY = 80  # of JPEG
LONGEST_SIDE = 16_384  # pixels; a JPEG has at most 65,535 on a side
SAMPLED = 2_000  # records read for their ids: 0.2 GB of ImageNet's 6 GB of validation images


def sample_positions(split: Split) -> dict[str, int]:
    """Return the position of images in the split by their ids, for images that a page may choose from.

    Where the ids are positions, these are all images, and nothing is read. Otherwise a record must be read to learn
    its id, and these are at most 2,000 records at equal distances. A record that cannot be read is left out.
    """
    records = split.records
    if isinstance(records, StoredRecords) and not records.has_ids:
        return {records.position_id(index): index for index in range(len(records))}
    n_sampled = min(len(records), SAMPLED)
    indices = [k * len(records) // n_sampled for k in range(n_sampled)]
    sampled = ((index, _read(split, index)) for index in indices)
    return {record.id: index for index, record in sampled if record is not None}


def thumbnails_at(split: Split, positions: Mapping[str, int], ids: Sequence[str]) -> dict[str, bytes]:
    """Return JPEGs by image id as `thumbnails_by_id` does, of the images whose position is known.

    Args:
      split: the images.
      positions: positions in the split by image id, from `sample_positions`.
      ids: the requested images; one without a position is left out.
    """
    records = {id: _read(split, positions[id]) for id in dict.fromkeys(ids) if id in positions}
    jpegs = {id: thumbnail(record) for id, record in records.items() if record is not None}
    return {id: jpeg for id, jpeg in jpegs.items() if jpeg is not None}


def thumbnails_by_id(split: Split, ids: Sequence[str]) -> dict[str, bytes]:
    """Return JPEGs by image id, with a shorter side of at most 128 pixels.

    An image that is absent or cannot be read or decoded is left out. Where the ids are positions, only these records
    are read. Otherwise the ids are in the records, and the split is read from its beginning until all have been met.
    """
    records = split.records
    if isinstance(records, StoredRecords) and not records.has_ids:
        return thumbnails_at(split, sample_positions(split), ids)
    jpegs = {record.id: thumbnail(record) for record in _records_of(split, ids)}
    return {record_id: jpeg for record_id, jpeg in jpegs.items() if jpeg is not None}


def _records_of(split: Split, ids: Sequence[str]) -> Iterator[Record]:
    missing = set(ids)
    for index in range(len(split.records) if missing else 0):
        record = _read(split, index)
        if record is not None and record.id in missing:
            missing.remove(record.id)
            yield record
        if not missing:
            return


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
