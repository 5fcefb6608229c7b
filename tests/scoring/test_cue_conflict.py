"""Tests of the shape bias, against counts by hand and a decision computed class by class."""

import csv

import numpy as np
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import cue_conflict
from imagenet_repro.scoring.sets import imagenet_wnids
from tests.scoring.synthetic_predictions import from_logits

NAMES = ["airplane/airplane1-bear2.png", "bear/bear1-cat1.png", "cat/cat3-dog2.png", "dog/dog1-dog2.png"]


def softmax(logits):
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def write(path, rows, columns=("subj", "object_response", "category", "imagename")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def test_207_classes_belong_to_16_categories():
    counts = np.count_nonzero(cue_conflict._averages(), axis=0)
    by_name = dict(zip(cue_conflict.categories(), counts.tolist(), strict=True))
    assert (len(by_name), sum(by_name.values())) == (16, 207)
    assert (by_name["dog"], by_name["bird"], by_name["knife"], by_name["truck"]) == (109, 49, 1, 8)


def test_a_decision_has_the_largest_mean_probability():
    logits = 4 * np.random.default_rng(0).normal(size=(50, 1_000)).astype(np.float16)
    members = {}
    for index, wnid in enumerate(imagenet_wnids()):
        members.setdefault(cue_conflict._category_of_wnid().get(wnid), []).append(index)
    expected = []
    for row in logits.astype(np.float64):
        shares = softmax(row)
        expected.append(max(cue_conflict.categories(), key=lambda name: np.mean([shares[i] for i in members[name]])))
    assert [cue_conflict.categories()[i] for i in cue_conflict.decide(logits)] == expected


def test_many_dogs_do_not_outvote_one_cleaver():
    """The mean, unlike the sum, does not favour the category with most classes."""
    logits = np.zeros((1, 1_000))
    logits[0, imagenet_wnids().index("n03041632")] = 3.0  # cleaver, the only knife: 20 times as likely as one dog
    assert cue_conflict.categories()[cue_conflict.decide(logits)[0]] == "knife"


def test_shape_texture_and_neither_are_counted():
    result = cue_conflict.score("x", NAMES, ["airplane", "cat", "truck", "dog"])
    assert (result.shape, result.texture, result.neither) == (1, 1, 1)
    assert (result.agreeing_right, result.agreeing, result.images) == (1, 1, 3)
    assert (result.bias, result.error) == (0.5, pytest.approx(2 / 3))
    assert "shape bias 50.0 %, 95 % interval" in result.sentences()[0]


def test_without_a_cue_among_the_answers_there_is_no_bias():
    result = cue_conflict.score("x", NAMES, ["oven"] * 4)
    assert np.isnan(result.bias)
    assert result.interval is None
    assert "no shape bias" in result.sentences()[0]


def test_predictions_are_scored_by_the_names_of_their_images():
    wnids = imagenet_wnids()
    logits = np.zeros((4, 1_000))
    for row, wnid in enumerate(("n02690373", "n02132136", "n02085782", "n02123045")):  # airliner, bear, dog, cat
        logits[row, wnids.index(wnid)] = 12.0
    predicted = from_logits(logits, np.full(4, -1), ids=NAMES)
    result = cue_conflict.score_predictions("x", predicted)
    assert (result.shape, result.texture, result.neither, result.agreeing_right) == (2, 1, 0, 0)


def test_published_biases_are_those_of_the_paper():
    observers = cue_conflict.observers()
    networks = {one.observer: round(100 * one.bias, 1) for one in observers if not one.is_person}
    assert networks == {"AlexNet": 42.9, "VGG-16": 17.2, "GoogLeNet": 31.2, "ResNet-50": 22.1}
    people = [round(100 * one.bias, 1) for one in observers if one.is_person]
    assert (len(people), min(people), max(people)) == (10, 91.9, 98.7)
    assert {(one.images, one.agreeing) for one in observers} == {(1_200, 80)}


def test_answers_of_a_person_are_read(tmp_path):
    rows = [
        ("subject-01", "airplane", "airplane", "0001_s5n_p_0_airplane_00_airplane1-bear2.png"),
        ("subject-01", "na", "bear", "0002_s5n_p_0_bear_00_bear1-cat1.png"),
    ]
    result = cue_conflict.read_answers(write(tmp_path / "a.csv", rows))
    assert (result.observer, result.is_person, result.shape, result.neither) == ("subject-01", True, 1, 1)
    assert "for new images (" in result.sentences()[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "cat", "bear", "bear1-cat1.png")] * 2, "line 3: bear1-cat1.png occurs twice"),
        ([("a", "cat", "cat", "bear1-cat1.png")], "line 2: the shape of bear1-cat1.png is not cat"),
        ([("a", "cat", "bear", "bear1-cat1.png"), ("b", "", "cat", "cat1-dog1.png")], "answers of 2 observers"),
        ([("a", "cat", "tree", "tree1-cat1.png")], "tree1-cat1.png is not an image of the cue-conflict set"),
        ([("a", "cat", "cat", "cat1-cat2.png")], "no image has conflicting cues"),
    ],
)
def test_wrong_answers_are_refused(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        cue_conflict.read_answers(write(tmp_path / "a.csv", rows))


def test_a_file_without_the_columns_is_refused(tmp_path):
    with pytest.raises(UserError, match="no column 'object_response'"):
        cue_conflict.read_answers(write(tmp_path / "a.csv", [], ("subj", "category", "imagename")))
    with pytest.raises(UserError, match="cannot be read"):
        cue_conflict.read_answers(tmp_path / "absent.csv")
