"""Tests of image-text pairs: tables with captions, prepared and read back, and what is wrong with them."""

import csv

import numpy as np
import pyarrow
import pytest
import tensorflow_datasets as tfds
from pyarrow import parquet

from imagenet_repro.config import Data, resolve_config
from imagenet_repro.data import pairs
from imagenet_repro.data.prepare.prepare_dataset import prepare_dataset
from imagenet_repro.errors import UserError
from tests.data.prepare.test_folder import image
from tests.scoring import synthetic_sets

ROWS = [("a.jpg", "a dog, on grass"), ("sub/b.jpg", "Tasse ☕"), ("a.jpg", " a brown dog ")]
CAPTIONS = {"a.jpg": ("a dog, on grass", "a brown dog"), "sub/b.jpg": ("Tasse ☕",)}


def write(directory, rows=ROWS, columns=("file", "caption"), kind="csv"):
    (directory / "sub").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(("a.jpg", "sub/b.jpg")):
        (directory / name).write_bytes(image(number))
    path = directory / f"pairs.{kind}"
    if kind == "parquet":
        columns = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
        parquet.write_table(pyarrow.table(columns), path)
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t" if kind == "tsv" else ",").writerows([columns, *rows])
    return path


def prepare(path, data_dir, **options):
    return prepare_dataset(f"folder:{path}", data_dir=str(data_dir), as_name="my_pairs", **options)


def read(data_dir, split="train", name="my_pairs", feature="captions"):
    opened = pairs.open_pairs(Data(name=name, data_dir=str(data_dir)), split, feature)
    return {opened.records[i].id: opened.records[i].captions for i in range(opened.num_examples)}


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_captions_of_a_table_come_back(tmp_path, kind, capsys):
    path = write(tmp_path / "source", kind=kind)
    assert prepare(path, tmp_path / "data").splits == {"train": 2}
    assert f"a table of files and captions (pairs.{kind}): 3 captions, 2 images" in capsys.readouterr().err
    assert read(tmp_path / "data") == CAPTIONS
    split = pairs.open_pairs(Data(name="my_pairs", data_dir=str(tmp_path / "data")), "train", "captions")
    contents = {record.id: record.image for record in map(split.records.__getitem__, range(2))}
    assert contents == {"a.jpg": image(0), "sub/b.jpg": image(1)}
    assert {record.label for record in map(split.records.__getitem__, range(2))} == {-1}


def test_a_changed_caption_is_noticed(tmp_path):
    path = write(tmp_path / "source")
    prepare(path, tmp_path / "data")
    assert prepare(path, tmp_path / "data").how == "already prepared"
    write(tmp_path / "source", [*ROWS[:2], ("a.jpg", "a cat")])
    with pytest.raises(UserError, match="images have other captions"):
        prepare(path, tmp_path / "data")
    prepare(path, tmp_path / "data", overwrite=True)
    assert read(tmp_path / "data")["a.jpg"] == ("a dog, on grass", "a cat")


def test_columns_and_splits_are_named(tmp_path):
    rows = [(*ROWS[0], "train"), (*ROWS[1], "val"), (*ROWS[2], "train")]
    path = write(tmp_path / "source", rows, ("photo", "words", "subset"))
    assert prepare(path, tmp_path / "data", columns="file=photo,caption=words").splits == {
        "train": 2 - 1,
        "validation": 1,
    }
    assert read(tmp_path / "data", "validation") == {"sub/b.jpg": CAPTIONS["sub/b.jpg"]}


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (
            [*ROWS, ("a.jpg", " "), ("sub/b.jpg", "")],
            ("file", "caption"),
            "2 rows have an empty caption, in lines 5, 6",
        ),
        ([("c.jpg", "a cup")], ("file", "text"), "1 files or folders cannot be read"),
        (
            [("a.jpg", "x", "train"), ("a.jpg", "y", "test")],
            ("file", "caption", "split"),
            "1 files are in several splits",
        ),
    ],
)
def test_problems_of_captions_are_named(tmp_path, rows, columns, message):
    with pytest.raises(UserError, match=message):
        prepare(write(tmp_path / "source", rows, columns), tmp_path / "data")


def test_texts_of_tfds_data_sets_are_found_by_name(tmp_path):
    class PhotosWithTexts(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """The features of coco_captions that matter here."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            captions = tfds.features.Sequence({"id": tfds.features.Scalar(np.int64), "text": tfds.features.Text()})
            features = {"image": tfds.features.Image(), "image/filename": tfds.features.Text(), "captions": captions}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            captions = [{"id": 1, "text": "a dog"}, {"id": 2, "text": "a brown dog"}]
            yield 0, {"image": image(0), "image/filename": "a.jpg", "captions": captions}

    tfds.display_progress_bar(False)
    PhotosWithTexts(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    assert read(tmp_path, name="photos_with_texts", feature="captions/text") == {"a.jpg": ("a dog", "a brown dog")}
    with pytest.raises(UserError, match="no text 'captions'; its texts are: captions/text, image/filename"):
        read(tmp_path, name="photos_with_texts")


def test_a_run_has_the_pairs_of_one_data_set_and_the_classes_of_another(tmp_path):
    prepare(write(tmp_path / "source"), tmp_path)
    rows = [(f"{i}.png", i, {"label": i % 2}) for i in range(4)]
    synthetic_sets.write(tmp_path, "pets", "validation", rows, classes=("cat", "dog"))
    data = {"name": "pets", "data_dir": str(tmp_path)}
    splits = pairs.open_splits(resolve_config({"data": data, "captions": {"name": "stored", "data": "my_pairs"}}))
    assert (splits.train.name, splits.train.num_examples, splits.train.class_names) == ("my_pairs", 2, ("cat", "dog"))
    assert (splits.scored.name, splits.scored.num_examples) == ("pets", 4)
