"""Tests of runs that have not ended beside finished ones, and of the file of curves."""

import csv

from imagenet_repro.report import collect, curve_file, running
from imagenet_repro.report.collect import KnownRuns, group_runs
from imagenet_repro.report.plots import curves
from imagenet_repro.report.running import sentence, table
from imagenet_repro.storage.workdir import Workdir
from tests import finished_runs
from tests.report import comparisons


def gathered(*workdirs, **options):
    return collect.collect(group_runs(workdirs), **options)


def one_of_each(tmp_path):
    """Write a finished run, a run of the same system that has not ended, and one of another system."""
    return (
        finished_runs.write(tmp_path / "done", finished_runs.one(0, seed=0)),
        finished_runs.unfinished(tmp_path / "half", finished_runs.one(0, seed=1)),
        finished_runs.unfinished(tmp_path / "other", finished_runs.one(1, seed=0), rows=0, batch_size=64),
    )


def test_runs_that_have_not_ended_are_of_their_system_and_in_no_number(tmp_path):
    done, half, other = one_of_each(tmp_path)
    comparison = gathered(done, half, other)
    assert [(one.name, one.seeds) for one in comparison.systems] == [("alexnet_2012, batch_size=256", (0,))]
    assert [(run.name, run.seed, run.state) for run in comparison.running] == [
        ("alexnet_2012, batch_size=256", 1, "stopped, 45 %"),
        ("alexnet_2012, batch_size=64", 0, "stopped, 0 %"),
    ]
    rows = {row[0]: dict(zip(running.HEADINGS, row, strict=True)) for row in table(comparison.running).rows}
    half_done = rows["alexnet_2012, batch_size=256"]
    logged = [row for row in finished_runs.one(0, seed=1).rows[:20] if row["kind"] == "eval"][-1]
    assert half_done["top-1 error %"] == f"{100 * logged['top1_error']:.1f}"
    assert half_done["done %"] == "45.0"
    assert rows["alexnet_2012, batch_size=64"]["loss"] == "–"
    assert sentence(comparison).startswith("Provisional: 2 of 3 runs have not ended and have no part in it (alexnet_2")
    assert table(()) is None


def test_a_run_with_a_process_is_running(tmp_path):
    workdir = Workdir(finished_runs.unfinished(tmp_path / "run", finished_runs.one()))
    workdir.lock()
    (run,) = gathered(workdir.path).running
    assert run.state == "running, 45 %"


def test_runs_of_which_none_has_ended_are_a_comparison_without_systems(tmp_path):
    comparison = gathered(finished_runs.unfinished(tmp_path / "run", finished_runs.one()))
    assert (comparison.systems, len(comparison.running)) == ((), 1)


def test_the_curves_of_running_runs_are_drawn_with_their_progress(tmp_path):
    chart = curves.draw_systems(gathered(*one_of_each(tmp_path)))
    assert [entry.name for entry in chart.legend] == [
        "alexnet_2012, batch_size=256",
        "alexnet_2012, batch_size=256, seed 1 (stopped, 45 %)",
        "alexnet_2012, batch_size=64, seed 0 (stopped, 0 %)",
    ]


def test_the_file_of_curves_has_every_logged_point_of_every_run(tmp_path):
    done, half, _ = one_of_each(tmp_path)
    comparison = gathered(done, half)
    with curve_file.write(comparison, tmp_path).open() as file:
        lines = list(csv.DictReader(file))
    finished = [line for line in lines if line["state"] == "finished"]
    rows = [row for row in finished_runs.one(0, seed=0).rows if row["kind"] in ("train", "eval")]
    assert [(int(one["step"]), one["kind"]) for one in finished] == [(row["step"], row["kind"]) for row in rows]
    assert [float(one["top1_error"]) for one in finished if one["kind"] == "eval"] == [
        row["top1_error"] for row in rows if row["kind"] == "eval"
    ]
    assert {one["seed"] for one in lines if one["state"] == "stopped"} == {"1"}


def test_a_repeated_step_counts_once(tmp_path):
    comparison = comparisons.comparison(1)
    comparison.systems[0].runs[0].rows.append({"kind": "train", "step": 25, "loss": 7.0, "progress": 0.5})
    with curve_file.write(comparison, tmp_path).open() as file:
        (line,) = [one for one in csv.DictReader(file) if (one["step"], one["kind"]) == ("25", "train")]
    assert line["loss"] == "7.0"


def test_finished_runs_are_read_again_only_if_their_files_change(tmp_path):
    done, half, _ = one_of_each(tmp_path)
    known = KnownRuns()
    first = gathered(done, half, known=known)
    (tmp_path / "half/metrics.jsonl").write_text("")
    second = gathered(done, half, known=known)
    assert second.systems[0].runs[0] is first.systems[0].runs[0]
    assert second.running[0].progress < first.running[0].progress
    (tmp_path / "done/metrics.jsonl").write_text("")
    assert gathered(done, half, known=known).systems[0].runs[0].rows == []
