"""Tests of benchmarks/faults.py: the moments it chooses, the damage it does, and the library that kills."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys

import pytest

from benchmarks.fault_parts import damages, kills, outcome, table, warm

PROGRAM = """
import ctypes, os, sys
library, directory, kill_at, log = sys.argv[1:]
log = os.open(log, os.O_WRONLY | os.O_CREAT)
ctypes.CDLL(library).faults_arm(os.fsencode(directory), int(kill_at), log)
with open(directory + "/a", "wb", buffering=0) as file:
    file.write(b"12345678")
    os.fsync(file.fileno())
open(directory + "x", "wb").close()
os.rename(directory + "/a", directory + "/b")
os.mkdir("c", dir_fd=os.open(directory, os.O_RDONLY))
os.rmdir(directory + "/c")
"""
OPERATIONS = ["1 open64 /a", "2 write /a", "3 fsync /a", "4 rename /b", "5 mkdirat /c", "6 rmdir /c"]
WRITTEN = b"12345678"
LEFT = [{}, {"a": b"1234"}, {"a": WRITTEN}, {"a": WRITTEN}, {"b": WRITTEN}, {"b": WRITTEN, "c": None}]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    path = tmp_path_factory.mktemp("killer") / "killer.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", warm.FOLDER / "killer.c", "-o", path, "-ldl"], check=True)
    assert ctypes.CDLL(path).faults_arm
    return path


def killed(library, tmp_path, kill_at):
    """Run PROGRAM; return its exit code, the operations and what it left."""
    directory, log = tmp_path / "run", tmp_path / "log"
    directory.mkdir()
    code = subprocess.run(
        [sys.executable, "-c", PROGRAM, library, directory, str(kill_at), log],
        env=os.environ | {"LD_PRELOAD": str(library)},
        check=False,
    ).returncode
    files = {path.name: path.read_bytes() if path.is_file() else None for path in directory.iterdir()}
    return code, [line.replace("open ", "open64 ") for line in log.read_text().splitlines()], files


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD and /proc")
def test_a_process_is_killed_at_each_operation_on_its_files(library, tmp_path):
    for number, left in enumerate(LEFT, 1):
        path = tmp_path / str(number)
        path.mkdir()
        assert killed(library, path, number) == (-signal.SIGKILL, OPERATIONS[:number], left)
    assert killed(library, tmp_path, warm.NEVER) == (0, OPERATIONS, {"b": WRITTEN})


def test_chosen_moments_have_each_sort_of_operation_before_any_twice():
    operations = [f"{n} write /metrics.jsonl" for n in range(1, 51)]
    operations += ["51 rename /checkpoints/2", "52 rename /checkpoints/4", "53 fsync /config.json"]
    assert kills.choose(operations, 3) == [1, 51, 53]
    chosen = kills.choose(operations, 13)
    assert {1, 51, 53} < set(chosen)
    assert len(set(chosen)) == 13


@pytest.mark.parametrize("way", damages.WAYS)
def test_each_way_of_damage_changes_a_file_and_is_repeatable(tmp_path, way):
    results = []
    for name in "ab":
        path = tmp_path / name
        path.write_bytes(b"0123456789" * 10)
        damages.damage(path, way, warm.generator("case"))
        results.append(path.read_bytes() if path.exists() else None)
    assert results[0] == results[1] != b"0123456789" * 10
    if way == "one bit flipped":
        assert sum((a ^ b).bit_count() for a, b in zip(results[0], b"0123456789" * 10, strict=True)) == 1


def test_times_are_left_out_and_nothing_else():
    result = {"spent": {"steps": 8, "seconds": 1.5}, "images_per_second": 3, "rates": {"top1_error": 0.5}}
    assert outcome._without_times(result) == {"spent": {"steps": 8}, "rates": {"top1_error": 0.5}}
    assert outcome.differences({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == ["b", "c"]


def test_the_table_counts_what_survived():
    rows = [
        {"part": kills.CHOSEN, "name": f"network {n}", "kind": "network", "broken": ["x"] * (n == 2), "commit": "abc"}
        for n in range(3)
    ]
    text = table.markdown(rows)
    assert "| network: killed at chosen moments | 3 | 2 |" in text
    assert "- chosen moments, network 2: x" in text
    assert "Commit abc" in text
