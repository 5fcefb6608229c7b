import numpy as np
import pytest
from scipy.io import savemat

from imagenet_repro.errors import UserError
from imagenet_repro.scoring.localization import annotations
from tests.conftest import shared_path
from tests.scoring.localization.annotation_files import write_lines, write_xml


def synsets(path, number="ILSVRC2015_DET_ID", ids=("n02672831", "n02691156", "n02219486")):
    """Write the devkit's meta file, a struct array `synsets`; return its path."""
    kinds = [(number, "O"), ("WNID", "O"), ("name", "O")]
    entries = np.array([[(i, one, f"name {i}") for i, one in enumerate(ids, start=1)]], dtype=kinds)
    savemat(path, {"synsets": entries})
    return path


def test_xml_of_the_archives_is_read(tmp_path):
    write_xml(tmp_path / "n01440764", "n01440764_18", [("n01440764", (10, 20, 30, 40)), ("n01440764", (0, 0, 5, 5))])
    write_xml(tmp_path / "n01443537", "n01443537_2", [])
    result = annotations.read(tmp_path)
    assert set(result) == {"n01440764_18", "n01443537_2"}
    assert result["n01440764_18"].classes == ("n01440764", "n01440764")
    np.testing.assert_array_equal(result["n01440764_18"].boxes, [(10, 20, 30, 40), (0, 0, 5, 5)])
    assert result["n01443537_2"].boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", "is not XML"),
        ("<html></html>", "is not an annotation of PASCAL VOC: it begins with <html>"),
        ("<annotation><object><bndbox/></object></annotation>", "an object has no name"),
        ("<annotation><object><name>n1</name></object></annotation>", "the box of n1: '   ' is not the four numbers"),
        (
            "<annotation><object><name>n1</name><bndbox><xmin>5</xmin><ymin>0</ymin><xmax>4</xmax><ymax>9</ymax>"
            "</bndbox></object></annotation>",
            "the box of n1: the box 5 0 4 9 ends before it begins",
        ),
    ],
)
def test_xml_of_another_form_is_refused(tmp_path, text, message):
    (tmp_path / "x.xml").write_text(text)
    with pytest.raises(UserError, match=message):
        annotations.read(tmp_path)


def test_folders_without_or_with_ambiguous_annotations_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no"):
        annotations.read(tmp_path)
    for folder in ("a", "b"):
        write_xml(tmp_path / folder, "same", [])
    with pytest.raises(UserError, match=r"several annotations of same, the second one in .*b$"):
        annotations.read(tmp_path)


def test_csv_of_tiny_imagenet_is_read():
    result = annotations.read(shared_path("data/tiny-imagenet-100/boxes.csv"))
    assert len(result) == 55_000
    np.testing.assert_array_equal(result["n01443537_0"].boxes, [(0, 10, 63, 58)])
    assert result["n01443537_0"].classes == ("",)


def test_columns_in_any_order_and_several_boxes_are_read(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("class,y_max,x_min,y_min,x_max,file\nn2,4,1,2,3.5,d/a.png\nn1,9,0,0,9,d/a.png\n,1,1,1,1,b.png\n")
    result = annotations.read(path)
    assert result["d/a"].classes == ("n2", "n1")
    np.testing.assert_array_equal(result["d/a"].boxes, [(1, 2, 3.5, 4), (0, 0, 9, 9)])
    assert result["b"].classes == ("",)


HEAD = "split,file,x_min,y_min,x_max,y_max\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,x,y\n", "first line lacks the columns x_min, y_min, x_max, y_max; it has file, x, y"),
        (HEAD, "holds no box"),
        (HEAD + "train,a.png,1,2,3,4\nval,a.png,1,2,3,4\n", "line 3: a.png and train/a.png have the same name"),
        (HEAD + "train,a.png,1,2,3\n", r"line 2: '1 2 3 ' is not the four numbers"),
        (HEAD + "train,a.png,1,2,x,4\n", "line 2: '1 2 x 4' is not"),
        (HEAD + "train,a.png,1,2,nan,4\n", "line 2: the box 1 2 nan 4 ends before it begins, or is not finite"),
        (HEAD + "train,,1,2,3,4\n", "line 2: no file is named"),
    ],
)
def test_csv_of_another_form_is_refused(tmp_path, text, message):
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        annotations.read(tmp_path / "boxes.csv")


@pytest.mark.parametrize("number", ["ILSVRC2012_ID", "ILSVRC2015_DET_ID", "ILSVRC2014_ID"])
def test_the_devkits_classes_are_read(tmp_path, number):
    result = annotations.read_classes(synsets(tmp_path / "meta.mat", number))
    assert result == {"n02672831": 1, "n02691156": 2, "n02219486": 3}


def test_classes_are_read_from_text(tmp_path):
    path = write_lines(tmp_path / "classes.txt", [(0, "n01440764", "tench"), (7, "n01443537")])
    assert annotations.read_classes(path) == {"n01440764": 0, "n01443537": 7}
    for rows, message in (
        ([(0, "n1"), (0, "n2")], "the number 0 occurs more than once"),
        ([(0, "n1"), (1, "n1")], "the class n1 occurs more than once"),
        ([(0, "n1"), (1,)], "line 2: expected 'NUMBER ID'"),
        ([("n1", 0)], "line 1: 'n1' is not an integer"),
    ):
        with pytest.raises(UserError, match=message):
            annotations.read_classes(write_lines(path, rows))


def test_meta_files_of_another_form_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        annotations.read_classes(tmp_path / "absent.mat")
    (tmp_path / "text.mat").write_text("1 n02119789\n")
    with pytest.raises(UserError, match="is not the challenge's meta file"):
        annotations.read_classes(tmp_path / "text.mat")
    savemat(tmp_path / "other.mat", {"cost_matrix": np.eye(3)})
    with pytest.raises(UserError, match="is not the challenge's meta file"):
        annotations.read_classes(tmp_path / "other.mat")


def test_lists_of_images_are_read(tmp_path):
    path = tmp_path / "val.txt"
    assert annotations.read_images(write_lines(path, [("val/a.JPEG", 4), ("b", 2)])) == {"val/a": 4, "b": 2}
    assert annotations.read_images(write_lines(path, [("b",), ("a",)])) == {"b": 1, "a": 2}
    for rows, message in (
        ([("a", 1), ("a.JPEG", 2)], "line 2: the image a or its number 2 occurs a second time"),
        ([("a", 1), ("b", 1)], "line 2: the image b or its number 1 occurs"),
        ([("a", 1, 2)], "line 1: expected 'NAME' or 'NAME NUMBER'"),
        ([("a", "x")], "line 1: 'x' is not an integer"),
    ):
        with pytest.raises(UserError, match=message):
            annotations.read_images(write_lines(path, rows))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("val/n01443537/val_68.JPEG", 1),
        ("n01440764_18.JPEG", 2),
        ("train/n01440764/n01440764_18.JPEG", 2),
        ("validation/ifs_001/00000.jpg", 3),  # the folders must match
        ("train/ifs_001/00000.jpg", None),
        ("validation/b.v2", 4),  # not the extension of an image
        ("ifs_001/00000.jpg", None),
        ("18.JPEG", None),  # parts of the path must match completely
    ],
)
def test_records_are_matched_to_images(path, expected):
    names = {"val_68": 1, "n01440764_18": 2, "validation/ifs_001/00000": 3, "b.v2": 4}
    assert annotations.lookup(names, path) == expected
