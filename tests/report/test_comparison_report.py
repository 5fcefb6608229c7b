import csv
import dataclasses
import json
import re

import numpy as np
import pytest

from imagenet_repro.report import comparison_report
from imagenet_repro.report.plots import charts
from imagenet_repro.report.records import FailedRun
from imagenet_repro.report.targets import parse_targets
from imagenet_repro.statistics import crossed_effects
from tests.report import comparisons
from tests.report.test_comparison_page import Document, sections


@pytest.fixture
def no_pixels(monkeypatch):
    """Do not write the files of figures, which takes seconds and has tests of its own."""
    monkeypatch.setattr(charts, "write", lambda *_: [])


@pytest.fixture(scope="module")
def written_page(tmp_path_factory):
    """Write a page with everything: two systems with two seeds, WordNet's classes, a failure, and thumbnails."""
    out = tmp_path_factory.mktemp("page")
    wnids = ("n02084071", "n02121808", "n01503061", "n02958343", "n03001627", "n07739125", "n02084071", "n01440764",
             "n01443537", "n02123045")  # fmt: skip
    comparison = comparisons.comparison(
        2, 2, selection="Nothing was searched.", failures=(FailedRun("zfnet", 1, "it failed"),)
    )
    comparison = dataclasses.replace(comparison, class_names=(*wnids[:6], "n02510455", *wnids[7:]), data="silhouettes")
    requested_ids = []

    def thumbnails(ids):
        requested_ids.extend(ids)
        return dict.fromkeys(ids, b"\xff\xd8jpeg")

    path = comparison_report.present(comparison, out, thumbnails, targets=parse_targets("top1:70,top1:1"))
    return comparison, path, Document(path.read_text()), requested_ids


def test_all_figures_have_two_files_and_are_on_the_page(written_page):
    path = written_page[1]
    names = {file.stem for file in (path.parent / "figures").iterdir()}
    assert names >= {"curves_images", "curves_flops", "curves_seconds", "pareto_flops", "pareto_multiply_adds"}
    assert names >= {"differences_top1", "differences_top5", "gains", "heights", "history", "profiles"}
    for name in names:
        for suffix in (".png", ".svg"):
            assert (path.parent / f"figures/{name}{suffix}").stat().st_size > 1000
    specifications = [
        view["name"]
        for text in re.findall(r"<script [^>]*data-chart>(.*?)</script>", path.read_text(), re.S)
        for view in json.loads(text)["views"]
    ]
    assert sorted(specifications) == sorted(names)


def test_sections_stand_in_order(written_page):
    assert sections(written_page[2]) == [
        "selection", "warnings", "leaderboard", "what_differs", "curves", "targets", "compute", "differences",
        "classes", "confusions", "disagreements", "history", "provenance",
    ]  # fmt: skip


def test_the_first_line_of_the_verdict_is_its_first_sentence(written_page):
    text = written_page[1].read_text()
    lines = re.search(r'<div class="verdict">\n(.*?)</div>', text, re.S)[1].strip().splitlines()
    assert re.fullmatch(
        r"<p>xrce_2011 (has a lower top-1 error than|and) nec_uiuc_2010.* \(means of 2 seeds\)\.</p>",
        lines[0],
    )
    assert len(lines) == 2


def test_the_verdict_is_that_of_the_crossed_effects_of_all_runs(written_page):
    comparison, path, document, _ = written_page
    with (path.parent / "tables/differences_recipes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["metric"] for row in rows] == ["top-1 error", "top-5 error"]
    for row, guesses in zip(rows, (1, 5), strict=True):
        runs = crossed_effects.summarize([system.wrong(guesses) for system in comparison.systems])
        pair = crossed_effects.compare(runs)
        low, high, difference = (100 * float(one[0]) for one in (pair.low, pair.high, pair.difference))
        assert row["95 % interval, new images and new seeds"] == f"[{low:+.1f}, {high:+.1f}]"
        assert row["a - b, points"] == f"{difference:+.1f}"
        assert float(row["p adjusted (Tukey-Kramer)"]) == pytest.approx(float(pair.p_values()[0]), rel=0.05)
        assert row["significant"] == ("yes" if pair.is_different[0] else "no")
        if guesses == 1:
            noise = crossed_effects.noise_of(runs)
            gap = 100 * crossed_effects.minimal_gap(2, 2, runs.images, noise)
            gap_found = f"With these seeds and images a gap of {gap:.1f} points would be found 80 % of the time."
            assert gap_found in document.text
    assert "too few seeds" not in document.text


def test_every_interval_of_the_page_names_its_population(written_page):
    headings = {heading for rows in written_page[2].tables.values() for heading in rows[0] if "interval" in heading}
    assert headings
    names = {"new images and new seeds", "new images, these checkpoints", "these images, new seeds"}
    assert {heading.partition(", ")[2] for heading in headings} == names
    for heading, *cells in (column for rows in written_page[2].tables.values() for column in zip(*rows, strict=True)):
        if any(re.match(r"\[[^,]+, [^,]+\]", cell) for cell in cells):
            assert heading.partition(", ")[2] in names, heading


def test_the_matrix_of_many_systems_shows_those_with_the_lowest_errors(tmp_path, monkeypatch, no_pixels):
    monkeypatch.setattr(comparison_report, "MOST_IN_MATRIX", 3)
    comparison = comparisons.comparison(5, 1)
    text = comparison_report.present(comparison, tmp_path).read_text()
    charts_shown = [json.loads(one) for one in re.findall(r"<script [^>]*data-chart>(.*?)</script>", text, re.S)]
    cells = next(one for one in charts_shown if one["views"][0]["name"] == "differences_top1")["datasets"]["cells"]
    best = sorted(comparison.systems, key=lambda system: system.mean_error(1))[:3]
    assert {(row["row"], row["column"]) for row in cells} == {
        (one.name, other.name) for one in best for other in best if one is not other
    }
    assert "Top-1 error, the 3 systems with the lowest errors" in text
    assert len((tmp_path / "tables/differences_checkpoints.csv").read_text().splitlines()) == 1 + 2 * 10


def test_classes_are_shown_by_their_names_in_wordnet(written_page):
    with (written_page[1].parent / "tables/classes.csv").open() as file:
        names = {row["class"] for row in csv.DictReader(file)}
    assert not any(re.search(r"n\d{8}", name) for name in names)
    assert any("tench" in name for name in names)


def test_only_thumbnails_that_are_shown_are_requested(written_page):
    _, _, document, requested_ids = written_page
    shown = [image for image in document.attributes("img") if "data-id" in image]
    assert shown
    assert len(set(requested_ids)) == len(requested_ids)
    assert {image["data-id"] for image in shown} == set(requested_ids)


def test_narrow_figures_stand_side_by_side(written_page):
    classes = [one.get("class") for one in written_page[2].attributes("figure")]
    assert classes.count("narrow") == 2  # both matrices of two systems


@pytest.mark.parametrize("seeds", [1, 3])
def test_letters_agree_with_the_matrix(seeds):
    comparison = comparisons.comparison(4, seeds)
    result = comparison_report._differences(comparison)
    letters = comparison_report.groups(comparison, result)
    different = result.significant(1, result.question)
    for i, a in enumerate(comparison.systems):
        for j, b in enumerate(comparison.systems):
            assert bool(set(letters[a.name]) & set(letters[b.name])) == (i == j or not different[i, j])
    assert (
        comparison_report.groups(comparisons.comparison(1), comparison_report._differences(comparisons.comparison(1)))
        == {}
    )


def other_images(comparison):
    """Return the comparison with fewer images for the last system."""
    *others, last = comparison.systems
    runs = []
    for run in last.runs:
        fewer = {key: getattr(run.guesses, key)[:-7] for key in ("id", "label", "top5")}
        runs.append(dataclasses.replace(run, guesses=dataclasses.replace(run.guesses, **fewer)))
    systems = (*others, dataclasses.replace(last, runs=tuple(runs)))
    return dataclasses.replace(comparison, systems=systems, mixed=("scored split: a (x); b (y).",))


def test_without_the_same_images_nothing_compares_image_by_image(tmp_path, no_pixels, capsys):
    comparison = other_images(comparisons.comparison(3))
    document = Document(comparison_report.present(comparison, tmp_path, thumbnails=lambda ids: {}).read_text())
    assert sections(document) == ["warnings", "leaderboard", "what_differs", "curves", "compute", "provenance"]
    assert "this page cannot say which differences are significant" in document.text
    assert "this page does not compare systems image by image or class by class" in document.text
    assert "under different conditions" in document.text
    assert "5ep each" not in document.text
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", (tmp_path / "report.html").read_text())
    assert captions
    assert all("Mixed, see the warnings." in caption for caption in captions)
    (row,) = [
        row for row in csv.reader((tmp_path / "tables/leaderboard_mixed.csv").open()) if row[0] == "alexnet_2012"
    ]
    wrong = comparison.systems[2].runs[0].guesses.wrong(1)
    assert row[1] == f"{100 * np.mean(wrong):.1f}"
    assert "mixed, scored split: a (x); b (y)." in capsys.readouterr().out


def test_the_terminal_shows_leaderboard_verdict_failures_and_path(tmp_path, no_pixels, capsys):
    failures = (FailedRun("[red]zfnet[/]", 3, "the loss is nan"),)
    path = comparison_report.present(comparisons.comparison(3, failures=failures), tmp_path)
    out = capsys.readouterr().out
    assert f"the page: {path}\n" in out
    assert "no result of [red]zfnet[/], seed 3: the loss is nan\n" in out
    board = (tmp_path / "tables/leaderboard.csv").read_text().splitlines()[1:]
    heading, rows = re.split(r"─+\n", out, maxsplit=1)
    assert [line.split()[0] for line in rows.splitlines()[:3]] == [line.split(",")[0] for line in board]
    assert re.search(r"95 % interval,.*\n.*new images,.*\n.*these checkpoints", heading)
    assert "alexnet_2012 has the lowest top-1 error of 3 systems" in out


def test_one_system_with_one_run_has_a_page(tmp_path, no_pixels):
    document = Document(comparison_report.present(comparisons.comparison(1), tmp_path).read_text())
    assert "there is no other system to compare it with" in document.text
    assert "differences" not in sections(document)


def test_runs_that_logged_nothing_have_a_page(tmp_path, no_pixels):
    comparison = comparisons.comparison(2)
    silent = tuple(
        dataclasses.replace(one, runs=tuple(dataclasses.replace(run, rows=[]) for run in one.runs))
        for one in comparison.systems
    )
    comparison = dataclasses.replace(comparison, systems=silent)
    assert "curves" in sections(Document(comparison_report.present(comparison, tmp_path).read_text()))
