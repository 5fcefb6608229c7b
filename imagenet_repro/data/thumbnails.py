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


def of_images(split: Split, ids: Sequence[str]) -> dict[str, bytes]:
    """JPEGs by id, the shorter side 128 pixels at most; what cannot be read or decoded, or is not there, is left out.

    Reads the split from its beginning until all are found, since ids are in the records.
    """
    return {record.id: found for record in _found(split, set(ids)) if (found := small(record)) is not None}


def _found(split: Split, wanted: set[str]) -> Iterator[Record]:
    for number in range(len(split.records) if wanted else 0):
        record = _read(split, number)
        if record is not None and record.id in wanted:
            wanted.remove(record.id)
            yield record
        if not wanted:
            return


def _read(split: Split, number: int) -> Record | None:
    try:
        return split.records[number]
    except UserError:  # a damaged file: the page is about the predictions, and those are there
        return None


def small(record: Record, side: int = SIDE, quality: int = QUALITY) -> bytes | None:
    """A JPEG whose shorter side is `side` pixels at most, without its metadata; None where it cannot be decoded."""
    try:
        pixels = decode(record.image)
    except DecodeError:
        return None
    return _jpeg(pixels, side, quality)


def _jpeg(pixels: UInt8[np.ndarray, "h w 3"], side: int, quality: int) -> bytes:
    height, width = pixels.shape[:2]
    scale = min(1.0, side / min(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(resized, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()
