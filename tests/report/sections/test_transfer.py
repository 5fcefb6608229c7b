"""Tests of the section on pretraining, on invented runs: catching up, tables and sentences."""

import dataclasses

import numpy as np
import pytest

from imagenet_repro.config import Amount
from imagenet_repro.report import transfer_report
from imagenet_repro.report.records import ComparedSystem, TransferStudy, TransferTarget
from imagenet_repro.report.sections import leaderboard, transfer
from imagenet_repro.report.sections.transfer import BudgetPoint
from imagenet_repro.statistics import crossed_effects
from tests.report import comparisons

LABELS = {"tuned": ("lite0", "full"), "frozen": ("lite0", "linear"), "plain": ("scratch", "full")}
SKILLS = {"1000img": {"tuned": 6, "frozen": 7, "plain": 0}, "4000img": {"tuned": 11, "frozen": 7, "plain": 10}}


def compared(skills, budget):
    """Return a comparison of three systems with two seeds each."""
    template = comparisons.comparison(1, images=300)
    labels = template.systems[0].runs[0].guesses
    split = (labels.id, labels.label, np.random.default_rng(1).normal(size=300))
    systems = [
        ComparedSystem(name, "resnet50", "", tuple(comparisons.run(name, seed, skill, split, 10) for seed in (0, 1)))
        for name, skill in skills.items()
    ]
    return dataclasses.replace(template, systems=tuple(systems), budget=budget)


@pytest.fixture(scope="module")
def study():
    by_budget = {budget: compared(skills, budget) for budget, skills in SKILLS.items()}
    return TransferStudy((TransferTarget("digits", LABELS, by_budget),), "scratch")


def line(*errors):
    return [BudgetPoint(Amount.parse(f"{2**i}img"), error, 0.0, 1.0) for i, error in enumerate(errors)]


@pytest.mark.parametrize(
    ("scratch", "other", "expected"),
    [
        ((0.9, 0.5, 0.2), (0.4, 0.3, 0.3), "4img"),
        ((0.9, 0.3, 0.3), (0.4, 0.3, 0.3), "2img"),  # equal errors count
        ((0.1, 0.5, 0.2), (0.4, 0.3, 0.3), "4img"),  # an early lead that is lost does not
        ((0.1, 0.1, 0.4), (0.4, 0.3, 0.3), None),
    ],
)
def test_scratch_catches_up_where_its_error_stays_below(scratch, other, expected):
    found = transfer.caught_up_at(line(*scratch), line(*other))
    assert found == (Amount.parse(expected) if expected else None)


def test_budgets_without_runs_of_both_are_left_out():
    assert transfer.caught_up_at(line(0.9, 0.2), line(0.5, 0.3, 0.3)[1:]) == Amount.parse("2img")


def test_a_row_has_each_budget_with_its_interval_and_the_catch_up(study):
    (target,) = study.targets
    table = transfer.budgets(study, target)
    rows = {row[0]: dict(zip(table.headings, row, strict=True)) for row in table.rows}
    assert rows["frozen"]["scratch catches up at"] == "4,000 images"
    assert rows["tuned"]["scratch catches up at"] == "not within 4,000 images"
    assert rows["plain"]["scratch catches up at"] == "–"
    small = target.by_budget["1000img"]
    low, high = leaderboard.error_intervals(small, 1)[1]
    assert rows["frozen"]["95 % interval at 1,000 images"] == f"[{100 * low:.1f}, {100 * high:.1f}]"
    assert "Intervals are for new images and new seeds." in table.caption
    assert rows["frozen"]["error at 1,000 images, %"] == f"{100 * small.systems[1].mean_error(1):.1f}"


def test_differences_from_scratch_are_those_of_crossed_effects(study):
    (target,) = study.targets
    table = transfer.differences_from_scratch(study, target)
    pairs = crossed_effects.compare(crossed_effects.summarize([s.wrong(1) for s in target.whole.systems]))
    (row,) = [row for row in table.rows if row[0] == "frozen"]
    assert float(row[3].replace("−", "-")) == pytest.approx(-100 * pairs.difference[2], abs=0.051)
    assert float(row[4].strip("[]").split(", ")[0].replace("−", "-")) == pytest.approx(-100 * pairs.high[2], abs=0.051)


def test_every_source_has_a_row_and_every_target_a_column(study):
    (target,) = study.targets
    other = dataclasses.replace(
        target, name="scans", labels={"frozen": LABELS["frozen"]}, by_budget={"4000img": target.by_budget["4000img"]}
    )
    only = dataclasses.replace(other.whole, systems=other.whole.systems[1:2])
    other = dataclasses.replace(other, by_budget={"4000img": only})
    table = transfer.sources_by_targets(TransferStudy((target, other), "scratch"))
    assert table.headings == ("source", "adaptation", "digits", "scans")
    cells = {row[:2]: row[2:] for row in table.rows}
    assert cells["scratch", "full"][1] == "–"
    assert cells["lite0", "linear"][1].startswith(f"{100 * only.systems[0].mean_error(1):.1f} [")


def with_skills(study, budget="4000img", **skills):
    (target,) = study.targets
    return dataclasses.replace(target, by_budget=target.by_budget | {budget: compared(skills, budget)})


def test_the_verdict_names_the_best_and_by_how_much_scratch_is_worse(study):
    target = with_skills(study, tuned=14, frozen=7, plain=0)
    verdict = transfer.verdict(study, target)
    assert verdict.startswith("digits: lite0 (full) has the lowest top-1 error with a budget of 4,000 images")
    assert "significantly lower than every other." in verdict
    table = transfer.differences_from_scratch(study, target)
    (row,) = [row for row in table.rows if row[0] == "tuned"]
    points, interval = (text.replace("+", "") for text in row[3:5])
    higher = f"{points} points higher (95 % interval, new images and new seeds: {interval}),"
    assert f"{higher} and does not catch up within this budget." in verdict


def test_the_verdict_names_systems_that_do_not_differ_significantly(study):
    text = transfer.verdict(study, with_skills(study, tuned=15, frozen=14, plain=0))
    assert "lite0 (linear) does not differ significantly from it." in text
    assert "significantly lower" not in text


def test_the_headline_counts_targets_on_which_pretraining_is_significantly_better(study):
    targets = (with_skills(study, tuned=14, frozen=7, plain=0), with_skills(study, tuned=9, frozen=7, plain=14))
    text = transfer.headline(TransferStudy((*targets, with_skills(study, tuned=15, frozen=3, plain=14)), "scratch"))
    assert text.startswith("With 4,000 images, pretraining gives a significantly lower error")
    assert text.endswith("on 1 of 3 targets.")


def test_a_verdict_of_one_seed_claims_no_better_recipe(study):
    (target,) = study.targets
    systems = tuple(dataclasses.replace(one, runs=one.runs[:1]) for one in target.whole.systems)
    single = dataclasses.replace(target.whole, systems=systems)
    text = transfer.verdict(study, dataclasses.replace(target, by_budget=target.by_budget | {"4000img": single}))
    assert "Several seeds are needed" in text
    assert "significantly" not in text


def test_targets_of_other_seeds_have_their_own_kind_of_interval(study):
    (target,) = study.targets
    systems = tuple(dataclasses.replace(one, runs=one.runs[:1]) for one in target.whole.systems)
    single = dataclasses.replace(target.whole, systems=systems)
    other = dataclasses.replace(target, name="scans", by_budget={"4000img": single})
    caption = transfer.sources_by_targets(TransferStudy((target, other), "scratch")).caption
    assert "Intervals of digits are for new images and new seeds." in caption
    assert "Intervals of scans are for new images, these checkpoints." in caption


def test_the_page_of_several_targets_has_all_tables_and_figures(study, tmp_path):
    (target,) = study.targets
    both = TransferStudy((target, dataclasses.replace(target, name="scans")), "scratch")
    page = transfer_report.write(both, tmp_path, ["leaves"]).read_text()
    assert "leaves: no run under the whole budget has finished" in page
    assert page.count("<figure") == 2
    assert "Error by source, adaptation and budget" in page
    assert "Transfer digits" not in page
    assert 'href="scans/report.html"' in page
    assert (tmp_path / "tables" / "sources_by_targets.csv").exists()
    assert (tmp_path / "tables" / "transfer_differences_digits.md").exists()
