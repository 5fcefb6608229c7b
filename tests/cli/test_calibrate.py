"""Tests of `main.py calibrate` with invented predictions."""

import re

import pytest

import main
from imagenet_repro.report import calibration_page
from imagenet_repro.scoring import calibration, predictions
from tests import finished_runs
from tests.scoring import synthetic_predictions
from tests.scoring.synthetic_predictions import replace


@pytest.fixture
def stored(tmp_path):
    def write(name, split="validation", *, number=0, train="train[:99%]", classes=6):
        result = synthetic_predictions.calibrated(900, classes, sharpness=2.0, seed=len(split), split=split)
        config = synthetic_predictions.config(number, split, train)
        predictions.save(tmp_path / name, replace(result, provenance={"config": config, "step": 100}))
        return str(tmp_path / name)

    return write


def run(*arguments):
    return main.main(["calibrate", *arguments])


def test_the_page_has_the_temperature_fitted_to_other_images(stored, tmp_path, capsys):
    scored, fit = stored("a.npz"), stored("b.npz", "train[99%:]")
    assert run(f"--predictions={scored}", f"--fit={fit}", f"--out={tmp_path / 'page'}") == 0
    out = capsys.readouterr().out
    temperature = calibration.fit_temperature(predictions.load(fit))
    assert f"a temperature of {temperature:.3g}, fitted on 900 other images" in out
    assert "googlenet is overconfident" in out
    assert f"the page: {tmp_path / 'page/calibration.html'}" in out
    assert (tmp_path / "page/tables/calibration.csv").exists()


def test_the_page_of_a_run_is_written_into_its_workdir(tmp_path, capsys):
    (workdir,) = finished_runs.systems(tmp_path, count=1, images=60)
    assert run(f"--predictions={workdir}") == 0
    assert (tmp_path / "nec_uiuc_2010-0/calibration.html").exists()
    assert "class 0" in (tmp_path / "nec_uiuc_2010-0/tables/confusions.csv").read_text()
    assert "temperature" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "900 of the scored images are among those on which the temperature is found"),
        ({"split": "train[99%:]", "number": 1}, "must differ only in their images, but have seed 0 and 1"),
        ({"split": "train[99%:]", "train": "train"}, "was trained on all of train"),
        ({"split": "train[99%:]", "classes": 7}, "has 7 classes and .*a.npz 6; without names they cannot be aligned"),
    ],
)
def test_unsuitable_images_for_a_temperature_are_refused(stored, tmp_path, capsys, options, message):
    scored, fit = stored("a.npz"), stored("b.npz", **options)
    assert run(f"--predictions={scored}", f"--fit={fit}", f"--out={tmp_path / 'page'}") == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "page").exists()


def test_a_file_in_place_of_the_directory_is_an_error(stored, tmp_path, capsys):
    scored = stored("a.npz")
    assert run(f"--predictions={scored}", f"--out={scored}") == 74
    assert "is a file; a directory is needed" in capsys.readouterr().err


@pytest.mark.parametrize("names", ["fedcba", "abcdex"])
def test_held_out_images_of_other_classes(stored, tmp_path, capsys, monkeypatch, names):
    monkeypatch.setattr(calibration_page, "write", lambda result, out: out)
    scored, fit = stored("a.npz"), stored("b.npz", "train[99%:]")
    for path, classes in ((scored, "abcdef"), (fit, names)):
        one = predictions.load(path)
        predictions.save(path, replace(one, provenance=one.provenance | {"classes": list(classes)}))
    code = run(f"--predictions={scored}", f"--fit={fit}", f"--out={tmp_path / 'page'}")
    printed = capsys.readouterr()
    if "x" in names:
        assert (code, "b.npz has 'x'; only" in printed.err) == (2, True)
    else:
        assert (code, "in another order: index 0 is 'f' and not 'a'" in printed.out) == (0, True)
