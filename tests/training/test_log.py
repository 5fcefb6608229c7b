"""Tests of logs: rows, their state after a resume, and spans of time as text."""

import contextlib
import json
import math
import random
from unittest import mock

import pytest

from imagenet_repro.config import Config
from imagenet_repro.errors import SaveError
from imagenet_repro.training import log

CONFIG = Config()
NUMBERS = {"progress": 0.5, "seconds": 1.0, "loss": 2.0, "top1_error": 0.9, "images_per_second": 10}


def train_row(step):
    return {"kind": "train", "step": step} | NUMBERS


def resume(workdir, start_step, said=None):
    """Open the log as a run that resumes does, and close it."""
    screen = mock.patch.object(log.Screen, "say", lambda self, text: [] if said is None else said.append(text))
    with screen:
        run_log = log.RunLog(workdir, start_step, CONFIG)
        run_log.close()


def test_a_resume_drops_rows_beyond_its_step_and_a_line_cut_short(tmp_path, capsys):
    path = tmp_path / log.METRICS
    path.write_text("\n".join(json.dumps(train_row(step)) for step in (1, 2, 3)) + '\n{"kind": "tr')
    run_log = log.RunLog(tmp_path, 2, CONFIG)
    run_log.write("train", 3, **NUMBERS | {"loss": float("nan"), "images": 7})
    run_log.close()
    result = log.read_rows(path)
    assert [row["step"] for row in result] == [1, 2, 3]
    assert result[-1]["images"] == 7
    assert capsys.readouterr().out == ""


def test_keys_of_rows_are_in_memory_once(tmp_path):
    path = tmp_path / log.METRICS
    path.write_text("".join(json.dumps(train_row(step)) + "\n" for step in (1, 2)))
    first, second = log.read_rows(path)
    assert [id(key) for key in first] == [id(key) for key in second]


def test_records_left_out_are_read_from_the_log_up_to_a_step(tmp_path):
    with contextlib.closing(log.RunLog(tmp_path, 0, CONFIG)) as run_log:
        for step, index in ((0, 7), (3, 2), (3, 7), (5, 9)):
            run_log.write("event", step, event=log.LEFT_OUT, index=index, image=f"img_{index}")
        run_log.write("event", 1, event="plateau", scale=0.5)
    assert log.left_out(tmp_path / log.METRICS, 3) == {2, 7}
    assert log.left_out(tmp_path / "none", 3) == set()


def test_a_growing_log_is_read_as_a_whole_one_and_each_line_once(tmp_path, monkeypatch):
    path, rng = tmp_path / log.METRICS, random.Random(4)
    text = "".join(json.dumps(train_row(step)) + ("\n" if step % 7 else " damaged\n") for step in range(1, 200))
    parsed, real = [], log._parse_row
    monkeypatch.setattr(log, "_parse_row", lambda line: parsed.append(line) or real(line))
    reader, written, said = log.LogReader(path), 0, []
    assert reader.rows(said.append) == []
    while written < len(text):
        written += rng.randrange(1, 400)  # also within a line
        path.write_text(text[:written])
        path.touch()
        parsed.clear()
        rows = reader.rows(said.append)
        assert len(parsed) <= 1 + 400 // len(json.dumps(train_row(1))) + 1
        assert rows == log.read_rows(path, lambda line: None)
    assert len(rows) == 199 - 199 // 7
    assert len(said) == 199 // 7
    assert said[1].endswith(": line 14 is damaged and left out")


@pytest.mark.parametrize("is_longer", [True, False])
def test_a_log_that_a_resume_replaced_is_read_anew(tmp_path, is_longer):
    path = tmp_path / log.METRICS
    lines = [json.dumps(train_row(step)) + "\n" for step in range(1, 9)]
    path.write_text("".join(lines[:4]))
    reader = log.LogReader(path)
    assert [row["step"] for row in reader.rows()] == [1, 2, 3, 4]
    path.write_text("".join(lines[4:] if is_longer else lines[6:]))  # the same inode, as when it is used again
    assert [row["step"] for row in reader.rows()] == ([5, 6, 7, 8] if is_longer else [7, 8])
    (tmp_path / "new").write_text("".join(lines))
    (tmp_path / "new").replace(path)
    assert [row["step"] for row in reader.rows()] == list(range(1, 9))
    path.unlink()
    assert reader.rows() == []


def test_a_resume_that_drops_nothing_does_not_touch_the_file(tmp_path):
    path = tmp_path / log.METRICS
    path.write_text(json.dumps(train_row(1)) + "\n")
    before = path.stat()
    resume(tmp_path, start_step=1)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    path.write_text(json.dumps(train_row(1)))  # killed before the end of the line
    resume(tmp_path, start_step=1)
    assert path.read_text() == json.dumps(train_row(1)) + "\n"


def test_a_full_disk_at_a_resume_keeps_every_row(tmp_path, monkeypatch):
    path = tmp_path / log.METRICS
    path.write_text("".join(json.dumps(train_row(step)) + "\n" for step in (1, 2)))
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SaveError, match=r"log of the run to .*No space left"):
        resume(tmp_path, start_step=1)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(log.METRICS, before)]


def test_a_full_disk_while_training_is_a_sentence(tmp_path):
    run_log = log.RunLog(tmp_path, 0, CONFIG)
    with (
        open("/dev/full", "wb", buffering=0) as run_log._file,
        pytest.raises(SaveError, match=r"metrics\.jsonl cannot be written: No space left on device; fix"),
    ):
        run_log.write("save", 1)
    run_log.close()


@pytest.mark.parametrize("name", [".", "tensorboard"])
def test_a_run_goes_on_without_tensorboard_and_says_so(tmp_path, name, capsys, monkeypatch):
    if name == "tensorboard":
        (tmp_path / name).touch()
    else:
        monkeypatch.setattr("tensorboardX.event_file_writer.EventsWriter.write_event", mock.Mock(side_effect=OSError))
    run_log = log.RunLog(tmp_path, 0, CONFIG)
    for step in (1, 2):
        run_log.write("train", step, loss=0.25)
    run_log.close()
    assert capsys.readouterr().out.count("goes on without TensorBoard") == 1
    assert len((tmp_path / log.METRICS).read_bytes().splitlines()) == 2


DAMAGED = {
    "no step": b'{"kind": "save"}',
    "a step that is text": b'{"kind": "save", "step": "3"}',
    "a step that is not a number": b'{"kind": "save", "step": NaN}',
    "a kind that was flipped": b'{"kind": "savd", "step": 3}',
    "a key that was flipped": json.dumps(train_row(3)).replace("loss", "loks").encode(),
    "a value that was flipped": json.dumps(train_row(3)).replace("0.5", "[.5").encode(),
    "an amount that is infinite": json.dumps(train_row(3) | {"seconds": math.inf}).encode(),
    "an integer beyond floats": json.dumps(train_row(3) | {"loss": 10**400}).encode(),
    "a number of 5,000 digits": b'{"kind": "save", "step": ' + b"1" * 5000 + b"}",
    "a list": b"[1, 2]",
    "deep": b"[" * 100_000,
    "bytes": b"\xff\xfe\x00{",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_line_is_named_and_left_out_and_the_run_goes_on(tmp_path, damage):
    path, said = tmp_path / log.METRICS, []
    lines = [json.dumps(train_row(1)).encode(), DAMAGED[damage], json.dumps(train_row(2)).encode(), b""]
    path.write_bytes(b"\n".join(lines))
    resume(tmp_path, 1, said)
    assert said == [f"{path}: line 2 is damaged and left out"]
    assert path.read_bytes().split(b"\n") == [*lines[:2], b""]
    assert [row["step"] for row in log.read_rows(path, said.append)] == [1]
    assert len(said) == 1  # named once in a process


def test_many_damaged_lines_are_one_message(tmp_path):
    path, said = tmp_path / log.METRICS, []
    path.write_text("garbage\n" * 1000)
    assert log.read_rows(path, said.append) == []
    assert said == [f"{path}: lines 1, 2, 3, 4, 5 and 995 more are damaged and left out"]


def test_a_log_that_is_missing_or_cannot_be_read_is_named(tmp_path):
    said = []
    resume(tmp_path, 7, said)
    assert said == [f"{tmp_path / log.METRICS} is missing; its rows up to step 7 are lost"]
    assert log.read_rows(tmp_path, said.append) == []
    assert "cannot be read: Is a directory" in said[1]
    (tmp_path / log.METRICS).unlink()
    (tmp_path / log.METRICS).mkdir()
    with pytest.raises(SaveError, match=r"metrics\.jsonl cannot be written: Is a directory"):
        log.RunLog(tmp_path, 1, CONFIG)
