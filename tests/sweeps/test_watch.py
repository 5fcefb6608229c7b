"""Tests of `compare --watch`, whose clock is replaced: no test waits."""

import json

import pytest
from scipy.stats import binomtest

from imagenet_repro.report import comparison_report
from imagenet_repro.sweeps import compare, watch
from tests import finished_runs


@pytest.fixture
def undrawn(monkeypatch):
    """Skip the drawing of figures, which has its own tests; return how often each kind was to be drawn."""
    drawn = {"all": 0, "curves": 0}

    def count(kind, result):
        drawn[kind] += 1
        return result

    monkeypatch.setattr(comparison_report._Drawing, "figures", lambda self: count("all", {}))
    monkeypatch.setattr(comparison_report._Drawing, "curves", lambda self: count("curves", []))
    return drawn


def pauses(monkeypatch, *steps):
    """Let each pause between two looks do one of these steps; Ctrl-C comes after the last."""
    remaining, seconds = list(steps), []

    def sleep(duration):
        seconds.append(duration)
        if not remaining:
            raise KeyboardInterrupt
        remaining.pop(0)()

    monkeypatch.setattr(watch.time, "sleep", sleep)
    return seconds


def test_the_page_is_written_again_when_a_run_has_changed_until_all_have_ended(tmp_path, undrawn, monkeypatch, capsys):
    done = finished_runs.write(tmp_path / "done", finished_runs.one(0))
    run = finished_runs.one(1, name="zfnet")
    half, page = finished_runs.unfinished(tmp_path / "half", run), tmp_path / "out/report.html"
    pages = []

    def log_more():
        pages.append(page.read_text())
        with (tmp_path / "half/metrics.jsonl").open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in run.rows[20:30]))

    def end():
        pages.append(page.read_text())
        (tmp_path / "half").rename(tmp_path / "older")
        finished_runs.write(tmp_path / "half", run)

    seconds = pauses(monkeypatch, log_more, lambda: None, end)
    result = compare.compare([done, half], str(tmp_path / "out"), watch=True)
    assert [(system.name, system.group) for system in result.systems] == [("zfnet", "a"), ("alexnet_2012", "b")]
    first = json.loads(json.dumps(result.to_dict()))["systems"][0]
    rates = run.result["rates"]
    low, high = binomtest(rates["top1_wrong"], rates["images"]).proportion_ci(method="wilson")
    assert first["top1_interval"] == pytest.approx([low, high])
    assert undrawn == {"all": 2, "curves": 1}
    assert "stopped, 45 %" in pages[0]
    assert "stopped, 65 %" in pages[1]
    assert all('http-equiv="refresh" content="10"' in text for text in pages)
    last = page.read_text()
    assert "refresh" not in last.partition("<style>")[0]
    assert "Provisional" not in last
    assert len(seconds) == 3
    assert capsys.readouterr().out.count("watching 1 run; Ctrl-C ends this and stops no run") == 2


def test_ctrl_c_before_the_first_page_is_no_success(tmp_path):
    def write():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch.watch([finished_runs.unfinished(tmp_path / "run", finished_runs.one())], "", write)


def test_writing_takes_a_tenth_of_the_time_at_most(tmp_path, monkeypatch):
    run = finished_runs.unfinished(tmp_path / "run", finished_runs.one())
    seconds = pauses(monkeypatch)
    clock = iter((0.0, 5.0))
    monkeypatch.setattr(watch.time, "monotonic", lambda: next(clock))
    watch.watch([run], "", lambda: None)
    assert seconds == [pytest.approx(45.0)]


def test_ctrl_c_ends_the_watch_and_leaves_the_page(tmp_path, undrawn, monkeypatch, capsys):
    half = finished_runs.unfinished(tmp_path / "half", finished_runs.one(0))
    pauses(monkeypatch)
    assert compare.compare([half], str(tmp_path / "out"), watch=True).systems == ()
    assert "No run has ended yet." in (tmp_path / "out/report.html").read_text()
    out = capsys.readouterr().out
    assert "no longer watched; the page shows the runs as they were" in out
    assert "alexnet_2012" in out
