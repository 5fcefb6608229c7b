"""Image folders and zips: bytes are stored unchanged, and every problem is named with its remedy."""

import errno
import functools
import io
import os
import re
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from imagenet_repro.config import Data
from imagenet_repro.data.decode import DecodeError, decode
from imagenet_repro.data.prepare import array_record_builder, folder, folder_listing, single_writer
from imagenet_repro.data.prepare.listing import Reader
from imagenet_repro.data.prepare.prepare_dataset import prepare_dataset
from imagenet_repro.data.prepare.zip_archive import ZipArchive
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
        ({"0.jpg": image(0)}, r"1 images are not at SPLIT/CLASS/IMAGE.*: 0\.jpg"),
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


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat ", "dog"], r"1 names of classes cannot be stored: 'cat ' begins or ends with a blank"),
        (["c\nd", "dog"], r"'c\\nd' has a line end or another control character. Rename"),
        ([b"caf\xe9", "dog"], r"'caf\\xe9' is not UTF-8"),
        (["caf\u00e9", "cafe\u0301"], r"the classes 'cafe\\u0301', 'caf\\xe9' have the same name in other Unicode"),
    ],
)
def test_class_names_that_would_not_survive_are_refused(tmp_path, names, message):
    source = write_folder(tmp_path / "pets", {f"{os.fsdecode(name)}/1.jpg": image(0) for name in names})
    (tmp_path / "all").mkdir()
    source.rename(tmp_path / "all" / "train")
    with pytest.raises(UserError, match=message) as error:
        prepare_dataset(f"folder:{tmp_path / 'all'}", data_dir=str(tmp_path / "data"))
    assert str(error.value).isprintable() or "\n" in str(error.value)
    assert not list((tmp_path / "data").glob("*"))


def test_classes_that_differ_in_letter_case_between_splits_are_named(tmp_path):
    content = {"train/Cat/1.jpg": image(0), "train/dog/1.jpg": image(1), "val/cat/1.jpg": image(2)}
    with pytest.raises(UserError, match=r"the classes 'Cat', 'cat' differ in letter case alone"):
        folder_listing.scan(write_folder(tmp_path / "pets", {**content, "val/dog/1.jpg": image(3)}))
    both = {f"train/{label}/1.jpg": image(0) for label in ("Cat", "cat")}
    assert folder_listing.scan(write_folder(tmp_path / "both", both)).classes == ("Cat", "cat")


def test_file_names_that_are_not_utf8_are_refused(tmp_path):
    source = write_folder(tmp_path / "pets", {**files(), os.fsdecode(b"train/cat/\xff\n.jpg"): image(0)})
    with pytest.raises(UserError, match=r"1 names of images are not UTF-8: train/cat/\\xff\\n\.jpg"):
        folder_listing.scan(source)


def test_unusual_class_names_are_stored(tmp_path):
    content = {f"train/{label}/1.jpg": image(0) for label in ("ca\\nt", "猫 שלום", "#hash", "a,b")}
    prepare_dataset(f"folder:{write_folder(tmp_path / 'pets', content)}", data_dir=str(tmp_path / "data"))
    names = open_split(Data(name="pets", data_dir=str(tmp_path / "data")), "train").class_names
    assert names == ("#hash", "a,b", "ca\\nt", "猫 שלום")


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


def test_a_looping_link_is_named_and_not_followed(tmp_path):
    source = write_folder(tmp_path / "pets", files())
    for number in range(20):  # followed, they would lead to 20^40 folders
        (source / "train" / f"loop{number}").symlink_to(source)
        (source / "train" / "cat" / f"up{number}").symlink_to(source / "train")
    with pytest.raises(UserError, match=r"40 files are links to a folder that holds them: train/cat/up0, .*Remove"):
        folder_listing.scan(source)


def test_a_link_inside_a_class_to_a_folder_is_not_followed(tmp_path):
    other = write_folder(tmp_path / "other", {"1.jpg": image(0)})
    source = write_folder(tmp_path / "pets", files())
    (source / "train" / "cat" / "more").symlink_to(other)
    with pytest.raises(
        UserError, match=r"1 files are links to folders inside a class: train/cat/more\. Images belong"
    ):
        folder_listing.scan(source)


def test_a_link_to_a_file_of_the_system_is_never_stored(tmp_path):
    source = write_folder(tmp_path / "pets", files())
    (source / "train" / "cat" / "9.jpg").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match=r"train/cat/9\.jpg is a link to /etc/passwd, which is not an image"):
        prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"))
    assert not list((tmp_path / "data" / "pets").glob("*"))


def test_linked_images_are_stored_even_damaged_ones(tmp_path):
    real = write_folder(tmp_path / "real", {"good.jpg": image(0), "cut.jpg": image(1)[:-40]})
    source = write_folder(tmp_path / "pets", files())
    for path in real.iterdir():
        (source / "train" / "cat" / path.name).symlink_to(path)
    prepared = prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"))
    assert prepared.splits["train"] == 8
    assert "1 images cannot be decoded: train/cat/cut.jpg" in prepared.notes[0]


def test_devices_pipes_and_sockets_are_not_opened(tmp_path):
    source = write_folder(tmp_path / "pets", files())
    os.mkfifo(source / "train" / "cat" / "pipe.jpg")
    (source / "train" / "cat" / "zero.jpg").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"2 files are not files but devices, pipes or sockets: train/cat/pipe\.jpg, "):
        folder_listing.scan(source)
    with pytest.raises(UserError, match="neither a folder nor a zip file"):
        folder_listing.scan(Path("/dev/zero"))


def test_files_that_may_not_be_read_are_named_at_once(tmp_path, monkeypatch):
    source = write_folder(tmp_path / "pets", files())
    secret = source / "train" / "cat" / "0.JPEG"
    secret.chmod(0o600)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: os.fspath(path) != str(secret) and access(path, mode))
    with pytest.raises(UserError, match=r"1 files or folders cannot be read: train/cat/0\.JPEG \(Permission denied\)"):
        folder_listing.scan(source)


def test_a_file_that_becomes_a_pipe_or_grows_is_noticed(tmp_path):
    source = write_folder(tmp_path / "pets", files())
    listing = folder_listing.scan(source)
    first, second = listing.images[:2]
    (source / first.name).unlink()
    os.mkfifo(source / first.name)
    (source / second.name).write_bytes(image(1) * 2)
    with Reader(listing) as reader:
        with pytest.raises(UserError, match="it is no longer a file"):
            reader.content(first)
        with pytest.raises(UserError, match="the folder is being changed"):
            reader.content(second)


def test_huge_files_are_refused_unread(tmp_path):
    source = write_folder(tmp_path / "pets", files())
    with (source / "train" / "cat" / "9.jpg").open("wb") as file:
        file.truncate(3 << 30)  # sparse
    with pytest.raises(UserError, match=r"1 files are larger than 134,217,728 bytes: train/cat/9\.jpg\. No image is"):
        folder_listing.scan(source)


def test_problems_of_members_are_named(tmp_path):
    path = write_zip(
        tmp_path / "pets.zip", {**files(), "../../train/cat/8.jpg": image(0), "/train/cat/7.jpg": image(0)}
    )
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        link = zipfile.ZipInfo("train/cat/9.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError) as error:
        folder_listing.scan(path)
    assert "1 files are symbolic links: train/cat/9.jpg. Pack the files that they lead to" in str(error.value)
    assert "2 files have names that lead out of the archive: ../../train/cat/8.jpg, /train/cat/7.jpg" in str(
        error.value
    )


def test_a_bomb_is_refused(tmp_path):
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/cat/1.jpg", bytes(3_000_000))
    with pytest.raises(UserError, match=r"pets\.zip has .* bytes, and its members would have 3,000,000"):
        prepare_dataset(f"folder:{path}", data_dir=str(tmp_path / "data"))


def test_tar_archives_are_pointed_out(tmp_path):
    source = write_folder(tmp_path / "pets", {"train.tar": b"x", "val.tar.gz": b"y"})
    with pytest.raises(UserError, match=r"Unpack tar archives first \(tar -xf\): train\.tar, val\.tar\.gz"):
        folder_listing.scan(source)


def test_more_images_than_the_disk_holds_are_refused_before_writing(tmp_path, monkeypatch):
    source = write_folder(tmp_path / "pets", files())
    monkeypatch.setattr(single_writer.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(UserError, match=r"pets needs 0\.00\d GB in .*, where 0\.000 GB are free"):
        prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"))
    assert not (tmp_path / "data" / "pets").exists()


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


def damage_member(path, victim):
    """Flip a byte of a stored member of a zip file."""
    data = bytearray(path.read_bytes())
    data[data.find(victim) + 20] ^= 255
    path.write_bytes(bytes(data))


def test_a_damaged_member_is_a_bad_record_until_the_zip_is_repaired(tmp_path):
    content = files()
    path = write_zip(tmp_path / "pets.zip", content)
    whole = path.read_bytes()
    damage_member(path, content["train/dog/1.png"])
    prepare = functools.partial(prepare_dataset, f"folder:{path}", data_dir=str(tmp_path / "data"))
    (note,) = prepare().notes
    assert re.search(r"^1 images cannot be decoded: train/dog/1\.png \(.*pets\.zip: Bad CRC-32", note)
    records = stored(tmp_path / "data", "pets")
    assert records.keys() == content.keys()
    assert {name for name, (image_bytes, *_) in records.items() if image_bytes != content[name]} == {"train/dog/1.png"}
    split = open_split(Data(name="pets", data_dir=str(tmp_path / "data")), "train")
    (bad,) = [record for record in split.records if record.id.endswith("train/dog/1.png")]
    with pytest.raises(DecodeError, match="record of 0 bytes"):
        decode(bad.image)
    assert prepare().how == "already prepared"
    path.write_bytes(whole)
    with pytest.raises(UserError, match="1 images were damaged, and the files are now others"):
        prepare()


def test_a_zip_on_a_disk_that_cannot_be_read_leaves_no_data_set(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "pets.zip", files())

    def fail(archive, member):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(ZipArchive, "_compressed", fail)
    with pytest.raises(UserError, match=r"pets\.zip cannot be read: .*Input/output error"):
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
    read = Reader.read
    monkeypatch.setattr(Reader, "read", lambda self, entry: reads.append(entry) or read(self, entry))
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
