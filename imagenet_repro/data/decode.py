"""Decoding of images to RGB arrays; the format follows from the content, not from a file's name.

OpenCV decodes JPEG and PNG to the same pixels as Pillow (both use libjpeg-turbo's accurate integer transform and fancy
upsampling). Pillow decodes what OpenCV cannot, and CMYK JPEG, on which the two differ by one level.

EXIF orientation is ignored, as in every pipeline behind a published number. Alpha is dropped, not blended; 16 bits are
cut to the upper 8; of an animation the first frame is used.
"""

import io
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

# The loader already decodes many images at once, each in one of its threads.
cv2.setNumThreads(0)
# Damaged files are reported by DecodeError, so OpenCV need not print about them.
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
# Start-of-frame markers of JPEG: 0xC0 to 0xCF except DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA


class DecodeError(ValueError):
    """An image cannot be decoded completely; the message says why."""


def decode(image: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decode an image of any common format, recognised by its first bytes, to RGB.

    A JPEG without its end-of-image marker was cut short or never finished; it is an error, although decoders would
    fill the rest with grey. Bytes after the marker are allowed.

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
    """Return height and width of an image in pixels; of a JPEG only the header is read.

    Raises:
        DecodeError: as `decode`, but damage after the header of a JPEG is not noticed.
    """
    header = _jpeg_header(image) if image.startswith(_JPEG) else _Header()
    if header.height and header.width:
        return header.height, header.width
    pixels = decode(image)
    return pixels.shape[0], pixels.shape[1]


class _Header(NamedTuple):
    """The number of colour components of a JPEG, its size in pixels, and the byte offset of its first scan."""

    components: int = 0
    height: int = 0
    width: int = 0
    scan: int = 0


def _jpeg_header(image: bytes) -> _Header:
    """Parse the header of a JPEG; all fields are zero where it is malformed."""
    header, position = _Header(), 2
    while position + 4 <= len(image) and image[position] == 0xFF:
        marker = image[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in _FRAMES and position + 9 < len(image):
            height = int.from_bytes(image[position + 5 : position + 7], "big")
            width = int.from_bytes(image[position + 7 : position + 9], "big")
            header = _Header(image[position + 9], height, width)
        if marker == _START_OF_SCAN:
            return header._replace(scan=position)
        position += 2 + int.from_bytes(image[position + 2 : position + 4], "big")
    return _Header()


def _pillow(image: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decode with Pillow; raises DecodeError where Pillow cannot decode the image either."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image)) as decoded:
            return np.array(decoded.convert("RGB"))
    except Exception as error:  # Pillow's plug-ins raise exceptions of many types
        kind = next((name for magic, name in _FORMATS.items() if image.startswith(magic)), None)
        reason = str(error) if kind else f"no known image format, it begins with {image[:8]!r}"
        raise DecodeError(f"{kind or 'record'} of {len(image)} bytes: {reason}") from error
