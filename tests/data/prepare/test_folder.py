"""Image folders and zips: bytes are stored unchanged, and every problem is named with its remedy."""

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from imagenet_repro.config import Data
from imagenet_repro.data.prepare import array_record_builder, folder, folder_listing
from imagenet_repro.data.prepare.prepare_dataset import prepare_dataset
from imagenet_repro.data.sources import open_split
from imagenet_repro.errors import UserError
from tests.conftest import shared_path


def image(seed, extension=".jpg"):
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    return cv2.imencode(extension, pixels)[1].tobytes()


def files(splits=("train", "val"), classes=("cat", "dog"), count=3):
    """Return the files of a small data set by name: JPEG and PNG, upper and lower case."""
    endings = [".JPEG", ".png", ".jpg"]
    names = [
        (f"{split}/{label}/{index}{endings[index % 3]}", endings[index % 3])
        for split in splits
        for label in classes
        for index in range(count)
    ]
    return {name: image(i, ending.lower().replace("jpeg", "jpg")) for i, (name, ending) in enumerate(names)}


def write_folder(root, content):
    for name, data in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_zip(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def stored(data_dir, name):
    """Return the bytes and class name of every image in the prepared data set, by file name."""
    result = {}
    for split in ("train", "validation"):
        split_opened = open_split(Data(name=name, data_dir=str(data_dir)), split)
        for index in range(split_opened.num_examples):
            record = split_opened.records[index]
            result[record.id] = (record.image, split_opened.class_names[record.label])
    return result


@pytest.mark.parametrize("kind", ["folder", "zip", "zips"])
def test_every_layout_keeps_every_byte(tmp_path, kind):
    content = files()
    source = tmp_path / "Pets-2"
    if kind == "folder":
        write_folder(source, content)
    elif kind == "zip":
        source = write_zip(tmp_path / "Pets-2.zip", content)
    else:
        source.mkdir()
        train = [name for name in content if name.startswith("train")]
        for number, part in enumerate((train[:2], train[2:], [name for name in content if name not in train])):
            write_zip(source / f"part-{number}.zip", {name: content[name] for name in part})
        (source / "classes.tsv").write_text("cat\tdog\n")
    prepared = prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"))
    assert prepared.name == "pets_2"
    assert prepared.splits == {"train": 6, "validation": 6}
    left_out = ("1 files are not images and were left out: classes.tsv",)
    assert prepared.notes == (left_out if kind == "zips" else ())
    expected = {name: (data, name.split("/")[1]) for name, data in content.items()}
    assert stored(tmp_path / "data", "pets_2") == expected


def test_any_part_of_a_split_is_mixed(tmp_path):
    content = files(classes=("a", "b", "c", "d"), count=30)
    prepare_dataset(f"folder:{write_folder(tmp_path / 'mixed', content)}", data_dir=str(tmp_path / "data"))
    split_opened = open_split(Data(name="mixed", data_dir=str(tmp_path / "data")), "train[:25%]")
    labels = [split_opened.records[index].label for index in range(split_opened.num_examples)]
    assert split_opened.num_examples == 30
    assert set(labels) == {0, 1, 2, 3}


def test_shards_are_cut_by_size(tmp_path, monkeypatch):
    monkeypatch.setattr(array_record_builder, "SHARD_BYTES", 2000)
    content = files(count=8)
    prepared = prepare_dataset(f"folder:{write_folder(tmp_path / 'cut', content)}", data_dir=str(tmp_path / "data"))
    assert len(list(prepared.path.glob("*train.array_record*"))) > 2
    assert {name: data for name, (data, _) in stored(tmp_path / "data", "cut").items()} == content


def test_a_second_preparation_does_nothing_and_another_source_is_refused(tmp_path):
    source = write_folder(tmp_path / "one" / "pets", files())
    first = prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"))
    times = {path: path.stat().st_mtime_ns for path in first.path.iterdir()}
    again = prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"))
    assert (again.how, again.splits) == ("already prepared", first.splits)
    assert {path: path.stat().st_mtime_ns for path in first.path.iterdir()} == times
    other = write_folder(tmp_path / "two" / "pets", files(count=2))
    with pytest.raises(UserError, match=r"another data set(.|\n)*--name=NAME"):
        prepare_dataset(f"folder:{other}", data_dir=str(tmp_path / "data"))
    assert prepare_dataset(f"folder:{other}", data_dir=str(tmp_path / "data"), as_name="pets_two").name == "pets_two"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, r"holds no images at SPLIT/CLASS/IMAGE"),
        ({"cat/0.jpg": image(0)}, r"1 images are not at SPLIT/CLASS/IMAGE.*cat/0\.jpg"),
        ({**files(), "train/cat/images/9.jpg": image(9)}, r"1 images are not at .*train/cat/images/9\.jpg"),
        ({**files(), "train/bird/1.jpg": image(9)}, r"split 'validation' lacks 1 of the 3 classes.*: bird"),
        ({**files(), "train/cat/9.jpg": b""}, r"1 image files are empty \(0 bytes\): train/cat/9\.jpg"),
        ({**files(), "valid/cat/9.jpg": image(9)}, r"the folders val, valid would all become the split 'validation'"),
        ({**files(), "my split/cat/9.jpg": image(9)}, r"'my split' is not a valid name of a split"),
    ],
)
def test_each_problem_is_named(tmp_path, content, message):
    source = write_folder(tmp_path / "broken", content)
    source.mkdir(exist_ok=True)
    with pytest.raises(UserError, match=message):
        folder_listing.scan(source)


def test_all_problems_are_reported_at_once(tmp_path):
    source = write_folder(tmp_path / "broken", {**files(), "train/bird/1.jpg": b"", "4.png": image(0)})
    (source / "train" / "empty").mkdir()
    (source / "test" / "cat").mkdir(parents=True)
    with pytest.raises(UserError) as error:
        folder_listing.scan(source)
    for part in (
        "2 class folders hold no image: test/cat, train/empty",
        "lacks 1 of the 3",
        "0 bytes",
        "1 images are not at",
    ):
        assert part in str(error.value)


def test_zips_beside_their_extracted_folders_are_left_out(tmp_path):
    source = write_folder(tmp_path / "pets", files())
    write_zip(source / "train.zip", {"cat/1.jpg": image(1)})
    listing = folder_listing.scan(source)
    assert len(listing.images) == 12
    assert listing.notes == ("1 files are not images and were left out: train.zip",)


def test_links_are_followed_and_broken_ones_named(tmp_path):
    real = write_folder(tmp_path / "real", files())
    source = tmp_path / "linked"
    (source / "train").mkdir(parents=True)
    (source / "val").symlink_to(real / "val")
    for label in ("cat", "dog"):
        (source / "train" / label).symlink_to(real / "train" / label)
    assert len(folder_listing.scan(source).images) == 12
    (source / "val" / "cat" / "9.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(UserError, match=r"1 files or folders cannot be read: .*9\.jpg"):
        folder_listing.scan(source)


def test_missing_path(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        prepare_dataset(f"folder:{tmp_path}/nowhere", data_dir=str(tmp_path / "data"))


def test_other_files_are_left_out_and_counted(tmp_path):
    content = {
        **files(),
        "train/cat/notes.txt": b"x",
        "readme.md": b"y",
        ".DS_Store": b"z",
        "__MACOSX/a/b/._1.jpg": b"z",
    }
    prepared = prepare_dataset(f"folder:{write_folder(tmp_path / 'pets', content)}", data_dir=str(tmp_path / "data"))
    assert prepared.splits == {"train": 6, "validation": 6}
    assert prepared.notes == ("2 files are not images and were left out: readme.md, train/cat/notes.txt",)


def test_undecodable_images_are_stored_counted_and_named(tmp_path):
    text, cut = b"<html>not found</html>", image(5)[:-40]
    content = {**files(), "train/cat/text.jpg": text, "train/dog/cut.jpg": cut}
    prepared = prepare_dataset(f"folder:{write_folder(tmp_path / 'pets', content)}", data_dir=str(tmp_path / "data"))
    assert len(prepared.notes) == 1
    for part in ("2 images cannot be decoded", "train/cat/text.jpg", "train/dog/cut.jpg (JPEG"):
        assert part in prepared.notes[0]
    assert stored(tmp_path / "data", "pets")["train/cat/text.jpg"][0] == text


def test_zip_cut_short(tmp_path):
    path = write_zip(tmp_path / "pets.zip", files())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"truncated or not a zip file.*\n.*python -m zipfile -t"):
        prepare_dataset(f"folder:{path}", data_dir=str(tmp_path / "data"))


def test_zip_with_a_damaged_member_leaves_no_data_set(tmp_path):
    content = files()
    path = write_zip(tmp_path / "pets.zip", content)
    data = bytearray(path.read_bytes())
    victim = bytes(content["train/dog/1.png"])
    at = data.find(victim)
    data[at + 20] ^= 255
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"train/dog/1\.png in .*pets\.zip cannot be read: Bad CRC-32"):
        prepare_dataset(f"folder:{path}", data_dir=str(tmp_path / "data"))
    assert not list((tmp_path / "data" / "pets").glob("*"))
    with pytest.raises(UserError, match="prepare"):
        open_split(Data(name="pets", data_dir=str(tmp_path / "data")), "train")


def test_the_same_name_in_two_zips_is_refused(tmp_path):
    source = tmp_path / "pets"
    source.mkdir()
    write_zip(source / "a.zip", files())
    write_zip(source / "b.zip", {"train/cat/0.JPEG": image(99)})
    with pytest.raises(
        UserError, match=r"1 file names occur more than once, in .*a\.zip, .*b\.zip: train/cat/0\.JPEG"
    ):
        folder_listing.scan(source)


@pytest.mark.parametrize(
    ("path", "as_name", "name"),
    [("/x/Tiny-ImageNet-100", None, "tiny_imagenet_100"), ("a/b.v2.zip", None, "b_v2"), ("x", "Mine", "mine")],
)
def test_names(path, as_name, name):
    assert folder.data_set_name(Path(path), as_name) == name


@pytest.mark.parametrize("name", ["imagenet2012", "fractal", "1000", "--"])
def test_invalid_names_are_refused(name):
    with pytest.raises(UserError, match="--name"):
        folder.data_set_name(Path("x"), name)


def test_images_are_streamed(tmp_path, monkeypatch):
    """Images are read a bounded number ahead of the writing, not all at once."""
    reads, ahead = [], []
    listing = folder_listing.scan(write_folder(tmp_path / "pets", files(count=60)))
    read = folder_listing.Reader.read
    monkeypatch.setattr(folder_listing.Reader, "read", lambda self, entry: reads.append(entry) or read(self, entry))
    folder.write(listing, "pets", tmp_path, on_progress=lambda: ahead.append(len(reads) - len(ahead)))
    assert len(ahead) == 240
    assert max(ahead) <= 66


def test_shared_zips_of_tiny_imagenet_are_understood():
    listing = folder_listing.scan(shared_path("data/tiny-imagenet-100"))
    assert len(listing.classes) == 100
    counts = {split: sum(entry.split == split for entry in listing.images) for split in ("train", "validation")}
    assert counts == {"train": 50_000, "validation": 5_000}


def test_bytes_of_a_zip_member_equal_the_stored_record(tmp_path):
    source = shared_path("data/tiny-imagenet-100") / "val.zip"
    with zipfile.ZipFile(source) as archive:
        names = [name for name in archive.namelist() if name.startswith("val/n01443537/")][:5]
        content = {name: archive.read(name) for name in names}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as part:
        for name, data in content.items():
            part.writestr(name.replace("val/", "train/"), data)
            part.writestr(name, data)
    (tmp_path / "five.zip").write_bytes(buffer.getvalue())
    prepare_dataset(f"folder:{tmp_path / 'five.zip'}", data_dir=str(tmp_path / "data"))
    result = stored(tmp_path / "data", "five")
    assert {name: result[name][0] for name in names} == content
