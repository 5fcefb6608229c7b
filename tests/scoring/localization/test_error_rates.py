import io

import numpy as np
import pytest
from rich.console import Console

from imagenet_repro.errors import UserError
from imagenet_repro.scoring.localization import error_rates
from imagenet_repro.statistics.intervals import binomial_interval
from tests.scoring.localization.annotation_files import random_boxes, write_lines, write_xml

BOX = (100, 100, 199, 199)  # of 100 x 100 pixels
HALF = (100, 100, 199, 149)  # its upper half: an overlap of exactly 0.5
LESS = (100, 100, 199, 148)
AWAY = (300, 300, 350, 350)


def entry(tmp_path, images, guesses, labels, blacklist=()):
    """Write files in the format of the devkit: `images` are lists of (class, box), each guess is (label, box)."""
    for number, objects in enumerate(images, start=1):
        write_xml(tmp_path / "val", f"ILSVRC2012_val_{number:08d}", objects)
    rows = [[value for label, box in row for value in (label, *box)] for row in guesses]
    files = {
        "predictions": write_lines(tmp_path / "p.txt", rows),
        "boxes": tmp_path / "val",
        "labels": write_lines(tmp_path / "labels.txt", [(label,) for label in labels]),
        "classes": write_lines(tmp_path / "classes.txt", [(1, "n1"), (2, "n2"), (3, "n3")]),
    }
    if blacklist:
        files["blacklist"] = write_lines(tmp_path / "blacklist.txt", [(number,) for number in blacklist])
    return files


def wrong(files):
    return [(row.wrong_class, row.wrong, row.wrong_box) for row in error_rates.score(**files).errors]


@pytest.mark.parametrize(
    ("objects", "guesses", "expected"),
    [
        ([("n1", BOX)], [(1, BOX)], (0, 0, 0)),
        ([("n1", BOX)], [(1, HALF)], (0, 0, 0)),  # 0.5 is enough
        ([("n1", BOX)], [(1, LESS)], (0, 1, 1)),
        ([("n1", BOX)], [(2, BOX)], (1, 1, 0)),  # the class is wrong
        ([("n1", AWAY), ("n1", BOX)], [(1, BOX)], (0, 0, 0)),  # any instance
        ([("n1", AWAY), ("n2", BOX)], [(1, BOX)], (0, 1, 1)),  # an instance of another class does not count
        ([("n1", BOX)], [(1, AWAY), (1, BOX)], (0, 0, 0)),  # the class may be guessed again elsewhere
        ([("n1", BOX)], [(1, AWAY), (2, BOX)], (0, 1, 1)),  # class and box must belong to one guess
        ([("n1", BOX)], [(2, AWAY)] * 4 + [(1, BOX)], (0, 0, 0)),
        ([("n1", BOX)], [(2, AWAY)] * 5 + [(1, BOX)], (1, 1, 0)),  # the sixth does not count
        ([("n1", BOX)], [], (1, 1, 0)),  # an empty line
    ],
)
def test_each_rule_of_the_devkit(tmp_path, objects, guesses, expected):
    assert wrong(entry(tmp_path, [objects], [guesses], [1]))[-1] == expected


def test_errors_by_the_number_of_guesses(tmp_path):
    row = [(2, BOX), (1, AWAY), (3, BOX), (1, BOX), (2, BOX)]
    result = wrong(entry(tmp_path, [[("n1", BOX)]], [row], [1]))
    assert result == [(1, 1, 0), (0, 1, 1), (0, 1, 1), (0, 0, 0), (0, 0, 0)]


def test_blacklisted_images_count_for_classification_alone(tmp_path):
    images = [[("n1", BOX)], [], [("n2", BOX)]]  # the second, which is listed, has no box at all
    guesses = [[(1, BOX)], [(3, AWAY)], [(2, AWAY)]]
    files = entry(tmp_path, images, guesses, [1, 1, 2], blacklist=[2])
    card = error_rates.score(**files)
    first = card.errors[0]
    assert (first.wrong_class, first.images) == (1, 3)
    assert (first.wrong, first.wrong_box, first.judged) == (1, 1, 2)
    assert card.notes == ("1 images are on the list of poor boxes; only their class counts.",)
    with pytest.raises(UserError, match="ILSVRC2012_val_00000002, of class 1, has no box of its class"):
        error_rates.score(**{key: value for key, value in files.items() if key != "blacklist"})
    with pytest.raises(UserError, match="there is no image 4 among the 3"):
        error_rates.score(**files | {"blacklist": write_lines(tmp_path / "b.txt", [(4,)])})
    with pytest.raises(UserError, match="lists every image"):
        error_rates.score(**files | {"blacklist": write_lines(tmp_path / "b.txt", [(1,), (2,), (3,)])})


def loops(guesses, boxes, labels, instances):
    """Return e = mean_i min_j max(d_ij, f_ij), computed with loops as in the devkit."""
    total = 0
    for row, corners, label, objects in zip(guesses, boxes, labels, instances, strict=True):
        best = 1
        for guess, one in zip(row, corners, strict=True):
            f = 1
            for other in objects:
                w = min(one[2], other[2]) - max(one[0], other[0]) + 1
                h = min(one[3], other[3]) - max(one[1], other[1]) + 1
                if w > 0 and h > 0:
                    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (one, other)]
                    f = min(f, int(w * h / (sum(areas) - w * h) < 0.5))
            best = min(best, max(int(guess != label), f))
        total += best
    return total


def test_errors_equal_the_formula_as_loops():
    rng = np.random.default_rng(0)
    count = 300
    labels, guesses = rng.integers(0, 4, count), rng.integers(0, 4, (count, 5))
    boxes = random_boxes(rng, 5 * count, side=60, smallest=20, largest=50).reshape(count, 5, 4)
    instances = [random_boxes(rng, rng.integers(1, 4), side=60, smallest=20, largest=50) for _ in range(count)]
    guessed = error_rates.BoxGuesses(guesses, boxes, labels, np.arange(count).astype(str))
    result = error_rates.count_errors(guessed, instances)
    assert 20 < result[0].wrong < 280
    for row in result:
        k = row.guesses
        assert row.wrong == loops(guesses[:, :k], boxes[:, :k], labels, instances)
        assert row.wrong_class == np.sum(~np.any(guesses[:, :k] == labels[:, None], axis=1))
        assert row.wrong == row.wrong_class + row.wrong_box


def test_without_numbers_of_classes_all_objects_must_be_of_one(tmp_path):
    files = entry(tmp_path, [[("n1", BOX)], [("n2", BOX)]], [[(1, BOX)], [(2, AWAY)]], [1, 2])
    files.pop("classes")
    assert wrong(files)[0] == (0, 1, 1)
    write_xml(tmp_path / "val", "ILSVRC2012_val_00000002", [("n2", BOX), ("n3", BOX)])
    with pytest.raises(UserError, match=r"objects of several classes \(n2, n3\); number them with --classes"):
        error_rates.score(**files)
    write_xml(tmp_path / "val", "ILSVRC2012_val_00000002", [("n9", BOX)])
    with pytest.raises(
        UserError, match="ILSVRC2012_val_00000002 has the class 'n9', which is not in the file of --classes"
    ):
        error_rates.score(**files | {"classes": tmp_path / "classes.txt"})


def test_a_list_of_images_assigns_lines_to_images(tmp_path):
    images = [[("n1", BOX)], [("n2", AWAY)], [("n3", BOX)]]
    files = entry(tmp_path, images, [[(2, AWAY)], [(1, BOX)]], [2, 1])
    with pytest.raises(UserError, match=r"p\.txt: 2, .*labels\.txt: 2, the annotated images: 3"):
        error_rates.score(**files)
    listed = write_lines(tmp_path / "val.txt", [("ILSVRC2012_val_00000001", 2), ("ILSVRC2012_val_00000002.JPEG", 1)])
    assert wrong(files | {"images": listed})[0] == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3 4\n", r"p\.txt, line 1: 4 numbers; each guess has 5"),
        ("1 0 0 9 9 2\n", "line 1: 6 numbers"),
        ("1.5 0 0 9 9\n", r"line 1: '1\.5' is not an integer label"),
        ("1 0 0 9 x\n", "line 1, guess 1: '0 0 9 x' is not the four numbers"),
        ("1 0 0 9 9 2 5 0 4 9\n", "line 1, guess 2: the box 5 0 4 9 ends before it begins"),
    ],
)
def test_lines_of_another_form_are_refused(tmp_path, text, message):
    files = entry(tmp_path, [[("n1", BOX)]], [[(1, BOX)]], [1])
    files["predictions"].write_text(text)
    with pytest.raises(UserError, match=message):
        error_rates.score(**files)


def stored(tmp_path, ids=("val/a.JPEG", "val/b.JPEG"), labels=(0, 2)):
    boxes = np.zeros((len(ids), 5, 4), np.int32) + np.array(BOX, np.int32)
    guesses = np.array([[0, 1, 2, 3, 4]] * len(ids), np.int32)
    guessed = error_rates.BoxGuesses(guesses, boxes, np.array(labels, np.int32), np.array(ids), {"step": 7})
    error_rates.save(tmp_path / "new/boxes.npz", guessed)
    return tmp_path / "new/boxes.npz", guessed


def test_stored_boxes_of_a_run_are_scored(tmp_path):
    path, guessed = stored(tmp_path)
    for key in ("id", "label", "top5", "box"):
        np.testing.assert_array_equal(getattr(error_rates.load(path), key), getattr(guessed, key))
    assert error_rates.load(path).provenance == {"step": 7}
    annotated = tmp_path / "boxes.csv"
    annotated.write_text("file,x_min,y_min,x_max,y_max\nb.JPEG,0,0,9,9\nother.JPEG,0,0,9,9\na.JPEG,100,100,199,149\n")
    card = error_rates.score(path, annotated)
    assert [(one.wrong_class, one.wrong, one.wrong_box) for one in card.errors[::2]] == [
        (1, 1, 0),
        (0, 1, 1),
        (0, 1, 1),
    ]
    with pytest.raises(UserError, match="has its own labels; leave out --labels"):
        error_rates.score(path, annotated, labels=annotated)
    poor = write_lines(tmp_path / "poor.txt", [(1,)])
    assert error_rates.score(path, annotated, blacklist=poor).errors[0].judged == 1
    listed = write_lines(tmp_path / "images.txt", [("a", 1)])
    with pytest.raises(UserError, match=r"1 images with guesses are not listed in --images, the first: val/b\.JPEG"):
        error_rates.score(path, annotated, images=listed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box": np.zeros((2, 5, 3), np.int32)}, r"'box' is int32 of shape \(2, 5, 3\)"),
        ({"top5": np.zeros((2, 4), np.int32)}, "'top5' is int32"),
        ({"label": np.zeros(3, np.int32)}, "different numbers of images, or none"),
        ({"id": np.array(["a", "a"])}, "the same id more than once"),
        ({"provenance": np.array("{")}, "is truncated, damaged or not an .npz archive"),
    ],
)
def test_damaged_boxes_are_refused(tmp_path, change, message):
    path, _ = stored(tmp_path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | change)
    with pytest.raises(UserError, match=message):
        error_rates.load(path)


def test_files_without_boxes_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        error_rates.load(tmp_path / "absent.npz")
    np.savez(tmp_path / "other.npz", id=np.array(["a"]))
    with pytest.raises(UserError, match="has no boxes"):
        error_rates.load(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UserError, match="truncated, damaged or not"):
        error_rates.load(tmp_path / "text.npz")


def test_the_printed_table_has_all_error_rates(tmp_path):
    images = [[("n1", BOX)]] * 40
    guesses = [[(1, BOX)]] * 25 + [[(1, AWAY)]] * 10 + [[(2, BOX)]] * 5
    card = error_rates.score(**entry(tmp_path, images, guesses, [1] * 40))
    console = Console(file=io.StringIO(), width=110)
    error_rates.print_score(card, console)
    text = console.file.getvalue()
    assert "localization error with 5 guesses 37.5 %" in text
    assert "(15 of 40 images wrong); 25.0 % have the right class but no right box" in text
    for method in ("wilson", "exact"):
        low, high = binomial_interval(15, 40, method)
        assert f"[{100 * low:.1f}, {100 * high:.1f}]" in text
    assert "12.5" in text  # classification only
    odd = error_rates.score(**entry(tmp_path, images, [[(2, BOX)]] * 40, [1] * 40))
    assert odd.notes == ("no guess names the class of any image: are guesses and labels numbered in the same way?",)


def test_images_are_numbered_by_the_names_of_their_files(tmp_path):
    """Check that the number of a validation image in a blacklist is that of its name, whatever its folder."""
    ids = ("val/n9/ILSVRC2012_val_00000001.JPEG", "val/n1/ILSVRC2012_val_00000002.JPEG")
    path, _ = stored(tmp_path, ids, labels=(0, 4))
    (tmp_path / "boxes.csv").write_text(
        "file,x_min,y_min,x_max,y_max\nILSVRC2012_val_00000001.JPEG,0,0,9,9\n"
        "ILSVRC2012_val_00000002.JPEG,100,100,199,199\n"
    )
    poor = write_lines(tmp_path / "poor.txt", [(1,)])
    assert error_rates.score(path, tmp_path / "boxes.csv", blacklist=poor).errors[-1].wrong == 0
    poor = write_lines(tmp_path / "poor.txt", [(2,)])
    assert error_rates.score(path, tmp_path / "boxes.csv", blacklist=poor).errors[-1].wrong == 1
