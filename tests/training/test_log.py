"""Tests of logs: rows, their state after a resume, and spans of time as text."""

import json

import pytest

from imagenet_repro.training import log


def test_a_resume_drops_rows_beyond_its_step_and_a_line_cut_short(tmp_path):
    rows = [{"kind": "train", "step": step} for step in (1, 2, 3)]
    path = tmp_path / log.METRICS
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"kind": "tr')
    run_log = log.RunLog(tmp_path, start_step=2)
    run_log.write("train", 3, loss=float("nan"), images=7)
    run_log.close()
    result = log.read_rows(path)
    assert [row["step"] for row in result] == [1, 2, 3]
    assert result[-1]["images"] == 7


def test_numbers_reach_tensorboard(tmp_path):
    from tensorboardX.proto import event_pb2

    run_log = log.RunLog(tmp_path, start_step=0)
    run_log.write("train", 5, loss=0.25, note="text")
    run_log.close()
    (events,) = (tmp_path / "tensorboard").glob("events*")
    content, position, scalars = events.read_bytes(), 0, {}
    while position < len(content):  # TFRecord: length, its checksum, the event, its checksum
        length = int.from_bytes(content[position : position + 8], "little")
        event = event_pb2.Event.FromString(content[position + 12 : position + 12 + length])
        scalars.update({value.tag: (event.step, value.simple_value) for value in event.summary.value})
        position += length + 16
    assert scalars == {"train/loss": (5, 0.25)}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7300, "2 h 01 min"), (float("inf"), "unknown")],
)
def test_durations_as_text(seconds, text):
    assert log.duration(seconds) == text
