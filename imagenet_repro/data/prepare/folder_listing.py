"""Listing and reading of image folders, `SPLIT/CLASS/IMAGE` on disk or in zip files, without tfds.

Classes are the sorted names of their folders; splits are named after their folders, except that `val` and `valid`
become `validation`, as in tfds.

Symbolic links of splits, classes and images are followed. A link to a folder that holds it, a link inside a class to
another folder, a link to a file that is not an image, and devices, pipes and sockets are refused.
"""

import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from imagenet_repro.data.decode import DecodeError, decode
from imagenet_repro.data.prepare import names
from imagenet_repro.data.prepare.zip_archive import DamagedMemberError, ZipArchive, normal
from imagenet_repro.errors import UserError

MAX_IMAGE_BYTES = 1 << 27  # of an image file; a record is kept in memory, and in that of every reader
_EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
_SIGNATURES = (b"\xff\xd8", b"\x89PNG", b"BM", b"RIFF", b"GIF8", b"II*\0", b"MM\0*")  # beginnings of their files
_SPLIT_NAMES = {"val": "validation", "valid": "validation"}
_COMMON_SPLITS = {"train", "validation", "test"}
_HIDDEN = (".", "__MACOSX")  # beginnings of names that are left out
_LAYOUT = "SPLIT/CLASS/IMAGE, such as train/n01440764/n01440764_18.JPEG"
_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_CLASS_LEVEL = 2  # folders on the way to a class, its own included


class Image(NamedTuple):
    """The location of one image."""

    split: str
    label: str
    name: str  # path from the root of the folder or zip, with forward slashes: the data set's own id
    archive: Path | None  # the zip that holds it
    size: int  # bytes
    stamp: int = 0  # changes with the content: nanoseconds of the last change, or the CRC-32 of a zip's member
    linked: bool = False  # the file is a symbolic link


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
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # names by what is wrong

    def add(self, image: Image) -> None:
        """Record a file under its kind; the split and the label of `image` follow from its name."""
        parts = image.name.split("/")
        if _is_hidden(parts):
            return
        if not _is_image(image.name):
            self.ignored.append(image.name)
        elif len(parts) != 3:
            self.misplaced.append(image.name)
        else:
            split = _split_name(parts[0])
            self.folders.add((split, parts[1]))
            self.images.append(image._replace(split=split, label=parts[1]))

    def add_folder(self, name: str) -> None:
        """Record a folder if it is one of a class, which should then hold images."""
        parts = name.split("/")
        if len(parts) == _CLASS_LEVEL and not _is_hidden(parts):
            self.folders.add((_split_name(parts[0]), parts[1]))


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _EXTENSIONS


def _is_hidden(parts: list[str]) -> bool:
    return any(part.startswith(_HIDDEN) for part in parts)


def _split_name(folder: str) -> str:
    return _SPLIT_NAMES.get(folder.lower(), folder)


def scan(source: Path) -> Listing:
    """List the images of a folder, of a zip file, or of a folder that holds zip files.

    Raises:
        UserError: the folder is missing or has another layout; the message lists every problem.
    """
    shown = names.printable(str(source))
    if not source.exists():
        raise UserError(f"folder:{shown}: no such file or folder")
    contents = _Contents()
    if source.is_file():
        _list_archive(source, contents)
    elif source.is_dir():
        _list_folder(source, contents)
        archives = [source / name for name in contents.ignored if name.lower().endswith(".zip") and "/" not in name]
        if archives and not contents.images and not contents.misplaced:
            contents.ignored = [name for name in contents.ignored if source / name not in archives]
            for archive in sorted(archives):
                _list_archive(archive, contents)
    else:
        raise UserError(f"folder:{shown} is neither a folder nor a zip file")
    checks = (_layout_problems, _name_problems, _class_problems, _file_problems)
    problems = [problem for check in checks for problem in check(contents)]
    if problems:
        raise UserError("\n".join([f"folder:{shown} cannot be prepared:", *(f"- {problem}" for problem in problems)]))
    notes = ()
    if contents.ignored:
        notes = (f"{len(contents.ignored)} files are not images and were left out: {names.some(contents.ignored)}",)
    classes = sorted({image.label for image in contents.images})
    return Listing(source, tuple(sorted(contents.images)), tuple(classes), notes)


def _list_archive(path: Path, contents: _Contents) -> None:
    with ZipArchive(path) as archive:
        if problem := archive.expansion_problem():
            raise UserError(problem)
        for member in archive.members():
            name = normal(member.filename)
            if member.filename.startswith("/") or ".." in name.split("/"):
                contents.problems["have names that lead out of the archive: pack them again"].append(member.filename)
            elif member.is_dir():
                contents.add_folder(name)
            else:
                if _is_image(name) and (problem := archive.problem(member, MAX_IMAGE_BYTES)):
                    contents.problems[problem].append(name)
                contents.add(Image("", "", name, path, member.file_size, member.CRC))


class _Folder(NamedTuple):
    """A folder to be listed."""

    path: str
    name: str  # from the root on, empty or with a slash at its end
    level: int  # 0: the root
    holders: frozenset[tuple[int, int]]  # device and inode of the folder and of those on the way to it


def _list_folder(source: Path, contents: _Contents) -> None:
    status = os.stat(source)
    waiting = [_Folder(os.fspath(source), "", 0, frozenset([(status.st_dev, status.st_ino)]))]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder.path) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(_HIDDEN)]
        except OSError as error:
            contents.unreadable.append(_reason(folder.name, error))
            continue
        for entry in visible:
            try:
                status = entry.stat()
            except OSError as error:
                contents.unreadable.append(_reason(folder.name + entry.name, error))
                continue
            if stat.S_ISDIR(status.st_mode):
                waiting += _enter(entry, status, folder, contents)
            else:
                _list_file(entry, status, folder.name + entry.name, contents)


def _enter(entry: os.DirEntry, status: os.stat_result, folder: _Folder, contents: _Contents) -> Iterator[_Folder]:
    """Yield a folder inside another one, unless it is a link that is not followed."""
    name, level = folder.name + entry.name, folder.level + 1
    contents.add_folder(name)
    inode = status.st_dev, status.st_ino
    if inode in folder.holders:
        contents.problems["are links to a folder that holds them: remove them"].append(name)
    elif entry.is_symlink() and level > _CLASS_LEVEL:
        contents.problems[f"are links to folders inside a class: images belong at {_LAYOUT}"].append(name)
    else:
        yield _Folder(entry.path, name + "/", level, folder.holders | {inode})


def _list_file(entry: os.DirEntry, status: os.stat_result, name: str, contents: _Contents) -> None:
    # Only files that not everybody may read are asked about: a question for each takes minutes in a network.
    if status.st_mode & _READABLE != _READABLE and _is_image(name) and not os.access(entry.path, os.R_OK):
        contents.unreadable.append(f"{name} (Permission denied)")
    if stat.S_ISREG(status.st_mode):
        contents.add(Image("", "", name, None, status.st_size, status.st_mtime_ns, entry.is_symlink()))
        if _is_image(name) and status.st_size > MAX_IMAGE_BYTES:
            contents.problems[f"are larger than {MAX_IMAGE_BYTES:,} bytes: no image is; remove them"].append(name)
    elif _is_image(name):
        contents.problems["are not files but devices, pipes or sockets: remove them"].append(name)
    else:
        contents.ignored.append(name)


def _reason(name: str, error: OSError) -> str:
    return f"{name or '.'} ({error.strerror or error})"


def _layout_problems(contents: _Contents) -> Iterator[str]:
    if contents.misplaced:
        misplaced = names.some(contents.misplaced)
        yield f"{len(contents.misplaced)} images are not at {_LAYOUT}: {misplaced}. Move them or remove them"
    elif not contents.images:
        tars = [name for name in contents.ignored if re.search(r"\.(tar|tgz|tar\.\w+)$", name.lower())]
        hint = f". Unpack tar archives first (tar -xf): {names.some(tars)}" if tars else ""
        yield f"it holds no images at {_LAYOUT}; known endings: {', '.join(sorted(_EXTENSIONS))}{hint}"
    for split in sorted({image.split for image in contents.images}):
        if not re.fullmatch(r"[A-Za-z]\w*", split, flags=re.ASCII) or split.lower() == "all":
            shown = names.printable(split)
            yield f"'{shown}' is not a valid name of a split; rename that folder, for example to train"
    folders = defaultdict(set)
    for image in contents.images:
        folders[image.split.lower()].add(image.name.split("/", maxsplit=1)[0])
    for split, together in folders.items():
        if len(together) > 1:
            shown = ", ".join(map(names.printable, sorted(together)))
            yield f"the folders {shown} would all become the split {split!r}; keep one name"


def _name_problems(contents: _Contents) -> Iterator[str]:
    labels = {label for _, label in contents.folders}
    unfit = defaultdict(list)
    for label in labels:
        if problem := names.class_problem(label):
            unfit[problem].append(label)
    for problem, affected in sorted(unfit.items()):
        yield f"{len(affected)} names of classes cannot be stored: {_quoted(affected)} {problem}. Rename the folders"
    for group in names.lookalikes(labels):
        is_one = len(set(map(names.canonical, group))) < len(group)
        together = any(sum((split, label) in contents.folders for label in group) > 1 for split, _ in contents.folders)
        if is_one:
            escaped = ", ".join(ascii(name) for name in group)
            yield f"the classes {escaped} have the same name in other Unicode characters. Rename a folder"
        elif not together:
            yield f"the classes {_quoted(group)} differ in letter case alone, and no split has both. Rename a folder"
    strange = [image.name for image in contents.images if not names.is_utf8(image.name)]
    if strange:
        yield f"{len(strange)} names of images are not UTF-8: {names.some(strange)}. Rename them"


def _quoted(labels: list[str]) -> str:
    shown = [f"'{names.printable(label)}'" for label in sorted(labels)[: names.MAX_SHOWN]]
    return ", ".join(shown) + (f" and {len(labels) - len(shown)} more" if len(labels) > len(shown) else "")


def _class_problems(contents: _Contents) -> Iterator[str]:
    filled_folders = {(image.split, image.label) for image in contents.images}
    splits = {split for split, _ in filled_folders}
    empty = [
        f"{split}/{label}" for split, label in contents.folders - filled_folders if split in splits | _COMMON_SPLITS
    ]
    if empty:
        yield f"{len(empty)} class folders hold no image: {names.some(empty)}. Fill them or remove them"
    classes = {split: {label for other, label in filled_folders if other == split} for split in splits}
    all_classes = set().union(*classes.values())
    for split in sorted(splits):
        missing = all_classes - classes[split] - {name.split("/")[1] for name in empty}
        if missing:
            yield (
                f"split {split!r} lacks {len(missing)} of the {len(all_classes)} classes that other splits have: "
                f"{names.some(missing)}. All splits need the same class folders; remove a split that has others"
            )


def _file_problems(contents: _Contents) -> Iterator[str]:
    duplicates = [name for name, count in Counter(image.name for image in contents.images).items() if count > 1]
    if duplicates:
        shown = set(sorted(duplicates)[: names.MAX_SHOWN])
        archives = sorted({str(image.archive) for image in contents.images if image.name in shown})
        yield (
            f"{len(duplicates)} file names occur more than once, in {', '.join(map(names.printable, archives))}: "
            f"{names.some(duplicates)}. Keep one"
        )
    if contents.unreadable:
        yield f"{len(contents.unreadable)} files or folders cannot be read: {names.some(contents.unreadable)}"
    for problem, affected in sorted(contents.problems.items()):
        what, _, remedy = problem.partition(": ")
        yield f"{len(affected)} files {what}: {names.some(affected)}. {remedy[:1].upper()}{remedy[1:]}"
    empty = [image.name for image in contents.images if image.size == 0]
    if empty:
        yield f"{len(empty)} image files are empty (0 bytes): {names.some(empty)}. Copy them again or remove them"


class Reader:
    """A reader of images from disk or from zip files, which stay open; several threads may read at once."""

    def __init__(self, listing: Listing):
        self._source = listing.source
        with ExitStack() as stack:
            self._archives = {
                archive: stack.enter_context(ZipArchive(archive))
                for archive in {image.archive for image in listing.images if image.archive}
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
        return self._archives[image.archive].read(image.name) if image.archive else self._file(image)

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
                target = names.printable(os.path.realpath(self._source / image.name))
                raise UserError(
                    f"{names.printable(image.name)} is a link to {target}, which is not an image. Remove the link"
                ) from error
            return image, content, str(error)
        return image, content, None

    def _file(self, image: Image) -> bytes:
        path = self._source / image.name
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
