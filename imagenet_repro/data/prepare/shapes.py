"""Recognition of the layout of a source of images, and its listing.

| layout | source |
|---|---|
| `SPLIT/CLASS/IMAGE`, `CLASS/IMAGE` | a folder, a zip file, or a folder of zip files (folder_listing.py) |
| rows of file, label and perhaps split | a CSV, TSV or Parquet file (table_listing.py) |
| a Hugging Face data set | a folder of Arrow or Parquet files, or one such file (arrow_listing.py) |
| WebDataset shards | a folder of tar files, or one of them (tar_listing.py) |
"""

import re
from pathlib import Path

from imagenet_repro.data.prepare import folder_listing, names, table_listing, tar_listing
from imagenet_repro.data.prepare.contents import cannot_prepare
from imagenet_repro.data.prepare.listing import Listing, Options
from imagenet_repro.errors import UserError

FILES = (".zip", *table_listing.ENDINGS, ".tar", ".arrow")  # endings of files that can be a source
_SHARDS = {".tar": "WebDataset shards", ".parquet": "Parquet shards", ".arrow": "Arrow files"}
_COMPRESSED = re.compile(r"\.(tgz|tar\.\w+)$")


def scan(source: Path, options: Options = Options()) -> Listing:  # noqa: B008 (immutable)
    """List the images of a source of any layout.

    Args:
        source: a folder or a file.
        options: beyond what the source says itself.

    Raises:
        UserError: the source is missing, has no known layout or more than one, or has problems; the message lists
            them and says what is possible.
    """
    suffix = source.suffix.lower()
    if source.is_file() and suffix in (".csv", ".tsv"):
        return table_listing.scan(source, options)
    if source.is_file() and suffix in _SHARDS:
        return _scan_shards(source, suffix, [source], options)
    files = folder_listing.list_files(source)
    shards: dict[str, list[Path]] = {}
    for name in files.ignored:
        if (ending := Path(name).suffix.lower()) in _SHARDS:
            shards.setdefault(ending, []).append(source / name)
    has_compressed = any(_COMPRESSED.search(name.lower()) for name in files.ignored)
    if files.images or not shards or has_compressed:
        return folder_listing.arrange(files, source, options)
    if len(shards) > 1:
        found = " and ".join(f"{len(paths)} {_SHARDS[ending]}" for ending, paths in sorted(shards.items()))
        raise cannot_prepare(source, [f"it holds {found}. Name a folder or a file of one kind: folder:PATH"])
    if files.unreadable:
        raise cannot_prepare(source, [f"files cannot be read: {names.some(files.unreadable)}"])
    ((ending, paths),) = shards.items()
    return _scan_shards(source, ending, sorted(paths), options)


def _scan_shards(source: Path, ending: str, paths: list[Path], options: Options) -> Listing:
    if ending == ".tar":
        return tar_listing.scan(source, paths, options)
    from imagenet_repro.data.prepare import arrow_listing

    if ending == ".parquet" and not arrow_listing.has_images(paths[0]):
        if source.is_file():
            return table_listing.scan(source, options)
        command = f"python main.py prepare folder:{names.typed(paths[0])}"
        raise cannot_prepare(
            source, [f"{paths[0].name} holds no images. If it is a table of their files, type:\n  {command}"]
        )
    _require_one_folder(source, paths)
    return arrow_listing.scan(source, paths, options)


def _require_one_folder(source: Path, paths: list[Path]) -> None:
    """Raise UserError where files are in several folders that are not splits: those of several configurations."""
    if (source / "dataset_dict.json").is_file():  # its folders are splits
        return
    folders = {str(path.parent.relative_to(source)) for path in paths if path.parent not in (source, source.parent)}
    others = {folder for folder in folders if not tar_listing.is_split_word(folder)}
    if len(others) > 1:
        raise UserError(
            f"folder:{names.printable(str(source))} holds data in {len(others)} folders that are not splits: "
            f"{names.some(others)}. Name one of them: folder:{names.typed(source / min(others))}"
        )
