"""Image files on disk as records, without a prepared data set and without labels."""

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from imagenet_repro.data.decode import DecodeError, decode
from imagenet_repro.data.prepare.folder_listing import is_hidden
from imagenet_repro.data.prepare.listing import EXTENSIONS, MAX_IMAGE_BYTES
from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import UserError
from imagenet_repro.storage import user


@dataclass
class Found:
    """The image files that were found.

    Attributes:
      paths: in the order in which they were named; those of a folder are sorted.
      n_ignored: the number of files in folders without the ending of an image file.
      unreadable: folders that cannot be read and links to folders, which are not followed, each with the reason.
    """

    paths: list[str] = field(default_factory=list)
    n_ignored: int = 0
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FileRecords:
    """Image files as records of the label 0; a file that cannot be read is an empty image.

    Attributes:
      paths: of the files, which are the ids too.
    """

    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        path = self.paths[index]
        try:
            return Record(_read(path), 0, path)
        except OSError:
            return Record(b"", 0, path)  # no decoder takes it, so the loader reports it


def find(places: Iterable[str]) -> Found:
    """Return the image files that are named, and those in the folders that are named and in folders inside these.

    A file that is named is taken whatever its ending; in folders the ending decides. Hidden files are left out.

    Raises:
      UserError: a place does not exist, or there is no image.
    """
    found = Found()
    for place in places:
        path = str(user.expand(place))
        if os.path.isdir(path):
            _walk(path, found)
        elif os.path.lexists(path):
            found.paths.append(path)
        else:
            raise UserError(f"{place}: no such file or folder")
    found.paths = list(dict.fromkeys(found.paths))
    if not found.paths:
        why = f" and {len(found.unreadable)} cannot be read: {found.unreadable[0]}" if found.unreadable else ""
        raise UserError(
            f"there is no image in {', '.join(places)}: {found.n_ignored} files have other endings{why}. "
            f"Known endings: {', '.join(sorted(EXTENSIONS))}; a file with another one can be named itself"
        )
    return found


def _walk(top: str, found: Found) -> None:
    def report(error: OSError) -> None:
        found.unreadable.append(f"{error.filename}: {error.strerror}")

    for folder, folders, files in os.walk(top, onerror=report):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        links = [os.path.join(folder, name) for name in folders if os.path.islink(os.path.join(folder, name))]
        found.unreadable += [f"{link}: a link to a folder is not followed; name the folder itself" for link in links]
        visible = [name for name in sorted(files) if not is_hidden(name)]
        images = [name for name in visible if os.path.splitext(name)[1].lower() in EXTENSIONS]
        found.paths += [os.path.join(folder, name) for name in images]
        found.n_ignored += len(visible) - len(images)


def as_split(paths: Sequence[str], class_names: Sequence[str]) -> Split:
    """Return image files as a split of a data set whose labels mean nothing."""
    return Split(
        name="files",
        split="all",
        version="",
        class_names=tuple(class_names),
        num_examples=len(paths),
        records=FileRecords(tuple(paths)),
    )


def problem(path: str) -> str:
    """Return why a file has no pixels; empty where it can be read and decoded now."""
    try:
        decode(_read(path))
    except OSError as error:
        return error.strerror or str(error)
    except DecodeError as error:
        return str(error)
    return ""


def _read(path: str) -> bytes:
    """Return the bytes of a regular file; raises OSError."""
    # Without O_NONBLOCK, opening a pipe would wait for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a file")
        if status.st_size > MAX_IMAGE_BYTES:
            raise OSError(f"it is larger than {MAX_IMAGE_BYTES:,} bytes, and no image is")
        return file.read()
