"""Tests of the precision in which a run on a CPU computes, from its record to its evaluation."""

import contextlib
import io
import json
import os
import shutil
from unittest import mock

import numpy as np
import pytest

from imagenet_repro.config import resolve_config
from imagenet_repro.runs.evaluate import evaluate
from imagenet_repro.runs.train import train
from imagenet_repro.training import cpu_precision
from tests import command_line

SETTINGS = {
    "budget": "4st",
    "batch_size": 8,
    "precision": "bfloat16",
    "model": {"name": "lenet5"},
    "data": {"name": "fractal/c6_n2_v7_s32", "image_size": 32, "threads": 2},
    "evaluate_every": "4st",
    "checkpoint": {"every": "2st"},
    "optimizer": {"name": "sgd", "learning_rate": 0.02},
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return command_line.prepare_fractal(tmp_path_factory.mktemp("data"), train_images=2)


OTHER = {"no": "yes", "yes": "no"}


@pytest.fixture
def config(data_dir):
    return resolve_config(SETTINGS | {"data": SETTINGS["data"] | {"data_dir": data_dir}})


def run(config, workdir, setting):
    """Train with the environment variable set; return what the command prints."""
    printed = io.StringIO()
    with mock.patch.dict(os.environ, {cpu_precision.VARIABLE: setting}), contextlib.redirect_stdout(printed):
        train(config, str(workdir))
    return printed.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "computed"), [("no", "float32"), ("yes", "bfloat16")])
def test_a_run_keeps_the_precision_that_it_began_with(setting, computed, config, tmp_path):
    printed = run(config, tmp_path, setting)
    assert f"6 classes, {computed}, " in printed
    assert printed.count("computes in float32: ") == (computed == "float32")
    assert json.loads((tmp_path / "config.json").read_text())["provenance"]["precision"] == computed
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["provenance"]["precision"] == computed
    assert result["provenance"]["config"]["precision"] == "bfloat16"
    arrays = command_line.arrays(tmp_path, 4)

    (tmp_path / "result.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    printed = run(config, tmp_path, OTHER[setting])
    assert "resumed at step 2" in printed
    assert f"6 classes, {computed}, " in printed
    for name, value in command_line.arrays(tmp_path, 4).items():
        np.testing.assert_array_equal(value, arrays[name], err_msg=name)

    scored = tmp_path / "scored.npz"
    evaluate(str(tmp_path), which="last", data={}, out=str(scored))
    with np.load(scored) as again, np.load(tmp_path / result["predictions"]) as before:
        np.testing.assert_array_equal(again["logits"], before["logits"])
