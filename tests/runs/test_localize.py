"""Tests of where `main.py localize` writes; its boxes are tested in tests/inference/test_localizer.py."""

import pytest

from imagenet_repro.errors import SaveError
from imagenet_repro.runs import localize
from imagenet_repro.storage.workdir import Workdir


def test_a_workdir_that_cannot_be_written_names_the_option_for_another_place(tmp_path):
    run = Workdir(tmp_path / "run")
    assert localize._output_directories(run, None) == (run.path / "predictions", run.path / "localization")
    run.path.mkdir()
    (run.path / "localization").touch()
    with pytest.raises(SaveError, match=r"the boxes: .*/localization cannot .* is a file; .* with --out=DIR"):
        localize._output_directories(run, None)
    assert localize._output_directories(run, str(tmp_path)) == (tmp_path, tmp_path)
    assert [path.name for path in run.path.iterdir()] == ["localization"]
