"""Tests of TensorBoard's events, read as TFRecords with the protocol's own classes."""

from unittest import mock

import pytest

from imagenet_repro.training.trackers import tensorboard
from imagenet_repro.training.trackers.tracked_run import TrackedRun
from tests.training.trackers import runs


def events(path):
    """Return the events of a file."""
    from tensorboardX.proto import event_pb2

    content, position, result = path.read_bytes(), 0, []
    while position < len(content):  # TFRecord: length, its checksum, the event, its checksum
        length = int.from_bytes(content[position : position + 8], "little")
        result.append(event_pb2.Event.FromString(content[position + 12 : position + 12 + length]))
        position += length + 16
    return result


def values(path):
    """Return step and number by tag, and the texts by tag."""
    numbers, texts = [], {}
    for event in events(path):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                numbers.append((value.tag, event.step, value.simple_value))
            elif value.HasField("tensor"):
                texts[value.tag] = value.tensor.string_val[0].decode()
    return numbers, texts


def test_numbers_configuration_and_result_reach_tensorboard(tmp_path):
    runs.train(tmp_path, ["tensorboard"], 3, 3, finished=True)
    (path,) = (tmp_path / "tensorboard").glob("events*")
    numbers, texts = values(path)
    assert {tag: (step, x) for tag, step, x in numbers}["train/loss"] == (3, pytest.approx(runs.loss(3)))
    assert ("result/top1_error", 3, 0.25) in numbers
    assert "eval/top5_error" not in {tag for tag, _, _ in numbers}  # it is NaN
    (text,) = texts.values()
    assert "|system|mine|" in text
    assert "|optimizer.name|sgd|" in text


def test_a_resume_hides_later_events_and_adds_no_second_configuration(tmp_path):
    runs.train(tmp_path, ["tensorboard"], 1, 4)
    (old,) = (tmp_path / "tensorboard").glob("events*")
    with mock.patch("os.getpid", return_value=1):
        runs.train(tmp_path, ["tensorboard"], 3, 5)
    (new,) = set((tmp_path / "tensorboard").glob("events*")) - {old}
    start = next(event for event in events(new) if event.HasField("session_log"))
    assert start.step == 3
    assert values(new)[1] == {}
    assert {step for tag, step, _ in values(new)[0] if tag == "train/loss"} == {3, 4, 5}


def test_without_tensorboard_nothing_is_written(tmp_path):
    runs.train(tmp_path, [], 1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_an_error_of_any_kind_ends_tensorboard_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tensorboardX.event_file_writer.EventsWriter.write_event", mock.Mock(side_effect=ValueError("no\nsuch proto"))
    )
    said = []
    tracker = tensorboard.TensorBoard(TrackedRun(tmp_path, 0, runs.config("tensorboard")), said.append)
    tracker.write("train", 1, {"train/loss": 1.0})
    tracker.close(None)
    assert said == [
        f"{tmp_path / 'tensorboard'} cannot be written: no such proto; the run goes on without TensorBoard"
    ]
