"""Preparation by name and its messages, conversion of TFRecord, smaller copies, and the official archives."""

import importlib.util
import io
import json
import resource
import shutil
import struct
import tarfile

import cv2
import numpy as np
import pytest

from imagenet_repro.config import Data
from imagenet_repro.data.decode import decode
from imagenet_repro.data.prepare import archives, convert, smaller_copy
from imagenet_repro.data.prepare.prepare_dataset import prepare_dataset
from imagenet_repro.data.sources import open_split
from imagenet_repro.errors import UserError
from tests.conftest import shared_path

SMALL = {"categories": 3, "train_images": 6, "validation_images": 2, "size": 24}


def records(data_dir, name, split="train"):
    split_opened = open_split(Data(name=name, data_dir=str(data_dir)), split)
    return [split_opened.records[index] for index in range(split_opened.num_examples)]


# --- the dispatcher --------------------------------------------------------------------------------------------


def test_a_second_preparation_does_nothing(tmp_path):
    first = prepare_dataset("fractal", data_dir=str(tmp_path), **SMALL)
    times = {path: path.stat().st_mtime_ns for path in first.path.iterdir()}
    again = prepare_dataset("fractal", data_dir=str(tmp_path), **SMALL)
    assert (first.how, again.how) == ("drawn", "already prepared")
    assert {path: path.stat().st_mtime_ns for path in first.path.iterdir()} == times
    assert again.bytes == first.bytes > 0


def test_other_parameters_are_another_data_set(tmp_path):
    one = prepare_dataset("fractal", data_dir=str(tmp_path), **SMALL)
    two = prepare_dataset("fractal", data_dir=str(tmp_path), **{**SMALL, "seed": 5})
    assert one.path != two.path
    assert records(tmp_path, one.name)[0].image != records(tmp_path, two.name)[0].image


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fractal", {"catgories": 3}, r"unknown option 'catgories' of fractal: did you mean 'categories'"),
        ("fractal", {"size": "abc"}, r"size = 'abc' is not valid; a value of type int is needed"),
        ("fractal", {"size": 32.5}, r"size = 32.5 is not valid; a value of type int is needed"),
        ("fractal", {"turn": "far"}, r"turn = 'far' is not valid; a value of type float is needed"),
        ("fractal", {"seed": True}, r"seed = True is not valid; a value of type int is needed"),
        ("fractal", {"size": 4}, r"size = 4 is not in \[8, 4096\]"),
        ("fractal", {"train_images": 0, "validation_images": 0}, "both 0"),
        (
            "silhouettes",
            {"categories": 3},
            r"unknown option 'categories' of silhouettes: valid: seed, size, train_images",
        ),
        ("silhouettes", {"size": 8}, r"size = 8 is not in \[16, 1024\]"),
        ("silhouettes/c20", {}, r"'c20' is not of the form n500_v100_s64"),
        ("fractal/c20", {}, r"'c20' is not of the form c10_n500_v100_s64"),
        ("fractal/c20_n500_v100_s64", {"size": 32}, "already names its parameters; leave out size"),
        ("cifar10", {"size": 32}, "only `prepare silhouettes or fractal` takes these options"),
        ("cifar10", {"as_name": "mine"}, "--name: only `prepare folder:PATH` takes this option"),
        ("fractal", {"quality": 101}, "quality 1 to 100"),
        ("a/b/c", {}, r"'a/b/c' is not of the form NAME\[/CONFIG\]"),
        ("imagnet2012", {}, "unknown data set 'imagnet2012': did you mean 'imagenet2012'"),
    ],
)
def test_invalid_options_are_refused(tmp_path, name, options, message):
    with pytest.raises(UserError, match=message):
        prepare_dataset(name, data_dir=str(tmp_path), **options)


def test_without_tensorflow_imagenet_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs TensorFlow(.|\n)*pip install -r requirements/tensorflow\.txt"):
        prepare_dataset("imagenet2012", data_dir=str(tmp_path), manual_dir=str(tmp_path))


def test_interrupted_drawing_leaves_nothing_that_opens(tmp_path, monkeypatch):
    from imagenet_repro.data.prepare import ifs

    original, calls = ifs.encode, []

    def failing(images):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return original(images)

    monkeypatch.setattr(ifs, "encode", failing)
    options = {**SMALL, "train_images": 40}
    with pytest.raises(KeyboardInterrupt):
        prepare_dataset("fractal", data_dir=str(tmp_path), **options)
    with pytest.raises(UserError):
        open_split(Data(name="fractal/c3_n40_v2_s24", data_dir=str(tmp_path)), "train")
    monkeypatch.undo()
    assert prepare_dataset("fractal", data_dir=str(tmp_path), **options).how == "drawn"


def test_leftovers_of_a_killed_preparation_are_removed(tmp_path):
    prepared = prepare_dataset("fractal", data_dir=str(tmp_path), **SMALL)
    leftover = prepared.path.parent / "incomplete.A1B2C3_1.0.0"
    leftover.mkdir()
    again = prepare_dataset("fractal", data_dir=str(tmp_path), **SMALL)
    assert again.splits == prepared.splits
    assert str(leftover) in again.notes[0]
    assert not leftover.exists()


def test_a_full_disk_is_reported(tmp_path):
    """A limit on file size replaces a full disk: both fail in the same write of ArrayRecord."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written: .*(?i:too large).*Free space"):
            prepare_dataset("fractal", data_dir=str(tmp_path), **{**SMALL, "size": 64, "train_images": 120})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob("fractal/c*/*"))


def test_an_impossible_data_dir_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"data_dir .*file/data cannot be created"):
        prepare_dataset("fractal", data_dir=str(tmp_path / "file" / "data"), **SMALL)


def test_a_lost_shard_and_an_incomplete_directory_are_named(tmp_path):
    prepared = prepare_dataset("fractal", data_dir=str(tmp_path), **SMALL)
    next(prepared.path.glob("*train*")).unlink()
    with pytest.raises(UserError, match=r"lacks 1 of its files(.|\n)*rm -r"):
        prepare_dataset("fractal", data_dir=str(tmp_path), **SMALL)
    (prepared.path / "dataset_info.json").unlink()
    with pytest.raises(UserError, match=r"is not a complete data set(.|\n)*rm -r"):
        prepare_dataset("fractal", data_dir=str(tmp_path), **SMALL)


def test_damaged_files_are_not_taken_for_prepared(tmp_path):
    prepared = prepare_dataset("fractal", data_dir=str(tmp_path), **SMALL)
    shard = next(prepared.path.glob("*train*"))
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"1 of 1 files of data set 'fractal' are damaged(.|\n)*prepare"):
        prepare_dataset("fractal", data_dir=str(tmp_path), **SMALL)
    shard.write_bytes(content)
    info = prepared.path / "dataset_info.json"
    info.write_bytes(info.read_bytes()[:100])
    with pytest.raises(UserError, match=r"dataset_info\.json is damaged"):
        prepare_dataset("fractal", data_dir=str(tmp_path), **SMALL)


# --- TFRecord --------------------------------------------------------------------------------------------------


def as_tfrecord(prepared):
    """Rewrite a prepared data set as TFRecord, with TensorFlow's framing and checksums."""
    info = json.loads((prepared.path / "dataset_info.json").read_text())
    for path in list(prepared.path.glob("*array_record*")):
        target = path.with_name(path.name.replace("array_record", "tfrecord"))
        with target.open("wb") as file:
            for record in smaller_copy._read(path):
                header = struct.pack("<Q", len(record))
                file.write(header + convert._masked_crc(header) + record + convert._masked_crc(record))
        path.unlink()
    info["fileFormat"] = "tfrecord"
    (prepared.path / "dataset_info.json").write_text(json.dumps(info))
    return prepared.path


@pytest.fixture
def tfrecord(tmp_path):
    """Return a TFRecord data set, its expected records, and its name."""
    prepared = prepare_dataset("fractal", data_dir=str(tmp_path), **SMALL)
    expected = records(tmp_path, prepared.name)
    return as_tfrecord(prepared), expected, prepared.name


def test_a_file_written_by_tensorflow_is_read(tmp_path):
    """The file was written by TensorFlow 2.21's `tf.io.TFRecordWriter`."""
    (tmp_path / "one.tfrecord").write_bytes(bytes.fromhex("0800000000000000ff86240f696d6167656e65747a80ac9e"))
    assert list(convert.read_tfrecord(tmp_path / "one.tfrecord")) == [b"imagenet"]


def test_tfrecord_is_converted_beside_its_files(tmp_path, tfrecord):
    path, expected, name = tfrecord
    with pytest.raises(UserError, match="has no random access"):
        open_split(Data(name=name, data_dir=str(tmp_path)), "train")
    before = {file: file.read_bytes() for file in path.glob("*tfrecord*")}
    counted = []
    convert.add_array_record(path, on_progress=lambda: counted.append(1))
    assert len(counted) == 24
    assert records(tmp_path, name) == expected
    assert {file: file.read_bytes() for file in path.glob("*tfrecord*")} == before
    info = json.loads((path / "dataset_info.json").read_text())
    assert (info["fileFormat"], info["alternativeFileFormats"]) == ("tfrecord", ["array_record"])


def test_a_data_set_prepared_as_tfrecord_is_converted(tmp_path, tfrecord):
    path, expected, _ = tfrecord
    described = tmp_path / "cifar10" / "3.0.2"
    shutil.copytree(path, described)
    for file in described.glob("fractal-*"):
        file.rename(described / file.name.replace("fractal-", "cifar10-"))
    info = json.loads((described / "dataset_info.json").read_text())
    info.update(name="cifar10", version="3.0.2")
    info.pop("configName")
    info.pop("configDescription")
    (described / "dataset_info.json").write_text(json.dumps(info))
    assert prepare_dataset("cifar10", data_dir=str(tmp_path)).how == "converted from TFRecord"
    assert prepare_dataset("cifar10", data_dir=str(tmp_path)).how == "already prepared"
    assert records(tmp_path, "cifar10") == expected


def test_an_interrupted_conversion_is_continued(tmp_path, tfrecord):
    path, expected, name = tfrecord
    count = iter(range(100))

    def interrupt():
        if next(count) == 20:  # in the second file
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert.add_array_record(path, on_progress=interrupt)
    with pytest.raises(UserError, match="has no random access"):
        open_split(Data(name=name, data_dir=str(tmp_path)), "train")
    (done,) = path.glob("*array_record*")
    stamp = done.stat().st_mtime_ns
    convert.add_array_record(path)
    assert done.stat().st_mtime_ns == stamp
    assert records(tmp_path, name) == expected


@pytest.mark.parametrize("damage", ["flip", "cut", "cut_header", "last", "missing"])
def test_damaged_tfrecord_is_named(tfrecord, damage):
    path, _, _ = tfrecord
    (file,) = path.glob("*train.tfrecord*")
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[500] ^= 1
    lengths = {"flip": len(data), "cut": len(data) - 7, "cut_header": 5, "missing": 0}
    last = len(data) - (struct.unpack("<Q", data[:8])[0] + 16)
    file.write_bytes(bytes(data[: lengths.get(damage, last)]))
    if damage == "last":  # complete records, but too few of them
        complete = list(convert_until_damage(file))
        with file.open("wb") as out:
            for record in complete:
                header = struct.pack("<Q", len(record))
                out.write(header + convert._masked_crc(header) + record + convert._masked_crc(record))
    if damage == "missing":
        file.unlink()
    expected = {"last": "holds 17 examples and dataset_info.json says 18", "missing": "is missing"}
    with pytest.raises(UserError, match=expected.get(damage, r"train\.tfrecord.* is cut short or damaged at byte")):
        convert.add_array_record(path)
    assert not list(path.glob("*train.array_record*"))


def convert_until_damage(file):
    """Return the complete records of a truncated TFRecord file."""
    try:
        yield from convert.read_tfrecord(file)
    except UserError:
        return


# --- smaller copies --------------------------------------------------------------------------------------------


def photograph(height, width, extension=".jpg"):
    """Return a smooth image, for which a reduction by averaging is well defined."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 255 / height, columns * 255 / width, (rows + columns) * 255 / (height + width)], -1)
    return cv2.imencode(extension, pixels.astype(np.uint8))[1].tobytes()


def test_smaller_copy(tmp_path):
    content = {
        "train/a/wide.jpg": photograph(100, 161),
        "train/a/tall.png": photograph(300, 90, ".png"),
        "train/b/exact.jpg": photograph(40, 200),
        "train/b/tiny.png": photograph(5, 3, ".png"),
        "train/b/text.jpg": b"not an image",
    }
    source = tmp_path / "photos"
    for name, data in content.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    prepared = prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"), short_side=40, quality=95)
    copy = prepared.smaller
    assert (copy.name, copy.splits) == ("photos_side40_q95", {"train": 5})
    assert copy.bytes < prepared.bytes
    assert copy.notes[0].startswith("2 of 5 images were reduced to a shorter side of 40; 0.0 MB became 0.0 MB, ")
    assert copy.notes[1] == "1 images cannot be decoded and were copied as they are"
    before, after = (records(tmp_path / "data", name) for name in ("photos", "photos_side40_q95"))
    assert [(r.id, r.label) for r in before] == [(r.id, r.label) for r in after]
    images = {record.id: record.image for record in after}
    for name in ("train/b/exact.jpg", "train/b/tiny.png", "train/b/text.jpg"):
        assert images[name] == content[name]
    for name, size in (("train/a/wide.jpg", (40, 64)), ("train/a/tall.png", (133, 40))):
        pixels = decode(images[name])
        assert pixels.shape[:2] == size
        reference = cv2.resize(decode(content[name]), size[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(pixels.astype(int) - reference).mean() < 2
    again = prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"), short_side=40, quality=95)
    assert again.smaller.how == "already prepared"


def test_reduction_averages():
    """A checkerboard of single pixels becomes grey; a kernel that is not antialiased would keep black and white."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    data = cv2.imencode(".png", np.repeat(board[..., None], 3, -1).astype(np.uint8))[1].tobytes()
    assert np.abs(decode(smaller_copy.reduce(data, 32, 95)).astype(int) - 128).max() <= 2


# --- the archives of ILSVRC 2012 -------------------------------------------------------------------------------


def write_tar(path, names, size=700):
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io.BytesIO(b"x" * size))
    return path


@pytest.fixture
def manual(tmp_path):
    directory = tmp_path / "manual"
    directory.mkdir()
    write_tar(directory / "ILSVRC2012_img_train.tar", [f"n{number:08d}.tar" for number in range(3)])
    write_tar(directory / "ILSVRC2012_img_val.tar", [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 4)])
    return directory


def test_archives_of_other_sizes_are_a_warning(manual):
    notes = archives.check(str(manual))
    assert len(notes) == 4
    assert "3 archives of classes instead of the official 1,000" in notes[0]
    assert "the labels are wrong" in notes[2]
    assert "instead of the official 6,744,924,160" in notes[3]


@pytest.mark.parametrize(
    "length",
    [
        pytest.param(2 * 1536 + 512 + 300, id="in a member"),
        pytest.param(2 * 1536 + 200, id="in a header"),
        pytest.param(3 * 1536, id="before the end mark"),
        pytest.param(0, id="empty"),
    ],
)
def test_archive_cut_short(manual, length):
    """A member of 700 bytes takes 512 of header and 1024 of data."""
    path = manual / "ILSVRC2012_img_val.tar"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"ILSVRC2012_img_val\.tar .* is cut short(.|\n)*md5sum"):
        archives.check(str(manual))


def test_archive_of_something_else(manual):
    write_tar(manual / "ILSVRC2012_img_val.tar", ["readme.txt"])
    with pytest.raises(UserError, match=r"should hold images, and holds readme\.txt"):
        archives.check(str(manual))


def test_archive_still_downloading(manual):
    (manual / "ILSVRC2012_img_val.tar").rename(manual / "ILSVRC2012_img_val.tar.part")
    with pytest.raises(UserError, match=r"\.tar\.part is a download that did not finish"):
        archives.check(str(manual))


def test_archive_elsewhere(manual):
    (manual / "inner").mkdir()
    (manual / "ILSVRC2012_img_train.tar").rename(manual / "inner" / "ILSVRC2012_img_train.tar")
    with pytest.raises(UserError, match=r"but in .*/inner: type --manual_dir=.*/inner"):
        archives.check(str(manual))
    with pytest.raises(UserError, match=r"img_val\.tar is not in .*/inner but in .*manual: type --manual_dir"):
        archives.check(str(manual / "inner"))


@pytest.mark.parametrize("position", ["train", "ILSVRC2012_img_train", "ILSVRC/Data/CLS-LOC/train", "n01440764.tar"])
def test_archive_already_extracted(manual, position):
    (manual / "ILSVRC2012_img_train.tar").unlink()
    (manual / position).mkdir(parents=True)
    with pytest.raises(UserError, match=r"looks like its extracted content(.|\n)*prepare folder:PATH"):
        archives.check(str(manual))


def test_archives_absent(tmp_path):
    with pytest.raises(UserError, match=r"img_train\.tar is not in(.|\n)*147\.9 GB(.|\n)*img_val\.tar is not in"):
        archives.check(str(tmp_path))
    with pytest.raises(UserError, match=r"is not a directory"):
        archives.check(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"register at https://image-net\.org(.|\n)*--manual_dir=DIRECTORY"):
        archives.check(None)


def test_other_archives_than_the_prepared_ones_are_noticed(manual, tmp_path):
    directory = tmp_path / "imagenet2012" / "5.1.0"
    directory.mkdir(parents=True)
    archives.check_same(str(manual), directory)  # nothing is recorded
    archives.record(str(manual), directory)
    archives.check_same(str(manual), directory)
    archives.check_same(str(tmp_path / "elsewhere"), directory)
    write_tar(manual / "ILSVRC2012_img_val.tar", [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 40)])
    with pytest.raises(UserError, match=r"img_val\.tar had 10,240 bytes and has (.|\n)*rm -r"):
        archives.check_same(str(manual), directory)


def test_shared_archives_pass():
    notes = archives.check(str(shared_path("data/ilsvrc2012-mini")))
    assert all("official" in note for note in notes)
