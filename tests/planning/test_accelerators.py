"""Two real plans: the compilers of a TPU and of a GPU on real networks, in a process of their own."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


def plan(tmp_path, *arguments):
    file = tmp_path / "plan.json"
    clean = {name: value for name, value in os.environ.items() if name not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    process = subprocess.run(
        [sys.executable, "main.py", "plan", f"--json={file}", *arguments],
        cwd=REPOSITORY, env=clean, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""  # the compilers' own messages stay away from the terminal
    return json.loads(file.read_text()), process.stdout


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs pip install -r requirements/plan-tpu.txt")
def test_alexnet_on_tpus(tmp_path):
    record, out = plan(tmp_path, "--config=configs/alexnet.py", "--topology=v5e:2x2", "--level=O1")
    assert record["fits"]
    assert record["aliases"] == record["donated"]
    assert record["traffic_bytes"] < record["xla_bytes"]  # the compiler counts memory on the chip too
    assert record["collectives"]["all-reduce"]["bytes"] == pytest.approx(4 * record["parameters"], rel=0.01)
    assert record["unknown_loops"] == 0
    assert "fits" in out


@pytest.mark.skipif(
    not importlib.util.find_spec("jax_cuda13_plugin"), reason="needs pip install -r requirements/plan-gpu.txt"
)
def test_resnet50_on_a_gpu_with_determinism(tmp_path):
    record, out = plan(tmp_path, "--config=configs/resnet.py:50", "--topology=h200:1")
    assert record["fits"]
    assert record["aliases"] == record["donated"]
    assert record["limiter"] == "memory traffic"
    assert (
        256 * 3 * 2 * 4.09e9 * 0.95 < record["flops"] < 256 * 3 * 2 * 4.09e9
    )  # He et al. 2015: 3.8 to 4.1 G of one image
    assert "on 1 x NVIDIA H200 SXM (h200:1), pmap" in out
