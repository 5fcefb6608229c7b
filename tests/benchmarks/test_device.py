"""Tests of benchmarks/device.py: in its smallest form on the CPU, and without the libraries that it can do without."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests import command_line
from tests.conftest import REPOSITORY

# `None` in sys.modules makes an import fail, as on a machine that has no such library.
WITHOUT = """
import runpy, sys
sys.modules |= dict.fromkeys({missing!r})
sys.argv = ["device.py", *{arguments!r}]
runpy.run_path("benchmarks/device.py", run_name="__main__")
"""


def start(folder, *arguments, missing=()):
    arguments = ["--size=tiny", "--minutes=60", f"--output={folder}", "--name=here", *arguments]
    return subprocess.Popen(
        [sys.executable, "-c", WITHOUT.format(missing=list(missing), arguments=arguments)],
        cwd=REPOSITORY,
        env=os.environ | {"XLA_FLAGS": command_line.xla_flags(1), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder, *arguments, code=0, **options):
    process = start(folder, *arguments, **options)
    out, _ = process.communicate(timeout=3000)
    assert process.returncode == code, out
    return out, [json.loads(line) for line in (folder / "here" / "results.jsonl").read_text().splitlines()]


def of_kind(rows, kind):
    return [row for row in rows if row["kind"] == kind]


def test_the_smallest_form_measures_and_says_what_it_left_out(tmp_path):
    parts = "devices,peaks,numerics_first,main,main_pytorch,input,spreads,decade"
    out, rows = run(
        tmp_path, f"--parts={parts}", missing=("grain", "tensorflow_datasets", "timm", "torch", "ml_collections")
    )
    assert not of_kind(rows, "failed"), out
    (device,) = of_kind(rows, "devices")
    assert device["platform"] == "cpu"
    assert device["packages"]["jax"]
    (numerics,) = of_kind(rows, "numerics")
    assert numerics["gradient_error"] == 0  # the device is the CPU
    assert numerics["repeats_bit_for_bit"]
    (step,) = of_kind(rows, "step")
    assert step["images_per_second"] == pytest.approx(1e3 * step["batch"] / step["milliseconds"])
    assert step["bound_images_per_second"] > 0
    spreads = {row["mode"]: row for row in of_kind(rows, "spread")}
    assert spreads["shard_map"]["equal_bits_to_pmap"]
    assert spreads["fsdp"]["state_error"] < 1e-6
    reasons = {row["name"]: row["reason"] for row in of_kind(rows, "left_out")}
    assert "PyTorch" in reasons["main_pytorch"]
    assert "grain" in reasons["input"]
    assert "--data" in reasons["decade"]
    assert [row["part"] for row in of_kind(rows, "part")] == parts.split(",")
    summary = (tmp_path / "here" / "summary.md").read_text()
    assert "lenet5" in summary
    assert "grain is not installed" in summary


def test_a_kill_leaves_complete_lines(tmp_path):
    process = start(tmp_path, "--parts=devices,main,spreads")
    path = tmp_path / "here" / "results.jsonl"
    until = time.monotonic() + 1500
    while not (path.exists() and '"kind": "compiled"' in path.read_text()):
        assert time.monotonic() < until, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    text = path.read_text()
    assert text.endswith("\n")
    kinds = [json.loads(line)["kind"] for line in text.splitlines()]
    assert "devices" in kinds
    assert "end" not in kinds
    assert "# 1 x cpu" in (tmp_path / "here" / "summary.md").read_text()


def test_an_unknown_part_is_named(tmp_path):
    out, _ = start(tmp_path, "--parts=decades").communicate(timeout=1500)
    assert "there is no decades" in out
    assert "decade" in out


@pytest.mark.slow
def test_every_part_runs_in_its_smallest_form(tmp_path):
    images = write_images(tmp_path / "images")
    out, rows = run(tmp_path, f"--data={images}")
    assert not of_kind(rows, "failed"), out
    ends = {row["part"]: row["end"] for row in of_kind(rows, "part")}
    optional = {"pytorch", "main_pytorch", "others_pytorch", "rest_pytorch"}
    assert {part for part, end in ends.items() if end != "done"} <= optional
    assert {row["augmentation"] for row in of_kind(rows, "augmentation")} == {
        "none",
        "randaugment",
        "randaugment_timm",
        "mixup",
    }
    (loop,) = of_kind(rows, "loop")
    assert loop["images_per_second"] > 0
    (features,) = of_kind(rows, "features")
    assert features["vector_error"] == 0
    (decade,) = of_kind(rows, "decade")
    assert decade["scored_images"] == 10


def write_images(folder):
    """Write a folder of ten classes, each with four images for training and one for validation."""
    from benchmarks.device_parts import images

    split = images.drawn_split(64, 50)
    for number in range(50):
        record = split.records[number]
        path = folder / ("train" if number < 40 else "val") / f"class{record.label}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.image)
    return folder
