"""Image folders, `SPLIT/CLASS/IMAGE` on disk or in zip files, written as tfds data sets in ArrayRecord form.

The bytes of each image are stored unchanged. Classes are the sorted names of their folders; splits are named after
their folders, except that `val` and `valid` become `validation`, as in tfds. Images are stored in one fixed shuffled
order, so that a part of a split (`train[:99%]`) contains all classes. Files stream from the source to the shards.
"""

import functools
import os
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from imagenet_repro.data.cores import available_cores
from imagenet_repro.data.decode import DecodeError, decode
from imagenet_repro.data.prepare import array_record_builder, ordered_map
from imagenet_repro.errors import UserError

VERSION = "1.0.0"
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


def data_set_name(source: Path, as_name: str | None = None) -> str:
    """Return the data set's name: the last part of the path in lower case, with other characters replaced by `_`.

    Args:
        source: the folder or zip file.
        as_name: a name in place of the last part of the path.

    Raises:
        UserError: the name is not valid in tfds, or is that of one of tfds' data sets.
    """
    stem = as_name or (source.stem if source.suffix.lower() == ".zip" else source.resolve().name)
    name = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_").lower()
    if not re.fullmatch(r"[a-z]\w*", name):
        raise UserError(f"{stem!r} cannot name a data set (a letter, then letters, digits and _); give a --name")
    if name in {*tfds.list_builders(with_community_datasets=False), "fractal"}:
        raise UserError(f"{name!r} is the name of another data set; choose a different one with --name=NAME")
    return name


def describe(source: Path) -> str:
    """Return the description of the prepared data set, which names its origin."""
    return f"Images of {source.resolve()}"


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
        notes = (f"{len(contents.ignored)} files are not images and were left out: {_some(contents.ignored)}",)
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


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:_MAX_SHOWN])
    return shown if len(names) <= _MAX_SHOWN else f"{shown} and {len(names) - _MAX_SHOWN} more"


def _layout_problems(contents: _Contents) -> Iterator[str]:
    if contents.misplaced:
        misplaced = _some(contents.misplaced)
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
        yield f"{len(empty)} class folders hold no image: {_some(empty)}. Fill them or remove them"
    classes = {split: {label for other, label in filled_folders if other == split} for split in splits}
    all_classes = set().union(*classes.values())
    for split in sorted(splits):
        missing = all_classes - classes[split] - {name.split("/")[1] for name in empty}
        if missing:
            yield (
                f"split {split!r} lacks {len(missing)} of the {len(all_classes)} classes that other splits have: "
                f"{_some(list(missing))}. All splits need the same class folders; remove a split that has others"
            )


def _file_problems(contents: _Contents) -> Iterator[str]:
    duplicates = [name for name, count in Counter(image.name for image in contents.images).items() if count > 1]
    if duplicates:
        archives = {str(image.archive) for image in contents.images if image.name in set(duplicates[:_MAX_SHOWN])}
        yield (
            f"{len(duplicates)} file names occur more than once, in {', '.join(sorted(archives))}: "
            f"{_some(duplicates)}. Keep one"
        )
    if contents.unreadable:
        yield f"{len(contents.unreadable)} files or folders cannot be read: {_some(contents.unreadable)}"
    empty = [image.name for image in contents.images if image.size == 0]
    if empty:
        yield f"{len(empty)} image files are empty (0 bytes): {_some(empty)}. Copy them again or remove them"


class _Reader:
    """A reader of images from disk or from zip files, which stay open; several threads may read at once."""

    def __init__(self, listing: Listing):
        self._source = listing.source
        self._stack = ExitStack()
        self._archives = {
            archive: self._stack.enter_context(zipfile.ZipFile(archive))
            for archive in {image.archive for image in listing.images if image.archive}
        }

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *exception) -> None:
        self._stack.close()

    def read(self, image: Image) -> tuple[Image, bytes, str | None]:
        """Return the image, its bytes, and why they cannot be decoded (None where they can)."""
        try:
            content = self._archives[image.archive].read(image.name) if image.archive else self._file(image.name)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
            location = f"{image.name} in {image.archive}" if image.archive else str(self._source / image.name)
            raise UserError(f"{location} cannot be read: {error}. Copy the file again, then prepare again") from error
        try:
            decode(content)
        except DecodeError as error:
            return image, content, str(error)
        return image, content, None

    def _file(self, name: str) -> bytes:
        return (self._source / name).read_bytes()


class Folder(array_record_builder.ArrayRecordBuilder, skip_registration=True):
    """The builder of a tfds data set of a given name from the images of a listing."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, listing: Listing, name: str, root: Path, read: Callable, on_progress: Callable[[], None]):
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]  # tfds declares it as a class attribute
        self.undecodable: list[str] = []
        self._listing = listing
        self._read = read
        self._on_progress = on_progress
        super().__init__(data_dir=root)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.image_info(describe(self._listing.source), self._listing.classes)

    def shards(self) -> dict[str, list[array_record_builder.Shard]]:
        """Return the shards of each split, whose images are shuffled once."""
        splits = dict.fromkeys(image.split for image in self._listing.images)
        return {
            split: [functools.partial(self._examples, images) for images in _shards(self._listing, split)]
            for split in splits
        }

    def _examples(self, images: list[Image]) -> Iterator[tuple[str, dict]]:
        with ThreadPoolExecutor(available_cores()) as pool:
            for image, content, problem in ordered_map.map_in_order(pool, self._read, images, ahead=64):
                if problem:
                    self.undecodable.append(f"{image.name} ({problem})")
                self._on_progress()
                yield image.name, {"image": content, "label": image.label, "file_name": image.name}


def _shards(listing: Listing, split: str) -> list[list[Image]]:
    """Return the images of a split in shuffled order, in parts of at most `SHARD_BYTES`."""
    images = [image for image in listing.images if image.split == split]
    shards, size = [[]], 0
    for index in np.random.default_rng(0).permutation(len(images)):
        image = images[index]
        if shards[-1] and size + image.size > array_record_builder.SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(image)
        size += image.size
    return shards


def write(
    listing: Listing, name: str, root: Path, *, on_progress: Callable[[], None] = lambda: None
) -> tuple[str, ...]:
    """Write the images of a listing to `root/name/1.0.0`.

    Images that cannot be decoded are stored like the others: training replaces, counts and names them.

    Args:
        listing: from `scan`.
        name: of the data set.
        root: the directory of data sets.
        on_progress: called for every image.

    Returns:
        A sentence that counts and names the images that cannot be decoded; empty where there are none.

    Raises:
        UserError: a file cannot be read.
    """
    with _Reader(listing) as reader:
        builder = Folder(listing, name, root, reader.read, on_progress)
        builder.download_and_prepare(file_format=array_record_builder.ARRAY_RECORD)
    bad = builder.undecodable
    return (f"{len(bad)} images cannot be decoded: {_some(bad)}",) if bad else ()
