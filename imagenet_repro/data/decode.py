"""Encoded images to RGB arrays, whatever the file's name promised.

OpenCV decodes and gives, on JPEG and PNG, the pixels that Pillow gives (both use libjpeg-turbo's accurate integer
transform and fancy upsampling). What it does not decode, or differently, goes to Pillow: CMYK JPEG, on which the two
are one level apart.

Orientation tags of EXIF are ignored, as by every pipeline behind a published number. Alpha is dropped, not blended;
16 bits are cut to the upper 8; of an animation the first frame counts.
"""

import io
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

# An image is one thread's work: the loader's threads are the parallelism.
cv2.setNumThreads(0)
# What OpenCV would print about a damaged file is in DecodeError's message.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_JPEG = b"\xff\xd8\xff"
_END_OF_IMAGE = b"\xff\xd9"
_FORMATS = {
    _JPEG: "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"RIFF": "WebP",
}
# Start-of-frame markers of JPEG: 0xC0 to 0xCF but for the tables DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA


class DecodeError(ValueError):
    """An image that cannot be decoded as a whole; the message says why."""


def decode(image: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an image of any common format, told by its first bytes, to RGB.

    A JPEG without its end-of-image marker is refused, also where a decoder would fill the rest with grey: it was cut
    short, or the end of the file was never written. Bytes behind the marker are allowed.

    Raises:
        DecodeError: the image is truncated, damaged or of no known format.
    """
    if image.startswith(_JPEG):
        header = _jpeg_header(image)
        if not image.endswith(_END_OF_IMAGE) and image.rfind(_END_OF_IMAGE) < header.scan:
            raise DecodeError(f"JPEG of {len(image)} bytes: cut short, it has no end-of-image marker")
        if header.components == 4:
            return _pillow(image)
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), _FLAGS) if image else None
    return _pillow(image) if pixels is None else pixels


def size(image: bytes) -> tuple[int, int]:
    """Height and width of an image, read from its first bytes where it is a JPEG.

    Raises:
        DecodeError: as `decode`, though not for damage behind the header of a JPEG.
    """
    header = _jpeg_header(image) if image.startswith(_JPEG) else _Header()
    if header.height and header.width:
        return header.height, header.width
    pixels = decode(image)
    return pixels.shape[0], pixels.shape[1]


class _Header(NamedTuple):
    """Of a JPEG the number of colour components, its size, and the offset of the first scan."""

    components: int = 0
    height: int = 0
    width: int = 0
    scan: int = 0


def _jpeg_header(image: bytes) -> _Header:
    """All zeros where the header is malformed."""
    found, position = _Header(), 2
    while position + 4 <= len(image) and image[position] == 0xFF:
        marker = image[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in _FRAMES and position + 9 < len(image):
            height, width = (int.from_bytes(image[position + at : position + at + 2], "big") for at in (5, 7))
            found = _Header(image[position + 9], height, width)
        if marker == _START_OF_SCAN:
            return found._replace(scan=position)
        position += 2 + int.from_bytes(image[position + 2 : position + 4], "big")
    return _Header()


def _pillow(image: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes with Pillow, or says why neither library can."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image)) as opened:
            return np.array(opened.convert("RGB"))
    except Exception as error:  # Pillow's plug-ins raise whatever their parsers meet
        kind = next((name for magic, name in _FORMATS.items() if image.startswith(magic)), None)
        reason = str(error) if kind else f"no known image format, it begins with {image[:8]!r}"
        raise DecodeError(f"{kind or 'record'} of {len(image)} bytes: {reason}") from error
