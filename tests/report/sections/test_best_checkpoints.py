"""Tests of the label of errors whose images selected the checkpoint: table, line, and column of the leaderboard."""

import dataclasses

import pytest

from imagenet_repro.report.sections import best_checkpoints, leaderboard
from tests.report import comparisons


def with_evaluations(*errors, images=50_000):
    """Return a comparison of one system with a run for each list of errors in percent."""
    comparison = comparisons.comparison(1, len(errors))
    (system,) = comparison.systems
    runs = []
    for run, of_run in zip(system.runs, errors, strict=True):
        rows = [
            {"kind": "eval", "step": step, "top1_error": error / 100, "evaluated": images}
            for step, error in enumerate(of_run)
        ]
        runs.append(dataclasses.replace(run, rows=rows))
    return dataclasses.replace(comparison, systems=(dataclasses.replace(system, runs=tuple(runs)),))


def test_the_lowest_of_ten_equal_errors_is_labelled():
    comparison = with_evaluations([25.0] * 10, [25.0] * 9 + [24.9])
    table = best_checkpoints.table(comparison)
    (row,) = [dict(zip(table.headings, cells, strict=True)) for cells in table.rows]
    assert (row["last evaluation, top-1 error %"], row["lowest of all, top-1 error %"]) == ("24.95", "24.95")
    assert (row["optimistic by, points"], row["expected on new images %"]) == ("0.15", "25.10")
    assert (row["seeds"], row["evaluations"]) == ("2", "10")
    assert "Optimistic errors: each run's evaluations on validation" in table.caption
    assert best_checkpoints.summary(comparison).endswith("are optimistic by about 0.15 points")


def test_one_evaluation_selects_nothing():
    comparison = with_evaluations([25.0])
    assert best_checkpoints.table(comparison) is None
    assert best_checkpoints.summary(comparison) == ""


@pytest.mark.parametrize("optimism", [0.0, 0.0015])
def test_the_leaderboard_has_a_column_where_the_scored_images_selected_a_checkpoint(optimism):
    comparison = comparisons.comparison(2)
    first, second = comparison.systems
    runs = (dataclasses.replace(first.runs[0], optimism=optimism),)
    comparison = dataclasses.replace(comparison, systems=(dataclasses.replace(first, runs=runs), second))
    table = leaderboard.leaderboard(comparison, {first.name: "a"})
    if not optimism:
        assert leaderboard.OPTIMISTIC not in table.headings
        return
    rows = {row[0]: dict(zip(table.headings, row, strict=True)) for row in table.rows}
    assert rows[first.name][leaderboard.OPTIMISTIC] == "0.15"
    assert rows[second.name][leaderboard.OPTIMISTIC] == "0.00"
    assert "optimistic by about as much as the column says" in table.caption
