import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import top_k_accuracy_score

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import classification, predictions, sets, wordnet
from imagenet_repro.scoring.predictions import Predictions


def write(path, text):
    path.write_text(text)
    return path


def submission(path, guesses, separator=" "):
    return write(path, "".join(separator.join(map(str, row)) + "\n" for row in guesses))


@pytest.fixture
def random_entry(tmp_path):
    """Return (predictions, file of labels, scores, labels) for 400 images and 30 classes, numbered from 1."""
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(400, 30)), rng.integers(0, 30, 400)
    guesses = np.argsort(-scores, axis=1)[:, :5] + 1
    return (
        submission(tmp_path / "p.txt", guesses),
        submission(tmp_path / "labels.txt", labels[:, None] + 1),
        scores,
        labels,
    )


def stored_entry(path, ids, labels, best, classes=1000):
    """Return a file of our own format with `best` as the first guesses."""
    rest = (np.asarray(best)[:, None] + np.arange(5)) % classes
    predictions.save(
        path,
        Predictions(
            id=np.array(ids),
            label=np.asarray(labels, np.int32),
            top5=rest.astype(np.int32),
            logits=np.zeros((len(ids), classes), np.float16),
        ),
    )
    return path


def text_of(card, width=100):
    console = Console(file=io.StringIO(), width=width)
    classification.print_score(card, console)
    return console.file.getvalue()


def test_one_to_five_guesses_agree_with_scikit_learn(random_entry):
    predictions, labels_file, scores, labels = random_entry
    card = classification.score(predictions, labels_file)
    assert [s.guesses for s in card.scores] == [1, 2, 3, 4, 5]
    for result in card.scores:
        right = top_k_accuracy_score(labels, scores, k=result.guesses, labels=range(30), normalize=False)
        assert (result.wrong, result.images) == (400 - right, 400)
        assert result.exact[0] < result.wilson[0] < result.error < result.wilson[1] < result.exact[1]
    assert not card.notes
    assert len(classification.score(predictions, labels_file, guesses=2).scores) == 2


def test_commas_fewer_and_empty_lines_and_labels_beyond_the_fifth(tmp_path):
    predictions = write(tmp_path / "p.txt", "7,1, 2 3\t4 9\n\n5\n9 9 9 9 9 7\r\n-1 8\n")
    labels = write(tmp_path / "labels.txt", "9\n7\n5\n7\n8")
    wrong = [s.wrong for s in classification.score(predictions, labels).scores]
    assert wrong == [
        4,
        3,
        3,
        3,
        3,
    ]  # image 3 is right by its only guess, image 5 by its second; sixth labels do not count


@pytest.mark.parametrize("guesses", [0, 6])
def test_the_number_of_guesses_is_the_challenges(random_entry, guesses):
    with pytest.raises(UserError, match=f"--guesses={guesses}: the challenge accepts 1 to 5"):
        classification.score(*random_entry[:2], guesses=guesses)


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ("1\n2\n", "1\n", r"p\.txt has predictions for 2 images and .*labels\.txt has labels for 1"),
        ("1\n2\n\n", "1\n2\n", r"predictions for 3 images .* often an empty one at the end"),
        ("1\n2 cat 3\n", "1\n2\n", r"p\.txt, line 2: 'cat' is not an integer"),
        ("1\n2.0\n", "1\n2\n", r"line 2: '2\.0' is not an integer"),
        ("1\n99999999999999999999\n", "1\n2\n", r"line 2: '99999999999999999999' is not"),
        ("1\n2\n", "1\n\n", r"labels\.txt, line 2: expected one label, found 0"),
        ("1\n2\n", "1 2\n2\n", r"labels\.txt, line 1: expected one label, found 2"),
        ("1\n2\n", "1\n-2\n", r"labels\.txt, line 2: the label -2 is negative"),
        ("", "1\n", r"p\.txt is empty"),
    ],
)
def test_errors_in_a_file_are_reported_with_their_line(tmp_path, predictions, labels, message):
    files = write(tmp_path / "p.txt", predictions), write(tmp_path / "labels.txt", labels)
    with pytest.raises(UserError, match=message):
        classification.score(*files)


def test_files_that_cannot_be_read(tmp_path):
    good = write(tmp_path / "p.txt", "1\n")
    with pytest.raises(UserError, match="there is no file"):
        classification.score(tmp_path / "absent.txt", good)
    with pytest.raises(UserError, match="could not read"):
        classification.score(good, tmp_path)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="not a text file"):
        classification.score(tmp_path / "bytes.txt", good)
    with pytest.raises(UserError, match="name a file of labels with --labels"):
        classification.score(good)


def test_a_byte_order_mark_is_no_part_of_the_first_label(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbf3 1\r\n2\r\n")
    labels = write(tmp_path / "labels.txt", "1\n2\n")
    assert [s.wrong for s in classification.score(tmp_path / "p.txt", labels).scores[:2]] == [1, 0]


def test_different_numberings_are_noted(tmp_path):
    rng = np.random.default_rng(0)
    predictions = submission(tmp_path / "p.txt", rng.integers(0, 10, (200, 5)))
    labels = submission(tmp_path / "labels.txt", rng.integers(1, 11, (200, 1)))
    card = classification.score(predictions, labels)
    assert "labels run from 1 to 10 and guesses from 0 to 9: their numbering seems to differ" in card.notes[0]
    assert "Note: labels run from 1" in text_of(card)


def test_our_own_file_has_its_labels_and_is_ordered_by_file_name(tmp_path):
    ids = ["c.JPEG", "a.JPEG", "b.JPEG"]
    path = stored_entry(tmp_path / "p.npz", ids, labels=[1, 2, 3], best=[1, 1, 9])
    assert [s.wrong for s in classification.score(path).scores] == [2, 1, 1, 1, 1]
    other = write(tmp_path / "labels.txt", "1\n9\n1\n")  # the labels of a, b, c
    assert [s.wrong for s in classification.score(path, other).scores] == [0, 0, 0, 0, 0]


def test_our_own_file_of_few_classes_and_without_labels(tmp_path):
    top5 = np.array([[0, 1, 2], [-1, -1, -1]], np.int32)
    for name, label in (("labelled", 2), ("unlabelled", -1)):
        entry = Predictions(np.array(["a", "b"]), np.full(2, label, np.int32), top5, np.zeros((2, 3), np.float16))
        predictions.save(tmp_path / f"{name}.npz", entry)
    assert [s.wrong for s in classification.score(tmp_path / "labelled.npz").scores] == [2, 2, 1, 1, 1]
    with pytest.raises(UserError, match="has no labels; name a file"):
        classification.score(tmp_path / "unlabelled.npz")


REAL = [[1, 2], [], [3], [4, 5, 6], []]
REAL_IDS = [f"ILSVRC2012_val_{n:08d}.JPEG" for n in (1, 2, 3, 4, 5)]


def test_real_labels_with_text_in_file_name_order(tmp_path):
    real = write(tmp_path / "real.json", json.dumps(REAL))
    predictions = write(tmp_path / "p.txt", "2 9\n1\n9 3\n6\n\n")
    (result,) = classification.score(predictions, real_path=real).scores
    assert (result.truth, result.wrong, result.images, result.dropped) == ("ReaL", 1, 3, 2)  # only first guesses count
    assert str(result).startswith("top-1 error against ReaL labels 33.3 %, 95 % interval [")
    assert "(1 of 3 images wrong, 2 without a label left out)" in str(result)


def test_real_labels_are_matched_to_our_file_by_the_number_in_the_id(tmp_path):
    real = write(tmp_path / "real.json", json.dumps(REAL))
    rows = [3, 0, 2]  # a shuffled part of the split
    ids = [["val/", "", ""][i] + REAL_IDS[row] for i, row in enumerate(rows)]
    path = stored_entry(tmp_path / "p.npz", ids, labels=[5, 0, 3], best=[5, 0, 3])
    card = classification.score(path, real_path=real, guesses=1)
    assert [(s.truth, s.wrong, s.images) for s in card.scores] == [("labels", 0, 3), ("ReaL", 1, 3)]


@pytest.mark.parametrize("name", ["n01440764_10026.JPEG", "ILSVRC2012_val_00000000.JPEG", "ILSVRC2012_val_1.JPEG"])
def test_real_labels_apply_only_to_validation_images(tmp_path, name):
    real = write(tmp_path / "real.json", json.dumps(REAL))
    path = stored_entry(tmp_path / "p.npz", [name], labels=[1], best=[1])
    with pytest.raises(UserError, match="ILSVRC2012_val_00000001"):
        classification.score(path, real_path=real)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[1], [2", "not JSON"),
        ('{"a": 1}', "a list with a list of labels"),
        ("[]", "a list with a list of labels"),
        ("[[1], 2]", r"entry 1 \(image 2\) is not a list of integers: 2"),
        ('[[1], ["2"]]', r"entry 1 \(image 2\)"),
        ("[[1]]", "predictions for 2 images and .* has labels for 1"),
        ("[[], []]", "every ReaL list of these images is empty"),
    ],
)
def test_damaged_real_files_are_refused(tmp_path, content, message):
    predictions = write(tmp_path / "p.txt", "1\n2\n")
    with pytest.raises(UserError, match=message):
        classification.score(predictions, real_path=write(tmp_path / "real.json", content))


def test_our_file_with_an_image_beyond_the_real_list(tmp_path):
    path = stored_entry(tmp_path / "p.npz", ["ILSVRC2012_val_00000006.JPEG"], labels=[1], best=[1])
    with pytest.raises(UserError, match=r"image number 6, and .* lists 5 images"):
        classification.score(path, real_path=write(tmp_path / "real.json", json.dumps(REAL)))


def test_the_output_has_both_error_rates(random_entry):
    card = classification.score(*random_entry[:2])
    shown = text_of(card)
    first, last = card.scores[0], card.scores[-1]
    assert f"top-1 error {100 * first.error:.1f} %, 95 % interval [" in shown
    assert f"top-5 error {100 * last.error:.1f} %, 95 % interval [" in shown
    assert f"({last.wrong} of 400 images wrong)" in shown


def test_real_lists_of_other_images_are_refused(tmp_path):
    labels = list(range(12))
    path = stored_entry(tmp_path / "p.npz", [f"ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, 13)], labels, labels)
    right = write(tmp_path / "real.json", json.dumps([[label] for label in labels]))
    assert classification.score(path, real_path=right).scores[-1].wrong == 0
    shifted = write(tmp_path / "shifted.json", json.dumps([[], *([label] for label in labels[:-1])]))
    with pytest.raises(UserError, match="only 0 of 11 lists contain their image's own label"):
        classification.score(path, real_path=shifted)


WNIDS = ["n02085620", "n02106662", "n02930766"]  # two dogs and a cab


def with_provenance(path, provenance, top5=((1, 2, 0), (2, 0, 1))):
    entry = Predictions(np.array(["a", "b"]), np.zeros(2, np.int32), np.array(top5, np.int32),
                        np.zeros((2, 3), np.float16), provenance)  # fmt: skip
    predictions.save(path, entry)
    return path


def test_classes_named_by_wordnet_ids_are_scored_along_its_tree(tmp_path):
    card = classification.score(with_provenance(tmp_path / "p.npz", {"classes": WNIDS}))
    assert [cost.mean for cost in card.hierarchy.costs[:2]] == [(5 + card_cost(0, 2)) / 2, 5 / 2]
    shown = text_of(card)
    assert "hierarchical cost (challenge of 2010)" in shown
    assert "first guess of another super-class: 50.0 %" in shown
    for provenance in ({}, {"classes": ["dog", "dog 2", "cab"]}):
        assert classification.score(with_provenance(tmp_path / "q.npz", provenance)).hierarchy is None
    labels = write(tmp_path / "labels.txt", "1\n3\n")  # class numbers in a submission may mean other classes
    assert classification.score(tmp_path / "p.npz", labels).hierarchy is None


def card_cost(a, b):
    return wordnet.height(wordnet.lowest_common_ancestor(WNIDS[a], WNIDS[b]))


def test_people_are_shown_with_errors_on_imagenet(tmp_path):
    path = with_provenance(tmp_path / "p.npz", {"config": {"data": {"name": "imagenet2012"}}})
    shown = text_of(classification.score(path), width=140)
    rows = [line.split() for line in shown.splitlines() if " person " in line]
    assert rows[0][:6] == ["a", "person", "5", "76", "1,500", "5.1"]
    assert rows[1][:7] == ["a", "second", "person", "5", "31", "258", "12.0"]
    assert "five guesses for each (Karpathy 2014; Russakovsky et al. 2015, sec. 6.4)" in shown
    for data in ("imagenet_v2/matched-frequency", "cifar10", 7):
        other = with_provenance(tmp_path / "q.npz", {"config": {"data": {"name": data}}})
        assert "person" not in text_of(classification.score(other), width=140)


# --- classes in another order -----------------------------------------------------------------------------------


def test_real_labels_count_imagenets_classes_whatever_the_order_of_ours(tmp_path):
    labels, order = np.arange(12), np.random.default_rng(0).permutation(1000)
    real = write(tmp_path / "real.json", json.dumps([[int(label)] for label in labels]))
    ids = [f"ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, 13)]
    path, place = tmp_path / "p.npz", np.argsort(order)
    stored = predictions.load(stored_entry(path, ids, place[labels], place[(labels + (labels < 3)) % 12]))
    names = [sets.imagenet_wnids()[number] for number in order]
    predictions.save(path, dataclasses.replace(stored, provenance={"classes": names}))
    card = classification.score(path, real_path=real)
    assert card.scores[-1].wrong == 3
    assert card.notes[0].startswith(
        f"{path} has the classes of imagenet2012 in another order: index 0 is '{names[0]}'"
    )
    predictions.save(path, dataclasses.replace(stored, provenance={"classes": [*names[:-1], "background"]}))
    with pytest.raises(UserError, match=r"only .*p.npz has 'background'; only imagenet2012 has"):
        classification.score(path, real_path=real)


def test_labels_that_contradict_the_stored_ones_are_noted(tmp_path):
    labels = np.arange(12)
    path = stored_entry(tmp_path / "p.npz", [f"{n:02d}.jpg" for n in range(12)], labels, labels)
    assert not classification.score(path, submission(tmp_path / "same.txt", labels[:, None])).notes
    (note,) = classification.score(path, submission(tmp_path / "other.txt", labels[::-1, None])).notes
    assert note.startswith(
        "12 of 12 labels differ from those that the predictions were stored with: the file seems to"
    )
