"""Reading of zip archives that may be damaged, encrypted, or made to exhaust the memory.

`zipfile` decompresses a member without a limit: ten kilobytes can become ten gigabytes. Here no member takes more
memory than it declares, and what it declares has a limit too.
"""

import bz2
import copy
import errno
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from imagenet_repro.data.prepare import names
from imagenet_repro.errors import UserError

MAX_EXPANSION = 200  # times the archive's size; images are compressed already, so an archive of them hardly expands
_ENCRYPTED = 0x1
_ENDS_WITH_MARK = 0x2  # the flag of a stream of LZMA that does not store its length
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_DICTIONARY_BYTES = 1 << 28  # of LZMA, at most
# The header of an archive may be damaged in any field, and zipfile checks few of them.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(OSError, ValueError, OverflowError, RuntimeError, IndexError),
)
# Of an OSError: bzip2 gives no number for a damaged stream, and the system EINVAL for a place before the file's start.
_ERRORS_OF_DAMAGE = (None, errno.EINVAL)


class DamagedMemberError(UserError):
    """A member that can be read from the disk and is damaged.

    Attributes:
      reason: what is wrong with it.
    """

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


class ZipArchive:
    """An open zip archive; several threads may read its members at once.

    Args:
      path: of the archive.

    Raises:
      UserError: it is not a zip archive, is cut short, or has a name that is not UTF-8.
    """

    def __init__(self, path: Path):
        self._path = path
        try:
            self._size = path.stat().st_size
            # Many programs write names in UTF-8 without the flag that says so.
            self._file = zipfile.ZipFile(path, metadata_encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: the name {error.object!r} is not UTF-8. Unpack the archive, rename what is in it, and pack "
                "it again"
            ) from error
        except _DAMAGE as error:
            raise UserError(
                f"{path} ({self._size:,} bytes) cannot be read: {error}. It is truncated or not a zip file; copy it "
                f"again, then check it with:\n  python -m zipfile -t {names.typed(path)}"
            ) from error
        self._members = {normal(member.filename): member for member in self._file.infolist()}

    def __enter__(self) -> "ZipArchive":
        return self

    def __exit__(self, *exception) -> None:
        self._file.close()

    def members(self) -> Iterator[zipfile.ZipInfo]:
        """Yield the members in the order of the archive, folders too."""
        yield from self._file.infolist()

    def problem(self, member: zipfile.ZipInfo, max_bytes: int) -> str:
        """Return why a member cannot be read, as the end of a sentence, without reading it; empty where it can.

        Args:
          member: from `members`.
          max_bytes: allowed, compressed or not.
        """
        if member.flag_bits & _ENCRYPTED:
            return "are encrypted: pack them again without a password"
        if member.compress_type not in _METHODS:
            return f"are compressed by method {member.compress_type}, which cannot be read: pack them again"
        if stat.S_ISLNK(member.external_attr >> 16):
            return "are symbolic links: pack the files that they lead to (zip without -y)"
        if max(member.file_size, member.compress_size) > max_bytes:
            return f"are larger than {max_bytes:,} bytes: no image is; remove them"
        if member.header_offset + member.compress_size > self._size:
            return "end after the end of the archive: it is cut short or damaged, copy it again"
        return ""

    def expansion_problem(self) -> str:
        """Return a sentence if the members declare far more bytes than the archive has; empty otherwise."""
        declared = sum(member.file_size for member in self._file.infolist())
        if declared <= MAX_EXPANSION * self._size:
            return ""
        return (
            f"{self._path} has {self._size:,} bytes, and its members would have {declared:,}, more than "
            f"{MAX_EXPANSION} times as many: an archive of images does not expand so much"
        )

    def read(self, name: str) -> bytes:
        """Return the content of a member.

        Args:
          name: the member's name in its `normal` form.

        Raises:
          DamagedMemberError: the member is damaged, or expands to another size than it declares.
          UserError: the disk cannot be read.
        """
        member = self._members[name]
        try:
            content = _decompress(self._compressed(member), member)
            if len(content) != member.file_size:
                extent = "more" if len(content) > member.file_size else "less"
                raise zipfile.BadZipFile(
                    f"it expands to {extent} than the {member.file_size:,} bytes that it declares"
                )
            if zlib.crc32(content) != member.CRC:
                raise zipfile.BadZipFile(f"Bad CRC-32 of {len(content):,} bytes")
        except _DAMAGE as error:
            shown, remedy = names.printable(name), "Copy the file again, then prepare again"
            message = f"{shown} in {self._path} cannot be read: {error}. {remedy}"
            if isinstance(error, OSError) and error.errno not in _ERRORS_OF_DAMAGE:
                raise UserError(message) from error
            raise DamagedMemberError(message, str(error)) from error
        return content

    def _compressed(self, member: zipfile.ZipInfo) -> bytes:
        """Return a member's bytes as they are in the archive."""
        stored = copy.copy(member)  # a member that is not compressed: zipfile then reads and decompresses nothing
        stored.compress_type = zipfile.ZIP_STORED
        stored.file_size = stored.compress_size
        del stored.CRC  # that of the content
        with self._file.open(stored) as file:
            return file.read(stored.compress_size)


def normal(name: str) -> str:
    """Return a name in an archive without `.` and empty parts."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _decompress(data: bytes, member: zipfile.ZipInfo) -> bytes:
    """Return the content of a member, up to one byte more than it declares."""
    limit = member.file_size + 1
    if member.compress_type == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit)
    if member.compress_type == zipfile.ZIP_BZIP2:
        return bz2.BZ2Decompressor().decompress(data, limit)
    if member.compress_type == zipfile.ZIP_LZMA:
        return _decompress_lzma(data, member, limit)
    return data


def _decompress_lzma(data: bytes, member: zipfile.ZipInfo, limit: int) -> bytes:
    """Return up to `limit` bytes of a stream of LZMA.

    A zip archive stores two bytes of version, two with the size of the properties, and the properties (APPNOTE,
    section 5.8.8). liblzma's own format has the properties first, then the length, -1 for a stream with an end mark.
    """
    properties = data[4:9]
    if struct.unpack("<H", data[2:4])[0] != len(properties):
        raise lzma.LZMAError("the properties of LZMA are damaged")
    length = -1 if member.flag_bits & _ENDS_WITH_MARK else member.file_size
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_DICTIONARY_BYTES)
    return decompressor.decompress(properties + struct.pack("<q", length) + data[9:], limit)
