"""Several preparations at once, killed ones, and places that cannot be written."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imagenet_repro.config import Data
from imagenet_repro.data.prepare import fractal, prepare_dataset, single_writer
from imagenet_repro.data.sources import open_split
from imagenet_repro.errors import UserError

ROOT = Path(__file__).parents[3]
SMALL = {"categories": 3, "train_images": 6, "validation_images": 2, "size": 24}


def prepare(data_dir, short_side=None):
    return prepare_dataset.prepare_dataset("fractal", data_dir=str(data_dir), short_side=short_side, **SMALL)


SLOWLY = """
import pathlib, sys, time
from imagenet_repro.config import Data
from imagenet_repro.data.prepare import fractal
from tests.data.prepare.test_single_writer import prepare

directory = pathlib.Path(sys.argv[1])
draw = fractal.FractalConfig.job

def slow_job(self, split, start, stop):
    (directory / "started").touch()
    while not (directory / "go_on").exists():
        time.sleep(0.01)
    return draw(self, split, start, stop)

fractal.FractalConfig.job = slow_job
print(prepare(directory).how)
"""


@pytest.fixture
def running(tmp_path):
    """Return a process in the middle of a preparation, which goes on when the file `go_on` exists."""
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, tmp_path], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.01)
    yield process
    process.kill()
    process.communicate()


def test_another_process_waits_and_finds_the_data_set(running, tmp_path, capsys, monkeypatch):
    acquire = single_writer.locks.acquire_waiting

    def go_on(path):
        (tmp_path / "go_on").touch()
        return acquire(path)

    monkeypatch.setattr(single_writer.locks, "acquire_waiting", go_on)
    assert prepare(tmp_path).how == "already prepared"
    assert running.communicate(timeout=600)[0] == "drawn\n"
    assert f"another process is preparing fractal in {tmp_path}; waiting for it" in capsys.readouterr().err


def test_leftovers_are_removed_and_not_taken_for_complete(tmp_path):
    leftover = tmp_path / "fractal" / "c3_n6_v2_s24" / "incomplete.A1B2C3_1.0.0"
    leftover.mkdir(parents=True)
    (leftover / "dataset_info.json").write_text("{}")
    (leftover / "features.json").write_text("{}")
    with pytest.raises(UserError, match=r"is not prepared in .* Type:"):
        open_split(Data(name="fractal", data_dir=str(tmp_path)), "train")
    assert prepare(tmp_path).how == "drawn"
    assert not leftover.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["fractal"]


@pytest.mark.slow
def test_what_a_killed_preparation_leaves_is_removed_and_not_taken_for_complete(running, tmp_path):
    running.kill()
    running.wait()
    assert list(tmp_path.glob("fractal/*/incomplete.*"))
    assert prepare(tmp_path).how == "drawn"
    assert not list(tmp_path.glob("fractal/*/incomplete.*"))


def test_leftovers_in_use_are_kept(tmp_path):
    prepared = prepare(tmp_path)
    leftover = prepared.path.parent / "incomplete.A1B2C3_1.0.0"
    leftover.mkdir()
    with single_writer.only_writer(tmp_path, "fractal"):
        note = prepare(tmp_path).notes[0]
    assert "in use by a running preparation" in note
    assert leftover.exists()


def contents(directory: Path):
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


def test_reading_needs_no_writing(tmp_path, monkeypatch):
    prepare(tmp_path, short_side=8)
    before = contents(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    again = prepare(tmp_path, short_side=8)
    assert (again.how, again.smaller.how) == ("already prepared", "already prepared")
    assert contents(tmp_path) == before
    with pytest.raises(UserError, match="is not writable"):
        prepare(tmp_path, short_side=9)
    assert contents(tmp_path) == before


def test_a_host_whose_locks_are_not_shared_finds_the_data_set_of_the_other(tmp_path, monkeypatch):
    other = prepare(tmp_path / "other").path
    draw = fractal.FractalConfig.job

    def appear(self, *arguments):
        if other.exists():
            other.rename(tmp_path / other.relative_to(tmp_path / "other"))
        return draw(self, *arguments)

    monkeypatch.setattr(fractal.FractalConfig, "job", appear)
    assert prepare(tmp_path).how == "already prepared"
    assert not list(tmp_path.glob("fractal/*/incomplete.*"))
