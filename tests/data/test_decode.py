import io
import struct
import tarfile
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from imagenet_repro.data import decode as decoding
from imagenet_repro.data.decode import DecodeError, decode
from tests.conftest import shared_path

RNG = np.random.default_rng(0)
# Smooth as photographs, so that JPEG changes it little.
SCENE = Image.fromarray(RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((61, 43), Image.Resampling.BICUBIC)
ALPHA = Image.merge("RGBA", (*SCENE.split(), Image.linear_gradient("L").resize(SCENE.size)))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated_by_exif(kind: str) -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return saved(SCENE, kind, exif=exif)


def pillow(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


FORMATS = {
    "jpeg": saved(SCENE, "JPEG"),
    "jpeg, no subsampling": saved(SCENE, "JPEG", subsampling=0, quality=98),
    "jpeg, progressive": saved(SCENE, "JPEG", progressive=True),
    "jpeg, grey": saved(SCENE.convert("L"), "JPEG"),
    "jpeg, stored as RGB": saved(SCENE, "JPEG", keep_rgb=True),
    "jpeg, CMYK inverted by Adobe": saved(SCENE.convert("CMYK"), "JPEG", quality=95),
    "jpeg, EXIF orientation": rotated_by_exif("JPEG"),
    "png": saved(SCENE, "PNG"),
    "png, grey": saved(SCENE.convert("L"), "PNG"),
    "png, palette": saved(SCENE.quantize(16), "PNG"),
    "png, palette with a transparent colour": saved(SCENE.quantize(16), "PNG", transparency=3),
    "png, one bit": saved(SCENE.convert("1"), "PNG"),
    "png, alpha": saved(ALPHA, "PNG"),
    "png, grey with alpha": saved(ALPHA.convert("LA"), "PNG"),
    "png, EXIF orientation": rotated_by_exif("PNG"),
    "gif": saved(SCENE, "GIF"),
    "gif, animated": saved(SCENE, "GIF", save_all=True, append_images=[SCENE.rotate(90)]),
    "png, animated": saved(SCENE, "PNG", save_all=True, append_images=[SCENE.rotate(90)]),
    "webp": saved(SCENE, "WEBP"),
    "webp, animated": saved(SCENE, "WEBP", save_all=True, append_images=[SCENE.rotate(90)], lossless=True),
    "webp, alpha": saved(ALPHA, "WEBP", lossless=True),
    "bmp": saved(SCENE, "BMP"),
    "bmp, palette": saved(SCENE.quantize(16), "BMP"),
    "tiff": saved(SCENE, "TIFF"),
    "tiff, LZW": saved(SCENE, "TIFF", compression="tiff_lzw"),
    "tiff, several pages": saved(SCENE, "TIFF", save_all=True, append_images=[SCENE.rotate(90)]),
}
# Half of the others still has the first frame.
ALL_OR_NOTHING = [name for name in FORMATS if "animated" not in name and "pages" not in name]


@pytest.mark.parametrize("name", FORMATS)
def test_pixels_are_pillows(name):
    np.testing.assert_array_equal(decode(FORMATS[name]), pillow(FORMATS[name]))


def test_the_upper_8_of_16_bits_of_a_tiff_are_used():
    deep = RNG.integers(0, 65536, (9, 5), dtype=np.uint16)
    expected = np.broadcast_to(deep[..., None] >> 8, (9, 5, 3))
    np.testing.assert_array_equal(decode(saved(Image.fromarray(deep), "TIFF")), expected)


def test_the_orientation_of_a_tiff_is_ignored():
    np.testing.assert_array_equal(decode(saved(SCENE, "TIFF", tiffinfo={274: 6})), np.asarray(SCENE))


@pytest.mark.parametrize("shape", [(9, 5), (9, 5, 3), (9, 5, 4)])
def test_the_upper_8_of_16_bits_are_used(shape):
    deep = RNG.integers(0, 65536, shape, dtype=np.uint16)
    expected = np.broadcast_to(deep[..., None], (9, 5, 3)) if deep.ndim == 2 else deep[..., 2::-1]
    np.testing.assert_array_equal(decode(cv2.imencode(".png", deep)[1].tobytes()), expected >> 8)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 2)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_sides_of_one_pixel(size, kind):
    image = saved(SCENE.resize(size), kind)
    decoded = decode(image)
    assert decoded.shape == (size[1], size[0], 3)
    np.testing.assert_array_equal(decoded, pillow(image))


@pytest.mark.parametrize("name", ALL_OR_NOTHING)
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_image_is_refused(name, share):
    image = FORMATS[name]
    with pytest.raises(DecodeError, match=r"bytes: \S"):
        decode(image[: int(share * len(image))])


@pytest.mark.parametrize("lost", [1, 2, 3, 50])
def test_a_jpeg_that_lost_its_last_bytes_is_refused(lost):
    for name in ("jpeg", "jpeg, progressive", "jpeg, grey"):
        with pytest.raises(DecodeError, match=r"JPEG of .* cut short, it has no end-of-image marker"):
            decode(FORMATS[name][:-lost])


def test_an_unfinished_jpeg_is_refused():
    """Zeros decode as grey without an error; the end marker of the thumbnail in the header is not the image's."""
    exif = Image.Exif()
    exif[0x9286] = saved(SCENE.resize((16, 16)), "JPEG")
    image = saved(SCENE, "JPEG", exif=exif)
    assert image.count(b"\xff\xd9") == 2
    assert decode(image).shape == (43, 61, 3)
    half = len(image) - 300
    with pytest.raises(DecodeError, match="no end-of-image marker"):
        decode(image[:half] + bytes(300))


def test_bytes_after_the_image_are_allowed():
    for name in ("jpeg", "png"):
        np.testing.assert_array_equal(decode(FORMATS[name] + b"trailing"), decode(FORMATS[name]))


@pytest.mark.parametrize(
    "rubbish", [b"", b"\0", b"hello, world", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0\x10JFIF", b"GIF8"]
)
def test_other_bytes_are_refused(rubbish):
    with pytest.raises(DecodeError, match=f"of {len(rubbish)} bytes: "):
        decode(rubbish)


def with_size(name: str, width: int, height: int) -> bytes:
    """Return an image whose header claims another size."""
    image = bytearray(FORMATS[name])
    if name.startswith("jpeg"):
        frame = max(image.find(b"\xff\xc0"), image.find(b"\xff\xc2"))
        image[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    elif name == "png":
        image[16:24] = struct.pack(">II", width, height)
        image[29:33] = struct.pack(">I", zlib.crc32(image[12:29]))
    elif name == "gif":
        image[6:10] = struct.pack("<HH", width, height)
    elif name == "bmp":
        image[18:26] = struct.pack("<ii", width, height)
    elif name == "webp":
        image[26:30] = struct.pack("<HH", width, height)
    else:
        (start,) = struct.unpack("<I", image[4:8])
        for entry in range(start + 2, start + 2 + 12 * image[start], 12):
            if (tag := int.from_bytes(image[entry : entry + 2], "little")) in (256, 257):
                image[entry : entry + 12] = struct.pack("<HHII", tag, 4, 1, width if tag == 256 else height)
    return bytes(image)


@pytest.mark.parametrize("name", ["jpeg", "jpeg, progressive", "png", "gif", "bmp", "tiff", "tiff, LZW", "webp"])
@pytest.mark.parametrize("side", [2100, 16383, 65500])
def test_a_small_file_that_claims_many_pixels_is_refused_without_their_memory(name, side):
    side = min(side, 16383) if name == "webp" else side  # which is all that WebP can claim
    image = with_size(name, side, side)
    tracemalloc.start()
    with pytest.raises(DecodeError, match=rf"of {len(image)} bytes: .*(claims {side} x {side} pixels|exceeds limit)"):
        decode(image)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_large_image_of_few_bytes_is_decoded():
    """A JPEG of one colour is the smallest of its size that a camera or a tool writes."""
    image = saved(Image.new("RGB", (3000, 2000), "white"), "JPEG")
    assert (decode(image) == 255).all()


def test_a_file_without_pixels_is_refused():
    for name in ("jpeg", "png"):
        with pytest.raises(DecodeError, match="claims 0 x 7 pixels"):
            decode(with_size(name, 0, 7))


def test_a_chunk_longer_than_the_file_is_refused():
    """OpenCV would allocate what the chunk claims."""
    image = bytearray(FORMATS["png"])
    image[33:37] = struct.pack(">I", 2**32 - 1)
    with pytest.raises(DecodeError, match=r"PNG of \d+ bytes: cut short or damaged, its chunk b'IDAT' has"):
        decode(bytes(image))


def test_a_jpeg_of_very_many_scans_is_refused():
    image = FORMATS["jpeg, progressive"]
    scan = image.find(b"\xff\xda")
    end = image.find(b"\xff", scan + 2)
    with pytest.raises(DecodeError, match="more than 100 scans"):
        decode(image[:scan] + 200 * image[scan:end] + image[scan:])


def test_a_tiff_of_very_many_tags_is_refused():
    image = bytearray(FORMATS["tiff"])
    (start,) = struct.unpack("<I", image[4:8])
    image[start : start + 2] = b"\xff\xff"
    with pytest.raises(DecodeError, match="claims 65535 tags"):
        decode(bytes(image))


@pytest.mark.parametrize("error", [cv2.error("in C++"), MemoryError(), zlib.error("in a stream"), KeyError(3)])
@pytest.mark.parametrize("name", ["jpeg", "png", "tiff"])
def test_any_exception_of_a_decoder_is_a_decode_error(monkeypatch, name, error):
    def raises(*_, **__):
        raise error

    monkeypatch.setattr(cv2, "imdecode", raises)
    if name != "tiff":
        np.testing.assert_array_equal(decode(FORMATS[name]), pillow(FORMATS[name]))  # by Pillow
    monkeypatch.setattr(Image, "open", raises)
    with pytest.raises(DecodeError, match=r"(JPEG|PNG|TIFF) of \d+ bytes: \S"):
        decode(FORMATS[name])


def test_the_size_of_a_jpeg_is_bounded_too():
    assert decoding.size(FORMATS["jpeg"]) == (43, 61)
    with pytest.raises(DecodeError, match="claims 30000 x 30000"):
        decoding.size(with_size("jpeg", 30000, 30000))


def test_nothing_is_printed_about_a_damaged_image(capfd):
    for name in ALL_OR_NOTHING:
        with pytest.raises(DecodeError):
            decode(FORMATS[name][: len(FORMATS[name]) // 2])
    assert capfd.readouterr() == ("", "")


def real_images() -> dict[str, bytes]:
    images = {}
    with tarfile.open(shared_path("data/ilsvrc2012-mini/ILSVRC2012_img_train.tar")) as classes:
        for member in classes:
            with tarfile.open(fileobj=classes.extractfile(member)) as images_of_class:
                images |= {one.name: images_of_class.extractfile(one).read() for one in images_of_class}
    return images


def test_real_files_that_break_pipelines():
    images = real_images()
    kinds = {name: Image.open(io.BytesIO(image)) for name, image in images.items()}
    assert kinds["n01739381_1309.JPEG"].mode == "CMYK"
    assert kinds["n02105855_2933.JPEG"].format == "PNG"
    assert any(kind.mode == "L" for kind in kinds.values())
    for name, image in images.items():
        np.testing.assert_array_equal(decode(image), pillow(image), err_msg=name)
