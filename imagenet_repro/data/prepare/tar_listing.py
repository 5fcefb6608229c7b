"""Listing of WebDataset shards: tar files whose members of one name, up to its first dot, are one sample.

A sample has an image, `KEY.jpg` or with another ending of an image file, and a label: `KEY.cls` holds the number of
the class, or its name; without it, `KEY.json` has it under `label`. A file `classes.txt` beside the shards names the
classes, one in each line from number 0 on; without it the classes are called by their numbers. The split is the
word `train`, `val`, `validation`, `valid`, `dev` or `test` that a shard's folder is called by, or that is in the
shard's own name.
"""

import contextlib
import json
import os
import re
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagenet_repro.data.prepare import names
from imagenet_repro.data.prepare.contents import TOO_LARGE, Contents, cannot_prepare, finish, in_order, split_name
from imagenet_repro.data.prepare.listing import EXTENSIONS, MAX_IMAGE_BYTES, Image, Listing, Options
from imagenet_repro.errors import UserError

NAMES = "classes.txt"
_LABELS = ("cls", "json")  # endings of members with a label, the first that is there counts
_LABEL_BYTES = 1 << 20
_SPLIT_WORD = re.compile(r"(?:^|[^a-z])(train|val|validation|valid|dev|test)(?:[^a-z]|$)")


class Shard:
    """A tar file whose images are read by their places."""

    def __init__(self, path: Path):
        self._path = path

    def read(self, image: Image) -> bytes:
        """Return the bytes of an image.

        Raises:
            UserError: the file cannot be read, or ends before the image does.
        """
        # Opened for each image: a data set has thousands of shards, and a process may have 1,024 open files.
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                content = os.pread(descriptor, image.size, image.place)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise UserError(f"{names.printable(str(self._path))} cannot be read: {error.strerror}") from error
        if len(content) != image.size:
            raise UserError(f"{names.printable(str(self._path))} ends before {names.printable(image.name)} does")
        return content


@contextlib.contextmanager
def open_shard(path: Path, scratch: Path | None) -> Iterator[Shard]:
    """Yield the reader of a tar file, which needs no temporary files."""
    del scratch
    yield Shard(path)


@dataclass
class _Sample:
    image: Image | None = None
    label: str = ""
    label_ending: str = ""


def split_of(path: Path, source: Path) -> str:
    """Return the split of a file of images: the folder below the source that holds it, or a word in its name."""
    if path.parent != source and source.is_dir() and is_split_word(path.parent.name):
        return split_name(path.parent.name.lower().replace("dev", "validation"))
    word = _SPLIT_WORD.search(path.name.lower())
    return split_name(word[1].replace("dev", "validation")) if word else ""


def is_split_word(name: str) -> bool:
    """Return whether a name is one of those that splits usually have."""
    return bool(_SPLIT_WORD.fullmatch(name.lower()))


def scan(source: Path, shards: Sequence[Path], options: Options) -> Listing:
    """List the images of tar files; only headers and labels are read.

    Args:
        source: the folder that holds them, or the only one.
        shards: the tar files.
        options: holdout and seed are used.

    Raises:
        UserError: a file cannot be read, or a sample has no label or no image; the message lists every problem.
    """
    if options.columns:
        raise UserError("--columns names columns of a table, and this source consists of tar files")
    contents = Contents(shape=f"WebDataset shards ({len(shards)} tar files)", belong="KEY.jpg with KEY.cls")
    contents.rename, contents.same_classes = f"Name them otherwise in {NAMES}", False
    images = []
    for path in shards:
        split, prefix = split_of(path, source), path.relative_to(source) if source.is_dir() else Path(path.name)
        stamp = path.stat().st_mtime_ns
        for key, sample in _samples(path, contents).items():
            shown = f"{prefix}/{key}"
            if sample.image is None:
                contents.ignored.append(f"{shown}.{sample.label_ending}")
            elif not sample.label:
                contents.problems["have no label: add KEY.cls with the number of the class"].append(shown)
            else:
                name = f"{prefix}/{sample.image.name}"
                images.append(sample.image._replace(split=split, label=sample.label, name=name, stamp=stamp))
    if not images and not contents.problems:
        raise cannot_prepare(source, [_no_sample(shards)])
    given = read_class_names(source if source.is_dir() else source.parent)
    contents.set_images(name_classes(images, given, source) if given else images)
    contents.classes = given or in_order({image.label for image in images})
    return finish(contents, source, options, open_archive=open_shard, has_checksums=False, is_quick=False)


def _no_sample(shards: Sequence[Path]) -> str:
    return (
        f"the tar files hold no samples of WebDataset, an image KEY.jpg and a label KEY.cls. Archives of folders must "
        f"be unpacked. Unpack tar archives first (tar -xf): {names.some(path.name for path in shards)}"
    )


def read_class_names(directory: Path) -> tuple[str, ...]:
    """Return the names in the lines of `classes.txt`; empty where there is no such file."""
    path = directory / NAMES
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{names.printable(str(path))} cannot be read: {error}") from error
    classes = tuple(text.split("\n")[:-1] if text.endswith("\n") else text.split("\n")) if text else ()
    if len(set(classes)) < len(classes) or "" in classes:
        raise UserError(f"{names.printable(str(path))} has an empty line, or a name twice; each line names a class")
    return classes


def name_classes(images: Sequence[Image], classes: Sequence[str], source: Path) -> list[Image]:
    """Return images whose labels are numbers with the names of these classes.

    Raises:
        UserError: a label is not a number, or there is no class of that number.
    """
    known = {str(number): sys.intern(name) for number, name in enumerate(classes)}
    unknown = {image.label for image in images} - set(known)
    if unknown:
        problem = f"{len(unknown)} labels are not numbers from 0 to {len(classes) - 1}: {names.some(unknown)}"
        raise cannot_prepare(source, [f"{problem}. {NAMES} has {len(classes)} names"])
    return [image._replace(label=known[image.label]) for image in images]


def _samples(path: Path, contents: Contents) -> dict[str, _Sample]:
    """Return the samples of a tar file by their keys; problems are added to the contents."""
    samples: dict[str, _Sample] = defaultdict(_Sample)
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                base = member.name.rpartition("/")[2]
                stem, _, ending = base.partition(".")
                if not member.isreg() or member.issparse() or not stem or not ending:
                    continue
                key = member.name[: len(member.name) - len(ending) - 1]
                if f".{ending.lower()}" in EXTENSIONS:
                    _add_image(samples[key], member, path, contents)
                elif ending.lower() in _LABELS:
                    _add_label(samples[key], ending.lower(), member, archive)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        compressed = path.suffix.lower() != ".tar" or "not a gzip" in str(error)
        remedy = "Decompress it first" if compressed else "Copy it again, or unpack it if it is not of WebDataset"
        raise UserError(f"{names.printable(str(path))} cannot be read as a tar file: {error}. {remedy}") from error
    return {key: sample for key, sample in samples.items() if sample.image or sample.label_ending}


def _add_image(sample: _Sample, member: tarfile.TarInfo, path: Path, contents: Contents) -> None:
    if sample.image:
        contents.problems["are a second image of a sample: keep one"].append(f"{path.name}/{member.name}")
    if member.size > MAX_IMAGE_BYTES:
        contents.problems[TOO_LARGE].append(f"{path.name}/{member.name}")
    sample.image = Image("", "", member.name, path, member.size, place=member.offset_data)


def _add_label(sample: _Sample, ending: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
    if sample.label_ending == "cls":
        return
    file = archive.extractfile(member) if member.size <= _LABEL_BYTES else None
    label = _label(file.read() if file else b"", ending)
    if label:
        sample.label, sample.label_ending = sys.intern(label), ending


def _label(content: bytes, ending: str) -> str:
    """Return a label of the content of a member; empty where it has none."""
    try:
        if ending == "cls":
            return content.decode().strip()
        values = json.loads(content)
        label = values.get("label") if isinstance(values, dict) else None
        return str(label) if isinstance(label, str | int) and not isinstance(label, bool) else ""
    except ValueError:
        return ""
