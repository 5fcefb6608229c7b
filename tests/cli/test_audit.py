"""Tests of `main.py audit` with invented predictions and runs."""

import csv
import dataclasses
import json

import numpy as np
import pytest

import main
from imagenet_repro.config import Data
from imagenet_repro.scoring import predictions
from imagenet_repro.scoring.predictions import Predictions
from tests.report.test_comparison_page import Document

CLASSES, IMAGES = 6, 600


def provenance(train="train", evaluated="validation"):
    return {"config": {"data": dataclasses.asdict(Data(name="photos", train_split=train, eval_split=evaluated))}}


def store(path, *, seed=0, skill=3.0, order=None, labels=None, **source):
    """Store the predictions of a network for images whose first 60 labels are the next class; return the path."""
    rng = np.random.default_rng(seed)
    true = np.arange(IMAGES) % CLASSES
    given = np.where(np.arange(IMAGES) < 60, (true + 1) % CLASSES, true) if labels is None else labels
    logits = rng.normal(size=(IMAGES, CLASSES)) + skill * np.eye(CLASSES)[true]
    top5 = np.argsort(-logits, axis=1)[:, :5]
    ids = np.array([f"image{i:03d}" for i in range(IMAGES)])
    order = np.arange(IMAGES) if order is None else order
    arrays = ids, given.astype(np.int32), top5.astype(np.int32), logits.astype(np.float16)
    predictions.save(path, Predictions(*(one[order] for one in arrays), provenance(**source)))
    return str(path)


def audit(*arguments):
    return main.main(["audit", *map(str, arguments)])


def table(page, name):
    heading, *rows = Document(page.read_text()).tables[f"table-{name}"]
    return [dict(zip([text.strip() for text in heading], row, strict=True)) for row in rows]


def test_flipped_labels_are_the_first_suspects_and_rates_are_restated(tmp_path, capsys):
    a, b = (
        store(tmp_path / "a.npz"),
        store(tmp_path / "b.npz", seed=1, order=np.random.default_rng(0).permutation(IMAGES)),
    )
    c = store(tmp_path / "c.npz", seed=2, skill=1.5)
    out = tmp_path / "out"
    assert audit("--predictions", a, b, "--compare", c, a, f"--out={out}") == 0
    printed = capsys.readouterr().out
    assert "the page has no images: unknown data set 'photos'" in printed
    assert f"the page: {out / 'audit.html'}" in printed
    with (out / "suspects.csv").open() as file:
        rows = list(csv.DictReader(file))
    actual = [row for row in rows if int(row["id"].removeprefix("image")) < 60]
    assert len(actual) > 55
    assert len(actual) / len(rows) > 0.9
    assert all(row["given_name"] == f"class {row['given']}" for row in rows)
    rates = table(out / "audit.html", "error_rates_restated")
    assert [row["system"] for row in rates[::2]] == ["a", "b", "mean of 2", "c"]
    for name, row in zip("ab", rates[:4:2], strict=True):
        expected = predictions.load(tmp_path / f"{name}.npz").error_rates()
        assert float(row["top-1 error %"]) == pytest.approx(100 * expected.top1_error, abs=0.051)
    without = [float(row["top-1 error %"]) for row in rates[1::2]]
    assert all(rest < float(row["top-1 error %"]) for rest, row in zip(without, rates[::2], strict=True))
    pairs = table(out / "audit.html", "differences_restated")
    assert {(row["first"], row["second"]) for row in pairs} == {("c", "a")}


def test_verdicts_change_the_restated_rates(tmp_path, capsys):
    a, out = store(tmp_path / "a.npz"), tmp_path / "out"
    audit("--predictions", a, f"--out={out}", "--filter=both", "--rank=self_confidence", "--wrong_share=0.1")
    heading, *lines = (out / "suspects.csv").read_text().splitlines()
    right = [line for line in lines if int(line.split(",")[1].removeprefix("image")) < 60]
    (tmp_path / "checked.csv").write_text("\n".join([f"{heading},verdict", *(f"{one},suggested" for one in right)]))
    assert audit("--predictions", a, f"--out={out}", f"--verdicts={tmp_path / 'checked.csv'}") == 0
    rates = table(out / "audit.html", "error_rates_restated")
    assert [row["labels"] for row in rates] == ["labels as given", "without suspects", "by verdicts"]
    given, without, verdicts = (float(row["top-1 error %"]) for row in rates)
    assert without <= verdicts + 1
    assert given - verdicts == pytest.approx(100 * len(right) / IMAGES, abs=0.5)
    assert "By verdicts, its top-1 error is" in capsys.readouterr().out


def test_the_audit_of_a_run_is_written_into_its_workdir(tmp_path):
    run = tmp_path / "runs/resnet50"
    store(run / "predictions/photos_validation.npz")
    shares = {"top1_error": 0.1, "top5_error": 0.0, "cross_entropy": 1.0}
    result = {
        "system": "resnet50", "parameters": 1, "multiply_adds": 1, "spent": {"images": 1, "seconds": 1.0},
        "rates": {"images": IMAGES, "top1_wrong": 60, "top5_wrong": 0, **shares},
        "provenance": {"config": provenance()["config"] | {"budget": "1ep"}},
        "predictions": "predictions/photos_validation.npz", "classes": ["n02084071", *"bcdef"],
    }  # fmt: skip
    (run / "result.json").write_text(json.dumps(result))
    assert audit("--predictions", run) == 0
    text = Document((run / "audit.html").read_text()).text
    assert "dog, domestic dog, Canis familiaris" in text
    assert "found by resnet50" in text


def test_predictions_that_cannot_be_audited_are_refused(tmp_path, capsys):
    a = store(tmp_path / "a.npz")
    other = store(tmp_path / "other.npz", labels=np.arange(IMAGES) % CLASSES)
    trained = store(tmp_path / "trained.npz", evaluated="train")
    (tmp_path / "file").write_text("")
    for arguments, message in (
        ([a, a], "named twice"),
        ([a, other], "have different labels of image000, image001, image002 and 57 more"),
        ([trained], "cannot check whether"),  # the data set is missing
        ([tmp_path / "none.npz"], "there is no file of predictions"),
        ([tmp_path], "there is no"),
        ([a, f"--out={tmp_path / 'file'}"], "is a file; a directory is needed"),
        ([a, "--wrong_share=0.7"], "a share between 0 and 0.5"),
    ):
        assert audit("--predictions", *arguments) in (2, 74)
        assert message in capsys.readouterr().err


def test_predictions_with_classes_in_another_order_are_aligned_by_name(tmp_path, capsys):
    names, order = list("abcdef"), np.array([5, 3, 4, 0, 2, 1])
    paths = [store(tmp_path / f"{name}.npz", seed=seed) for seed, name in enumerate("xy")]
    for path, classes in zip(paths, (names, names), strict=True):
        one = predictions.load(path)
        predictions.save(path, dataclasses.replace(one, provenance=one.provenance | {"classes": classes}))
    assert audit("--predictions", *paths, f"--out={tmp_path / 'before'}") == 0
    one, place = predictions.load(paths[1]), np.argsort(order)
    label, top5 = (place[array].astype(np.int32) for array in (one.label, one.top5))
    source = one.provenance | {"classes": [names[number] for number in order]}
    predictions.save(paths[1], Predictions(one.id, label, top5, one.logits[:, order], source))
    capsys.readouterr()
    assert audit("--predictions", *paths, f"--out={tmp_path / 'after'}") == 0
    assert "y has the classes of x in another order: index 0 is 'f' and not 'a'" in capsys.readouterr().out
    before, after = ((tmp_path / name / "suspects.csv").read_text() for name in ("before", "after"))
    assert before == after
