"""Small JPEGs of a split's images, for a page."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from imagenet_repro.data.decode import DecodeError, decode
from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import UserError

SIDE = 128  # pixels of the shorter side at most
QUALITY = 80  # of JPEG
LONGEST_SIDE = 16_384  # pixels; a JPEG has at most 65,535 on a side


def thumbnails_by_id(split: Split, ids: Sequence[str]) -> dict[str, bytes]:
    """Return JPEGs by image id, with a shorter side of at most 128 pixels.

    An image that is absent or cannot be read or decoded is left out. The split is read from its beginning until all
    ids have been met, because the ids are in the records.
    """
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
