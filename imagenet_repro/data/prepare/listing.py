"""The images of a source with their classes and splits, whatever its layout, and the reading of their bytes."""

import os
import stat
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from imagenet_repro.data.decode import DecodeError, decode
from imagenet_repro.data.prepare import names
from imagenet_repro.data.prepare.zip_archive import DamagedMemberError, ZipArchive
from imagenet_repro.errors import UserError

MAX_IMAGE_BYTES = 1 << 27  # of an image file; a record is kept in memory, and in that of every reader
EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
_SIGNATURES = (b"\xff\xd8", b"\x89PNG", b"BM", b"RIFF", b"GIF8", b"II*\0", b"MM\0*")  # beginnings of their files


class Image(NamedTuple):
    """The location of one image."""

    split: str  # empty where the source names none, until some images are held out
    label: str
    name: str  # path from the root of the folder or zip, with forward slashes: the data set's own id
    archive: Path | None  # the zip, tar, Arrow or Parquet file that holds it
    size: int  # bytes
    stamp: int = 0  # changes with the content: nanoseconds of the last change, or the CRC-32
    linked: bool = False  # the file may be outside the source: a symbolic link, or a path in a table
    place: int = 0  # in the archive: the byte of a tar file, or the row of an Arrow or Parquet file


class Archive(Protocol):
    """An open file that holds images; several threads may read at once."""

    def read(self, image: Image) -> bytes:
        """Return the bytes of an image; raises DamagedMemberError or UserError."""
        ...


class _Zip:
    """An open zip file."""

    def __init__(self, path: Path, scratch: Path | None = None):
        self._archive = ZipArchive(path)

    def read(self, image: Image) -> bytes:
        return self._archive.read(image.name)

    def __enter__(self) -> "_Zip":
        return self

    def __exit__(self, *exception) -> None:
        self._archive.__exit__(*exception)


@dataclass(frozen=True)
class Options:
    """Choices about a source that it does not make itself.

    Attributes:
      holdout: the share of each class that becomes the split `validation`, in [0, 1); None: no image is held out, and
        the source has to name its splits.
      seed: of the choice of these images.
      columns: the columns of a table by their use, `file`, `image`, `label`, `caption` or `split`, where they have
        other names.
    """

    holdout: float | None = None
    seed: int = 0
    columns: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the options that are not the defaults as JSON values."""
        held_out = {} if self.holdout is None else {"holdout": self.holdout, "seed": self.seed}
        return held_out | ({"columns": dict(self.columns)} if self.columns else {})

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Options":
        """Return the options of the values that `to_json` returned."""
        columns = tuple(sorted(values.get("columns", {}).items()))
        return cls(values.get("holdout"), values.get("seed", 0), columns)


@dataclass(frozen=True)
class Listing:
    """The images and classes of a source.

    Attributes:
      source: the folder or file.
      images: sorted.
      classes: names by label.
      notes: remarks for the user, a sentence each.
      shape: the layout in words, such as "folders SPLIT/CLASS/IMAGE".
      root: the folder from which names of files count; None: the source.
      options: with which the source was listed.
      open_archive: opens a file that holds images, given a directory for temporary files or None.
      is_copied: whether opening these files writes a temporary copy of the images.
      is_quick: whether listing the source asks for the status of files alone, and reads no images.
      has_checksums: whether the stamp of an image in an archive is its CRC-32.
      captions: of each image by its name; None: images have labels.
    """

    source: Path
    images: tuple[Image, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    shape: str = ""
    root: Path | None = None
    options: Options = Options()
    open_archive: Callable[[Path, Path | None], AbstractContextManager[Archive]] = _Zip
    is_copied: bool = False
    is_quick: bool = True
    has_checksums: bool = True
    captions: Mapping[str, tuple[str, ...]] | None = None


class Reader:
    """A reader of images from disk or from files that hold several; these stay open. Several threads may read.

    Args:
        listing: the images.
        scratch: a directory for temporary files, which some formats need; None: that of the system.
    """

    def __init__(self, listing: Listing, scratch: Path | None = None):
        self._root = listing.root or listing.source
        with ExitStack() as stack:
            self._archives = {
                archive: stack.enter_context(listing.open_archive(archive, scratch))
                for archive in sorted({image.archive for image in listing.images if image.archive})
            }
            self._stack = stack.pop_all()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *exception) -> None:
        self._stack.close()

    def content(self, image: Image) -> bytes:
        """Return the bytes of an image's file.

        Raises:
            UserError: they cannot be read, or are no longer as many as in the listing.
        """
        return self._archives[image.archive].read(image) if image.archive else self._file(image)

    def read(self, image: Image) -> tuple[Image, bytes, str | None]:
        """Return the image, its bytes, and why they cannot be decoded (None where they can).

        A damaged member of a zip file has no bytes that can be trusted; it becomes an empty image, which no decoder
        takes.

        Raises:
            UserError: as `content`, or a link leads to something that is not an image, such as a file of the system.
        """
        try:
            content = self.content(image)
        except DamagedMemberError as error:
            return image, b"", f"{names.printable(str(image.archive))}: {error.reason}"
        try:
            decode(content)
        except DecodeError as error:
            if image.linked and not content.startswith(_SIGNATURES):
                target = names.printable(os.path.realpath(self._root / image.name))
                raise UserError(
                    f"{names.printable(image.name)} is a link to {target}, which is not an image. Remove the link"
                ) from error
            return image, content, str(error)
        return image, content, None

    def _file(self, image: Image) -> bytes:
        path = self._root / image.name
        try:
            # Without O_NONBLOCK, opening a pipe that took the file's place would wait for its other end.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise OSError("it is no longer a file")
                content = file.read(image.size + 1)
        except OSError as error:
            shown = names.printable(str(path))
            reason = error.strerror or error
            raise UserError(f"{shown} cannot be read: {reason}. Copy the file again, then prepare again") from error
        if len(content) != image.size:
            raise UserError(
                f"{names.printable(str(path))} had {image.size:,} bytes and now has another number: the folder is "
                "being changed. Prepare it again when it is complete"
            )
        return content
