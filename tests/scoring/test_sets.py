"""Tests of the rules of evaluation sets against published code or closed forms, and of common mistakes."""

import numpy as np
import pytest
from scipy import stats

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import sets
from tests.scoring.synthetic_sets import CLASSES, guesses, predictions

RNG = np.random.default_rng(0)


def validation_id(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def some(images=60, seed=0):
    """Return ids, labels and guesses; a little more than a third of the first guesses are right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, images)
    best = np.where(rng.random(images) < 0.4, labels, rng.integers(0, CLASSES, images))
    return [validation_id(i + 1) for i in range(images)], labels, guesses(best, rng)


def real_features(labels, rng, empty=0.2):
    """Return lists as in ReaL: the image's label, perhaps others, and no label for some images."""
    lists = []
    for label in labels:
        others = rng.integers(0, CLASSES, rng.integers(0, 3)).tolist()
        lists.append([] if rng.random() < empty else [int(label), *others])
    return lists


# --- ReaL -------------------------------------------------------------------------------------------------------


def features_of(ids, labels, lists):
    return {
        name: {"original_label": (int(label),), "real_label": tuple(several)}
        for name, label, several in zip(ids, labels, lists, strict=True)
    }


def test_real_is_the_snippet_of_its_authors():
    ids, labels, top5 = some()
    lists = real_features(labels, np.random.default_rng(1))
    chosen = sets.find_set("real")
    (result,) = sets.score_set(
        chosen, predictions(ids, labels, top5), sets.accepted_labels(chosen, features_of(ids, labels, lists))
    )
    is_correct = [best in lists[i] for i, best in enumerate(top5[:, 0]) if lists[i]]
    assert result.error == pytest.approx(1 - np.mean(is_correct))
    assert (result.images, result.dropped) == (len(is_correct), sum(not one for one in lists))
    assert result.dropped > 5
    empty_counted = np.mean([best not in one for best, one in zip(top5[:, 0], lists, strict=True)])
    assert result.error != pytest.approx(empty_counted)
    assert f"({result.wrong} of {result.images} images wrong, {result.dropped} left out)" in str(result)


def test_real_lists_shifted_by_one_image_are_refused():
    ids, labels, _ = some()
    lists = real_features(labels, np.random.default_rng(1))
    with pytest.raises(UserError, match=r"only \d of \d\d lists contain their image's own label.*shifted"):
        sets.accepted_labels(sets.find_set("real"), features_of(ids, labels, [[], *lists[:-1]]))


def test_the_order_of_predictions_does_not_matter():
    ids, labels, top5 = some()
    chosen = sets.find_set("real")
    known = sets.accepted_labels(chosen, features_of(ids, labels, real_features(labels, np.random.default_rng(1))))
    order = np.random.default_rng(2).permutation(len(ids))
    shuffled = predictions(np.array(ids)[order], labels[order], top5[order])
    assert sets.score_set(chosen, shuffled, known) == sets.score_set(chosen, predictions(ids, labels, top5), known)


# --- multi-label ------------------------------------------------------------------------------------------------


def multilabel(images=80):
    """Return predictions on a few classes of unequal size, and the features that tfds' builder provides."""
    rng = np.random.default_rng(3)
    labels = rng.choice([5, 6, 7, 900], images, p=[0.55, 0.3, 0.1, 0.05])
    best = np.where(rng.random(images) < 0.4, labels, rng.choice([5, 6, 7, 900], images))
    ids = [validation_id(i + 1) for i in range(images)]
    features = {}
    for name, label in zip(ids, labels, strict=True):
        features[name] = {
            "original_label": (int(label),),
            "correct_multi_labels": (int(label),) if rng.random() < 0.95 else (),
            "unclear_multi_labels": tuple(rng.choice([5, 6, 7], rng.integers(0, 2)).tolist()),
            "is_problematic": (int(rng.random() < 0.2),),
        }
    return predictions(ids, labels, guesses(best, rng)), features


def test_multi_label_accuracy_is_the_snippet_of_tfds():
    predicted, features = multilabel()
    guess = dict(zip(predicted.id.tolist(), predicted.top5[:, 0].tolist(), strict=True))
    correct, images = {}, {}
    for name, one in features.items():
        if one["is_problematic"][0]:
            continue
        group = one["original_label"][0]
        images[group] = images.get(group, 0) + 1
        hit = guess[name] in one["correct_multi_labels"] or guess[name] in one["unclear_multi_labels"]
        correct[group] = correct.get(group, 0) + hit
    expected = 1 - np.mean([correct[group] / images[group] for group in images])
    over_images = 1 - sum(correct.values()) / sum(images.values())
    chosen = sets.find_set("multilabel")
    (result,) = sets.score_set(chosen, predicted, sets.accepted_labels(chosen, features))
    assert result.error == pytest.approx(expected)
    assert result.error != pytest.approx(over_images, abs=0.005)
    assert result.images == sum(images.values())
    assert result.dropped == sum(one["is_problematic"][0] for one in features.values())
    assert result.low < result.error < result.high
    assert "mean over 4 classes" in str(result)


def test_images_that_the_experts_did_not_see_do_not_count():
    predicted, features = multilabel()
    chosen = sets.find_set("multilabel")
    known = sets.accepted_labels(chosen, features)
    more = predictions(
        [*predicted.id, validation_id(40_000)], [*predicted.label, 5], np.concatenate([predicted.top5, [range(5)]])
    )
    assert sets.score_set(chosen, more, known) == sets.score_set(chosen, predicted, known)


def test_the_interval_of_a_mean_over_equal_classes_is_near_wilsons():
    rng = np.random.default_rng(4)
    classes = np.repeat(np.arange(40), 25)
    wrong = rng.random(1_000) < 0.3
    error, low, high = sets.mean_over_classes(wrong, classes)
    wilson = stats.binomtest(int(wrong.sum()), 1_000).proportion_ci(method="wilson")
    assert error == pytest.approx(wrong.mean())
    np.testing.assert_allclose((low, high), wilson, atol=0.002)


def test_the_interval_of_a_mean_over_classes_covers():
    rng = np.random.default_rng(5)
    sizes, shares = rng.integers(1, 12, 60), rng.random(60) * 0.4
    classes = np.repeat(np.arange(60), sizes)
    covered = 0
    for _ in range(300):
        _, low, high = sets.mean_over_classes(rng.random(len(classes)) < shares[classes], classes)
        covered += low <= shares.mean() <= high
    assert 0.92 <= covered / 300 <= 0.99


@pytest.mark.parametrize("wrong", [False, True])
def test_error_rates_of_zero_and_one_have_an_interval(wrong):
    error, low, high = sets.mean_over_classes(np.full(50, wrong), np.repeat(np.arange(5), 10))
    assert error == wrong
    assert 0.05 < high - low < 0.1


# --- ImageNet-V2, -R, -Sketch: folders ----------------------------------------------------------------------------


def v2(order):
    """Return one image in each of the folders 0 to 999, labelled by the position in an order of the folder names."""
    labels = [order.index(str(folder)) for folder in range(CLASSES)]
    ids = [f"{folder}/{folder:03d}a.jpeg" for folder in range(CLASSES)]
    return predictions(ids, labels, guesses(np.arange(CLASSES), np.random.default_rng(6)), names=False)


def test_folders_of_v2_are_numbers():
    numbers = list(map(str, range(CLASSES)))
    top1, top5 = sets.score_set(sets.find_set("v2"), v2(numbers))
    assert (top1.wrong, top5.wrong, top1.images) == (0, 0, CLASSES)
    with pytest.raises(UserError, match=r"(?s)2/002a.jpeg has the label 112.*sorted as words.*prepare imagenet_v2/"):
        sets.score_set(sets.find_set("v2_threshold"), v2(sorted(numbers)))


def test_classes_of_r_are_counted_among_the_thousand():
    wnids = sets.imagenet_wnids()
    own = [1, 2, 4, 6]
    ids = [f"{wnids[index]}/art_0.jpg" for index in own]
    top5 = guesses(np.array(own), RNG)
    right = sets.score_set(sets.find_set("r"), predictions(ids, own, top5))
    assert right[0].wrong == 0
    with pytest.raises(UserError, match="numbered on their own"):
        sets.score_set(sets.find_set("r"), predictions(ids, range(4), top5))


# --- ImageNet-A: the mask -----------------------------------------------------------------------------------------


def test_a_mask_leaves_guesses_among_the_classes_that_occur():
    rng = np.random.default_rng(7)
    labels = rng.choice([6, 11, 13, 15, 17, 22, 23], 50)
    logits = rng.normal(size=(50, CLASSES))
    logits[np.arange(50), labels] += 2
    top5 = np.argsort(-logits, axis=1)[:, :5]
    predicted = predictions([f"{i}.jpg" for i in range(50)], labels, top5)
    predicted = type(predicted)(predicted.id, predicted.label, predicted.top5, logits.astype(np.float16))
    scored = sets.occurring_classes(predicted.label)
    assert np.flatnonzero(scored).tolist() == [6, 11, 13, 15, 17, 22, 23]
    masked = sets.mask_classes(predicted, scored)
    allowed = np.flatnonzero(scored)
    best = allowed[np.argmax(logits[:, allowed].astype(np.float16), axis=1)]
    np.testing.assert_array_equal(masked.top5[:, 0], best)
    assert np.all(np.isneginf(masked.logits[:, ~scored]))
    chosen = sets.find_set("a")
    with_mask, without = (sets.score_set(chosen, one)[0].error for one in (masked, predicted))
    assert with_mask == pytest.approx(np.mean(best != labels))
    assert with_mask < without - 0.3
    again = sets.mask_classes(masked, scored)
    np.testing.assert_array_equal(again.top5, masked.top5)


def test_guesses_within_the_classes_are_those_of_float32():
    logits = np.zeros((1, CLASSES), np.float16)  # all scores are equal in float16
    one = predictions(["a"], [9], [[9, 8, 7, 6, 5]])
    one = type(one)(one.id, one.label, one.top5, logits)
    np.testing.assert_array_equal(sets.mask_classes(one, sets.occurring_classes([5, 6, 7, 8, 9])).top5, one.top5)
    nothing = type(one)(one.id, one.label, np.full((1, 5), -1, np.int32), logits)
    assert np.all(sets.mask_classes(nothing, sets.occurring_classes([9])).top5 == -1)


# --- classes and names ------------------------------------------------------------------------------------------


def test_the_thousand_classes():
    wnids = sets.imagenet_wnids()
    assert (len(wnids), wnids[0], wnids[134], wnids[999]) == (1_000, "n01440764", "n02012849", "n15075141")
    assert list(wnids) == sorted(wnids)
    sets.check_classes(wnids, "the run")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (tuple("abc"), "the run does not have ImageNet's 1,000 classes: it has 3 classes"),
        (sets.imagenet_wnids()[::-1], "it has them in another order"),
        ((*sets.imagenet_wnids()[:-1], "background"), "it has 'background' where ImageNet has 'n15075141'"),
    ],
)
def test_networks_of_other_classes_are_refused(names, message):
    with pytest.raises(UserError, match=message):
        sets.check_classes(names, "the run")


def test_an_unknown_set_names_the_nearest():
    with pytest.raises(UserError, match="--set=v2_topp: there is no such set; did you mean 'v2_top'"):
        sets.find_set("v2_topp")


def test_predictions_of_other_images_score_nothing():
    chosen = sets.find_set("objectnet")
    known = sets.accepted_by_folder(["images/pan/a.png"], {})
    with pytest.raises(UserError, match="none of the images counts"):
        sets.score_set(chosen, predictions(["images/pan/a.png"], [-1], [range(5)]), known)
    with pytest.raises(UserError, match="images without labels"):
        sets.score_set(sets.find_set("v2"), predictions(["0/a"], [-1], [range(5)]))


def test_incomplete_sets_are_reported():
    assert sets.completeness_notes(sets.find_set("a"), 7_500, 200) == []
    (sentence,) = sets.completeness_notes(sets.find_set("a"), 12, 3)
    assert sentence == "ImageNet-A: 12 images instead of the 7,500 of the official set, 3 classes instead of 200."
