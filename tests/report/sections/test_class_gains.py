import dataclasses
import re

import numpy as np
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.report import records
from imagenet_repro.report.plots import charts, dumbbell
from imagenet_repro.report.sections import class_gains
from imagenet_repro.scoring.predictions import Predictions


def names_of(classes):
    return [f"name {c}, synonym {c}" for c in range(classes)]


FIELDS = ("id", "label", "top5", "logits")


def predicted(labels, ranks, classes):
    """Return predictions with the label of image i at rank `ranks[i]` of its guesses; from 5 on it is missing."""
    top5 = []
    for label, rank in zip(labels, ranks, strict=True):
        guesses = [(label + 1 + k) % classes for k in range(5)]
        guesses.insert(rank, label)
        top5.append(guesses[:5])
    ids = np.array([f"image{i}" for i in range(len(labels))])
    logits = np.zeros((len(labels), classes), np.float16)
    return Predictions(ids, np.array(labels, np.int32), np.array(top5, np.int32), logits)


def changed(one, **fields):
    return dataclasses.replace(one, **fields)


def chosen(one, rows):
    return changed(one, **{key: getattr(one, key)[rows] for key in FIELDS})


def relabelled(one, index, label):
    return changed(one, label=np.where(np.arange(len(one)) == index, label, one.label).astype(np.int32))


def shuffled(one, seed=0):
    return chosen(one, np.random.default_rng(seed).permutation(len(one)))


def stepwise(classes, images=10):
    """Return two systems: in class c, the first misses c images with five guesses, and the second none.

    Their first guess is wrong in both for every image of an odd class. The last class has the largest gain.
    """
    labels = np.repeat(np.arange(classes), images).tolist()
    number = np.tile(np.arange(images), classes)
    before = [5 if n < min(c, images) else c % 2 for c, n in zip(labels, number, strict=True)]
    return predicted(labels, before, classes), predicted(labels, [c % 2 for c in labels], classes)


def text_in(svg):
    return re.findall(r"<!-- (.*?) -->", svg.read_text())


def test_counts_of_a_class_in_closed_form():
    before, after = stepwise(21, images=40)
    result = class_gains.gains(before, shuffled(after), names_of(21))
    assert result.guesses == 5
    assert [one.short for one in result.classes] == [f"name {c}" for c in reversed(range(21))]
    for one in result.classes:
        c = int(one.short.split()[1])
        assert one.name == f"name {c}, synonym {c}"
        assert one.before.images == one.after.images == 40
        assert one.errors(5) == (100 * c / 40, 0.0)
        assert one.gain(5) == 100 * c / 40
        assert one.errors(1) == ((100.0, 100.0) if c % 2 else (100 * c / 40, 0.0))
        assert one.gain(1) == (0.0 if c % 2 else 100 * c / 40)
    assert result.overall.before == before.error_rates()
    assert result.overall.after == after.error_rates()


def test_top_guesses_suffice_for_gains():
    before, after = stepwise(21)
    top_guesses = [records.TopGuesses(one.id, one.label, one.top5) for one in (before, after)]
    assert class_gains.gains(*top_guesses, names_of(21)) == class_gains.gains(before, after, names_of(21))
    with pytest.raises(UserError, match="before choose between 21 classes; there are 20 names"):
        class_gains.gains(*top_guesses, names_of(20))


def test_swapped_systems_swap_the_gains():
    before, after = stepwise(21)
    forwards, backwards = (class_gains.gains(*pair, names_of(21)) for pair in ((before, after), (after, before)))
    assert {x.name: x.gain(5) for x in forwards.classes} == {x.name: -x.gain(5) for x in backwards.classes}


@pytest.mark.parametrize(("classes", "guesses", "first"), [(20, 1, 10), (21, 5, 10)])
def test_few_classes_are_ordered_by_top1_error(classes, guesses, first):
    result = class_gains.gains(*stepwise(classes, images=10), names_of(classes))
    points = [one.gain(guesses) for one in result.classes]
    assert result.guesses == guesses
    assert points == sorted(points, reverse=True)
    assert result.classes[0].short == f"name {first}"  # the first of the classes with the largest possible gain


def test_classes_without_images_are_left_out():
    before, after = stepwise(8)
    result = class_gains.gains(chosen(before, before.label != 3), chosen(after, after.label != 3), names_of(8))
    assert sorted(one.short for one in result.classes) == [f"name {c}" for c in range(8) if c != 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: changed(p, id=np.array(["x", *p.id[1:]])), "different images; only before: image0; only after: x$"),
        (lambda p: chosen(p, slice(5, None)), "different images; only before: image0, image1, image2 and 2 more$"),
        (lambda p: relabelled(p, 7, 1), "labels before and after differ for image7$"),
        (lambda p: relabelled(p, 7, -1), "after have images without labels: image7$"),
        (lambda p: changed(p, logits=np.zeros((len(p), 7), np.float16)), "after choose between 7 classes; .* 6 names"),
    ],
)
def test_predictions_that_cannot_be_compared(change, message):
    before, after = stepwise(6)
    with pytest.raises(UserError, match=message):
        class_gains.gains(before, shuffled(change(after)), names_of(6))


def test_predictions_without_labels_before():
    before, after = stepwise(6)
    unlabelled = changed(before, label=np.full(len(before), -1, np.int32))
    with pytest.raises(UserError, match="before have images without labels: image0, image1, image2 and 57 more"):
        class_gains.gains(unlabelled, after, names_of(6))


def test_short_names_are_unique():
    names = ["tench, Tinca tinca", "maillot", "maillot, tank suit", "crane", "crane", "x" * 50, "a b"]
    shorts = class_gains.short_names(names)
    assert shorts[:5] == ["tench", "maillot", "maillot, tank suit", "crane (class 3)", "crane (class 4)"]
    assert shorts[5] == "x" * 33 + "…"
    assert len(set(class_gains.short_names(["y" * 60, "y" * 61, "y" * 62, "y, z", "y, z"]))) == 5


def test_the_table_has_every_class_and_the_total():
    before, after = stepwise(21)
    names = ["a|b", *names_of(21)[1:]]
    lines = class_gains.markdown(class_gains.gains(after, before, names), systems=("new", "old")).splitlines()
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[:24]]
    assert {len(row) for row in cells} == {8}
    assert cells[0][2:5] == ["top-5 error %, new", "top-5 error %, old", "gain in points"]
    assert cells[2][:2] == ["**all classes**", "210"]
    assert cells[3] == ["a\\|b", "10", "0.0", "0.0", "0.0", "0.0", "0.0", "0.0"]
    assert cells[5] == ["name 2, synonym 2", "10", "0.0", "20.0", "−20.0", "0.0", "20.0", "−20.0"]
    assert lines[25].startswith("Each class has 10 images, so one image is 10 points")


def order_of(chart):
    """Return the rows of the figure from top to bottom."""
    (panel,) = chart.views[0].specification["concat"]
    domain = panel["layer"][0]["encoding"]["y"]["scale"]["domain"]
    return [name.removeprefix(dumbbell.HEADING) for name in domain]


def texts_of(chart):
    return chart.views[0].specification["title"]


def test_the_figure_shows_both_ends_of_many_classes():
    result = class_gains.gains(*stepwise(30, images=40), names_of(30))
    chart = dumbbell.draw_gains(result, ("Fisher $v$", "AlexNet"))
    order = order_of(chart)
    assert [name for name in order if not name.startswith("name")] == ["Gained most", "Gained least or lost most"]
    assert sorted(int(name.split()[1]) for name in order if name.startswith("name")) == [*range(5), *range(15, 30)]
    assert {"+72.5", "0.0"} <= {row["text"] for row in chart.datasets["classes"]}
    assert "From Fisher $v$ to AlexNet, “name 29” gained most." in texts_of(chart)["text"]
    assert "Each class has 40 images" in texts_of(chart)["subtitle"][0]
    assert [row["which"] for row in chart.datasets["overall"]] == [
        "Fisher $v$: 36.2 % over all 1,200 images",
        "AlexNet: 0.0 % over all 1,200 images",
    ]


def test_few_classes_are_all_shown_without_headings():
    chart = dumbbell.draw_gains(class_gains.gains(*reversed(stepwise(6)), names_of(6)))
    assert sorted(order_of(chart)) == [f"name {c}" for c in range(6)]
    assert "−40.0" in {row["text"] for row in chart.datasets["classes"]}
    assert "no class gained" in texts_of(chart)["text"][0]


def test_marks_are_at_the_errors_before_and_after():
    result = class_gains.gains(*stepwise(21, images=40), names_of(21))
    chart = dumbbell.draw_gains(result)
    shown = [*result.classes[:15], *result.classes[-5:]]
    points = [(row["class"], row["error"]) for row in chart.datasets["points"]]
    assert points == [(one.short, error) for one in shown for error in one.errors(5)]
    ends = [(row["before"], row["after"], row["gain"]) for row in chart.datasets["classes"]]
    assert ends == [(*one.errors(5), one.gain(5)) for one in shown]


def test_one_class_of_one_image(tmp_path):
    result = class_gains.gains(predicted([0], [1], 6), predicted([0], [0], 6), names_of(6))
    assert class_gains.noise_note(result) == "Each class has 1 image, so one image is 100 points of its error."
    paths = charts.write(dumbbell.draw_gains(result), tmp_path, "the gains")
    assert [path.stat().st_size > 1000 for path in paths] == [True, True]
