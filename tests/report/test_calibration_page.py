import dataclasses
import re

import numpy as np
import pytest

from imagenet_repro.errors import SaveError
from imagenet_repro.report import calibration_page
from imagenet_repro.report.calibration_page import CalibrationResult
from imagenet_repro.report.plots import reliability
from imagenet_repro.report.plots.reliability import CalibrationState
from imagenet_repro.scoring import calibration
from tests.report import plot_helpers
from tests.report.test_comparison_page import Document, sections
from tests.scoring import synthetic_predictions

DOGS = ("n02085620", "n02085782", "n02110185", "n02123045", "n01443537")  # dogs, a cat and a goldfish


def shown(images=600, sharpness=2.0, names=("a", "b", "c", "d", "e"), *, fitted=True):
    scored = synthetic_predictions.calibrated(images, len(names), sharpness=sharpness)
    before = calibration.score_probabilities(scored)
    one = CalibrationResult("resnet50", scored, names, before)
    if not fitted:
        return one
    return dataclasses.replace(one, after=calibration.score_probabilities(scored, 2.0), temperature=2.0, fitted_on=300)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    scored, out = shown(names=DOGS), tmp_path_factory.mktemp("page")
    path = calibration_page.write(scored, out)
    return scored, out, Document(path.read_text())


def test_the_page_has_every_part_with_its_files(page):
    _, out, document = page
    assert sections(document) == ["calibration", "bins", "risk", "confusions"]
    for name in ("calibration", "reliability", "reliability_at_temperature", "risk", "confusions", "tree_distances"):
        assert f"table-{name}" in document.tables
        assert (out / f"tables/{name}.csv").exists()
        assert (out / f"tables/{name}.md").exists()
    for name in ("reliability", "risk"):
        assert (out / f"figures/{name}.png").exists()
        plot_helpers.check_svg(out / f"figures/{name}.svg")
    assert {one["class"] for one in document.attributes("figure")} == {"narrow"}
    assert not [one for one in document.attributes("img") if not one["src"].startswith("data:")]


def test_the_numbers_on_the_page_are_those_of_the_measures(page):
    scored, _, document = page
    rows = {row[0]: row[1:] for row in document.tables["table-calibration"]}
    assert rows["measure"] == ["as it is", "temperature 2"]
    for column, one in enumerate((scored.before, scored.after)):
        for binning, name in calibration_page.BINNINGS.items():
            measured, chance = calibration.bin_images(one, binning), calibration.chance_error(one, binning)
            cells = [f"{100 * x:.2f}" for x in (measured.error, chance.mean, chance.high)]
            heads = ("calibration error %", "by chance", "by chance at most (95 %)")
            assert [rows[f"{head}, {name}"][column] for head in heads] == cells
            assert float(rows[f"debiased, {name}"][column].replace("−", "-")) == pytest.approx(
                100 * measured.debiased, abs=0.0051
            )
        assert rows["negative log likelihood, nats"][column] == f"{one.negative_log_likelihood:.4f}"
        assert rows["Brier score"][column] == f"{one.brier:.4f}"
        area = calibration.risk_curve(one).area
        assert rows["area below error against coverage %"][column] == f"{100 * area:.2f}"
    bins = document.tables["table-reliability"][1:]
    assert sum(int(row[1]) for row in bins) == 600
    assert float(rows["top-1 error %"][0]) == pytest.approx(
        sum(int(row[1]) * float(row[3]) for row in bins) / 600, abs=0.1
    )


def test_error_at_several_coverages(page):
    scored, _, document = page
    _, *rows = document.tables["table-risk"]
    assert [row[:2] for row in rows[:2]] == [["100", "600"], ["90", "540"]]
    assert rows[0][2] == rows[0][4] == f"{100 * scored.before.error:.1f}"
    order = np.argsort(-scored.before.confidence, kind="stable")[:60]
    assert float(rows[-1][2]) == pytest.approx(100 * np.mean(~scored.before.right[order]), abs=2)


def test_confusions_have_words_of_wordnet(page):
    scored, _, document = page
    (head, *rows) = document.tables["table-confusions"]
    assert head == ["class", "guessed as", "both are", "images", "guesses"]
    assert {"Chihuahua", "Japanese spaniel", "Siberian husky", "tabby", "goldfish"} >= {row[0] for row in rows}
    label, guess = scored.predictions.label, scored.predictions.top5[:, 0]
    pairs = np.bincount((5 * label + guess)[label != guess], minlength=25)
    assert [int(row[4]) for row in rows] == sorted(pairs[pairs > 0].tolist(), reverse=True)[:20]


@pytest.mark.parametrize(
    ("sharpness", "verdict"),
    [
        (2.5, "is overconfident"),
        (0.4, "is underconfident"),
        (1.0, "does not differ significantly from a perfectly calibrated"),
    ],
)
def test_the_verdict(sharpness, verdict):
    lines = calibration_page.verdict(shown(sharpness=sharpness, fitted=False)).splitlines()
    assert lines[0].startswith(f"resnet50 {verdict}")
    assert re.search(r"A perfectly calibrated system would show [\d.]+ % on 600 images by chance", lines[1])
    assert len(lines) == 2
    assert "temperature of 2, fitted on 300 other images" in calibration_page.verdict(shown()).splitlines()[2]


def test_without_a_temperature_or_a_tree(tmp_path):
    document = Document(calibration_page.write(shown(fitted=False), tmp_path).read_text())
    assert document.tables["table-calibration"][0] == ["measure", "as it is"]
    assert not {"table-tree_distances", "table-reliability_at_temperature"} & set(document.tables)


def test_a_system_that_is_always_right(tmp_path):
    label = np.arange(40) % 4
    scored = synthetic_predictions.from_logits(3 * np.eye(4)[label], label)
    one = CalibrationResult("resnet50", scored, tuple("abcd"), calibration.score_probabilities(scored))
    document = Document(calibration_page.write(one, tmp_path).read_text())
    assert "table-confusions" not in document.tables
    assert "resnet50 is underconfident" in document.text


def test_points_are_at_the_bins():
    scored = shown()
    datasets = reliability.draw_reliability(scored.states).datasets
    for state in scored.states:
        bins = calibration.bin_images(state.judged, "width")
        points = [(row["confidence"], row["accuracy"]) for row in datasets["bins"] if row["state"] == state.name]
        np.testing.assert_allclose(points, 100 * np.stack([bins.confidence, bins.accuracy], 1), rtol=1e-5)
        heights = [row["share"] for row in datasets["counts"] if row["state"] == state.name]
        assert sum(heights[:-1]) == pytest.approx(100, rel=1e-4)
    rows = reliability.draw_risk(scored.states).datasets["curves"]
    ends = {row["curve"]: (row["coverage"], row["risk"]) for row in rows}
    assert len(ends) == 3
    np.testing.assert_allclose(list(ends.values()), [[100, 100 * scored.before.error]] * 3, rtol=1e-5)


def test_the_curve_of_many_images_has_few_points():
    judged = calibration.score_probabilities(synthetic_predictions.calibrated(20_000, 4))
    assert len(reliability.draw_risk([CalibrationState("as it is", judged)]).datasets["curves"]) <= 600


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError):
        calibration_page.write(shown(images=50), tmp_path / "file")
