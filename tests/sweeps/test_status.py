"""Tests of the progress display of a sweep."""

import io
import json
import math

import pytest
from rich.console import Console

from imagenet_repro.storage import files
from imagenet_repro.sweeps import status
from imagenet_repro.sweeps.attempts import Loss
from imagenet_repro.sweeps.plan import plan_runs
from imagenet_repro.sweeps.queue import RunStatus
from tests.sweeps import small_sweeps

ROW = {"kind": "train", "step": 4, "progress": 0.25, "seconds": 100.0, "loss": 1.5, "top1_error": 0.75}
RATE = {"images_per_second": 1234.4}


def run_statuses(*changes, **settings):
    """Return the statuses of a sweep's runs in the order of the plan; each waits unless its changes say otherwise."""
    statuses = []
    for planned, change in zip(plan_runs(small_sweeps.sweep(**settings)), changes, strict=True):
        defaults = {"state": "waiting", "settings": planned.settings, "value": None}
        defaults |= {"worker": "", "reason": "", "seconds": None}
        statuses.append(RunStatus(planned, **defaults | change))
    return statuses


def complete(seconds, value=0.5, **others):
    return {"state": "complete", "value": value, "seconds": seconds, **others}


def running(worker="host/0"):
    return {"state": "running", "worker": worker}


def write(directory, run_status, rows, tail=""):
    run = directory / run_status.planned.name
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)


def printed(statuses, directory, workers=2, width=200):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, emoji=False)
    status.print_status(status.SweepStatus(statuses, directory), workers, console)
    return console.file.getvalue()


def test_the_energy_of_complete_runs_is_shown_and_never_taken_for_zero(tmp_path):
    statuses = run_statuses(complete(9), complete(9))
    assert "energy of training: unknown in 2 runs\n" in printed(statuses, tmp_path)
    path = tmp_path / statuses[0].planned.name / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"energy": {"joules": 2_000.0, "parts": {"gpu": {"joules": 2_000.0}}, "unknown": {}}}))
    assert "energy of training: 2.00 kJ in 1 run (gpu); unknown in 1 run\n" in printed(statuses, tmp_path)
    assert "energy" not in printed(run_statuses({}, {}), tmp_path)
    assert "selected settings" not in printed(run_statuses({}, {}), tmp_path)  # nothing was searched


def test_rows_count_states_and_show_the_lowest_error_with_its_settings(tmp_path):
    best = {"optimizer.learning_rate": 0.0123456}
    statuses = run_statuses(
        complete(9, 0.5),
        {},
        complete(9, 0.25, settings=best),
        {"state": "failed", "reason": "no memory"},
        complete(9, 0.125),
        {},
        search={"trials": 2},
    )
    assert status.table_rows(statuses) == [
        ["a (search)", "0", "0", "2", "0", "25.00", "optimizer.learning_rate=0.0123"],
        ["a", "0", "0", "1", "0", "12.50", ""],
        ["b (search)", "1", "0", "0", "1", "", ""],
        ["b", "1", "0", "0", "0", "", ""],
    ]  # fmt: skip
    text = printed(statuses, tmp_path)
    assert "search/b/001 failed: no memory" in text
    assert "3 of 6 runs complete, 1 failed, about 9 s left" in text


@pytest.mark.parametrize(
    ("changes", "done", "sentence"),
    [
        ([{}, {}], False, "0 of 2 runs complete"),
        ([running(), {}], False, "0 of 2 runs complete, 1 running"),
        ([complete(60), {}], False, "1 of 2 runs complete, about 1 min 00 s left"),
        ([complete(60), complete(61)], True, "2 of 2 runs complete"),
        ([complete(60), {"state": "failed"}], True, "1 of 2 runs complete, 1 failed"),
    ],
)
def test_the_summary_counts_states_and_predicts_the_time_left(tmp_path, changes, done, sentence):
    now = status.SweepStatus(run_statuses(*changes), tmp_path)
    assert (now.is_finished, now.summary(2)) == (done, sentence)


def test_the_time_left_follows_from_each_systems_mean_and_the_progress_of_active_runs(tmp_path):
    statuses = run_statuses(
        complete(100),
        complete(10),
        complete(300),
        complete(30),
        running(),
        {},
        running(),
        running(),
        seeds=(0, 1, 2, 3),
    )
    write(tmp_path, statuses[4], [ROW, ROW | {"progress": 0.75}])
    now = status.SweepStatus(statuses, tmp_path)
    # Runs of a take 200 s on average, and 1.25 of them are left; runs of b take 20 s, and two are left.
    assert now.seconds_left(1) == pytest.approx(0.25 * 200 + 20 + 200 + 20)
    assert now.seconds_left(4) == pytest.approx(200)  # no worker can share the one whole run of a that is left
    assert now.seconds_left(0) == pytest.approx(290)


def test_a_system_without_complete_runs_is_expected_to_take_as_long_as_the_others(tmp_path):
    assert status.SweepStatus(run_statuses(complete(10), complete(40), {}, systems=3), tmp_path).seconds_left(1) == 25
    assert math.isinf(status.SweepStatus(run_statuses({}, {}), tmp_path).seconds_left(1))


def test_a_slow_system_without_complete_runs_is_expected_to_keep_its_own_pace(tmp_path):
    statuses = run_statuses(complete(10), running(), {}, {}, seeds=(0, 1))
    write(tmp_path, statuses[1], [ROW | {"seconds": 100.0, "progress": 0.25}])
    # Run 1 is of b, which takes 400 s at its pace; the seeds of a take 10 s.
    assert status.SweepStatus(statuses, tmp_path).seconds_left(1) == pytest.approx(0.75 * 400 + 10 + 400)


def test_trials_predict_the_time_of_final_runs_until_one_is_complete(tmp_path):
    trials = [complete(8), complete(2), complete(8), complete(2)]
    settings = {"search": {"trials": 2, "budget": "2st"}, "seeds": (0, 1)}
    left = [
        status.SweepStatus(run_statuses(*trials, *runs, **settings), tmp_path).seconds_left(1)
        for runs in ([{}] * 4, [complete(80), {}, {}, {}], [complete(80), complete(20), {}, {}])
    ]
    assert left == [2 * 8 + 2 * 2, 3 * 80, 80 + 20]


def test_there_is_a_line_for_each_active_run(tmp_path):
    statuses = run_statuses(running("host/0"), running("host/1"), running("host/2"), {}, systems=4)
    write(tmp_path, statuses[0], [ROW | RATE, {"kind": "eval", "step": 4}], tail='{"kind": "train", "step": 5, "lo')
    write(tmp_path, statuses[1], [], tail="")
    (tmp_path / statuses[1].planned.name / status.OUTPUT).write_text("reading\ncompiling …\n\n")
    assert list(status.SweepStatus(statuses, tmp_path).active_lines()) == [
        "host/0  runs/a/seed0   25.0 %  loss 1.500  top-1 error 75.0 %  1,234 images/s  5 min 00 s left",
        "host/1  runs/b/seed0  compiling …",
        "host/2  runs/c/seed0  starting",
    ]


def test_a_long_log_is_read_from_its_end_and_once_for_each_view(tmp_path, monkeypatch):
    statuses = run_statuses(complete(60), running())
    write(tmp_path, statuses[1], [ROW | RATE] * 50_000 + [{"kind": "eval", "step": 4}], tail='{"kind": "tr')
    read = []
    real = files.lines_from_end
    monkeypatch.setattr(files, "lines_from_end", lambda path: (read.append(line) or line for line in real(path)))
    now = status.SweepStatus(statuses, tmp_path)
    assert "25.0 %" in next(iter(now.active_lines()))
    assert now.seconds_left(1) == 300  # at its own pace, since no run of its system is complete
    assert len(read) == 3


def test_the_time_left_is_unknown_at_the_very_start(tmp_path):
    statuses = run_statuses(running(), {})
    write(tmp_path, statuses[0], [ROW | RATE | {"progress": 0.0}])
    assert next(status.SweepStatus(statuses, tmp_path).active_lines()).endswith("time left unknown")


def test_names_and_reasons_are_printed_without_markup(tmp_path):
    statuses = run_statuses({"state": "failed", "reason": "[bold]config.x[/]: 3 is not :smile:"}, {})
    assert "runs/a/seed0 failed: [bold]config.x[/]: 3 is not :smile:" in printed(statuses, tmp_path)


def test_a_narrow_terminal_truncates_nothing(tmp_path):
    best = {"optimizer.learning_rate": 0.01, "optimizer.weight_decay": 0.02}
    statuses = run_statuses(complete(9, 0.25, settings=best), {})
    text = printed(statuses, tmp_path, width=80)
    assert "…" not in text
    for part in ("waiting", "25.00", ", about 9 s left"):
        assert part in text


@pytest.mark.parametrize(
    ("loss", "state", "line"),
    [
        (
            Loss("one/0", "did not answer for 34 s", "two/1", 1200),
            "running",
            "worker one/0 did not answer for 34 s; worker two/1 continues runs/a/seed0 from step 1,200",
        ),
        (Loss("one/0", "has ended"), "waiting", "worker one/0 has ended; runs/a/seed0 waits for a worker"),
        (
            Loss("one/0", "has ended", "one/0", 0),
            "failed",
            "worker one/0 has ended; its successor continued runs/a/seed0 from its beginning",
        ),
        (
            Loss("one/0", "lost the process of this run (ended by SIGKILL)", "one/0", 7),
            "running",
            "worker one/0 lost the process of this run (ended by SIGKILL); the same worker continues runs/a/seed0 from"
            " step 7",
        ),
    ],
)
def test_a_lost_worker_and_its_successor_are_said_in_one_line(tmp_path, loss, state, line):
    statuses = run_statuses({"state": state, "losses": (loss,)}, {})
    assert f"{line}\n" in printed(statuses, tmp_path)
    assert "one/0" not in printed(run_statuses(complete(9, losses=(loss,)), {}), tmp_path)  # no longer of interest


def test_of_many_lost_workers_the_last_ones_are_shown(tmp_path):
    losses = tuple(Loss(f"one/{number}", "has ended", "two/0") for number in range(14))
    text = printed(run_statuses({"state": "running", "worker": "two/0", "losses": losses}, {}), tmp_path)
    assert "and 4 such lines more\n" in text
    assert [number for number in range(14) if f"worker one/{number} " in text] == list(range(4, 14))


def test_the_live_view_has_the_active_runs_and_the_summary(tmp_path):
    now = status.SweepStatus(run_statuses(running("host/0"), {}), tmp_path)
    console = Console(file=io.StringIO(), width=100)
    console.print(status.live_view(now, 1))
    assert console.file.getvalue().split("\n")[:2] == [
        "host/0  runs/a/seed0  starting", "0 of 2 runs complete, 1 running"
    ]  # fmt: skip
