"""Checks of the two archives of ILSVRC 2012, before tfds spends hours on them.

A user downloads them by hand; the checks find missing, incomplete and misplaced files.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imagenet_repro.data.prepare import fingerprint, names
from imagenet_repro.errors import UserError
from imagenet_repro.storage import user
from imagenet_repro.storage.json_files import write_json


@dataclass(frozen=True)
class Archive:
    """An official archive."""

    name: str
    size: int  # bytes
    md5: str
    members: int
    pattern: str  # regular expression of its members' names
    content: str  # a name for its members, in the plural


ARCHIVES = (
    Archive(
        "ILSVRC2012_img_train.tar",
        147_897_477_120,
        "1d675b47d978889d74fa0da5fadfb00e",
        1000,
        r"n\d{8}\.tar",
        "archives of classes",
    ),
    Archive(
        "ILSVRC2012_img_val.tar",
        6_744_924_160,
        "29b22e2961454d5413ddabcf34fc5622",
        50_000,
        r"ILSVRC2012_val_\d{8}\.JPEG",
        "images",
    ),
)
SIZES = "imagenet_repro_archives"  # key of the archives' sizes in tfds' metadata.json
_PARTIAL = (
    ".part",
    ".partial",
    ".crdownload",
    ".download",
    ".tmp",
    ".aria2",
    ".!qB",
)  # endings that browsers and download tools give to unfinished files


def check(manual_dir: str | None) -> tuple[str, ...]:
    """Check that both archives are in `manual_dir` and complete.

    Returns:
        Sentences about differences from the official archives that are not errors.

    Raises:
        UserError: an archive is missing, misplaced, cut short or another file; the message says what to type.
    """
    if not manual_dir:
        raise UserError(
            "imagenet2012 must be downloaded by hand: register at https://image-net.org/download-images, get\n"
            + "".join(f"  {archive.name}  ({archive.size / 1e9:.1f} GB, md5 {archive.md5})\n" for archive in ARCHIVES)
            + "into one directory, then type:\n  python main.py prepare imagenet2012 --manual_dir=DIRECTORY"
        )
    directory = user.expand(manual_dir)
    if not directory.is_dir():
        raise UserError(f"manual_dir {directory} is not a directory")
    problems = [_absence(directory, archive) for archive in ARCHIVES if not (directory / archive.name).is_file()]
    if problems:
        raise UserError("imagenet2012 cannot be prepared:\n" + "\n".join(f"- {problem}" for problem in problems))
    return tuple(note for archive in ARCHIVES for note in _differences(directory / archive.name, archive))


def record(manual_dir: str, directory: Path) -> None:
    """Record the sizes of the archives in the data set that was prepared from them."""
    metadata = fingerprint.read(directory)
    write_json(directory / fingerprint.FILE, metadata | {SIZES: _sizes(manual_dir)})


def check_same(manual_dir: str, directory: Path) -> None:
    """Raise UserError if the archives in `manual_dir` have other sizes than those that were prepared."""
    recorded, now = fingerprint.read(directory).get(SIZES, {}), _sizes(manual_dir)
    other = [
        f"{name} had {size:,} bytes and has {now[name]:,}"
        for name, size in recorded.items()
        if name in now and now[name] != size
    ]
    if other:
        raise UserError(
            f"{directory} was prepared from other archives than those in {manual_dir}: {'; '.join(other)}. To replace "
            f"it, remove it and prepare again:\n  rm -r {names.typed(directory)}"
        )


def _sizes(manual_dir: str) -> dict[str, int]:
    paths = [user.expand(manual_dir) / archive.name for archive in ARCHIVES]
    return {path.name: path.stat().st_size for path in paths if path.is_file()}


def _absence(directory: Path, archive: Archive) -> str:
    """Return why an archive is missing: an unfinished download, another directory, extracted, or not downloaded."""
    for ending in _PARTIAL:
        partial = directory / (archive.name + ending)
        if partial.exists():
            return (
                f"{partial} is a download that did not finish ({partial.stat().st_size:,} of {archive.size:,} bytes); "
                f"resume it until {archive.name} is there"
            )
    elsewhere = [*directory.glob(f"*/{archive.name}"), *directory.parent.glob(archive.name)]
    if elsewhere:
        parent = elsewhere[0].parent
        return f"{archive.name} is not in {directory} but in {parent}: type --manual_dir={parent}"
    extracted = _extracted(directory, archive)
    if extracted:
        return (
            f"{archive.name} is not in {directory}, and {extracted} looks like its extracted content: tfds reads the "
            "archive itself. Put it there; or, with both splits as SPLIT/CLASS/IMAGE, type: "
            "python main.py prepare folder:PATH"
        )
    return (
        f"{archive.name} is not in {directory}. Download it ({archive.size / 1e9:.1f} GB, md5 {archive.md5}) from "
        "https://image-net.org/download-images after registration"
    )


def _extracted(directory: Path, archive: Archive) -> Path | None:
    stem = archive.name.removesuffix(".tar")
    split = stem.rsplit("_", 1)[-1]
    for candidate in (stem, split, f"ILSVRC/Data/CLS-LOC/{split}", f"Data/CLS-LOC/{split}"):
        if (directory / candidate).is_dir():
            return directory / candidate
    return next((path for path in directory.iterdir() if re.fullmatch(archive.pattern, path.name)), None)


def _differences(path: Path, archive: Archive) -> Iterator[str]:
    members = _members(path)
    fitting = sum(bool(re.fullmatch(archive.pattern, name)) for name in members)
    if not fitting:
        examples = names.some(members[:3]) or "nothing"
        raise UserError(f"{path} is not the official archive: it should hold {archive.content}, and holds {examples}")
    size = path.stat().st_size
    if len(members) != archive.members:
        yield (
            f"{path.name} holds {len(members):,} {archive.content} instead of the official {archive.members:,}"
            + (
                "; tfds labels them by their rank among the names, so the labels are wrong"
                if "val" in path.name
                else ""
            )
        )
    if size != archive.size:
        yield f"{path.name} has {size:,} bytes instead of the official {archive.size:,} (md5 {archive.md5})"


def _members(path: Path) -> list[str]:
    """Return the names in an archive, read from header to header; raises UserError where its end is missing."""
    try:
        with tarfile.open(path, "r:") as archive:
            members = archive.getnames()
            end = archive.offset
        with path.open("rb") as file:
            file.seek(end)
            complete = not any(file.read(512)) and file.tell() == end + 512
    except (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError) as error:
        raise _truncated(path, str(error)) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not complete:
        raise _truncated(path, "no end-of-archive mark")
    return members


def _truncated(path: Path, reason: str) -> UserError:
    archive = next(archive for archive in ARCHIVES if archive.name == path.name)
    return UserError(
        f"{path} ({path.stat().st_size:,} bytes) is cut short or not a tar archive: {reason}. The official one has "
        f"{archive.size:,} bytes; resume or repeat the download, then compare\n"
        f"  md5sum {names.typed(path)}\nwith {archive.md5}"
    )
