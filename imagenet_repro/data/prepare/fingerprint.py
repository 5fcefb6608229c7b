"""The record, in a prepared data set, of the source that it was prepared from, and the comparison with it.

A data set is prepared once, and its source may change afterwards: a class is added, images are added, removed or
replaced. The record is an entry of tfds' `metadata.json`:

| key | content |
|---|---|
| `name`, `path` | of the data set, and of the folder or zip file |
| `images` | the number of images by split and class |
| `sizes`, `times`, `contents` | digests of the images' names with their bytes, their last changes, their CRC-32 |
| `damaged` | the number of damaged members of zip files, which are stored as empty images; absent for none |
| `folders` | a digest of the folders, or of the files that hold images, with their last changes, quick to compare |
| `options` | the share that is held out, its seed, and the names of a table's columns; absent for none |
| `captions` | a digest of the captions with their images; absent where images have labels |
| `slow` | true where listing the source reads its files, as tar files; absent otherwise |
"""

import contextlib
import dataclasses
import hashlib
import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from imagenet_repro.data import integrity
from imagenet_repro.data.cores import available_cores
from imagenet_repro.data.prepare import names, ordered_map, shapes
from imagenet_repro.data.prepare.listing import EXTENSIONS, Listing, Options, Reader
from imagenet_repro.data.sources import Split, StoredRecords
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage.json_files import read_json, require_keys, write_json

FILE = integrity.METADATA
SOURCE = "imagenet_repro_source"  # key of the record in the file
DAMAGED = "damaged"  # key of the record, of a number that only some records have
COPY_OF = "imagenet_repro_copy_of"  # key of the digest, in a smaller copy, of the data set that it was copied from
_TYPES = {"images": dict} | dict.fromkeys(("name", "path", "sizes", "times", "contents", "folders"), str)
SLOW = "slow"  # key of the record, true where listing the source reads its files
CAPTIONS = "captions"  # key of the record, of a digest that only image-text pairs have
OPTIONS = "options"  # key of the record, of how the source was to be understood
_MAX_SHOWN = 5  # differences that a message lists
_MAX_LISTED = 20_000  # images that the start of every run may list, in 0.2 s on a local disk
_SHARDS = (".zip", ".tar", ".parquet", ".arrow")  # endings of files that hold images


class Digest:
    """A digest of names with a number each, whatever their order."""

    def __init__(self, pairs: Iterable[tuple[str, int]] = ()):
        self._sum = 0
        for name, number in pairs:
            self.add(name, number)

    def add(self, name: str, number: int) -> None:
        """Add a name with its number."""
        hashed = hashlib.sha256(f"{number}/{name}".encode("utf-8", "surrogateescape")).digest()
        self._sum = (self._sum + int.from_bytes(hashed, "big")) % (1 << 256)

    def __str__(self) -> str:
        return f"{self._sum:064x}"


def record(listing: Listing, name: str) -> dict[str, Any]:
    """Return the record of the source of a data set of this name; `contents` is added once the images were read."""
    counts = Counter((image.split, image.label) for image in listing.images)
    images: dict[str, dict[str, int]] = {}
    for (split, label), count in sorted(counts.items()):
        images.setdefault(split, {})[label] = count
    optional = {OPTIONS: listing.options.to_json(), SLOW: not listing.is_quick, CAPTIONS: _captions(listing)}
    return {
        "name": name,
        "path": str(listing.source.resolve()),
        "images": images,
        "sizes": str(Digest((image.name, image.size) for image in listing.images)),
        "times": _times(listing),
        "folders": _folders(listing.source),
    } | {key: value for key, value in optional.items() if value}


def read(directory: Path) -> dict[str, Any]:
    """Return the metadata of a prepared data set; empty where it has none.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / FILE
    if not path.is_file():
        return {}
    metadata = read_json(path, "prepare writes it")
    if isinstance(metadata, dict) and SOURCE not in metadata:
        return metadata
    require_keys(path, metadata, {f"{SOURCE}.{key}": kind for key, kind in _TYPES.items()}, "prepare")
    return metadata


def of_prepared(directory: Path) -> str:
    """Return a digest of a prepared data set: its shards, their lengths and bytes, and its source's contents."""
    from tensorflow_datasets.core import dataset_info

    info = dataset_info.read_proto_from_builder_dir(directory)
    splits = [(split.name, list(split.shard_lengths), split.num_bytes) for split in info.splits]
    contents = read(directory).get(SOURCE, {}).get("contents")
    return hashlib.sha256(repr((splits, contents)).encode()).hexdigest()


def changes(directory: Path, listing: Listing, classes: Sequence[str], splits: Mapping[str, int]) -> list[str]:
    """Return how a source differs from the one that a data set was prepared from, a clause each, by its listing.

    Args:
        directory: of the prepared data set.
        listing: the source as it is now.
        classes: names of the prepared data set's classes.
        splits: numbers of its images.

    Raises:
        UserError: the record is damaged.
    """
    differences = _changes(read(directory).get(SOURCE), listing, classes, splits)
    if not differences and list(classes) != list(listing.classes):
        return ["its classes are in another order"]
    return differences


def _changes(
    recorded: dict[str, Any] | None, listing: Listing, classes: Sequence[str], splits: Mapping[str, int]
) -> list[str]:
    now = record(listing, "")
    kept = set(classes) & set(listing.classes)
    differences = [
        *_option_changes(recorded, listing.options),
        *_class_changes(classes, listing.classes),
        *_count_changes(recorded, now["images"], kept, splits),
    ]
    if not differences and recorded and recorded["sizes"] != now["sizes"]:
        differences.append("images have other names or sizes")
    if recorded and recorded.get(CAPTIONS) != now.get(CAPTIONS):
        differences.append("images have other captions")
    if not differences and recorded and recorded.get(DAMAGED) and recorded["folders"] != now["folders"]:
        # A repaired member has the checksum that the archive stated for the damaged one.
        differences.append(f"{recorded[DAMAGED]} images were damaged, and the files are now others")
    return differences


def has_other_times(directory: Path, listing: Listing) -> bool:
    """Return whether images of a source were written after a data set was prepared from it, or copied since."""
    recorded = read(directory).get(SOURCE)
    return bool(recorded) and recorded["times"] != _times(listing)


def _captions(listing: Listing) -> str:
    """Return the digest of all captions; empty where images have labels."""
    if listing.captions is None:
        return ""
    texts = ((name, number, text) for name, own in listing.captions.items() for number, text in enumerate(own))
    return str(Digest((f"{name}/{text}", number) for name, number, text in texts))


def _times(listing: Listing) -> str:
    return str(Digest((image.name, image.stamp) for image in listing.images))


def content_changes(directory: Path, listing: Listing, *, on_progress: Callable[[], None] = lambda: None) -> list[str]:
    """Return a clause if the images of a source have other contents than those that were prepared; reads all of them.

    Raises:
        UserError: the record is damaged, or an image cannot be read.
    """
    has_checksum = [bool(image.archive) and listing.has_checksums for image in listing.images]
    digest = Digest(
        (image.name, image.stamp) for image, known in zip(listing.images, has_checksum, strict=True) if known
    )
    files = [image for image, known in zip(listing.images, has_checksum, strict=True) if not known]
    with (
        Reader(dataclasses.replace(listing, images=tuple(files))) as reader,
        ThreadPoolExecutor(available_cores()) as pool,
    ):
        checksums = ordered_map.map_in_order(pool, lambda image: zlib.crc32(reader.content(image)), files, ahead=64)
        for image, checksum in zip(files, checksums, strict=True):
            digest.add(image.name, checksum)
            on_progress()
    is_same = str(digest) == read(directory)[SOURCE]["contents"]
    return [] if is_same else ["images of the same names and sizes have other contents"]


def refresh(directory: Path, listing: Listing) -> None:
    """Record the times of a source that was compared and is the same, so that it need not be read again.

    Where the data set cannot be written, the record stays.
    """
    metadata = read(directory)
    if SOURCE not in metadata or not os.access(directory, os.W_OK):
        return
    recorded = metadata[SOURCE]
    now = recorded | record(listing, recorded["name"])
    if now != recorded:
        with contextlib.suppress(SaveError):
            write_json(directory / FILE, metadata | {SOURCE: now})


def recorded_options(directory: Path) -> Options:
    """Return the options with which the source of a prepared data set was listed; raises as `read`."""
    return Options.from_json(read(directory).get(SOURCE, {}).get(OPTIONS, {}))


def _option_changes(recorded: dict | None, now: Options) -> Iterator[str]:
    before = Options.from_json((recorded or {}).get(OPTIONS, {}))
    if before != now:
        yield f"it was prepared with {_words(before)}, and this is with {_words(now)}"


def _words(options: Options) -> str:
    words = [] if options.holdout is None else [f"--holdout={100 * options.holdout:g}% --holdout_seed={options.seed}"]
    if options.columns:
        words.append("--columns=" + ",".join(f"{use}={column}" for use, column in options.columns))
    return " ".join(words) or "no options"


def _class_changes(before: Sequence[str], now: Sequence[str]) -> Iterator[str]:
    for verb, classes in (("added", set(now) - set(before)), ("removed", set(before) - set(now))):
        if classes:
            count = "1 class was" if len(classes) == 1 else f"{len(classes)} classes were"
            yield f"{count} {verb}: {names.some(classes)}"


def _count_changes(
    recorded: dict | None, now: dict[str, dict[str, int]], classes: set[str], splits: Mapping[str, int]
) -> Iterator[str]:
    """Yield those of `classes` whose number of images changed; without a record, the splits whose number did."""
    if not recorded:
        for split in sorted({*splits, *now}):
            numbers = splits.get(split, 0), sum(now.get(split, {}).values())
            if numbers[0] != numbers[1]:
                yield f"split {split} had {numbers[0]:,} images and has {numbers[1]:,}"
        return
    before = recorded["images"]
    changed = []
    for split in sorted({*before, *now}):
        for label in sorted(classes):
            numbers = before.get(split, {}).get(label, 0), now.get(split, {}).get(label, 0)
            if numbers[0] != numbers[1]:
                changed.append(f"{split}/{names.printable(label)} had {numbers[0]:,} images and has {numbers[1]:,}")
    yield from changed[:_MAX_SHOWN]
    if len(changed) > _MAX_SHOWN:
        yield f"{len(changed) - _MAX_SHOWN} other classes have another number of images too"


def say_what_changed(split: Split) -> None:
    """Print the `note` about the data set of a split, if there is one."""
    if isinstance(split.records, StoredRecords):
        print(note(Path(split.records.directory)), end="", file=sys.stderr)


def note(directory: Path) -> str:
    """Return lines for the terminal that say how the source of a prepared data set has changed; empty if it has not.

    The source is listed at most once, and nothing is read. Above 20,000 images it is listed only if the time of a
    folder or of a file that holds images has changed, which takes milliseconds to see: a file that is added, removed
    or renamed changes the time of its folder. Of tar, Arrow and Parquet files only the times are compared. A source
    that is no longer there has not changed.
    """
    try:
        recorded = _latest_record(directory)
        source = Path(recorded["path"]) if recorded else None
        if not recorded or not source or not source.exists():
            return ""
        is_quick = not recorded.get(SLOW, False)
        n_images = sum(sum(counts.values()) for counts in recorded["images"].values())
        if (n_images > _MAX_LISTED or not is_quick) and _folders(source) == recorded["folders"]:
            return ""
        differences = _listed_changes(directory, recorded, source) if is_quick else ["its files were written since"]
    except (OSError, ValueError, UserError):
        return ""  # a remark only: `prepare` reports what is damaged
    if not differences:
        return ""
    options = _words(Options.from_json(recorded.get(OPTIONS, {})))
    command = (
        f"python main.py prepare folder:{names.typed(source)} --name={recorded['name']} "
        f"--data_dir={names.typed(directory.parents[1])}" + (f" {options}" if recorded.get(OPTIONS) else "")
    )
    return "\n".join(
        [
            f"{names.printable(recorded['path'])} may have changed since {directory} was prepared from it:",
            *(f"- {one}" for one in differences),
            "This run reads the prepared images. To replace them by the present ones, type:",
            f"  {command} --overwrite\n",
        ]
    )


def _listed_changes(directory: Path, recorded: dict[str, Any], source: Path) -> list[str]:
    """Return how a source differs from its record, by its listing alone."""
    try:
        listing = shapes.scan(source, Options.from_json(recorded.get(OPTIONS, {})))
    except UserError as error:
        lines = str(error).splitlines()
        problem = next((line.removeprefix("- ") for line in lines if line.startswith("- ")), lines[0])
        return [f"it cannot be prepared as it is now ({problem})"]
    classes = sorted({label for counts in recorded["images"].values() for label in counts})
    splits = {split: sum(counts.values()) for split, counts in recorded["images"].items()}
    differences = _changes(recorded, listing, classes, splits)
    if not differences and recorded["times"] != _times(listing):
        differences = ["images were written since, with the same names and sizes"]
    return differences


def _latest_record(directory: Path) -> dict[str, Any] | None:
    """Return the record of a data set's source; of a smaller copy, that of the original, which may be newer."""
    recorded = read(directory).get(SOURCE)
    if not recorded:
        return None
    original = read(directory.parents[1] / recorded["name"] / directory.name).get(SOURCE)
    return original if original and original["contents"] == recorded["contents"] else recorded


def _folders(source: Path) -> str:
    """Return the digest of a source's folders, and of the files that hold images, with the times of their changes."""
    if source.is_file():
        return str(Digest([(source.name, source.stat().st_mtime_ns)]))
    digest = Digest()
    for name, entry in _entries(source, ""):
        if entry.is_dir():
            digest.add(name, entry.stat().st_mtime_ns)
        for inner, one in _entries(entry.path, f"{name}/") if entry.is_dir() else [(name, entry)]:
            if os.path.splitext(inner)[1].lower() in EXTENSIONS:
                break  # the folder of a class, whose own time says whether its files changed
            if one.is_dir() or inner.lower().endswith(_SHARDS):
                digest.add(inner, one.stat().st_mtime_ns)
    return str(digest)


def _entries(folder: str | Path, prefix: str) -> Iterator[tuple[str, os.DirEntry]]:
    """Yield what is in a folder and not hidden, with its name after a prefix."""
    with os.scandir(folder) as entries:
        yield from ((prefix + entry.name, entry) for entry in entries if not entry.name.startswith("."))
