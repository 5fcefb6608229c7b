"""Tests of groups of images: tables, the files of imagenet-x, and the frequency of classes."""

import json
import sys

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import image_groups
from tests.scoring import synthetic_sets
from tests.scoring.synthetic_predictions import from_logits

IDS = ["a/1.jpg", "a/2.jpg", "b/3.jpg"]


@pytest.fixture
def predicted():
    return from_logits(np.eye(3), [0, 1, 2], ids=IDS)


def test_a_table_groups_images_by_a_column(tmp_path, predicted):
    (tmp_path / "t.tsv").write_text("path\tcountry\tnote\na/1.jpg\tNA\tx\na/2.jpg\tDE\t\nb/3.jpg\t\tz\nc.jpg\tFR\t\n")
    groups = image_groups.find("country", str(tmp_path / "t.tsv"), predicted)
    assert groups.by_image == {"a/1.jpg": ("NA",), "a/2.jpg": ("DE",)}  # Namibia is a country, an empty cell is none
    table = pyarrow.table({"file": IDS, "country": ["NA", None, "DE"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    groups = image_groups.find("country", str(tmp_path / "t.parquet"), predicted)
    assert groups.by_image == {"a/1.jpg": ("NA",), "b/3.jpg": ("DE",)}


def test_names_match_where_paths_do_not(tmp_path, predicted):
    (tmp_path / "t.csv").write_text("file,country\n/photos/1.jpg,FR\n/photos/3.jpg,DE\n")
    groups = image_groups.find("country", str(tmp_path / "t.csv"), predicted)
    assert groups.by_image == {"a/1.jpg": ("FR",), "b/3.jpg": ("DE",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,county\na/1.jpg,FR\n", "no column 'country'; did you mean 'county'"),
        ("photo,country\na/1.jpg,FR\n", "no column is that of the files"),
        ("file,path,country\na,b,FR\n", "the columns file, path could all be that of the files"),
        ("file,country\na/1.jpg,FR\na/1.jpg,DE\n", "a/1.jpg has the country FR in one row and DE in another"),
        ("file,country\nz/9.jpg,FR\n", "none of the images of the predictions"),
        ("file,country\nx/1.jpg,FR\ny/1.jpg,DE\n", "several rows are called 1.jpg"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, predicted, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        image_groups.find("country", str(tmp_path / "t.csv"), predicted)


def test_options_that_do_not_go_together_are_refused(tmp_path, predicted):
    with pytest.raises(UserError, match="--by=country needs --table=FILE"):
        image_groups.find("country", "", predicted)
    with pytest.raises(UserError, match="--table does not go with --by=imagenet_x"):
        image_groups.find("imagenet_x", "t.csv", predicted)
    with pytest.raises(UserError, match="cannot be read"):
        image_groups.find("country", str(tmp_path / "absent.csv"), predicted)
    with pytest.raises(UserError, match="needs predictions of a run"):
        image_groups.find("class_frequency", "", predicted)


def test_imagenet_x_is_read_without_its_prototypes_and_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "imagenet_x"
    (package / "annotations").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('it needs PyTorch')")
    rows = [
        {"file_name": "ILSVRC2012_val_1.JPEG", "class": 3, "pose": 1, "partial_view": 1, "one_word": "x"},
        {"file_name": "ILSVRC2012_val_2.JPEG", "class": 3, "pose": 0, "partial_view": 0, "one_word": "1"},
        {"file_name": "ILSVRC2012_val_3.JPEG", "class": 3, "pose": 1, "partial_view": 0, "one_word": ""},
    ]
    text = "\n".join(map(json.dumps, rows))
    (package / "annotations" / "imagenet_x_val_multi_factor.jsonl").write_text(text)
    (package / "annotations" / "prototypical_paths.csv").write_text("file_name\nILSVRC2012_val_3.JPEG\n")
    monkeypatch.syspath_prepend(tmp_path)
    groups = image_groups.of_imagenet_x()
    assert groups.by_image == {"ILSVRC2012_val_1.JPEG": ("pose", "partial view"), "ILSVRC2012_val_2.JPEG": ()}
    assert "imagenet_x" not in sys.modules


def test_an_absent_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps imagenet-x"):
        image_groups.of_imagenet_x()


def test_classes_are_grouped_by_their_training_images(tmp_path):
    labels = [0] * 101 + [1] * 100 + [2] * 20 + [3] * 19
    rows = [(f"{i}.jpg", 0, {"label": label}) for i, label in enumerate(labels)]
    synthetic_sets.write(tmp_path, "mine", "train", rows, classes=list("abcd"))
    data = {"name": "mine", "train_split": "train", "data_dir": str(tmp_path)}
    predicted = from_logits(np.eye(4), range(4), ids=list("wxyz"), config={"data": data}, classes=["a", "b", "c", "d"])
    groups = image_groups.find("class_frequency", "", predicted, lambda text: None)
    many, middle, few = image_groups.FREQUENCIES
    assert groups.by_image == {"w": (many,), "x": (middle,), "y": (middle,), "z": (few,)}
