"""Preparation of data sets from any source in the one form that training reads.

That form is a tfds data set in ArrayRecord files under `data_dir/NAME/[CONFIG/]VERSION`. The source follows from the
name: `silhouettes` and `fractal` are drawn, `folder:PATH` is read from images on disk (shapes.py has
the layouts), and any other name is built by tfds, or converted where it is already prepared as TFRecord. A prepared
data set is not prepared again, and an interrupted preparation leaves nothing that opens as a data set: files are
written beside their final path and moved there at the end. One process at a time writes a data set; others wait for
it. A data set that is prepared is found without writing anything.
"""

import contextlib
import dataclasses
import errno
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagenet_repro.data import integrity
from imagenet_repro.data.prepare import (
    archives,
    array_record_builder,
    convert,
    fingerprint,
    folder,
    names,
    shapes,
    single_writer,
    smaller_copy,
)
from imagenet_repro.data.prepare.contents import describe
from imagenet_repro.data.prepare.holdout import parse_share
from imagenet_repro.data.prepare.listing import Listing, Options
from imagenet_repro.data.sources import DRAWN, data_directory
from imagenet_repro.errors import UserError, nearest
from imagenet_repro.storage import user

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

    from imagenet_repro.data.prepare.drawn import DrawnBuilder, DrawnConfig

_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
_PIXELS_PER_BYTE = 8  # of drawn images, at most: silhouettes of 256 pixels have 1.6
_TFDS_DISK_FULL = "Not enough disk space"
_INSTALL_TENSORFLOW = "pip install -r requirements/tensorflow.txt"


@dataclasses.dataclass(frozen=True)
class PreparedDataset:
    """A data set that training can open."""

    name: str  # as `config.data.name` takes it
    path: Path
    splits: dict[str, int]  # examples of each split
    bytes: int  # of all examples
    how: str  # "drawn", "already prepared", ...
    notes: tuple[str, ...] = ()  # remarks for the user, a sentence each
    smaller: "PreparedDataset | None" = None  # the copy that `short_side` asks for


def prepare_dataset(
    name: str,
    *,
    data_dir: str = "",
    manual_dir: str | None = None,
    short_side: int | None = None,
    quality: int = 90,
    as_name: str | None = None,
    holdout: str | None = None,
    holdout_seed: int | None = None,
    columns: str | None = None,
    overwrite: bool = False,
    **drawing: Any,
) -> PreparedDataset:
    """Prepare a data set in the form that training reads, with progress on the terminal.

    Args:
        name: `silhouettes[/CONFIG]`, `fractal[/CONFIG]`, `folder:PATH` or the name of a tfds data set,
            `NAME[/CONFIG][:VERSION]`.
        data_dir: directory of data sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        manual_dir: directory of the archives that must be downloaded by hand (imagenet2012 and others).
        short_side: also write a copy whose images have a shorter side of at most this many pixels.
        quality: of the JPEG files of that copy, 1 to 100.
        as_name: name of a `folder:` data set; by default the last part of its path.
        holdout: of a `folder:` data set, the share of each class that becomes the split `validation`, such as "20%".
        holdout_seed: of the choice of these images; None: 0.
        columns: of a `folder:` data set that is a table, its columns by their use, such as "file=photo,label=breed".
        overwrite: whether a `folder:` data set whose source has changed, or is another one, is replaced.
        **drawing: parameters of `silhouettes.SilhouettesConfig` or `fractal.FractalConfig`, such as `size=32`.

    Raises:
        UserError: something is missing, truncated, misplaced or contradictory; the message says what to type.
    """
    root = data_directory(data_dir)
    is_drawn = name.split("/", maxsplit=1)[0] in DRAWN
    if drawing and not is_drawn:
        raise UserError(f"{', '.join(drawing)}: only `prepare {' or '.join(DRAWN)}` takes these options, not {name!r}")
    given = {"name": as_name, "holdout": holdout, "holdout_seed": holdout_seed, "columns": columns}
    given = [key for key, value in given.items() if value is not None] + ["overwrite"] * overwrite
    if given and not name.startswith("folder:"):
        raise UserError(f"--{given[0]}: only `prepare folder:PATH` takes this option, not {name!r}")
    if not 1 <= quality <= 100 or (short_side is not None and short_side < 1):
        raise UserError(f"short_side must be at least 1 pixel and quality 1 to 100; got {short_side} and {quality}")
    with _quiet_libraries(), _failures_to_write(root):
        if name.startswith("folder:"):
            source = user.expand(name.removeprefix("folder:"))
            path = root / folder.data_set_name(source, as_name) / folder.VERSION
            options = _folder_options(path, holdout, holdout_seed, columns, overwrite)
            prepared = _prepare_folder(source, path, options, overwrite)
        elif is_drawn:
            prepared = _prepare_drawn(name, root, drawing)
        else:
            prepared = _prepare_tfds(name, root, manual_dir)
        if short_side is None:
            return prepared
        return dataclasses.replace(prepared, smaller=_prepare_smaller(prepared, root, short_side, quality, overwrite))


@contextlib.contextmanager
def _failures_to_write(root: Path) -> Iterator[None]:
    """Turn failures to write, such as a full disk, into a `UserError`.

    ArrayRecord reports them as RuntimeError, with the system's message in the text.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        texts = [_TFDS_DISK_FULL, *(f"() failed: {os.strerror(code)}" for code in _WRITE_ERRORS)]
        is_write_error = isinstance(error, OSError) and error.errno in _WRITE_ERRORS
        if not is_write_error and not any(text in str(error) for text in texts):
            raise
        raise UserError(f"{root} cannot be written: {error}. Free space there or choose another --data_dir") from error


def _once(
    root: Path, key: str, find: Callable[[], PreparedDataset | None], write: Callable[[], PreparedDataset]
) -> PreparedDataset:
    """Return the data set that `find` finds, else the one that `write` writes.

    Args:
        root: the directory of data sets. It is written only by `write`, and to remove what a killed process left.
        key: names what one process at a time writes.
        find: returns the prepared data set, or None.
        write: writes it.
    """
    prepared = find()
    if prepared is None:
        single_writer.require_writable(root)
        with single_writer.only_writer(root, key):
            prepared = find() or _write_unless_found(find, write)
    return _without_leftovers(prepared, root, key)


def _write_unless_found(
    find: Callable[[], PreparedDataset | None], write: Callable[[], PreparedDataset]
) -> PreparedDataset:
    """Return the data set that `write` writes, or that a process which this one cannot see has written meanwhile."""
    try:
        return write()
    except FileExistsError:  # hosts may share files and not their locks; the last step does not replace a data set
        prepared = find()
        if prepared is None:
            raise
        return prepared


def _without_leftovers(prepared: PreparedDataset, root: Path, key: str) -> PreparedDataset:
    """Remove what killed preparations left beside a data set, or name it where that is not possible."""
    before = single_writer.leftovers(prepared.path)
    if not before:
        return prepared
    single_writer.remove_unused_leftovers(prepared.path, root, key)
    remain = single_writer.leftovers(prepared.path)
    state = "in use by a running preparation, or not yours to remove" if remain else "removed"
    note = f"left by a killed preparation, {state}: {', '.join(map(str, before))}"
    return dataclasses.replace(prepared, notes=(*prepared.notes, note))


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Silence the log lines of tfds and TensorFlow; this module shows its own progress."""
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _progress_bar(label: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Show a progress bar on the terminal; the function that it yields counts one image."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    class Rate(ProgressColumn):
        def render(self, task):
            return f"{task.finished_speed or task.speed or 0:,.0f} images/s"

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn()
    console = Console(stderr=True)  # in a notebook a bar would need ipywidgets
    with Progress(*columns, console=console, speed_estimate_period=10, disable=console.is_jupyter) as progress:
        task = progress.add_task(label, total=total)
        yield lambda: progress.advance(task)


def _describe(builder: "tfds.core.DatasetBuilder", how: str, notes: tuple[str, ...] = ()) -> PreparedDataset:
    """Return the description of a prepared data set after checking that no file is missing or cut short."""
    missing = [
        file
        for split in builder.info.splits.values()
        for file in map(str, split.filepaths)
        if not os.path.exists(file)
    ]
    if missing:
        raise UserError(
            f"{builder.data_dir} lacks {len(missing)} of its files, the first: {missing[0]}. "
            f"Remove the directory and prepare again:\n  rm -r {names.typed(builder.data_dir)}"
        )
    for split in builder.info.splits.values():
        if split.num_examples:
            integrity.check_files(builder, split)
    path = Path(builder.data_dir)
    config = f"/{builder.builder_config.name}" if builder.builder_config else ""
    splits = {name: split.num_examples for name, split in builder.info.splits.items()}
    return PreparedDataset(builder.name + config, path, splits, int(builder.info.dataset_size), how, notes)


def _open_existing(path: Path) -> "tfds.core.DatasetBuilder | None":
    """Return the reader of the ArrayRecord data set in a directory, or None where the directory does not exist.

    Raises:
        UserError: the directory exists and is not a complete data set.
    """
    return _open(path) if path.exists() else None


def _open(path: Path) -> "tfds.core.DatasetBuilder":
    """Return the reader of the ArrayRecord data set in a directory; raises as `_open_existing`."""
    import tensorflow_datasets as tfds

    if not (path / "dataset_info.json").exists():
        raise UserError(
            f"{path} exists but is not a complete data set. Remove it and prepare again:\n  rm -r {names.typed(path)}"
        )
    try:
        builder = tfds.builder_from_directory(path)
    except Exception as error:  # the parsers of tfds' descriptions raise many types
        raise integrity.unreadable(path, error) from error
    builder.info.set_file_format(array_record_builder.ARRAY_RECORD, override=True, override_if_initialized=True)
    return builder


def _find(path: Path) -> PreparedDataset | None:
    builder = _open_existing(path)
    return None if builder is None else _describe(builder, "already prepared")


# --- drawn -----------------------------------------------------------------------------------------------------


def drawn_builder(name: str) -> "type[DrawnBuilder]":
    """Return the builder of a drawn data set, `silhouettes` or `fractal`."""
    from imagenet_repro.data.prepare.fractal import Fractal
    from imagenet_repro.data.prepare.silhouettes import Silhouettes

    return {"silhouettes": Silhouettes, "fractal": Fractal}[name]


def _prepare_drawn(name: str, root: Path, options: dict[str, Any]) -> PreparedDataset:
    base = name.split("/", maxsplit=1)[0]
    builder_class = drawn_builder(base)
    config = _drawn_config(name, builder_class, options)
    path = root / base / config.name / str(builder_class.VERSION)

    def write() -> PreparedDataset:
        single_writer.remove_leftovers(path)
        total = config.images("train") + config.images("validation")
        single_writer.require_space(root, total * config.size**2 // _PIXELS_PER_BYTE, name)
        with _progress_bar(f"{base}/{config.name}", total) as advance, _no_tfds_bar():
            builder_class(config=config, data_dir=root, on_progress=advance).download_and_prepare(
                file_format=array_record_builder.ARRAY_RECORD
            )
        return _describe(_open(path), "drawn")

    return _once(root, base, lambda: _find(path), write)


def _drawn_config(name: str, builder_class: "type[DrawnBuilder]", options: dict[str, Any]) -> "DrawnConfig":
    base, _, config_name = name.partition("/")
    default = builder_class.default_config()
    config_class, fields = type(default), default.parameters()
    for key in options:
        if key not in fields:
            raise UserError(f"unknown option {key!r} of {base}: {nearest(key, fields)}")
    if config_name and options:
        raise UserError(f"{name!r} already names its parameters; leave out {', '.join(options)}")
    try:
        config = config_class.from_name(config_name) if config_name else config_class.from_options(options)
        config.check()
    except ValueError as error:
        raise UserError(f"{base}: {error}") from error
    return default if config.name == default.name else config


@contextlib.contextmanager
def _no_tfds_bar() -> Iterator[None]:
    """Hide the progress bar of tfds, which would overwrite the one of this module."""
    import tensorflow_datasets as tfds

    tfds.display_progress_bar(False)
    try:
        yield
    finally:
        tfds.display_progress_bar(True)


# --- image folders ---------------------------------------------------------------------------------------------


def _folder_options(
    path: Path, holdout: str | None, seed: int | None, columns: str | None, overwrite: bool
) -> Options:
    """Return how a source is to be understood: as given, otherwise as when the data set was prepared."""
    recorded = Options()
    with contextlib.suppress(*([UserError] if overwrite else [])):  # a damaged record is replaced
        recorded = fingerprint.recorded_options(path)
    if seed is not None and holdout is None and recorded.holdout is None:
        raise UserError(f"--holdout_seed={seed}: no image is held out without --holdout, such as --holdout=20%")
    return Options(
        holdout=recorded.holdout if holdout is None else parse_share(holdout),
        seed=recorded.seed if seed is None else seed,
        columns=recorded.columns if columns is None else _parse_columns(columns),
    )


def _parse_columns(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [part.partition("=") for part in text.split(",")]
    columns = {use.strip(): column.strip() for use, _, column in pairs}
    if len(columns) < len(pairs) or not all(columns) or not all(columns.values()):
        raise UserError(f"--columns={text}: pairs of a use and a column are needed, such as file=photo,label=breed")
    return tuple(sorted(columns.items()))


def _prepare_folder(source: Path, path: Path, options: Options, overwrite: bool) -> PreparedDataset:
    name, root = path.parent.name, path.parents[1]
    # A source that is gone is no reason to refuse what was prepared from it.
    listing = None if path.exists() and not source.exists() and not overwrite else shapes.scan(source, options)
    if listing:
        print(describe(listing), file=sys.stderr, flush=True)

    def find() -> PreparedDataset | None:
        try:
            return _find_folder(source, path, listing)
        except UserError:
            if not overwrite:
                raise
            return None

    def write() -> PreparedDataset:
        assert listing is not None  # the data set was not there
        single_writer.remove_leftovers(path)
        size = sum(image.size for image in listing.images)
        single_writer.require_space(root, size * (2 if listing.is_copied else 1), name)
        with _progress_bar(name, len(listing.images)) as advance, _no_tfds_bar(), _replacing(path) as place:
            problems = folder.write(listing, name, place, on_progress=advance)
        return _describe(_open(path), "read from a folder", listing.notes + problems)

    return _once(root, name, find, write)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield the directory of data sets in which to write one, which then replaces an older one at `path`.

    The older one stays complete until the new one is.
    """
    name, root = path.parent.name, path.parents[1]
    if not path.exists():
        yield root
        return
    beside = root / f".new_{name}"
    shutil.rmtree(beside, ignore_errors=True)  # left by a killed preparation
    try:
        yield beside
        older = path.with_name(f"incomplete.replaced_{path.name}")  # what a kill leaves of it is removed
        path.rename(older)
        (beside / name / path.name).rename(path)
        shutil.rmtree(older)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _find_folder(source: Path, path: Path, listing: Listing | None) -> PreparedDataset | None:
    """Return the data set that was prepared from a folder, after comparing it with the folder.

    Raises:
        UserError: the data set is incomplete, has another source, or its source has changed since.
    """
    builder = _open_existing(path)
    if builder is None:
        return None
    shown = names.printable(str(source))
    command, place = f"python main.py prepare folder:{names.typed(source)}", names.typed(path.parents[1])
    another = f"{command} --name=NAME --data_dir={place}"
    again = f"{command} --name={path.parent.name} --data_dir={place} --overwrite"
    if folder.describe(source) != builder.info.description:
        raise UserError(
            f"{path} already holds another data set ({builder.info.description}). Choose another name:\n  {another}\n"
            "or replace it with --overwrite"
        )
    prepared = _describe(builder, "already prepared")
    if listing is None:
        return dataclasses.replace(prepared, notes=(f"{shown} is no longer there, so it was not compared",))
    integrity.check_class_names(builder, "label")
    features: Any = builder.info.features
    classes = features["label"].names if "label" in features else ("",)  # pairs have no classes, as their listing
    changes = fingerprint.changes(path, listing, classes, prepared.splits)
    if not changes and fingerprint.has_other_times(path, listing):
        with _progress_bar(f"comparing {path.parent.name}", len(listing.images)) as advance:
            changes = fingerprint.content_changes(path, listing, on_progress=advance)
    if changes:
        raise UserError(
            "\n".join([f"{shown} has changed since {path} was prepared from it:", *(f"- {one}" for one in changes)])
            + f"\nTo replace the prepared data set, add --overwrite:\n  {again}\n"
            f"To keep it beside a new one, type:\n  {another}"
        )
    fingerprint.refresh(path, listing)
    return dataclasses.replace(prepared, notes=listing.notes)


# --- tfds ------------------------------------------------------------------------------------------------------


def _prepare_tfds(name: str, root: Path, manual_dir: str | None) -> PreparedDataset:
    from tensorflow_datasets.core import read_only_builder, registered

    if not re.fullmatch(r"\w+(/[\w.+-]+)?(:[\w.*]+)?", name):
        raise UserError(f"{name!r} is not of the form NAME[/CONFIG][:VERSION] or folder:PATH")

    base = re.split("[/:]", name)[0]

    def find_any() -> "tfds.core.DatasetBuilder | None":
        try:
            return read_only_builder.builder_from_files(name, data_dir=root)
        except registered.DatasetNotFoundError:
            return None
        except Exception as error:  # as `_open`
            raise integrity.unreadable(root / base, error) from error

    def find() -> PreparedDataset | None:
        existing = find_any()
        if existing is None:
            return None
        if base == "imagenet2012" and manual_dir:
            archives.check_same(manual_dir, Path(existing.data_dir))
        formats = {file_format.value for file_format in existing.info.available_file_formats()}
        is_readable = array_record_builder.ARRAY_RECORD in formats
        return _describe(_open(Path(existing.data_dir)), "already prepared") if is_readable else None

    def write() -> PreparedDataset:
        existing = find_any()
        return _build_tfds(name, root, manual_dir) if existing is None else _convert_tfds(name, root, existing)

    return _once(root, base, find, write)


def _convert_tfds(name: str, root: Path, existing: "tfds.core.DatasetBuilder") -> PreparedDataset:
    path = Path(existing.data_dir)
    single_writer.require_space(root, int(existing.info.dataset_size), name)
    with _progress_bar(f"{name} from TFRecord", existing.info.splits.total_num_examples) as advance:
        convert.add_array_record(path, on_progress=advance)
    return _describe(_open(path), "converted from TFRecord")


def _build_tfds(name: str, root: Path, manual_dir: str | None) -> PreparedDataset:
    """Prepare a data set with tfds' own builder, in ArrayRecord files."""
    import tensorflow_datasets as tfds

    base = name.split("/", maxsplit=1)[0].split(":", maxsplit=1)[0]
    known = tfds.list_builders(with_community_datasets=False)
    if base not in known:
        raise UserError(f"unknown data set {name!r}: {nearest(base, [*known, *DRAWN, 'folder:PATH'])}")
    notes = ()
    if base == "imagenet2012":
        _require_tensorflow(name)
        notes = archives.check(manual_dir)
    try:
        builder = tfds.builder(name, data_dir=root, file_format=array_record_builder.ARRAY_RECORD)
        if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not manual_dir:
            raise UserError(
                f"{name} must be downloaded by hand. {' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())}\n"
                f"Then type:\n  python main.py prepare {name} --manual_dir=DIRECTORY"
            )
        single_writer.remove_leftovers(Path(builder.data_dir))
        downloads = tfds.download.DownloadConfig(manual_dir=manual_dir)
        builder.download_and_prepare(download_config=downloads, file_format=array_record_builder.ARRAY_RECORD)
    except ImportError as error:
        if (error.name or "").split(".")[0] == "tensorflow":
            _require_tensorflow(name)
        raise UserError(f"tfds' builder of {name} needs a package that is not installed: {error}") from error
    except (tfds.download.DownloadError, OSError, AssertionError, ValueError) as error:
        raise UserError(f"tfds could not prepare {name} in {root}: {error}") from error
    if base == "imagenet2012" and manual_dir:
        archives.record(manual_dir, Path(builder.data_dir))
    return _describe(_open(Path(builder.data_dir)), "built by tfds", notes)


def _require_tensorflow(name: str) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"tfds' builder of {name} needs TensorFlow, which is not installed (training does not need it). Type:\n"
            f"  {_INSTALL_TENSORFLOW}"
        )


# --- the smaller copy ------------------------------------------------------------------------------------------


def _prepare_smaller(
    source: PreparedDataset, root: Path, short_side: int, quality: int, overwrite: bool
) -> PreparedDataset:
    base, _, config = source.name.partition("/")
    name = f"{base}_side{short_side}_q{quality}"
    path = root / name / config / source.path.name

    def find() -> PreparedDataset | None:
        copy = _find(path)
        recorded = fingerprint.read(path).get(fingerprint.COPY_OF)
        if copy and (copy.splits != source.splits or recorded not in (None, fingerprint.of_prepared(source.path))):
            if overwrite:
                return None
            raise UserError(
                f"{path} is a copy of another {source.name} than the one in {source.path}. Remove it and prepare "
                f"again:\n  rm -r {names.typed(path)}\nor add --overwrite"
            )
        return copy

    def write() -> PreparedDataset:
        single_writer.remove_leftovers(path)
        shutil.rmtree(path, ignore_errors=True)  # of other images, and to be replaced
        with _progress_bar(name, sum(source.splits.values())) as advance:
            notes = smaller_copy.write_copy(source.path, path, name, short_side, quality, on_progress=advance)
        return _describe(_open(path), f"copied from {source.name}", notes)

    return _once(root, name, find, write)
