import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from sklearn.metrics import average_precision_score

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import detection
from imagenet_repro.scoring.localization.boxes import edges, to_coco
from tests.scoring.localization.annotation_files import random_boxes, write_lines, write_xml

BOX, AWAY = (100, 100, 199, 199), (300, 300, 399, 399)


def entry(tmp_path, images, detections, blacklist=()):
    """Write files in the format of the devkit.

    `images` are lists of (class, box), detections are (image, class, confidence, box).
    """
    for number, objects in enumerate(images, start=1):
        write_xml(tmp_path / "val", f"ILSVRC2012_val_{number:08d}", objects)
    files = {
        "entries": [write_lines(tmp_path / "p.txt", [(*head, *box) for *head, box in detections])],
        "boxes": tmp_path / "val",
        "classes": write_lines(tmp_path / "classes.txt", [(1, "n1"), (2, "n2"), (3, "n3")]),
    }
    if blacklist:
        files["blacklist"] = write_lines(tmp_path / "blacklist.txt", blacklist)
    return files


def precisions(files):
    return [one.average_precision for one in detection.score(**files).categories[0]]


def shifted(box, pixels):
    return (box[0] + pixels, box[1], box[2] + pixels, box[3])


@pytest.mark.parametrize(
    ("objects", "detections", "expected"),
    [
        ([("n1", BOX)], [(1, 1, 0.9, BOX)], 1.0),
        ([("n1", BOX)], [(1, 1, 0.9, (100, 100, 199, 149))], 1.0),  # exactly 0.5
        ([("n1", BOX)], [(1, 1, 0.9, (100, 100, 199, 148))], 0.0),
        ([("n1", BOX)], [(1, 2, 0.9, BOX)], 0.0),  # of another class
        ([("n1", BOX)], [(1, 1, 0.9, BOX), (1, 1, 0.8, BOX)], 1.0),  # a duplicate, after all are found
        ([("n1", BOX)], [(1, 1, 0.9, AWAY), (1, 1, 0.8, BOX)], 0.5),
        ([("n1", BOX)], [(1, 1, 0.8, BOX), (1, 1, 0.9, AWAY)], 0.5),  # ordered by confidence, not as in the file
        # The duplicate counts as wrong: precision is 1, 1/2, 2/3 at recall 1/2, 1/2, 1.
        ([("n1", BOX), ("n1", AWAY)], [(1, 1, 0.9, BOX), (1, 1, 0.8, BOX), (1, 1, 0.7, AWAY)], 1 / 2 + 1 / 2 * 2 / 3),
        ([("n1", BOX), ("n1", AWAY)], [(1, 1, 0.9, BOX)], 0.5),  # one object is not found
        # A second detection finds the other object that it overlaps, since the first one is taken.
        ([("n1", BOX), ("n1", shifted(BOX, 10))], [(1, 1, 0.9, BOX), (1, 1, 0.8, BOX)], 1.0),
        # The object with the largest overlap is found, although another precedes it.
        ([("n1", shifted(BOX, 30)), ("n1", BOX)], [(1, 1, 0.9, BOX), (1, 1, 0.8, shifted(BOX, 60))], 1.0),
    ],
)
def test_each_rule_of_the_devkit(tmp_path, objects, detections, expected):
    assert precisions(entry(tmp_path, [objects], detections))[0] == pytest.approx(expected)


def test_small_objects_are_found_with_less_overlap():
    sides = [(1, 1), (10, 10), (10, 24), (24, 24), (25, 25), (500, 2), (300, 300)]
    result = detection.thresholds(np.array([(7, 3, 7 + w - 1, 3 + h - 1) for w, h in sides]))
    np.testing.assert_allclose(result, [min(0.5, w * h / ((w + 10) * (h + 10))) for w, h in sides])
    assert result[3] < 0.5 == result[4]


@pytest.mark.parametrize(("side", "precision"), [(20, 1.0), (21, 0.0)])
def test_a_small_object_in_a_box_twice_as_wide(tmp_path, side, precision):
    """Check the devkit's example: 10 x 10 pixels in 20 x 20, whose overlap of 0.25 is the threshold."""
    small, large = (50, 50, 59, 59), (45, 45, 45 + side - 1, 64)
    assert precisions(entry(tmp_path, [[("n1", small)]], [(1, 1, 0.5, large)]))[0] == precision


def test_a_blacklisted_class_is_neither_object_nor_detection(tmp_path):
    images = [[("n1", BOX), ("n2", AWAY)], [("n1", BOX)]]
    detections = [(1, 1, 0.9, AWAY), (2, 1, 0.8, BOX), (1, 2, 0.7, AWAY)]
    files = entry(tmp_path, images, detections)
    assert precisions(files)[:2] == [0.25, 1.0]
    listed = files | {"blacklist": write_lines(tmp_path / "b.txt", [(1, "n1")])}
    card = detection.score(**listed)
    assert [(one.objects, one.detections, one.right, one.average_precision) for one in card.categories[0][:2]] == [
        (1, 1, 1, 1.0),
        (1, 1, 1, 1.0),
    ]
    assert "1 pairs of image and class are blacklisted." in card.notes
    for row in [(3, "n1"), (1, "n4"), (1,)]:
        with pytest.raises(UserError, match=r"b\.txt, line 1: '.*' is not the number of an image and the id"):
            detection.score(**files | {"blacklist": write_lines(tmp_path / "b.txt", [row])})


def test_equal_confidences_keep_the_order_of_images_then_of_the_file(tmp_path):
    images = [[("n1", BOX)], [("n1", BOX)]]
    detections = [(2, 1, 0.5, AWAY), (2, 1, 0.5, BOX), (1, 1, 0.5, BOX)]
    # In this order: right in image 1, then wrong and right in image 2.
    assert precisions(entry(tmp_path, images, detections))[0] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_area_under_the_curve_by_hand():
    """Score seven detections of 5 objects, right as 1, 0, 1, 1, 0, 0, 1: the curve's steps add up to the area."""
    right = np.array([1, 0, 1, 1, 0, 0, 1], bool)
    precision, recall = detection.precision_recall(right, 5)
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3, 3 / 4, 3 / 5, 3 / 6, 4 / 7])
    np.testing.assert_allclose(recall, [0.2, 0.2, 0.4, 0.6, 0.6, 0.6, 0.8])
    assert detection.average_precision(precision, recall) == pytest.approx(0.2 * (1 + 3 / 4 + 3 / 4 + 4 / 7))
    # Without the monotone precision it is scikit-learn's, if every object is found.
    raw = np.sum(np.diff(recall, prepend=0) * precision) * 5 / 4
    assert raw == pytest.approx(average_precision_score(right, np.arange(7, 0, -1)))
    assert detection.average_precision(np.zeros(0), np.zeros(0)) == 0


def random_detections(count=40, seed=0):
    """Return images with objects of three classes and at least 25 x 25 pixels, and detections near and far."""
    rng = np.random.default_rng(seed)
    image, category, box = [], [], []
    for number in range(1, count + 1):
        many = rng.integers(0, 6)
        image += [number] * many
        category += rng.integers(1, 4, many).tolist()
        box.append(random_boxes(rng, many, smallest=25, largest=150))
    objects = detection.DetectionBoxes(np.array(image), np.array(category), np.concatenate(box))
    near = np.repeat(np.arange(len(objects)), 3)
    moved = objects.box[near] + rng.integers(-14, 15, (len(near), 4))
    far = random_boxes(rng, 150, smallest=25, largest=150)
    detections = detection.DetectionBoxes(
        np.concatenate([objects.image[near], rng.integers(1, count + 1, 150)]),
        np.concatenate([objects.category[near], rng.integers(1, 4, 150)]),
        np.concatenate([moved, far]),
    )
    return objects, detections, rng.permutation(len(detections)) / len(detections)


def coco_evaluated(objects, detections, confidence):
    """Evaluate the same boxes with pycocotools, with an overlap of 0.5 and without limits."""
    truth, images = COCO(), sorted({*objects.image.tolist(), *detections.image.tolist()})
    truth.dataset = {
        "images": [{"id": number} for number in images],
        "categories": [{"id": number} for number in (1, 2, 3)],
        "annotations": [
            {"id": i, "image_id": n, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
            for i, (n, c, b) in enumerate(columns(objects), start=1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        result = truth.loadRes(
            [
                {"image_id": n, "category_id": c, "bbox": b, "score": s}
                for (n, c, b), s in zip(columns(detections), confidence.tolist(), strict=True)
            ]
        )
        run = COCOeval(truth, result, "bbox")
        run.params.iouThrs, run.params.maxDets = np.array([0.5]), [1000]
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.evaluate()
        run.accumulate()
    return run.eval["precision"][0, :, :, 0, 0], run.eval["recall"][0, :, 0, 0], run.params.recThrs  # [r, k], [k], [r]


def columns(boxes):
    return zip(boxes.image.tolist(), boxes.category.tolist(), to_coco(edges(boxes.box)).tolist(), strict=True)


@pytest.mark.parametrize("seed", range(3))
def test_large_objects_agree_with_pycocotools(seed):
    objects, detections, confidence = random_detections(seed=seed)
    assert np.all(detection.thresholds(objects.box) == 0.5)
    expected, last_recall, levels = coco_evaluated(objects, detections, confidence)
    order, right = detection.match_detections(detections, confidence, objects)
    ours = detection.score_classes(detections, confidence, objects, {1: "n1", 2: "n2", 3: "n3"})
    assert 0.2 < np.mean([one.average_precision for one in ours]) < 0.9
    for number, one in enumerate(ours):
        hits = right[detections.category[order] == number + 1]
        precision, recall = detection.precision_recall(hits, one.objects)
        assert one.right / one.objects == pytest.approx(last_recall[number])
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
        at_levels = envelope[np.searchsorted(recall, levels)]  # COCO's interpolation of our curve
        np.testing.assert_allclose(at_levels, expected[:, number], atol=1e-12)
        # The mean of a decreasing function at 101 points, ends included, is within 1/101 of its area.
        assert one.average_precision == pytest.approx(expected[:, number].mean(), abs=1 / 101)


def test_small_objects_do_not_agree_with_pycocotools():
    """Use objects of 10 x 10 pixels in boxes of 20 x 20, which count as found for the challenge but not for COCO."""
    corner = np.array([(20 * n, 20 * n) for n in range(1, 9)])
    ones = np.ones(8, np.int64)
    objects = detection.DetectionBoxes(ones, ones, np.concatenate([corner + 5, corner + 14], axis=1))
    around = detection.DetectionBoxes(ones, ones, np.concatenate([corner, corner + 19], axis=1))
    confidence = np.linspace(0.1, 0.9, 8)
    (ours,) = detection.score_classes(around, confidence, objects, {1: "n1"})
    assert (ours.right, ours.average_precision) == (8, 1.0)
    assert coco_evaluated(objects, around, confidence)[1][0] == 0


def test_the_entry_that_wins_more_classes_is_named(tmp_path):
    images = [[("n1", BOX), ("n2", BOX)], [("n1", BOX)]]
    files = entry(tmp_path, images, [(1, 1, 0.9, BOX), (2, 1, 0.9, BOX), (1, 2, 0.9, BOX)])
    other = write_lines(tmp_path / "q.txt", [(1, 1, 0.9, *BOX), (1, 2, 0.9, *BOX)])
    card = detection.score(**files | {"entries": [files["entries"][0], other]})
    assert card.won() == (1, 0)
    np.testing.assert_allclose(card.average_precisions(), [[1, 1, np.nan], [0.5, 1, np.nan]])
    console = Console(file=io.StringIO(), width=110)
    detection.print_score(card, console)
    text = " ".join(console.file.getvalue().split())
    assert "classes won: p.txt 1, q.txt 0, equal 1: p.txt wins" in text
    assert "q.txt: mean average precision 75.0 %, median 75.0 %, over 2 classes" in text
    assert "n1 2 2 / 1 2 / 1 100.0 50.0" in text
    assert "Note: 1 classes have no object" in text


def test_images_by_the_devkits_list(tmp_path):
    files = entry(tmp_path, [[("n1", BOX)], [("n1", BOX)]], [(7, 1, 0.9, BOX)])
    listed = write_lines(tmp_path / "val.txt", [("val/ILSVRC2012_val_00000002", 7), ("bare", 9)])
    card = detection.score(**files | {"images": listed})
    assert card.categories[0][0].average_precision == 1
    assert "1 of 2 images have no annotation and count as images without objects." in card.notes
    with pytest.raises(UserError, match=r"p\.txt, detection 1: there is no image 7; 2 are known"):
        detection.score(**files)
    with pytest.raises(UserError, match="annotates none of the 1 images"):
        detection.score(**files | {"images": write_lines(tmp_path / "val.txt", [("bare", 1)])})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a table of numbers"),
        ("1 1 0.5 0 0 9\n", "has 6 columns; expected are image, class, confidence"),
        ("1 1 0.5 0 0 9 9\n1 1 0.5 0 0 9\n", "is not a table of numbers: .*from 7 to 6"),
        ("1 n1 0.5 0 0 9 9\n", "is not a table of numbers: .*'n1'"),
        ("1 1 0.5 0 0 9 9\n1 1.5 0.5 0 0 9 9\n", r"detection 2: 1 1\.5 0\.5 0 0 9 9 is not a detection"),
        ("1 1 nan 0 0 9 9\n", "detection 1: 1 1 nan"),
        ("1 1 0.5 0 0 -1 9\n", "a box does not end before it begins"),
        ("1 4 0.5 0 0 9 9\n", "detection 1: there is no class 4; 3 are known"),
        ("5 1 0.5 0 0 9 9\n", "detection 1: there is no image 5; 1 are known"),
    ],
)
def test_lines_of_another_form_are_refused(tmp_path, text, message):
    files = entry(tmp_path, [[("n1", BOX)]], [(1, 1, 0.9, BOX)])
    files["entries"][0].write_text(text)
    with pytest.raises(UserError, match=message):
        detection.score(**files)


def test_unsuitable_annotations_are_refused(tmp_path):
    with pytest.raises(UserError, match="the scored images have no object"):
        detection.score(**entry(tmp_path, [[]], [(1, 1, 0.9, BOX)]))
    (tmp_path / "boxes.csv").write_text("file,x_min,y_min,x_max,y_max\na.png,0,0,9,9\n")
    files = entry(tmp_path, [[]], [(1, 1, 0.9, BOX)]) | {"boxes": tmp_path / "boxes.csv"}
    with pytest.raises(UserError, match="a has an object without a class, which"):
        detection.score(**files)
