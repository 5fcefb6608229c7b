import dataclasses
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from imagenet_repro.config import Data
from imagenet_repro.data.prepare.prepare_dataset import prepare_dataset
from imagenet_repro.data.sources import count_shared, open_split, open_splits, overlap
from imagenet_repro.errors import UserError

COUNTS = {"train": 23, "validation": 7}
CLASSES = ("crane", "maillot", "tench")


def encoded(split: str, number: int) -> bytes:
    rng = np.random.default_rng((len(split), number))
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (8 + number, 12, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


class _Photos(tfds.core.GeneratorBasedBuilder):
    """Data sets of encoded bytes in several shards; subclasses name the images."""

    VERSION = tfds.core.Version("1.2.0")
    ID: dict = {}  # noqa: RUF012

    def _info(self):
        label = tfds.features.ClassLabel(names=list(CLASSES))
        features = tfds.features.FeaturesDict({"image": tfds.features.Image(), "label": label, **self.ID})
        return self.dataset_info_from_configs(features=features, supervised_keys=("image", "label"))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in COUNTS}

    def _generate_examples(self, split):
        for number in range(COUNTS[split]):
            named = dict.fromkeys(self.ID, f"{split}_{number:03d}.JPEG")
            yield number, {"image": encoded(split, number), "label": number % 3, **named}


class NamedPhotos(_Photos):
    ID = {"file_name": tfds.features.Text()}  # noqa: RUF012


class NumberedPhotos(_Photos):
    ID = {"id": tfds.features.Text()}  # noqa: RUF012


class NamelessPhotos(_Photos):
    pass


class Namesakes(_Photos):
    """Images whose names are unique only within their class, as 001.jpg in every folder."""

    ID = {"file_name": tfds.features.Text()}  # noqa: RUF012

    def _generate_examples(self, split):
        for number, example in super()._generate_examples(split):
            yield number, example | {"file_name": f"{split}/{number // 3:03d}.jpg"}


class Sounds(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"pitch": np.float32}))

    def _split_generators(self, dl_manager):
        return {"train": iter([(0, {"pitch": 440.0})])}

    def _generate_examples(self):
        raise NotImplementedError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("tfds")
    for builder in (NamedPhotos, NumberedPhotos, NamelessPhotos, Namesakes, Sounds):
        config = tfds.download.DownloadConfig(num_shards=1 if builder is Sounds else 3)
        builder(data_dir=directory, file_format="array_record").download_and_prepare(download_config=config)
    return directory


def split_opened(data_dir: Path, name: str, split: str):
    return open_split(Data(name=name, data_dir=str(data_dir)), split)


def test_a_split_gives_the_stored_bytes_labels_and_names(data_dir):
    split = split_opened(data_dir, "named_photos", "train")
    assert (split.name, split.version, split.class_names) == ("named_photos", "1.2.0", CLASSES)
    assert split.num_classes == 3
    assert split.num_examples == len(split.records) == 23
    seen = set()
    for record in split.records:
        number = int(record.id.removeprefix("train_").removesuffix(".JPEG"))
        assert record.image == encoded("train", number)
        assert record.label == number % 3
        seen.add(number)
    assert seen == set(range(23))


@pytest.mark.parametrize(
    ("name", "first"),
    [("named_photos", "validation_"), ("numbered_photos", "validation_"), ("nameless_photos", "val")],
)
def test_ids_are_the_data_sets_own_where_it_has_any(data_dir, name, first):
    ids = [record.id for record in split_opened(data_dir, name, "validation").records]
    assert len(set(ids)) == 7
    assert all(one.startswith(first) for one in ids)


def test_fallback_ids_count_in_the_complete_split(data_dir):
    complete = {split: split_opened(data_dir, "nameless_photos", split).records for split in COUNTS}
    expected = {f"{split}/{i}": record.image for split in COUNTS for i, record in enumerate(complete[split])}
    for split in ("train[:60%]", "train[60%:]", "train[-5:]", "train+validation", "train[9:12]+validation[50%:]"):
        records = split_opened(data_dir, "nameless_photos", split).records
        assert {record.id: record.image for record in records} == {r.id: expected[r.id] for r in records}
    assert [record.id for record in split_opened(data_dir, "nameless_photos", "train[-5:]").records] == [
        f"train/{i}" for i in range(18, 23)
    ]


def test_parts_of_a_split_are_disjoint_and_complete(data_dir):
    parts = [{r.id for r in split_opened(data_dir, "named_photos", s).records} for s in ("train[:90%]", "train[90%:]")]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == {r.id for r in split_opened(data_dir, "named_photos", "train").records}
    assert split_opened(data_dir, "named_photos", "train+validation").num_examples == 30


SPLITS = ("train", "train[:60%]", "train[60%:]", "train[13:14]", "train[-9:]", "validation", "validation[3:]",
          "train+validation", "train[:2]+validation[:3]", "train[:5]+train[20:]")  # fmt: skip


@pytest.mark.parametrize("one", SPLITS)
def test_splits_overlap_if_and_only_if_they_share_an_id(data_dir, one):
    data = Data(name="named_photos", data_dir=str(data_dir))
    ids = {split: {record.id for record in open_split(data, split).records} for split in SPLITS}
    for other in SPLITS:
        assert overlap(data, one, other) == bool(ids[one] & ids[other]), other


@pytest.mark.parametrize("one", SPLITS)
def test_shared_images_are_counted_by_their_ids(data_dir, one):
    first = Data(name="named_photos", data_dir=str(data_dir), eval_split=one)
    ids = {split: {record.id for record in open_split(first, split).records} for split in SPLITS}
    for other in SPLITS:
        second = Data(name="named_photos:1.2.0", data_dir=f"{data_dir}/.", eval_split=other)
        assert count_shared(first, second) == (len(ids[one] & ids[other]), len(ids[other])), other


def test_other_data_sets_share_no_image(data_dir):
    named, nameless = (Data(name=name, data_dir=str(data_dir)) for name in ("named_photos", "nameless_photos"))
    assert count_shared(named, nameless) == (0, 7)


def test_overlap_with_an_invalid_split_is_an_error(data_dir):
    data = Data(name="named_photos", data_dir=str(data_dir))
    for pair in (("train", "test"), ("train[:0%]", "train")):
        with pytest.raises(UserError, match=r"split '.*' of data set"):
            overlap(data, *pair)


@pytest.mark.parametrize(("test_split", "scored"), [("", "validation[:3]"), ("validation[3:]", "validation[3:]")])
def test_the_scored_split_is_the_test_split_where_there_is_one(data_dir, test_split, scored):
    names = {"train_split": "train[:9]", "eval_split": "validation[:3]", "test_split": test_split}
    result = open_splits(Data(name="named_photos", data_dir=str(data_dir), **names))
    assert [one.split for one in (result.train, result.evaluated, result.scored)] == [
        "train[:9]", "validation[:3]", scored,
    ]  # fmt: skip


def test_a_missing_test_split_is_refused_before_training(data_dir):
    with pytest.raises(UserError, match="split 'test' of data set 'named_photos'"):
        open_splits(Data(name="named_photos", data_dir=str(data_dir), test_split="test"))


def test_a_pickled_split_is_small(data_dir):
    split = split_opened(data_dir, "nameless_photos", "train[10:]")
    pickled = pickle.dumps(split)
    assert len(pickled) < 1000
    copy = pickle.loads(pickled)
    assert list(copy.records) == list(split.records)


def test_an_index_outside_is_an_index_error(data_dir):
    records = split_opened(data_dir, "named_photos", "validation").records
    for index in (-1, 7):
        with pytest.raises(IndexError):
            records[index]


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("imagenet2021", "train", "unknown data set 'imagenet2021'.*did you mean 'imagenet2012'"),
        ("named_photo", "train", "unknown data set.*did you mean 'named_photos'"),
        ("fractals", "train", "did you mean 'fractal'"),
        ("cifar10", "train", "cifar10.*not prepared.*\n  python main.py prepare cifar10 --data_dir="),
        ("named_photos:9.9.9", "train", "named_photos:9.9.9.*not prepared.*there is: 1.2.0"),
        ("named photos", "train", "not of the form"),
        ("named_photos", "test", r"split 'test'.*train \(23 images\), validation \(7 images\)"),
        ("named_photos", "train[:0%]", "holds no image"),
        ("named_photos", "train[", "split 'train\\[' .* is not valid"),
        ("sounds", "train", "not for image classification.*pitch"),
    ],
)
def test_a_split_that_cannot_be_opened_is_explained(data_dir, name, split, message):
    with pytest.raises(UserError, match=f"(?s){message}"):
        split_opened(data_dir, name, split)


@pytest.fixture
def copied(data_dir, tmp_path) -> Path:
    shutil.copytree(data_dir / "named_photos", tmp_path / "named_photos")
    return tmp_path / "named_photos" / "1.2.0"


def test_the_message_about_tfrecord_names_the_conversion(copied):
    info = json.loads((copied / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (copied / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"(?s)tfrecord.*python main.py prepare named_photos --data_dir=") as caught:
        split_opened(copied.parent.parent, "named_photos", "train")
    assert str(caught.value).endswith(f"--data_dir={copied.parent.parent}")


def test_a_missing_file_is_named(copied):
    lost = sorted(copied.glob("*train*"))[1]
    lost.unlink()
    with pytest.raises(UserError, match=f"1 of 3 files.*{lost.name}"):
        split_opened(copied.parent.parent, "named_photos", "train")


@pytest.mark.parametrize("length", ["half", "nothing", "another file's"])
def test_a_file_cut_short_or_exchanged_is_named_before_it_is_read(copied, length):
    first, second, *_ = sorted(copied.glob("*train*"))
    if length == "another file's":
        shutil.copy(second, first)  # 7 records instead of 8
    else:
        first.write_bytes(first.read_bytes()[: first.stat().st_size // 2 if length == "half" else 0])
    with pytest.raises(
        UserError, match=rf"1 of 3 files of .* are damaged, the first: {first} \(.*remove {copied} and"
    ):
        split_opened(copied.parent.parent, "named_photos", "train")
    assert split_opened(copied.parent.parent, "named_photos", "validation").num_examples == 7


def test_a_record_with_a_flipped_bit_is_named_when_it_is_read(copied):
    damaged = sorted(copied.glob("*train*"))[0]
    content = bytearray(damaged.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    damaged.write_bytes(content)
    records = split_opened(copied.parent.parent, "named_photos", "train").records
    with pytest.raises(UserError, match=rf"record train/0 in {damaged} cannot be read: .*hash.* remove {copied} and"):
        records[0]


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("damage", ["half", "nothing", "[1]", "bytes", "letter"])
def test_a_damaged_description_is_named(copied, name, damage):
    content = (copied / name).read_bytes()
    damaged = {
        "half": content[: len(content) // 2],
        "nothing": b"",
        "[1]": b"[1]",
        "bytes": b"\xff\xfe" + content,
        "letter": content.replace(b"{SPLIT}", b"{SPLAT}").replace(b"pythonClassName", b"pythonClassNome"),
    }
    (copied / name).write_bytes(damaged[damage])
    where = copied.parent if damage == "letter" else copied / name
    with pytest.raises(UserError, match=rf"{where} is damaged: tfds cannot read .* remove {copied.parent}.* prepare"):
        split_opened(copied.parent.parent, "named_photos", "train")


@pytest.mark.parametrize("content", ["crane\nmail", "", "crane\nmaillot\ntench\nviper\n"])
def test_a_file_of_class_names_with_too_few_or_too_many_is_named(copied, content):
    (copied / "label.labels.txt").write_text(content)
    with pytest.raises(
        UserError, match=rf"label.labels.txt has [024] class names, and .* 3 classes.* remove {copied}"
    ):
        split_opened(copied.parent.parent, "named_photos", "train")


def test_class_names_that_changed_after_they_were_prepared_are_named(tmp_path):
    prepare_dataset("fractal", data_dir=str(tmp_path), categories=2, train_images=1, validation_images=1, size=8)
    (names,) = tmp_path.rglob("label.labels.txt")
    split_opened(tmp_path, "fractal/c2_n1_v1_s8", "train")
    names.write_text(names.read_text().replace("ifs_001", "ifs_011"))
    with pytest.raises(UserError, match=f"{names} has other class names than those that were prepared"):
        split_opened(tmp_path, "fractal/c2_n1_v1_s8", "train")


def test_a_label_outside_the_classes_is_named(copied):
    description = (copied / "features.json").read_text()
    (copied / "features.json").write_text(description.replace('"numClasses": "3"', '"numClasses": "2"'))
    (copied / "label.labels.txt").write_text("crane\nmaillot\n")
    records = split_opened(copied.parent.parent, "named_photos", "train").records
    with pytest.raises(UserError, match=rf"record train/\d+ in {copied} has the label 2, and there are 2 classes"):
        list(records)


@pytest.mark.parametrize(
    ("split", "shared"),
    [("validation+validation", 7), ("train[:60%]+train[40%:]", 5), ("train[:5]+validation+train[4:6]", 1)],
)
def test_a_split_that_holds_an_image_twice_is_for_training_only(data_dir, split, shared):
    data = Data(name="named_photos", data_dir=str(data_dir))
    with pytest.raises(UserError, match=rf"split '{re.escape(split)}' of .* holds {shared} images of '\w+' twice"):
        open_split(data, split)
    assert open_split(data, split, may_repeat=True).num_examples > shared
    names = {"name": "named_photos", "data_dir": str(data_dir)}
    for splits in ({"eval_split": split}, {"eval_split": "validation", "test_split": split}):
        with pytest.raises(UserError, match="twice"):
            open_splits(Data(**names, train_split="train", **splits))
    assert open_splits(Data(**names, train_split=split, eval_split="validation")).train.split == split


def test_images_of_the_same_id_are_refused_before_they_are_scored(data_dir):
    data = Data(name="namesakes", data_dir=str(data_dir), train_split="train", eval_split="validation")
    with pytest.raises(UserError, match=r"namesakes validation has different images with the same id, such as 'valid"):
        open_splits(data)
    for name in ("named_photos", "nameless_photos"):
        open_splits(dataclasses.replace(data, name=name))


def test_tensorflow_and_jax_stay_out_and_nothing_is_printed(data_dir):
    code = (
        "import sys; from imagenet_repro.config import Data; from imagenet_repro.data.sources import open_split;"
        f"open_split(Data(name='named_photos', data_dir={str(data_dir)!r}), 'train').records[0];"
        "assert not {'tensorflow', 'jax'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
