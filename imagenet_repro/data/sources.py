"""Random access to the encoded images of a split of a prepared data set, through tfds and without TensorFlow."""

import bisect
import collections
import itertools
import os
import re
import shlex
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from imagenet_repro.config import Data
from imagenet_repro.data import integrity, shards
from imagenet_repro.errors import UserError, nearest
from imagenet_repro.storage import user

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

DRAWN = ("silhouettes", "fractal")  # data sets that `prepare` draws, the default first
ORIGINAL_LABEL = "original_label"  # the challenge's label, in tfds data sets with several labels for each image
_N_SAMPLED = 1000  # records whose ids are compared at the start of a run
_THREADS = 16  # that read them
# Features in which tfds data sets keep a name for each image, the most specific first.
_ID_FEATURES = ("file_name", "filename", "image/filename", "id")
_owners = itertools.count()  # of open files


class Record(NamedTuple):
    """One stored image of a split."""

    image: bytes  # encoded
    label: int
    id: str  # the data set's own id, else "<split>/<index in the complete split>"
    captions: tuple[str, ...] = ()  # where they are read (data/pairs.py)


@runtime_checkable
class Records(Protocol):
    """Random access to records by index; iteration goes from 0 to the IndexError of `len`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...


class StoredRecords:
    """Random access to the records of a split; several threads may read at once.

    Pickling keeps the location only: the process that unpickles it opens the files again.

    Args:
        directory: the directory of the data set's version.
        split: in tfds' syntax.
        captions: the feature of the captions; empty: none are read. With captions, images need no label.
    """

    def __init__(self, directory: str, split: str, captions: str = ""):
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2

        self.directory = directory
        self.split = split
        builder = tfds.builder_from_directory(directory)
        _choose_array_record(builder)
        self._captions_key = captions
        self._image_key, self._label_key = (_image(builder), "") if captions else _image_and_label(builder)
        self._id_key = next((key for key in _ID_FEATURES if key in _features(builder)), None)
        self._num_classes = _features(builder)[self._label_key].num_classes if self._label_key else 0
        self._starts, self._origins = _origins(builder, split)
        self._files = [os.fspath(part.filename) for part in builder.info.splits[split].file_instructions]
        self._skipped = [part.skip for part in builder.info.splits[split].file_instructions]
        self._taken = [part.take for part in builder.info.splits[split].file_instructions]
        self._length = sum(self._taken)
        self._owner = next(_owners)
        weakref.finalize(self, shards.open_shards().forget, self._owner).atexit = False
        # Reading three features from the stored tf.train.Example takes 8 us for a full-size image; tfds' decoding of
        # every feature took 58.
        self._parse = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]  # generated

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        """Read one record.

        Raises:
            IndexError: the index is not in [0, len).
            UserError: the file that holds the record is damaged or missing, or the process may not open another file,
                or the label is not one of the classes.
        """
        features = self._features(index)
        image = features[self._image_key].bytes_list.value[0]
        if self._captions_key:
            captions = tuple(text.decode("utf-8", "replace") for text in features[self._captions_key].bytes_list.value)
            return Record(image, -1, self._id(index, features), captions)
        label = features[self._label_key].int64_list.value[0]
        if not -1 <= label < self._num_classes:  # -1: without a label, as in some test splits
            raise UserError(
                f"record {self.position_id(index)} in {self.directory} has the label {label}, and there are "
                f"{self._num_classes} classes. The data set was prepared with other classes than it describes; remove "
                "that directory and prepare it again."
            )
        return Record(image, label, self._id(index, features))

    @property
    def has_ids(self) -> bool:
        """Whether the data set has names for its images; if not, the id is the position, which is unique."""
        return self._id_key is not None

    def file_parts(self) -> list[tuple[str, int, int, int]]:
        """Return the name, size in bytes, first record and number of records of each file that the split reads.

        Raises:
            OSError: a file is missing.
        """
        parts = zip(self._files, self._skipped, self._taken, strict=True)
        return [(os.path.basename(path), os.path.getsize(path), skipped, taken) for path, skipped, taken in parts]

    def integers(self, index: int, keys: Sequence[str]) -> tuple[str, dict[str, tuple[int, ...]]]:
        """Return the id of a record and all values of some of its integer features; raises as reading a record."""
        features = self._features(index)
        return self._id(index, features), {key: tuple(features[key].int64_list.value) for key in keys}

    def _features(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect.bisect_right(self._starts, index) - 1
        path = self._files[part]
        try:
            position = self._skipped[part] + index - self._starts[part]
            stored = shards.open_shards().read(self._owner, path, position)
            if not stored:  # ArrayRecord returns nothing where a file was cut short
                raise EOFError("the file ends before it")
            return self._parse(stored).features.feature
        except UserError:  # too many open files
            raise
        except Exception as error:  # the file system, the format's reader and the parser raise many types
            raise UserError(
                f"record {self.position_id(index)} in {path} cannot be read: {error}. The file is damaged or missing; "
                f"copy it back, or remove {self.directory} and prepare the data set again."
            ) from error

    def _id(self, index: int, features: Any) -> str:
        if not self._id_key:
            return self.position_id(index)
        feature = features[self._id_key]
        if feature.bytes_list.value:
            return feature.bytes_list.value[0].decode()
        return str(feature.int64_list.value[0])

    def position_id(self, index: int) -> str:
        """Return "<split>/<index in the complete split>", the id of a record in a data set that stores no ids."""
        part = bisect.bisect_right(self._starts, index) - 1
        split, first = self._origins[part]
        return f"{split}/{first + index - self._starts[part]}"

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredRecords, (self.directory, self.split, self._captions_key)


@dataclass(frozen=True)
class Split:
    """A split of an image-classification data set."""

    name: str  # with the config, such as "imagenet_v2/matched-frequency"
    split: str  # in tfds' syntax, such as "train[:99%]"
    version: str
    class_names: tuple[str, ...]
    num_examples: int
    records: Records

    @property
    def num_classes(self) -> int:
        """The number of classes; labels are from 0 to one less."""
        return len(self.class_names)

    def subset(self, indices: Sequence[int]) -> "Split":
        """Return the records of these indices, in this order, as a separate split."""
        return replace(self, num_examples=len(indices), records=RecordSubset(self.records, tuple(map(int, indices))))

    def relabelled(self, class_names: Sequence[str], index: Sequence[int]) -> "Split":
        """Return the same images with labels that count other classes.

        Args:
            class_names: the names of the other classes.
            index: the index among them of each class of this split.
        """
        records = RelabelledRecords(self.records, tuple(index))
        return replace(self, class_names=tuple(class_names), records=records)


@dataclass(frozen=True)
class RelabelledRecords:
    """Records whose label is replaced by its entry in `index`; negative labels, which are none, stay."""

    records: Records
    index: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        record = self.records[index]
        return record._replace(label=self.index[record.label]) if record.label >= 0 else record


class RecordSubset:
    """Some records of others, in any order; they are read from there."""

    def __init__(self, records: Records, indices: tuple[int, ...]):
        self._records, self._indices = records, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        return self._records[self._indices[index]]


@dataclass(frozen=True)
class Splits:
    """The splits of one data set that a run reads."""

    train: Split
    evaluated: Split  # during training
    scored: Split  # once, at the end, for the result


def data_directory(data_dir: str = "") -> Path:
    """Return the directory of tfds' data sets: the argument, else $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
        UserError: it is below a home directory, and there is none.
    """
    given = data_dir or os.environ.get("TFDS_DATA_DIR")
    if given:
        return user.expand(given)
    try:
        return user.expand("~/tensorflow_datasets")
    except UserError as error:
        raise UserError(
            "there is no home directory to look for data sets in: give --data_dir=DIR (--config.data.data_dir=DIR "
            "with a configuration), or set TFDS_DATA_DIR"
        ) from error


def open_split(data: Data, split: str, *, may_repeat: bool = False) -> Split:
    """Open a split of the prepared data set `data.name` below `data.data_dir`.

    Args:
        data: data_dir, and name as tfds writes it, `name[/config][:version]`, are used.
        split: in tfds' syntax, such as `train`, `train[:99%]` or `train+validation`.
        may_repeat: whether the split may hold an image twice, as `train+train[:10%]`. Training may; an error rate
            counts every image once.

    Raises:
        UserError: the data set is unknown, not prepared, prepared as TFRecord or not one of labelled images; the
            split is unknown or empty, or holds an image twice; or a file is missing or damaged.
    """
    builder = find_readable(data, split)
    if not may_repeat:
        _require_distinct(builder, split)
    _, label_key = _image_and_label(builder)
    label = _features(builder)[label_key]
    return Split(
        name=full_name(builder),
        split=split,
        version=str(builder.version),
        class_names=tuple(label.names or map(str, range(label.num_classes))),
        num_examples=split_info(builder, split).num_examples,
        records=StoredRecords(os.fspath(builder.data_dir), split),
    )


def integers(data: Data, split: str, keys: Sequence[str]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return all values of some integer features of every image of a split, such as an image's several labels.

    Args:
        data: data_dir and name are used.
        split: in tfds' syntax.
        keys: names of the features.

    Returns:
        For each image id, the values of each feature.

    Raises:
        UserError: as `open_split`, or the data set lacks a feature.
    """
    builder = find_readable(data, split)
    missing = [key for key in keys if key not in _features(builder)]
    if missing:
        raise UserError(f"data set {data.name!r} has no {', '.join(missing)}: it is not tfds' data set of that name")
    records = StoredRecords(os.fspath(builder.data_dir), split)
    return dict(records.integers(index, keys) for index in range(len(records)))


def open_splits(data: Data) -> Splits:
    """Open the splits `data.train_split`, `data.eval_split` and `data.scored_split`; raises as `open_split`."""
    evaluated, scored = (open_split(data, split) for split in (data.eval_split, data.scored_split))
    check_ids(scored)
    return Splits(open_split(data, data.train_split, may_repeat=True), evaluated, scored)


def check_ids(split: Split) -> None:
    """Raise UserError where two images of a split have the same id, because predictions are stored under the ids.

    The ids are in the records, so of a split with more than 1,000 images only a random sample of 1,000 is read; it
    finds names that repeat in every class, such as 001.jpg, and not a single pair.
    """
    if not isinstance(split.records, StoredRecords) or not split.records.has_ids:
        return
    count = min(split.num_examples, _N_SAMPLED)
    indices = np.random.default_rng(0).choice(split.num_examples, count, replace=False)
    with ThreadPoolExecutor(_THREADS) as pool:
        ids = collections.Counter(pool.map(lambda index: split.records[index].id, indices.tolist()))
    repeated = [name for name, times in ids.items() if times > 1]
    if repeated:
        raise UserError(
            f"{split.name} {split.split} has different images with the same id, such as {repeated[0]!r}, and "
            "predictions are stored under the ids; prepare the data set again with a name for each image that is "
            "unique in it, such as CLASS/FILE"
        )


def overlap(data: Data, one: str, other: str) -> bool:
    """Return whether two splits of the data set share an image; raises as `open_split`."""
    builder = _find(data.name, data_directory(data.data_dir))
    for split in (one, other):
        split_info(builder, split)
    return any(_shared(a, b) for a in _ranges(builder, one) for b in _ranges(builder, other))


def count_shared(one: Data, other: Data) -> tuple[int, int]:
    """Return how many images of `other.eval_split` are in `one.eval_split` too, and the number of its images.

    Two data sets share images only if they are the same files. Raises as `open_split`.
    """
    builders = [_find(data.name, data_directory(data.data_dir)) for data in (one, other)]
    first, second = (_ranges(builder, data.eval_split) for builder, data in zip(builders, (one, other), strict=True))
    n_images = sum(end - start for _, start, end in second)
    if os.path.realpath(builders[0].data_dir) != os.path.realpath(builders[1].data_dir):
        return 0, n_images
    return sum(_shared(a, b) for a in first for b in second), n_images


def _ranges(builder: "tfds.core.DatasetBuilder", split: str) -> list[tuple[str, int, int]]:
    """Return for each part of a split its complete split, its first record there, and the record after its last."""
    import tensorflow_datasets as tfds

    infos = builder.info.splits
    parts: Any = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
    return [
        (part.splitname, part.from_ or 0, infos[part.splitname].num_examples if part.to is None else part.to)
        for part in parts
    ]


def _shared(one: tuple[str, int, int], other: tuple[str, int, int]) -> int:
    """Return the number of records that two ranges share."""
    return max(0, min(one[2], other[2]) - max(one[1], other[1])) if one[0] == other[0] else 0


def _require_distinct(builder: "tfds.core.DatasetBuilder", split: str) -> None:
    for one, other in itertools.combinations(_ranges(builder, split), 2):
        if shared := _shared(one, other):
            raise UserError(
                f"split {split!r} of data set {builder.name!r} holds {shared} images of {one[0]!r} twice, and an "
                "error rate counts every image once; name disjoint parts, such as 'train[:60%]+train[60%:]'"
            )


def find_readable(data: Data, split: str, *, has_labels: bool = True) -> "tfds.core.DatasetBuilder":
    """Return the reader of a prepared data set after checking its form, the split and the split's files.

    Args:
        data: data_dir and name are used.
        split: in tfds' syntax.
        has_labels: whether its images need labels.

    Raises:
        UserError: as `open_split`.
    """
    builder = _find(data.name, data_directory(data.data_dir))
    _require_random_access(builder, data.name)
    _choose_array_record(builder)
    if has_labels:
        integrity.check_class_names(builder, _image_and_label(builder)[1])
    integrity.check_files(builder, split_info(builder, split))
    return builder


def full_name(builder: "tfds.core.DatasetBuilder") -> str:
    """Return the name of a data set with its configuration, such as "imagenet_v2/matched-frequency"."""
    return builder.name + (f"/{builder.builder_config.name}" if builder.builder_config else "")


def _find(name: str, directory: Path) -> "tfds.core.DatasetBuilder":
    """Return the reader of a prepared data set; the description beside its files suffices, without its builder."""
    from tensorflow_datasets.core import read_only_builder, registered

    if not re.fullmatch(r"\w+(/[\w.+-]+)?(:[\w.*]+)?", name):
        raise UserError(f"data.name = {name!r} is not of the form name[/config][:version]")
    shards.raise_file_limit()
    try:
        builder = read_only_builder.builder_from_files(name, data_dir=directory)
        # tfds reads this part of the description only when it is asked for.
        _ = [info.file_instructions for info in builder.info.splits.values()]
        return builder
    except registered.DatasetNotFoundError:
        raise UserError(_why_not_found(name, directory)) from None
    except Exception as error:  # the parsers of tfds' descriptions raise many types
        raise integrity.unreadable(directory / re.split("[/:]", name)[0], error) from error


def _why_not_found(name: str, directory: Path) -> str:
    import tensorflow_datasets as tfds

    base = re.split("[/:]", name)[0]
    prepared = sorted(path.name for path in directory.glob("*") if path.is_dir()) if directory.is_dir() else []
    if base in prepared:
        versions = sorted(
            str(path.parent.relative_to(directory / base))
            for path in (directory / base).rglob("features.json")
            if not path.parent.name.startswith("incomplete.")  # a preparation that runs or was killed
        )
        if versions:
            return f"data set {name!r} is not prepared in {directory}; of {base!r} there is: {', '.join(versions)}"
    known = {*tfds.list_builders(with_community_datasets=False), *prepared, *DRAWN}
    if base not in known:
        return f"unknown data set {name!r}, not prepared in {directory} either: {nearest(base, known)}"
    return f"data set {name!r} is not prepared in {directory}. Type:\n  {_prepare_command(name, directory)}"


def _prepare_command(name: str, directory: str | os.PathLike) -> str:
    return f"python main.py prepare {shlex.quote(name)} --data_dir={shlex.quote(os.fspath(directory))}"


def _require_random_access(builder: "tfds.core.DatasetBuilder", name: str) -> None:
    formats = {file_format.value for file_format in builder.info.available_file_formats()}
    if "array_record" in formats:
        return
    raise UserError(
        f"data set {name!r} in {builder.data_dir} is stored as {', '.join(sorted(formats)) or 'an unknown format'}, "
        "which has no random access. To convert it to ArrayRecord, type:\n  " + _prepare_command(name, _root(builder))
    )


def _root(builder: "tfds.core.DatasetBuilder") -> Path:
    """Return the directory of data sets, <root> in <root>/<name>/[<config>/]<version>."""
    return Path(os.fspath(builder.data_dir)).parents[2 if builder.builder_config else 1]


def _image(builder: "tfds.core.DatasetBuilder") -> str:
    """Return the name of the first image of a data set."""
    import tensorflow_datasets as tfds

    for key, feature in _features(builder).items():
        if isinstance(feature, tfds.features.Image):
            return key
    raise UserError(f"data set {builder.name!r} has no images: its features are {', '.join(_features(builder))}")


def _image_and_label(builder: "tfds.core.DatasetBuilder") -> tuple[str, str]:
    """Return the names of the image feature and the label feature of an image-classification data set.

    Where an image has several labels, as in imagenet2012_real, the label is the challenge's.
    """
    import tensorflow_datasets as tfds

    features = _features(builder)
    image_key, *label_keys = [*(builder.info.supervised_keys or ("image", "label"))[:2], ORIGINAL_LABEL]
    if isinstance(image_key, str) and isinstance(features.get(image_key), tfds.features.Image):
        for key in label_keys:
            if isinstance(key, str) and isinstance(features.get(key), tfds.features.ClassLabel):
                return image_key, key
    raise UserError(
        f"data set {builder.name!r} is not for image classification: an image and a class label are needed, "
        f"and its features are {', '.join(f'{key} ({type(value).__name__})' for key, value in features.items())}"
    )


def _features(builder: "tfds.core.DatasetBuilder") -> dict[str, Any]:
    """Return the features of a data set by name."""
    features: Any = builder.info.features
    return dict(features.items())


def split_info(builder: "tfds.core.DatasetBuilder", split: str) -> Any:
    """Return tfds' description of a split or a sub-split."""
    splits = builder.info.splits
    try:
        info = splits[split]
        if info.num_examples > 0:
            return info
        problem = "holds no image"
    except (KeyError, ValueError, AssertionError) as error:
        problem = f"is not valid ({str(error).splitlines()[0]})"
    sizes = ", ".join(f"{name} ({splits[name].num_examples} images)" for name in splits)
    raise UserError(
        f"split {split!r} of data set {builder.name!r} {problem}. There are: {sizes}; also parts and sums of them, "
        "such as train[:99%] and train+validation"
    )


def _choose_array_record(builder: "tfds.core.DatasetBuilder") -> None:
    """Let the builder name ArrayRecord files; a converted data set also has those of TFRecord, which come first."""
    builder.info.set_file_format("array_record", override=True, override_if_initialized=True)


def _origins(builder: "tfds.core.DatasetBuilder", split: str) -> tuple[list[int], list[tuple[str, int]]]:
    """Return the index at which each part of a sub-split begins, and each part's complete split and first index in it.

    A part consists of the records that a sub-split reads from one file.
    """
    first_of_file = {}
    for name, info in builder.info.splits.items():
        first = 0
        for instruction in info.file_instructions:
            first_of_file[instruction.filename] = (name, first)
            first += instruction.examples_in_shard
    starts, origins, start = [], [], 0
    for instruction in builder.info.splits[split].file_instructions:
        name, first = first_of_file[instruction.filename]
        starts.append(start)
        origins.append((name, first + instruction.skip))
        start += instruction.take
    return starts, origins
