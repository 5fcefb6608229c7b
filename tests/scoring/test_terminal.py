"""Tests of what commands show on the terminal."""

import pytest
from rich.console import Console

from imagenet_repro.scoring import terminal


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7300, "2 h 01 min"),
        (47.9 * 3600, "47 h 54 min"),
        (48 * 3600, "2 days"),
        (100.6 * 3600, "4 days 5 h"),
        (float("inf"), "unknown"),
    ],
)
def test_durations_as_text(seconds, text):
    assert terminal.duration(seconds) == text


def test_a_file_gets_lines_while_a_stage_lasts(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "LINE_INTERVAL", 0.01)
    with terminal.show_stages(Console(), "resnet50 on h200:1") as begin:
        begin("compiling")
        while "compiling for 0 s" not in (text := capsys.readouterr().out):
            pass
    assert set(text.splitlines()) == {"resnet50 on h200:1: compiling for 0 s"}


def test_a_stage_can_be_announced(capsys):
    with terminal.show_stages(Console(), announce=True) as begin:
        begin("reading [train]")
    assert capsys.readouterr().out == "reading [train]\n"
