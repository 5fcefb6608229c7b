"""Listing and reading of image folders, `SPLIT/CLASS/IMAGE` on disk or in zip files, without tfds.

Classes are the sorted names of their folders; splits are named after their folders, except that `val` and `valid`
become `validation`, as in tfds.
"""

import os
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from imagenet_repro.data.decode import DecodeError, decode
from imagenet_repro.errors import UserError

_EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
_SPLIT_NAMES = {"val": "validation", "valid": "validation"}
_COMMON_SPLITS = {"train", "validation", "test"}
_MAX_SHOWN = 5  # names that a message lists
_LAYOUT = "SPLIT/CLASS/IMAGE, such as train/n01440764/n01440764_18.JPEG"


class Image(NamedTuple):
    """The location of one image."""

    split: str
    label: str
    name: str  # path from the root of the folder or zip, with forward slashes: the data set's own id
    archive: Path | None  # the zip that holds it
    size: int  # bytes


@dataclass(frozen=True)
class Listing:
    """The images and classes of a folder."""

    source: Path
    images: tuple[Image, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass
class _Contents:
    """The names in a folder, by kind."""

    images: list[Image] = field(default_factory=list)
    folders: set[tuple[str, str]] = field(default_factory=set)  # (split, class), with or without images
    misplaced: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def add(self, name: str, archive: Path | None, size: int) -> None:
        """Record a file under its kind."""
        parts = PurePosixPath(name).parts
        if any(part.startswith((".", "__MACOSX")) for part in parts):
            return
        if PurePosixPath(name).suffix.lower() not in _EXTENSIONS:
            self.ignored.append(name)
        elif len(parts) != 3:
            self.misplaced.append(name)
        else:
            split = _SPLIT_NAMES.get(parts[0].lower(), parts[0])
            self.folders.add((split, parts[1]))
            self.images.append(Image(split, parts[1], name, archive, size))

    def add_folder(self, name: str) -> None:
        """Record a folder if it is one of a class, which should then hold images."""
        parts = PurePosixPath(name).parts
        if len(parts) == 2 and not any(part.startswith((".", "__MACOSX")) for part in parts):
            self.folders.add((_SPLIT_NAMES.get(parts[0].lower(), parts[0]), parts[1]))


def scan(source: Path) -> Listing:
    """List the images of a folder, of a zip file, or of a folder that holds zip files.

    Raises:
        UserError: the folder is missing or has another layout; the message lists every problem.
    """
    if not source.exists():
        raise UserError(f"folder:{source}: no such file or folder")
    contents = _Contents()
    if source.is_file():
        _list_archive(source, contents)
    else:
        _list_folder(source, contents)
        archives = [source / name for name in contents.ignored if name.lower().endswith(".zip") and "/" not in name]
        if archives and not contents.images and not contents.misplaced:
            contents.ignored = [name for name in contents.ignored if source / name not in archives]
            for archive in sorted(archives):
                _list_archive(archive, contents)
    problems = [*_layout_problems(contents), *_class_problems(contents), *_file_problems(contents)]
    if problems:
        raise UserError("\n".join([f"folder:{source} cannot be prepared:", *(f"- {problem}" for problem in problems)]))
    notes = ()
    if contents.ignored:
        notes = (f"{len(contents.ignored)} files are not images and were left out: {name_some(contents.ignored)}",)
    classes = sorted({image.label for image in contents.images})
    return Listing(source, tuple(sorted(contents.images)), tuple(classes), notes)


def _list_archive(archive: Path, contents: _Contents) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        size = archive.stat().st_size
        raise UserError(
            f"{archive} ({size:,} bytes) cannot be read: {error}. It is truncated or not a zip file; copy it again, "
            f"then check it with:\n  python -m zipfile -t {archive}"
        ) from error
    for member in members:
        if member.is_dir():
            contents.add_folder(member.filename)
        else:
            contents.add(member.filename, archive, member.file_size)


def _list_folder(source: Path, contents: _Contents) -> None:
    def unreadable(error: OSError) -> None:
        contents.unreadable.append(str(error))

    for directory, folders, files in os.walk(source, followlinks=True, onerror=unreadable):
        relative = Path(directory).relative_to(source)
        for name in folders:
            contents.add_folder((relative / name).as_posix())
        for name in files:
            try:
                contents.add((relative / name).as_posix(), None, os.stat(os.path.join(directory, name)).st_size)
            except OSError as error:
                unreadable(error)


def name_some(names: list[str]) -> str:
    """Return the first few names in order, and the number of the others."""
    shown = ", ".join(sorted(names)[:_MAX_SHOWN])
    return shown if len(names) <= _MAX_SHOWN else f"{shown} and {len(names) - _MAX_SHOWN} more"


def _layout_problems(contents: _Contents) -> Iterator[str]:
    if contents.misplaced:
        misplaced = name_some(contents.misplaced)
        yield f"{len(contents.misplaced)} images are not at {_LAYOUT}: {misplaced}. Move them or remove them"
    elif not contents.images:
        yield f"it holds no images at {_LAYOUT}; known endings: {', '.join(sorted(_EXTENSIONS))}"
    for split in sorted({image.split for image in contents.images}):
        if not re.fullmatch(r"[A-Za-z]\w*", split, flags=re.ASCII) or split.lower() == "all":
            yield f"{split!r} is not a valid name of a split; rename that folder, for example to train"
    folders = defaultdict(set)
    for image in contents.images:
        folders[image.split].add(PurePosixPath(image.name).parts[0])
    for split, names in folders.items():
        if len(names) > 1:
            yield f"the folders {', '.join(sorted(names))} would all become the split {split!r}; keep one name"


def _class_problems(contents: _Contents) -> Iterator[str]:
    filled_folders = {(image.split, image.label) for image in contents.images}
    splits = {split for split, _ in filled_folders}
    empty = [
        f"{split}/{label}" for split, label in contents.folders - filled_folders if split in splits | _COMMON_SPLITS
    ]
    if empty:
        yield f"{len(empty)} class folders hold no image: {name_some(empty)}. Fill them or remove them"
    classes = {split: {label for other, label in filled_folders if other == split} for split in splits}
    all_classes = set().union(*classes.values())
    for split in sorted(splits):
        missing = all_classes - classes[split] - {name.split("/")[1] for name in empty}
        if missing:
            yield (
                f"split {split!r} lacks {len(missing)} of the {len(all_classes)} classes that other splits have: "
                f"{name_some(list(missing))}. All splits need the same class folders; remove a split that has others"
            )


def _file_problems(contents: _Contents) -> Iterator[str]:
    duplicates = [name for name, count in Counter(image.name for image in contents.images).items() if count > 1]
    if duplicates:
        archives = {str(image.archive) for image in contents.images if image.name in set(duplicates[:_MAX_SHOWN])}
        yield (
            f"{len(duplicates)} file names occur more than once, in {', '.join(sorted(archives))}: "
            f"{name_some(duplicates)}. Keep one"
        )
    if contents.unreadable:
        yield f"{len(contents.unreadable)} files or folders cannot be read: {name_some(contents.unreadable)}"
    empty = [image.name for image in contents.images if image.size == 0]
    if empty:
        yield f"{len(empty)} image files are empty (0 bytes): {name_some(empty)}. Copy them again or remove them"


class Reader:
    """A reader of images from disk or from zip files, which stay open; several threads may read at once."""

    def __init__(self, listing: Listing):
        self._source = listing.source
        self._stack = ExitStack()
        self._archives = {
            archive: self._stack.enter_context(zipfile.ZipFile(archive))
            for archive in {image.archive for image in listing.images if image.archive}
        }

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *exception) -> None:
        self._stack.close()

    def content(self, image: Image) -> bytes:
        """Return the bytes of an image's file; raise UserError if they cannot be read."""
        try:
            return self._archives[image.archive].read(image.name) if image.archive else self._file(image.name)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
            location = f"{image.name} in {image.archive}" if image.archive else str(self._source / image.name)
            raise UserError(f"{location} cannot be read: {error}. Copy the file again, then prepare again") from error

    def read(self, image: Image) -> tuple[Image, bytes, str | None]:
        """Return the image, its bytes, and why they cannot be decoded (None where they can)."""
        content = self.content(image)
        try:
            decode(content)
        except DecodeError as error:
            return image, content, str(error)
        return image, content, None

    def _file(self, name: str) -> bytes:
        return (self._source / name).read_bytes()
