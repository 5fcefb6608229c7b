"""Tests of the results that Python gets: equal to the files of the run, with intervals from SciPy."""

import json

import pytest
from scipy.stats import binomtest

from imagenet_repro.errors import UserError
from imagenet_repro.runs.results import TrainingResult
from tests import finished_runs


def test_a_training_result_is_that_of_the_files(tmp_path):
    run = finished_runs.one(name="zfnet")
    finished_runs.write(tmp_path / "run", run)
    result = TrainingResult.read(tmp_path / "run")
    content = json.loads((tmp_path / "run/result.json").read_text())
    assert result.to_dict() == content
    assert (result.name, result.system) == ("zfnet", "zfnet")
    assert result.spent.images == content["spent"]["images"]
    assert result.top1.error == content["rates"]["top1_error"]
    expected = binomtest(content["rates"]["top5_wrong"], content["rates"]["images"]).proportion_ci(method="wilson")
    assert result.top5.interval == pytest.approx((expected.low, expected.high))
    assert result.predictions.exists()
    assert result.curves() == list(run.rows)
    assert str(result).startswith(f"zfnet: top-1 error {100 * result.top1.error:.1f} % [")


def test_a_run_that_has_not_ended_has_no_result(tmp_path):
    finished_runs.unfinished(tmp_path / "run", finished_runs.one())
    with pytest.raises(UserError, match=r"result\.json"):
        TrainingResult.read(tmp_path / "run")
