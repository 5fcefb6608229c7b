"""Tests of what the parts of benchmarks/device.py share."""

import json
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from benchmarks import device, timing
from benchmarks.device_parts import bound, numerics, results, summary
from benchmarks.device_parts.bench import TINY, Bench, Options, Part
from benchmarks.device_parts.errors import LeftOutError
from benchmarks.device_parts.images import drawn_split, folder_splits
from benchmarks.device_parts.peer import Peer, PeerError
from benchmarks.device_parts.runner import PartRun
from benchmarks.pytorch_steps import PeerStep
from imagenet_repro.training.state import TrainState
from tests.benchmarks.test_device import write_images
from tests.conftest import REPOSITORY

WRITER = """
from pathlib import Path
from benchmarks.device_parts.results import Results
results = Results(Path({folder!r}))
while True:
    results.write("row", text="x" * 20_000)
"""


@pytest.fixture
def bench(tmp_path):
    options = Options(minutes=1.0, data_dir="", data_name="", data="", peer_python=sys.executable)
    return Bench(tmp_path / "here", tmp_path / "cache", TINY, options)


class OnePart(Part):
    """A part that does what it is given."""

    name, title = "one", "a part"

    def __init__(self, work, seconds=1.0):
        self.work, self.seconds = work, seconds

    def estimate(self, bench):
        return self.seconds

    def run(self, bench):
        self.work()


def test_lines_are_complete_after_a_kill(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WRITER.format(folder=str(tmp_path))], cwd=REPOSITORY)
    path = tmp_path / results.RESULTS
    until = time.monotonic() + 600
    while not (path.exists() and path.stat().st_size > 500_000):
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(results.read(tmp_path)) >= 24  # raises where a line is not complete


def test_a_second_run_has_a_folder_of_its_own(tmp_path):
    assert results.free_folder(tmp_path, "gpu") == tmp_path / "gpu"
    results.Results(tmp_path / "gpu")
    assert results.free_folder(tmp_path, "gpu") == tmp_path / "gpu-2"


def test_numbers_of_numpy_are_written_as_numbers(tmp_path):
    results.Results(tmp_path).write("row", value=np.float32(0.5), name=np.int64(3))
    (row,) = results.read(tmp_path)
    assert row["value"] == 0.5
    assert row["name"] == 3


@pytest.mark.parametrize(
    ("error", "kind"),
    [(LeftOutError("no grain"), "left_out"), (TimeoutError(), "left_out"), (KeyError("x"), "failed")],
)
def test_a_part_that_fails_is_written_and_does_not_raise(bench, error, kind):
    def fail():
        raise error

    run = PartRun(bench, OnePart(fail), 1.0)
    run.prepare()
    run.run()
    assert [row["kind"] for row in bench.results.rows] == [kind, "part"]
    assert bench.results.rows[-1]["end"] == "failed or left out"


def test_what_does_not_fit_is_skipped_and_shorter_parts_follow(bench):
    done = []
    long, short = OnePart(lambda: done.append("long"), 1e4), OnePart(lambda: done.append("short"))
    long.name = "features"
    device._measure_stage(bench, [long, short])
    assert done == ["short"]
    assert [row["part"] for row in bench.results.rows if row["kind"] == "skipped"] == ["features"]
    assert [row["part"] for row in bench.results.rows if row["kind"] == "part"] == ["one"]
    assert "features: about" in (bench.results.folder / "summary.md").read_text()


def test_parts_that_take_longer_than_estimated_make_later_estimates_longer(bench):
    PartRun(bench, OnePart(lambda: time.sleep(0.01), 6000.0), 6000.0).run()
    assert bench.pace == pytest.approx(0.5, abs=0.01)
    assert bench.results.rows[-1]["end"] == "done"


def test_a_timing_waits_for_compilations(bench):
    class Lowered:
        def __init__(self, compile):
            self.compile = lambda compiler_options: compile() or "compiled"

    future = bench.compiler.submit("slow", Lowered(lambda: time.sleep(0.2)), None)
    with bench.timing():
        assert future.done()
    go_on = threading.Event()
    again = bench.compiler.submit("slow", Lowered(lambda: go_on.wait() and None), None)
    bench.box_end = time.perf_counter()
    with pytest.raises(TimeoutError, match="1 programs"), bench.timing():
        pass
    go_on.set()
    assert again.result() == "compiled"


def test_a_rate_is_that_of_the_steps_between_two_waits(monkeypatch):
    """The device takes 2 s for a step and 1 s to answer, so one step alone takes 3 s, and three take 7 s."""
    clock = {"host": 0.0, "device": 0.0}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock["host"])
    starts = []

    def step():
        starts.append(clock["host"])
        clock["device"] = max(clock["device"], clock["host"]) + 2

    def wait():
        clock["host"] = clock["device"] + 1

    rate = timing.rate(step, wait, images=8, seconds=27.0)
    assert rate.median == rate.highest == pytest.approx(3 * 8 / 7)
    assert rate.spread == pytest.approx(0)
    assert len(starts) == 2 + 1 + 3 * 3  # of warm-up, alone, and three turns of three


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("cpu", None),
    ],
)
def test_devices_are_found_by_the_name_that_jax_gives_them(kind, name):
    assert getattr(bound.device_facts(kind), "kind", None) == name


def test_errors_of_a_step_are_relative_to_the_reference():
    def outcome(gradients, loss, norm):
        state = TrainState(1, {"w": np.ones(2, np.float32)}, {}, ({"trace": gradients},), {}, None)
        return state, {"loss": loss, "gradient_norm": norm}

    reference = outcome({"w": np.asarray([3.0, 4.0]), "b": np.asarray([0.0, 12.0])}, 2.0, 13.0)
    other = outcome({"w": np.asarray([3.0, 4.5]), "b": np.asarray([0.0, 12.0])}, 2.002, 13.13)
    errors = numerics.compare(reference, other)
    assert errors["loss_error"] == pytest.approx(1e-3)
    assert errors["gradient_error"] == pytest.approx(0.5 / 13)
    assert errors["gradient_norm_error"] == pytest.approx(0.01)
    assert (errors["worst_gradient"], errors["worst_gradient_error"]) == ("w", pytest.approx(0.1))
    assert errors["parameter_error"] == 0


def test_a_folder_is_read_without_tfds(tmp_path):
    splits = folder_splits(str(write_images(tmp_path)))
    assert (splits.train.num_classes, splits.train.num_examples) == (10, 38)
    assert (splits.evaluated.num_examples, splits.scored.num_examples) == (2, 10)
    again = pickle.loads(pickle.dumps(splits.train.records))  # as a worker process receives it
    assert list(again) == list(splits.train.records)
    drawings = drawn_split(64, 50).records
    for record in splits.scored.records:
        original = drawings[int(record.id.rpartition("/")[2].removesuffix(".jpg"))]
        assert (record.image, record.label) == (original.image, original.label)


def test_pytorch_answers_errors_and_continues(tmp_path):
    peer = Peer(sys.executable, tmp_path)
    step = PeerStep("lenet5", "paper", 32, 4, "float32")
    try:
        peer.pause()
        answer = peer.prepare(step)
        time.sleep(0.3)
        assert not answer.done()
        peer.resume()
        with pytest.raises(PeerError, match=r"torch|paper"):
            answer.result(timeout=600)
        with pytest.raises(PeerError):
            peer.measure(step, 0.1).result(timeout=600)
    finally:
        peer.close()
    with pytest.raises(PeerError, match="ended"):
        peer.start().result(timeout=600)


def test_the_summary_has_a_table_for_each_kind():
    step = {
        "kind": "step",
        "network": "resnet50",
        "variant": "fast",
        "image_size": 224,
        "batch": 256,
        "images_per_second": 5000.0,
        "milliseconds": 51.2,
        "spread": 0.012,
        "program_bytes": 12.5e9,
        "bound_images_per_second": 12_500.0,
        "limiter": "memory traffic",
    }
    text = summary.describe([step, {"kind": "left_out", "name": "decade", "reason": "no images"}])
    row = next(line for line in text.splitlines() if line.startswith("| resnet50"))
    assert row == "| resnet50 | fast | 224 | 256 | 5,000.0 | 1.2 | 51.20 | 40 % (memory traffic) | 12.50 |"
    assert "- decade: no images" in text
    assert json.dumps(step)
