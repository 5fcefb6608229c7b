import dataclasses

import numpy as np
import pytest
from scipy.special import softmax

from imagenet_repro.config import Data
from imagenet_repro.data import sources
from imagenet_repro.errors import UserError
from imagenet_repro.scoring import label_audit
from imagenet_repro.scoring.label_audit import Suspects, Verdict
from imagenet_repro.scoring.predictions import Predictions

CLASSES = 6


def noisy(images=3000, share=0.1, seed=0, sharpness=6.0):
    """Return true labels, labels with a share flipped by a random matrix, and logits of a good network."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, CLASSES, images).astype(np.int32)
    confused = rng.dirichlet(np.full(CLASSES - 1, 0.3), CLASSES)  # the class to which labels of each class are flipped
    given = true.copy()
    for image in np.flatnonzero(rng.random(images) < share):
        others = [c for c in range(CLASSES) if c != true[image]]
        given[image] = rng.choice(others, p=confused[true[image]])
    logits = rng.normal(size=(images, CLASSES)) + sharpness * np.eye(CLASSES)[true]
    return true, given, logits.astype(np.float32)


def predicted(labels, logits, **provenance):
    ids = np.array([f"image{i}" for i in range(len(labels))])
    top5 = np.argsort(-logits, axis=1, kind="stable")[:, :5].astype(np.int32)
    return Predictions(ids, labels, top5, logits.astype(np.float16), provenance)


def suspects_of(*rows):
    """Return the images of these rows as suspects."""
    image = np.array(rows, np.int32)
    zeros, shares = np.zeros(len(rows), np.int32), np.zeros(len(rows), np.float32)
    return Suspects(image, zeros, zeros, shares, shares, 0.0)


# --- suspects ---------------------------------------------------------------------------------------------------


def test_probabilities_are_the_mean_softmax_of_the_members():
    _, labels, a = noisy(40)
    b = noisy(40, seed=1)[2]
    b[3, 2] = -np.inf  # a masked class
    result = label_audit.mean_probabilities([predicted(labels, a), predicted(labels, b)])
    expected = (softmax(a.astype(np.float16).astype(float), 1) + softmax(b.astype(np.float16).astype(float), 1)) / 2
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("score", [np.nan, -np.inf])
def test_scores_without_probabilities_are_refused(score):
    _, labels, logits = noisy(40)
    logits[[3, 5]] = score
    with pytest.raises(UserError, match="scores of image3, image5 give no probabilities"):
        label_audit.mean_probabilities([predicted(labels, logits)])


@pytest.mark.parametrize("filter_by", ["prune_by_noise_rate", "both"])
@pytest.mark.parametrize("rank_by", ["normalized_margin", "self_confidence"])
def test_flipped_labels_are_found_with_their_original_class(filter_by, rank_by):
    true, given, logits = noisy()
    probable = label_audit.mean_probabilities([predicted(given, logits)])
    result = label_audit.find_suspects(given, probable, filter_by=filter_by, rank_by=rank_by)
    flipped = true != given
    assert flipped[result.image].mean() > 0.95  # precision
    assert flipped[result.image].sum() / flipped.sum() > 0.9  # recall
    assert (result.suggested == true[result.image]).mean() > 0.95
    assert result.wrong_share == pytest.approx(flipped.mean(), abs=0.01)
    np.testing.assert_array_equal(result.given, given[result.image])
    np.testing.assert_array_equal(result.of_given, probable[result.image, result.given])
    np.testing.assert_array_equal(result.of_suggested, probable[result.image, result.suggested])
    assert np.all(result.suggested != result.given)
    order = result.of_given - (result.of_suggested if rank_by == "normalized_margin" else 0)
    assert np.all(np.diff(order) >= -1e-6)


def test_both_rules_together_give_no_more_suspects_than_one():
    _, given, logits = noisy(sharpness=2.0)
    probable = label_audit.mean_probabilities([predicted(given, logits)])
    one, both = (
        label_audit.find_suspects(given, probable, filter_by=rule) for rule in ("prune_by_noise_rate", "both")
    )
    assert set(both.image) < set(one.image)


def test_the_share_of_wrong_labels_is_that_of_the_confident_joint():
    """Compare with the paper's definition as a plain loop (eq. 1 and 2, and the calibration to the labels' counts)."""
    _, given, logits = noisy(400, sharpness=2.0)
    probable = label_audit.mean_probabilities([predicted(given, logits)])
    thresholds = [probable[given == c, c].mean() for c in range(CLASSES)]
    joint = np.zeros((CLASSES, CLASSES))
    for label, row in zip(given, probable, strict=True):
        confident = [c for c in range(CLASSES) if row[c] >= thresholds[c] - 1e-6]
        if confident:
            joint[label, max(confident, key=lambda c: row[c])] += 1
    joint *= (np.bincount(given) / joint.sum(1))[:, None]
    assert label_audit.find_suspects(given, probable).wrong_share == pytest.approx(1 - np.trace(joint) / 400, abs=0.01)


def test_a_class_without_images_is_allowed():
    true, given, logits = noisy()
    rows_kept = (given != 3) & (true != 3)
    result = label_audit.find_suspects(
        given[rows_kept], label_audit.mean_probabilities([predicted(given[rows_kept], logits[rows_kept])])
    )
    assert (true != given)[rows_kept][result.image].mean() > 0.95


@pytest.mark.parametrize(("labels", "message"), [([0, -1, 1], "without labels"), ([2, 2, 2], "at least two classes")])
def test_missing_and_constant_labels_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        label_audit.find_suspects(np.array(labels, np.int32), np.full((3, CLASSES), 1 / CLASSES, np.float32))


# --- data sets and splits ----------------------------------------------------------------------------------------


def provenance(train="train", evaluated="validation", test="", name="photos"):
    data = Data(name=name, train_split=train, eval_split=evaluated, test_split=test)
    return {"config": {"data": dataclasses.asdict(data)}}


@pytest.mark.parametrize(
    "given",
    [
        provenance(),
        provenance(train="train+test", evaluated="validation[:50%]"),
        {"members": [provenance(), {"weights": provenance(evaluated="test")}]},
    ],
)
def test_splits_other_than_the_training_split_are_accepted_without_their_data(given):
    label_audit.check_not_trained_on("x.npz", given)


def test_predictions_without_provenance_are_refused():
    with pytest.raises(UserError, match=r"x\.npz does not state which images its network was trained on"):
        label_audit.check_not_trained_on("x.npz", {"system": "human"})


def test_the_overlap_of_parts_is_read_from_the_data_set(monkeypatch):
    with pytest.raises(UserError, match=r"cannot check .*: unknown data set 'photos'"):
        label_audit.check_not_trained_on("x.npz", provenance(train="train[:90%]", evaluated="train[90%:]"))
    monkeypatch.setattr(sources, "overlap", lambda data, one, other: other == "train[80%:]")
    label_audit.check_not_trained_on("x.npz", provenance(train="train[:90%]", evaluated="train[90%:]"))
    label_audit.check_not_trained_on("x.npz", provenance(train="train[:90%]", evaluated="train[80%:]"), "train[90%:]")
    for given in (
        provenance(train="train[:90%]", evaluated="train[80%:]"),
        provenance(train="train[:90%]", evaluated="validation", test="train[80%:]"),
        {"members": [provenance(), provenance(train="train[:90%]", evaluated="train[80%:]")]},
    ):
        with pytest.raises(UserError, match=r"is of train\[80%:\], and the network was trained on train\[:90%\]"):
            label_audit.check_not_trained_on("x.npz", given)


# --- correct guesses ------------------------------------------------------------------------------------


def test_rates_under_every_rule_in_closed_form():
    labels = np.array([0, 1, 2, 3, 4], np.int32)
    ids = np.array(list("abcde"))
    top5 = np.array([[0, 1], [5, 1], [5, 4], [5, 0], [0, 1]], np.int32)  # right, second, wrong, wrong, wrong
    given = label_audit.given_labels(labels)
    assert given.rates(top5) == label_audit.ErrorRates(5, 4, 3)
    assert label_audit.without_suspects(labels, suspects_of(2, 1)).rates(top5) == label_audit.ErrorRates(3, 2, 2)
    verdicts = {
        "a": Verdict("suggested", 5),  # now wrong
        "b": Verdict("both", 5),  # right by the first guess
        "c": Verdict("keep", 4),  # stays wrong
        "d": Verdict("suggested", 0),  # right by the second guess
        "e": Verdict("neither", 0),  # does not count
    }
    truth = label_audit.corrected_by_verdicts(ids, labels, verdicts)
    np.testing.assert_array_equal(truth.wrong(top5, 1), [True, False, True, True])
    assert truth.rates(top5) == label_audit.ErrorRates(4, 3, 2)


def test_an_image_without_guesses_is_wrong_under_every_rule():
    labels = np.array([0, 1], np.int32)
    nothing = np.full((2, 5), -1, np.int32)
    for truth in (label_audit.given_labels(labels), label_audit.without_suspects(labels, suspects_of())):
        assert truth.rates(nothing) == label_audit.ErrorRates(2, 2, 2)


def test_without_any_image_there_is_no_rate():
    labels = np.array([0, 1], np.int32)
    with pytest.raises(UserError, match="no image was scored"):
        label_audit.without_suspects(labels, suspects_of(0, 1)).rates(np.zeros((2, 2), np.int32))


def test_verdicts_on_unknown_images_are_refused():
    with pytest.raises(UserError, match=r"without predictions: x$"):
        label_audit.corrected_by_verdicts(np.array(["a"]), np.array([0], np.int32), {"x": Verdict("keep", 1)})


NAMES = ("x", "y", "z", "w")


def test_verdicts_are_read_from_suspects_with_an_extra_column(tmp_path):
    path = tmp_path / "checked.csv"
    path.write_text('rank,id,given_name,suggested,verdict\n1,a,"x, y",3,Both\n2,b,z,2,\n3,c,z,0, keep \n')
    assert label_audit.read_verdicts(path, NAMES) == {"a": Verdict("both", 3), "c": Verdict("keep", 0)}


def test_verdicts_on_classes_in_another_order_are_read_by_name(tmp_path):
    path = tmp_path / "checked.csv"
    path.write_text("id,suggested,suggested_name,verdict\na,0,w,suggested\nb,2,class 2,keep\n")
    assert label_audit.read_verdicts(path, NAMES) == {"a": Verdict("suggested", 3), "b": Verdict("keep", 2)}
    with pytest.raises(UserError, match="line 2: the predictions have no class 'w'"):
        label_audit.read_verdicts(path, ("x", "y", "z"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,suggested\na,1\n", "lacks verdict"),
        ("", "lacks id, suggested, verdict"),
        ("id,suggested,verdict\na,1,\n", "holds no verdict"),
        ("id,suggested,verdict\na,1,bot\n", "line 2: verdict 'bot'; did you mean 'both'"),
        ("id,suggested,verdict\na,1,keep\na,1,keep\n", "line 3: a second verdict on a"),
        ("id,suggested,verdict\na,4,keep\n", "line 2: suggested '4' is not one of the 4 classes"),
        ("id,suggested,verdict\na,x,keep\n", "suggested 'x'"),
    ],
)
def test_files_without_verdicts_are_refused(tmp_path, text, message):
    path = tmp_path / "checked.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        label_audit.read_verdicts(path, NAMES)


def test_a_missing_file_of_verdicts_is_reported(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        label_audit.read_verdicts(tmp_path / "none.csv", NAMES)
