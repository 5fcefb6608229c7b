"""Listing of image folders, `SPLIT/CLASS/IMAGE` or `CLASS/IMAGE` on disk or in zip files, without tfds.

Classes are the sorted names of their folders; splits are named after their folders, except that `val` and `valid`
become `validation`, as in tfds.

Symbolic links of splits, classes and images are followed. A link to a folder that holds it, a link inside a class to
another folder, a link to a file that is not an image, and devices, pipes and sockets are refused.
"""

import os
import stat
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from imagenet_repro.data.prepare import names
from imagenet_repro.data.prepare.contents import COMMON_SPLITS, TOO_LARGE, Contents, cannot_prepare, finish, split_name
from imagenet_repro.data.prepare.listing import EXTENSIONS, MAX_IMAGE_BYTES, Image, Listing, Options
from imagenet_repro.data.prepare.zip_archive import ZipArchive, normal
from imagenet_repro.errors import UserError

_HIDDEN = (".", "__MACOSX")  # beginnings of names that are left out
_IN_SPLITS = "SPLIT/CLASS/IMAGE, such as train/n01440764/n01440764_18.JPEG"
_IN_CLASSES = "CLASS/IMAGE, such as n01440764/n01440764_18.JPEG, with --holdout=20%"
_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_CLASS_LEVEL = 2  # folders on the way to a class in a split, its own included


@dataclass
class Files:
    """The files of a folder or of zip files, before their layout is known.

    Attributes:
      images: with their names alone.
      folders: names of folders above the level of images.
      ignored: names of files that are not images.
      unreadable: names of files with the reason.
      problems: names by what is wrong with them.
    """

    images: list[Image] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, image: Image) -> None:
        """Record a file as an image or as another file, by its name's ending."""
        if is_hidden(image.name):
            return
        if _is_image(image.name):
            self.images.append(image)
        else:
            self.ignored.append(image.name)

    def add_folder(self, name: str) -> None:
        """Record a folder if it may be one of a class, which should then hold images."""
        if name.count("/") < _CLASS_LEVEL and not is_hidden(name):
            self.folders.append(name)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def is_hidden(name: str) -> bool:
    """Return whether a file or a folder on the way to it is hidden, or is what macOS adds to archives."""
    return any(part.startswith(_HIDDEN) for part in name.split("/"))


def scan(source: Path, options: Options = Options()) -> Listing:  # noqa: B008 (immutable)
    """List the images of a folder, of a zip file, or of a folder that holds zip files.

    Raises:
        UserError: the folder is missing or has another layout; the message lists every problem.
    """
    return arrange(list_files(source), source, options)


def list_files(source: Path) -> Files:
    """Return the files in a folder, in a zip file, or in the zip files of a folder without images.

    Raises:
        UserError: there is no such folder or zip file, or a zip file cannot be read.
    """
    shown = names.printable(str(source))
    if not source.exists():
        raise UserError(f"folder:{shown}: no such file or folder")
    files = Files()
    if source.is_file():
        _list_archive(source, files)
    elif source.is_dir():
        _list_folder(source, files)
        archives = [source / name for name in files.ignored if name.lower().endswith(".zip") and "/" not in name]
        if archives and not files.images:
            files.ignored = [name for name in files.ignored if source / name not in archives]
            for archive in sorted(archives):
                _list_archive(archive, files)
    else:
        raise UserError(f"folder:{shown} is neither a folder nor a zip file")
    return files


def arrange(files: Files, source: Path, options: Options) -> Listing:
    """Return the listing of files whose folders are splits and classes, or classes.

    Raises:
        UserError: as `scan`.
    """
    if options.columns:
        raise UserError("--columns names columns of a table, and this source is a folder of images")
    return finish(_contents(files, source), source, options)


def _contents(files: Files, source: Path) -> Contents:
    """Return the contents by the depth at which the images lie."""
    depths = Counter(image.name.count("/") for image in files.images)
    contents = Contents(ignored=files.ignored, unreadable=files.unreadable, problems=files.problems)
    folders = [name.split("/") for name in files.folders]
    if depths[1] and not depths[2]:
        _require_classes(files, source)
        contents.shape, contents.belong, level = "folders CLASS/IMAGE", _IN_CLASSES, 1
        contents.folders = {("", parts[0]) for parts in folders if len(parts) == 1}
    else:
        contents.shape, contents.belong, level = "folders SPLIT/CLASS/IMAGE", f"{_IN_SPLITS}", _CLASS_LEVEL
        contents.folders = {(split_name(parts[0]), parts[1]) for parts in folders if len(parts) == _CLASS_LEVEL}
        if not depths[2]:
            contents.belong += f"; nor at {_IN_CLASSES}"
    contents.misplaced = [image.name for image in files.images if image.name.count("/") != level]
    contents.set_images([_placed(image, level) for image in files.images if image.name.count("/") == level])
    if level == _CLASS_LEVEL:
        _find_one_split_of_two(contents)
    if not contents.images and (hint := _table_hint(files, source)):
        contents.conflicts.append(hint)
    return contents


def _placed(image: Image, level: int) -> Image:
    """Return an image with the split and the label that its folders are named after."""
    *parts, _ = image.name.split("/")
    split = split_name(parts[0]) if level == _CLASS_LEVEL else ""
    return image._replace(split=sys.intern(split), label=sys.intern(parts[-1]))  # a million images share them


def _require_classes(files: Files, source: Path) -> None:
    """Raise UserError where folders of images are named after splits, or a single one holds all images."""
    folders = {image.name.split("/")[0] for image in files.images if image.name.count("/") == 1}
    splits = sorted(folder for folder in folders if split_name(folder.lower()) in COMMON_SPLITS)
    hint = f". {hint}" if (hint := _table_hint(files, source)) else ""
    if splits:
        is_mixed = len(splits) < len(folders)
        problem = (
            f"the folders {names.some(splits)} are named after splits and hold images without classes"
            + (f", and the folders {names.some(folders - set(splits))} may be classes" if is_mixed else "")
            + f". Images belong at {_IN_SPLITS}; or at {_IN_CLASSES}, where no class has a split's name"
        )
        raise cannot_prepare(source, [problem + hint])
    if len(folders) == 1:
        problem = (
            f"all images are in one folder, {names.some(folders)}, and at least two classes are needed. Images belong "
            f"at {_IN_SPLITS}; or at {_IN_CLASSES}"
        )
        raise cannot_prepare(source, [problem + hint])


def _table_hint(files: Files, source: Path) -> str:
    """Return the command for a table of a folder, which may say what the images show; empty where there is none."""
    tables = sorted(name for name in files.ignored if name.lower().endswith((".csv", ".tsv", ".parquet")))
    if not tables:
        return ""
    command = f"python main.py prepare folder:{names.typed(source / tables[0])}"
    return f"If {tables[0]} says what each image shows, type:\n  {command}"


def _find_one_split_of_two(contents: Contents) -> None:
    """Record a problem where two folders would become the same split."""
    folders = defaultdict(set)
    for image in contents.images:
        folders[image.split.lower()].add(image.name.split("/", maxsplit=1)[0])
    for split, together in folders.items():
        if len(together) > 1:
            contents.conflicts.append(
                f"the folders {', '.join(map(names.printable, sorted(together)))} would all become the split "
                f"{split!r}; keep one name"
            )


def _list_archive(path: Path, files: Files) -> None:
    with ZipArchive(path) as archive:
        if problem := archive.expansion_problem():
            raise UserError(problem)
        for member in archive.members():
            name = normal(member.filename)
            if member.filename.startswith("/") or ".." in name.split("/"):
                files.problems["have names that lead out of the archive: pack them again"].append(member.filename)
            elif member.is_dir():
                files.add_folder(name)
            else:
                if _is_image(name) and (problem := archive.problem(member, MAX_IMAGE_BYTES)):
                    files.problems[problem].append(name)
                files.add(Image("", "", name, path, member.file_size, member.CRC))


class _Folder(NamedTuple):
    """A folder to be listed."""

    path: str
    name: str  # from the root on, empty or with a slash at its end
    level: int  # 0: the root
    holders: frozenset[tuple[int, int]]  # device and inode of the folder and of those on the way to it


def _list_folder(source: Path, files: Files) -> None:
    status = os.stat(source)
    waiting = [_Folder(os.fspath(source), "", 0, frozenset([(status.st_dev, status.st_ino)]))]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder.path) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(_HIDDEN)]
        except OSError as error:
            files.unreadable.append(_reason(folder.name, error))
            continue
        for entry in visible:
            try:
                status = entry.stat()
            except OSError as error:
                files.unreadable.append(_reason(folder.name + entry.name, error))
                continue
            if stat.S_ISDIR(status.st_mode):
                waiting += _enter(entry, status, folder, files)
            else:
                _list_file(entry, status, folder.name + entry.name, files)


def _enter(entry: os.DirEntry, status: os.stat_result, folder: _Folder, files: Files) -> Iterator[_Folder]:
    """Yield a folder inside another one, unless it is a link that is not followed."""
    name, level = folder.name + entry.name, folder.level + 1
    files.add_folder(name)
    inode = status.st_dev, status.st_ino
    if inode in folder.holders:
        files.problems["are links to a folder that holds them: remove them"].append(name)
    elif entry.is_symlink() and level > _CLASS_LEVEL:
        files.problems[f"are links to folders inside a class: images belong at {_IN_SPLITS}"].append(name)
    else:
        yield _Folder(entry.path, name + "/", level, folder.holders | {inode})


def _list_file(entry: os.DirEntry, status: os.stat_result, name: str, files: Files) -> None:
    # Only files that not everybody may read are asked about: a question for each takes minutes in a network.
    if status.st_mode & _READABLE != _READABLE and _is_image(name) and not os.access(entry.path, os.R_OK):
        files.unreadable.append(f"{name} (Permission denied)")
    if stat.S_ISREG(status.st_mode):
        files.add(Image("", "", name, None, status.st_size, status.st_mtime_ns, entry.is_symlink()))
        if _is_image(name) and status.st_size > MAX_IMAGE_BYTES:
            files.problems[TOO_LARGE].append(name)
    elif _is_image(name):
        files.problems["are not files but devices, pipes or sockets: remove them"].append(name)
    else:
        files.ignored.append(name)


def _reason(name: str, error: OSError) -> str:
    return f"{name or '.'} ({error.strerror or error})"
