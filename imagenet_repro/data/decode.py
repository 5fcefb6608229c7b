"""Encoded images to RGB arrays, whatever the file's name promised.

OpenCV decodes and gives, on JPEG and PNG, the pixels that Pillow gives (both use libjpeg-turbo's accurate integer
transform and fancy upsampling). What it does not decode, or differently, goes to Pillow: CMYK JPEG, on which the two
are one level apart.

Orientation tags of EXIF are ignored, as by every pipeline behind a published number. Alpha is dropped, not blended;
16 bits are cut to the upper 8; of an animation the first frame counts.
"""

import io

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
        components, scan = _jpeg_header(image)
        if not image.endswith(_END_OF_IMAGE) and image.rfind(_END_OF_IMAGE) < scan:
            raise DecodeError(f"JPEG of {len(image)} bytes: cut short, it has no end-of-image marker")
        if components == 4:
            return _pillow(image)
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), _FLAGS) if image else None
    return _pillow(image) if pixels is None else pixels


def size(image: bytes) -> tuple[int, int]:
    """Height and width of an image that `decode` decodes, read from its header alone.

    Raises:
        DecodeError: the header is damaged or of no known format.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image)) as opened:
            return opened.height, opened.width
    except Exception as error:  # Pillow's plug-ins raise whatever their parsers meet
        raise DecodeError(f"record of {len(image)} bytes: {error}") from error


def _jpeg_header(image: bytes) -> tuple[int, int]:
    """Of a JPEG the number of colour components and the offset of the first scan; (0, 0) of a malformed header."""
    components, position = 0, 2
    while position + 4 <= len(image) and image[position] == 0xFF:
        marker = image[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in _FRAMES and position + 9 < len(image):
            components = image[position + 9]
        if marker == _START_OF_SCAN:
            return components, position
        position += 2 + int.from_bytes(image[position + 2 : position + 4], "big")
    return 0, 0


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
