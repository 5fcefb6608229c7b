"""Decoding of images to RGB arrays; the format follows from the content, not from a file's name.

JPEG, PNG, GIF, BMP, TIFF and WebP are accepted. OpenCV decodes JPEG and PNG to the same pixels as Pillow (both use
libjpeg-turbo's accurate integer transform and fancy upsampling). Pillow decodes the other formats, and CMYK JPEG, on
which the two differ by one level.

EXIF orientation is ignored, as in every pipeline behind a published number. Alpha is dropped, not blended; 16 bits are
cut to the upper 8; of an animation or of several pages only the first is read.

The size that a header claims is checked before anything is decoded, so that a small damaged file cannot take much
memory or time:

- At most `MAX_PIXELS` pixels. Pillow refuses larger images by default, and with it torchvision's and timm's pipelines,
  so every image of a data set that those can read passes.
- Above `FREE_PIXELS`, at most `MAX_PIXELS_PER_BYTE` pixels for each byte of the file. A JPEG of a single colour has 64
  with the standard's tables; photographs have a few. So a blank page of more than 4 megapixels may be refused, and
  nothing else. A GIF may have 32, and an image without compression 8, one bit each.
- At most `MAX_SCANS` scans of a JPEG, because each costs a pass over the image; a progressive JPEG usually has ten.

libjpeg prints one line, such as "Corrupt JPEG data", on standard error for a JPEG whose small damage it repairs, and
libpng one for a PNG that it cannot read. OpenCV has no hook for them, and standard error belongs to the whole process,
so they can neither be named nor suppressed without a cost for every image. A repaired JPEG counts as decoded, as it
does in Pillow and torchvision.
"""

import ctypes
import functools
import io
import struct
import warnings
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

# The loader already decodes many images at once, each in one of its threads.
cv2.setNumThreads(0)
# Damaged files are reported by DecodeError, so the libraries need not print about them.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")

MAX_PIXELS = 178_956_970  # Pillow's default limit, 2 x MAX_IMAGE_PIXELS
FREE_PIXELS = 2**22
MAX_PIXELS_PER_BYTE = 256
MAX_SCANS = 100
_PIXELS_PER_BYTE = {"raw": 8, "gif": 32}  # less than MAX_PIXELS_PER_BYTE, by Pillow's name of the compression
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_END_OF_IMAGE = b"\xff\xd9"
_FORMATS = {
    _JPEG: "JPEG",
    _PNG: "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"RIFF": "WebP",
}
# Start-of-frame markers of JPEG: 0xC0 to 0xCF except DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE_FRAMES = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
# Markers of JPEG without a length, and a stuffed zero, which libjpeg skips between segments.
_WITHOUT_LENGTH = frozenset(range(0xD0, 0xD8)) | {0x00, 0x01}
_START_OF_SCAN = 0xDA
_START_OF_SCAN_BYTES = b"\xff\xda"
_ORIENTATION = 0x0112  # the tag of EXIF and TIFF
_TILE_SIDES = 322, 323  # tags of TIFF
_MAX_TAGS = 512  # of a TIFF; its usual directory has about 20


class DecodeError(ValueError):
    """An image cannot be decoded completely; the message says why."""


def decode(image: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decode an image of an accepted format, recognised by its first bytes, to RGB.

    A JPEG without its end-of-image marker was cut short or never finished; it is an error, although decoders would
    fill the rest with grey. Bytes after the marker are allowed.

    Raises:
        DecodeError: the image is truncated, damaged, of no accepted format, or claims too many pixels. A decoder's
            own exceptions, MemoryError among them, become this one.
    """
    if image.startswith(_JPEG):
        header = _jpeg_header(image)
        _check_pixels(image, header.width, header.height)
        if not image.endswith(_END_OF_IMAGE) and image.rfind(_END_OF_IMAGE) < header.scan:
            raise DecodeError(f"JPEG of {len(image)} bytes: cut short, it has no end-of-image marker")
        if header.several_scans and image.count(_START_OF_SCAN_BYTES) > MAX_SCANS:
            raise DecodeError(f"JPEG of {len(image)} bytes: more than {MAX_SCANS} scans")
        if header.components == 4:
            return _pillow(image)
    elif image.startswith(_PNG):
        _check_pixels(image, int.from_bytes(image[16:20], "big"), int.from_bytes(image[20:24], "big"))
        _check_chunks(image)
    else:
        return _pillow(image)
    try:
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), _FLAGS)
    except Exception:  # cv2.error and others; Pillow decodes the image or says why it cannot
        pixels = None
    return _pillow(image) if pixels is None else pixels


def size(image: bytes) -> tuple[int, int]:
    """Return height and width of an image in pixels; of a JPEG only the header is read.

    Raises:
        DecodeError: as `decode`, but damage after the header of a JPEG is not noticed.
    """
    if image.startswith(_JPEG):
        header = _jpeg_header(image)
        _check_pixels(image, header.width, header.height)
        return header.height, header.width
    pixels = decode(image)
    return pixels.shape[0], pixels.shape[1]


class _Header(NamedTuple):
    """The frame of a JPEG: colour components and size in pixels; and its first scan's byte offset."""

    components: int = 0
    height: int = 0
    width: int = 0
    progressive: bool = False
    scan: int = 0
    several_scans: bool = False


def _jpeg_header(image: bytes) -> _Header:
    """Parse the header of a JPEG, with the same tolerance as libjpeg; raises DecodeError where it is malformed."""
    header, position = _Header(), 2
    while position >= 0 and position + 9 < len(image):
        if image[position] != 0xFF:  # libjpeg skips to the next marker
            position = image.find(b"\xff", position)
            continue
        marker = image[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in _WITHOUT_LENGTH:
            position += 2
            continue
        if marker in _FRAMES:
            height = int.from_bytes(image[position + 5 : position + 7], "big")
            width = int.from_bytes(image[position + 7 : position + 9], "big")
            header = _Header(image[position + 9], height, width, marker in _PROGRESSIVE_FRAMES)
        if marker == _START_OF_SCAN:
            several = header.progressive or image[position + 4] < header.components
            return header._replace(scan=position, several_scans=several)
        position += 2 + int.from_bytes(image[position + 2 : position + 4], "big")
    raise DecodeError(f"JPEG of {len(image)} bytes: its header is damaged or cut short")


def _check_pixels(image: bytes, width: int, height: int, per_byte: int = MAX_PIXELS_PER_BYTE) -> None:
    """Raise DecodeError where an image claims no pixel, or more than its bytes can hold."""
    pixels = width * height
    if 0 < pixels <= FREE_PIXELS:
        return
    limit = min(MAX_PIXELS, max(FREE_PIXELS, per_byte * len(image)))
    if not 0 < pixels <= limit:
        raise DecodeError(
            f"{_kind(image)} of {len(image)} bytes: its header claims {width} x {height} pixels, and an image of that "
            f"many bytes may have 1 to {limit:,}"
        )


def _check_chunks(image: bytes) -> None:
    """Raise DecodeError where a chunk of a PNG claims more bytes than there are; OpenCV would allocate up to 4 GB."""
    position = len(_PNG)
    while position + 8 <= len(image):
        length, name = struct.unpack_from(">I4s", image, position)
        position += 12 + length
        if position > len(image):
            raise DecodeError(
                f"PNG of {len(image)} bytes: cut short or damaged, its chunk {name!r} has {length} bytes"
            )
        if name == b"IEND":
            return


def _kind(image: bytes) -> str | None:
    """Return the name of an image's format, None where it is not an accepted one."""
    return next((name for magic, name in _FORMATS.items() if image.startswith(magic)), None)


def _pillow(image: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decode with Pillow; raises DecodeError where Pillow cannot decode the image either."""
    kind = _kind(image)
    if kind is None:
        raise DecodeError(f"record of {len(image)} bytes: no known image format, it begins with {image[:8]!r}")
    try:
        return _decode_with_pillow(image, kind)
    except DecodeError:
        raise
    except Exception as error:  # Pillow's plug-ins raise exceptions of many types
        reason = str(error) or type(error).__name__
        raise DecodeError(f"{kind} of {len(image)} bytes: {reason}") from error


def _decode_with_pillow(image: bytes, kind: str) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image, TiffImagePlugin

    if kind == "TIFF":
        _silence_libtiff()
        _check_tags(image)
    with Image.open(io.BytesIO(image), formats=[kind]) as opened:
        codec = opened.tile[0].codec_name if opened.tile else ""
        _check_pixels(image, opened.width, opened.height, _PIXELS_PER_BYTE.get(codec, MAX_PIXELS_PER_BYTE))
        if kind == "GIF" and opened.size != struct.unpack("<HH", image[6:10]):
            raise ValueError("its first frame is larger than its screen")
        if isinstance(opened, TiffImagePlugin.TiffImageFile):
            _check_pixels(image, *(int(opened.tag_v2.get(tag, 1)) for tag in _TILE_SIDES))
            opened.getexif().pop(_ORIENTATION, None)  # or Pillow turns the pixels
        if opened.mode.startswith("I;16"):
            grey = np.asarray(opened).astype(np.uint16) >> 8
            return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        if opened.mode in ("I", "F"):
            raise ValueError("it has 32 bits a channel, and 8 and 16 are accepted")
        return np.array(opened.convert("RGB"))


def _check_tags(image: bytes) -> None:
    """Raise ValueError where the first directory of a TIFF claims too many tags; Pillow would read them one by one."""
    order = "<" if image.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", image, 4)
    (count,) = struct.unpack_from(f"{order}H", image, start)
    if not 0 < count <= _MAX_TAGS:
        raise ValueError(f"its directory claims {count} tags, and 1 to {_MAX_TAGS} are accepted")


@functools.cache
def _silence_libtiff() -> None:
    """Turn off the messages about damaged files of the libtiff that Pillow has loaded; on Linux only."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:
        return
    for path in {line.split(maxsplit=5)[-1] for line in maps.splitlines() if "/libtiff" in line}:
        library = ctypes.CDLL(path)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)
