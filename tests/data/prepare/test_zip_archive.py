"""Zip archives made to fail: each ends in a sentence, and none takes more memory than it declares."""

import random
import struct
import tracemalloc
import warnings
import zipfile

import pytest

from imagenet_repro.data.prepare import zip_archive
from imagenet_repro.data.prepare.zip_archive import ZipArchive
from imagenet_repro.errors import UserError

NAME = "train/cat/1.jpg"
TRIES = 80
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def write(path, content=b"image " * 100, method=zipfile.ZIP_DEFLATED, name=NAME):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, content)
    return path


def problem(path, max_bytes=1000):
    with ZipArchive(path) as archive:
        return archive.problem(next(archive.members()), max_bytes)


def patch(path, offset_local, offset_central, value):
    """Overwrite bytes in the local header and in the central directory's entry of the only member."""
    data = bytearray(path.read_bytes())
    central = data.rindex(b"PK\x01\x02")
    data[offset_local : offset_local + len(value)] = value
    data[central + offset_central : central + offset_central + len(value)] = value
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_read(tmp_path, method):
    content = random.Random(0).randbytes(5000) + bytes(5000)
    with ZipArchive(write(tmp_path / "a.zip", content, method)) as archive:
        assert archive.read(NAME) == content
        assert archive.problem(next(archive.members()), 20_000) == ""


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_bomb_takes_no_memory(tmp_path, method):
    """A member that declares a thousand bytes and expands to twenty million."""
    path = write(tmp_path / "a.zip", bytes(20_000_000), method)
    patch(path, 22, 24, struct.pack("<I", 1000))
    with ZipArchive(path) as archive:
        tracemalloc.start()
        try:
            with pytest.raises(UserError, match=r"train/cat/1.jpg in .*a\.zip cannot be read: it expands to more"):
                archive.read(NAME)
            assert tracemalloc.get_traced_memory()[1] < 10_000_000  # half of it; LZMA needs eight for its dictionary
        finally:
            tracemalloc.stop()


def test_a_bomb_that_declares_its_size_is_refused_without_reading(tmp_path):
    path = write(tmp_path / "a.zip", bytes(10_000_000))
    assert "are larger than 1,000 bytes" in problem(path)
    with ZipArchive(path) as archive:
        assert "more than 200 times as many" in archive.expansion_problem()
    with ZipArchive(write(tmp_path / "b.zip")) as archive:
        assert archive.expansion_problem() == ""


def test_members_that_cannot_be_read_are_explained(tmp_path):
    path = write(tmp_path / "a.zip")
    patch(path, 6, 8, b"\x01\x00")
    assert "are encrypted" in problem(path)
    path = write(tmp_path / "a.zip")
    patch(path, 8, 10, b"\x09\x00")
    assert "compressed by method 9" in problem(path)
    path = write(tmp_path / "a.zip")
    patch(path, 18, 20, struct.pack("<I", 900))
    assert "end after the end of the archive" in problem(path)
    link = zipfile.ZipInfo(NAME)
    link.external_attr = 0o120777 << 16
    assert "symbolic links" in problem(write(tmp_path / "a.zip", b"/etc/passwd", name=link))


def test_a_name_that_is_not_utf8_ends_in_a_sentence(tmp_path):
    for flags in (b"\x00\x00", b"\x00\x08"):  # without and with the flag of UTF-8
        path = write(tmp_path / "a.zip", name="train/caXt/1.jpg")
        path.write_bytes(path.read_bytes().replace(b"caXt", b"ca\xfft"))
        patch(path, 6, 8, flags)
        with pytest.raises(UserError, match=r"a\.zip: the name b'train/ca\\xfft/1\.jpg' is not UTF-8"):
            ZipArchive(path)


def test_a_name_in_utf8_without_its_flag_is_read(tmp_path):
    path = write(tmp_path / "a.zip", name="train/猫/1.jpg")
    patch(path, 6, 8, b"\x00\x00")
    with ZipArchive(path) as archive:
        assert archive.read("train/猫/1.jpg") == b"image " * 100


@pytest.mark.parametrize("method", METHODS)
def test_damage_anywhere_ends_in_a_sentence(tmp_path, method):
    """Random changes of one to four bytes: the content is the right one, or the error is the user's."""
    content = b"image " * 100
    original = write(tmp_path / "a.zip", content, method).read_bytes()
    generator, path = random.Random(method), tmp_path / "b.zip"
    outcomes = set()
    for _ in range(TRIES):
        data = bytearray(original)
        for _ in range(generator.randint(1, 4)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(bytes(data[: generator.choice([len(data)] * 9 + [generator.randrange(len(data))])]))
        try:
            with warnings.catch_warnings(), ZipArchive(path) as archive:
                warnings.simplefilter("ignore")
                for member in archive.members():
                    if not archive.problem(member, 10_000) and not member.is_dir():
                        outcomes.add(archive.read(zip_archive.normal(member.filename)) == content)
        except UserError:
            outcomes.add("refused")
    assert outcomes == {True, "refused"}


def test_a_truncated_stream_is_named(tmp_path):
    """The stream of bzip2 ends early, and the archive's headers agree with that."""
    whole = write(tmp_path / "a.zip", random.Random(0).randbytes(5000), zipfile.ZIP_BZIP2)
    with zipfile.ZipFile(whole) as archive:
        member = archive.getinfo(NAME)
    patch(whole, 18, 20, struct.pack("<I", member.compress_size // 2))
    with ZipArchive(whole) as archive, pytest.raises(UserError, match="it expands to less"):
        archive.read(NAME)
