"""A source that changes after it was prepared: `prepare` refuses it with the difference, and training says so."""

import json
import os
import shutil

import pytest

from imagenet_repro.config import Data
from imagenet_repro.data.prepare import fingerprint, folder_listing
from imagenet_repro.data.prepare.listing import Reader
from imagenet_repro.data.prepare.prepare_dataset import prepare_dataset
from imagenet_repro.data.sources import open_split
from imagenet_repro.errors import UserError
from tests.data.prepare.test_folder import files, image, write_folder, write_zip


@pytest.fixture
def pets(tmp_path):
    """Return a folder and a function that prepares it."""
    source = write_folder(tmp_path / "pets", files())

    def prepare(**options):
        return prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"), **options)

    prepare()
    return source, prepare


def add_class(source):
    write_folder(source, {"train/bird/1.jpg": image(9), "val/bird/1.jpg": image(9)})


def swap(source):
    """Exchange two images of equal size, without changing the time of a file."""
    one, other = source / "train/cat/0.JPEG", source / "train/dog/0.JPEG"
    other.write_bytes(image(77))
    size = max(one.stat().st_size, other.stat().st_size)
    for path in (one, other):  # bytes after the end of a JPEG are allowed
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))


def exchange(source):
    one, other, aside = source / "train/cat/0.JPEG", source / "train/dog/0.JPEG", source / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (add_class, "1 class was added: bird"),
        (lambda source: [shutil.rmtree(path) for path in source.glob("*/dog")], "1 class was removed: dog"),
        (
            lambda source: (source / "train/cat/9.jpg").write_bytes(image(9)),
            "train/cat had 3 images and has 4",
        ),
        (
            lambda source: (source / "train/cat/2.jpg").unlink(),
            "train/cat had 3 images and has 2",
        ),
        (
            lambda source: (source / "train/cat/2.jpg").rename(source / "train/cat/5.jpg"),
            "images have other names or sizes",
        ),
        (
            lambda source: (source / "train/cat/2.jpg").write_bytes(image(99)),
            "images have other names or sizes",
        ),
    ],
)
def test_every_change_is_refused_and_named(pets, change, difference):
    source, prepare = pets
    change(source)
    with pytest.raises(
        UserError, match=f"pets has changed since .*:\n- {difference}(.|\n)*--overwrite(.|\n)*--name=NAME"
    ):
        prepare()
    assert prepare(as_name="others").how == "read from a folder"


def test_images_of_equal_sizes_that_changed_places_are_noticed(tmp_path):
    source = write_folder(tmp_path / "pets", files())
    swap(source)
    prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"))
    exchange(source)
    with pytest.raises(UserError, match="images of the same names and sizes have other contents"):
        prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"))


def test_the_same_images_with_other_times_are_the_same(pets, monkeypatch):
    """As after a copy."""
    source, prepare = pets
    for path in source.rglob("*"):
        os.utime(path, (1, 1))
    assert prepare().how == "already prepared"
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "content", None)
        assert prepare().how == "already prepared"  # from the record, without reading the images again


def test_a_zip_is_compared_by_its_checksums(tmp_path):
    content = files()
    path = write_zip(tmp_path / "pets.zip", content)
    prepare_dataset(f"folder:{path}", data_dir=str(tmp_path / "data"))
    os.utime(path, (1, 1))
    assert prepare_dataset(f"folder:{path}", data_dir=str(tmp_path / "data")).how == "already prepared"
    name = "train/cat/0.JPEG"
    write_zip(path, {**content, name: content[name][:-1] + b"\0"})
    with pytest.raises(UserError, match="have other contents"):
        prepare_dataset(f"folder:{path}", data_dir=str(tmp_path / "data"))


def test_a_data_set_without_a_record_is_compared_by_classes_and_numbers(pets, tmp_path):
    source, prepare = pets
    (tmp_path / "data" / "pets" / "1.0.0" / fingerprint.FILE).unlink()
    assert prepare().how == "already prepared"
    (source / "train/cat/9.jpg").write_bytes(image(9))
    with pytest.raises(UserError, match="split train had 6 images and has 7"):
        prepare()


@pytest.mark.parametrize("damage", ["{", "[]", '{"imagenet_repro_source": {"path": 1}}'])
def test_a_damaged_record_is_named(pets, tmp_path, damage):
    (tmp_path / "data" / "pets" / "1.0.0" / fingerprint.FILE).write_text(damage)
    with pytest.raises(UserError, match=r"metadata\.json is (damaged|not what prepare writes)"):
        pets[1]()


def test_a_source_that_is_gone_is_not_compared(pets):
    source, prepare = pets
    shutil.rmtree(source)
    again = prepare()
    assert again.how == "already prepared"
    assert again.notes == (f"{source} is no longer there, so it was not compared",)


def test_a_smaller_copy_of_other_images_is_refused(pets, tmp_path):
    source, prepare = pets
    prepare(short_side=8)
    assert prepare(short_side=8).smaller.how == "already prepared"
    shutil.rmtree(tmp_path / "data" / "pets")
    add_class(source)
    with pytest.raises(UserError, match=r"pets_side8_q90/1\.0\.0 is a copy of another pets(.|\n)*rm -r"):
        prepare(short_side=8)


def test_training_says_that_the_source_has_changed(pets, tmp_path, capsys):
    source, prepare = pets
    prepare(short_side=8)
    splits = [
        open_split(Data(name=name, data_dir=str(tmp_path / "data")), "train") for name in ("pets", "pets_side8_q90")
    ]
    capsys.readouterr()
    for split in splits:
        fingerprint.say_what_changed(split)
    assert capsys.readouterr().err == ""
    (source / "train" / "cat" / ".thumbnails").touch()  # no image: the listing is the same
    for split in splits:
        fingerprint.say_what_changed(split)
    assert capsys.readouterr().err == ""
    add_class(source)
    for split in splits:
        fingerprint.say_what_changed(split)
        message = capsys.readouterr().err
        assert f"{source} may have changed since" in message
        assert "- 1 class was added: bird\n" in message
        assert f"prepare folder:{source} --name=pets --data_dir={tmp_path / 'data'} --overwrite\n" in message
    shutil.rmtree(source)
    fingerprint.say_what_changed(splits[0])
    assert capsys.readouterr().err == ""


def test_the_record_is_tfds_metadata(pets, tmp_path):
    source, _ = pets
    recorded = json.loads((tmp_path / "data" / "pets" / "1.0.0" / "metadata.json").read_text())[fingerprint.SOURCE]
    assert recorded["images"] == {"train": {"cat": 3, "dog": 3}, "validation": {"cat": 3, "dog": 3}}
    listing = folder_listing.scan(source)
    digests = {key: recorded[key] for key in ("sizes", "times", "folders")}
    assert digests == {key: fingerprint.record(listing, "pets")[key] for key in digests}


def test_the_start_of_a_run_names_new_files_and_classes_and_repeats_the_options(tmp_path):
    content = {f"{label}/{number}.jpg": image(number) for label in ("cat", "dog") for number in range(4)}
    source, directory = write_folder(tmp_path / "pets", content), tmp_path / "data" / "pets" / "1.0.0"
    prepare_dataset(f"folder:{source}", data_dir=str(tmp_path / "data"), holdout="25%", holdout_seed=2)
    assert fingerprint.note(directory) == ""
    write_folder(source, {f"bird/{number}.jpg": image(number) for number in range(2)} | {"cat/9.jpg": image(9)})
    lines = fingerprint.note(directory).splitlines()
    assert lines[0] == f"{source} may have changed since {directory} was prepared from it:"
    assert lines[1] == "- 1 class was added: bird"
    assert any(line.startswith("- ") and "/cat had " in line for line in lines[2:])
    assert lines[-1].endswith(f"--data_dir={tmp_path / 'data'} --holdout=25% --holdout_seed=2 --overwrite")
    write_folder(source, {"lone/1.jpg": image(1)})
    assert "it cannot be prepared as it is now (1 classes have one image each" in fingerprint.note(directory)
    shutil.rmtree(source)
    assert fingerprint.note(directory) == ""


def test_images_that_were_written_again_are_remarked_without_reading_them(pets, tmp_path, monkeypatch):
    source, _ = pets
    directory = tmp_path / "data" / "pets" / "1.0.0"
    os.utime(source / "train/cat/0.JPEG", (1, 1))
    monkeypatch.setattr(Reader, "content", None)
    assert "- images were written since, with the same names and sizes" in fingerprint.note(directory)
    monkeypatch.setattr(fingerprint, "_MAX_LISTED", 1)  # too many: folders alone are looked at
    assert fingerprint.note(directory) == ""
    (source / "train/cat/8.jpg").write_bytes(image(8))
    assert "- train/cat had 3 images and has 4" in fingerprint.note(directory)
