"""Tests of the choice between float32 and bfloat16 on a CPU."""

import json

import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.models.nn import target
from imagenet_repro.training import cpu_precision


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Return the file of measurements of an empty cache directory, with the environment variable unset."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(cpu_precision.VARIABLE, raising=False)
    return tmp_path / "imagenet_repro" / "cpu_bfloat16.json"


@pytest.mark.parametrize(("setting", "computed"), [("yes", "bfloat16"), ("no", "float32")])
def test_the_environment_decides_without_a_measurement(cache, monkeypatch, setting, computed):
    monkeypatch.setenv(cpu_precision.VARIABLE, setting)
    assert cpu_precision.choose("bfloat16") == computed
    assert not cache.exists()


def test_an_unknown_setting_is_an_error(monkeypatch):
    monkeypatch.setenv(cpu_precision.VARIABLE, "on")
    with pytest.raises(UserError, match="IMAGENET_REPRO_CPU_BFLOAT16=on: must be yes, no or measure"):
        cpu_precision.choose("bfloat16")


def test_it_is_measured_once_and_the_measurement_decides(cache):
    first = cpu_precision.choose("bfloat16")
    measured = json.loads(cache.read_text())
    ((machine, seconds),) = measured.items()
    faster = seconds["bfloat16"] < cpu_precision.GAIN * seconds["float32"]
    assert first == ("bfloat16" if faster else "float32")
    assert min(seconds.values()) > 0
    for stored, computed in (({"float32": 2.0, "bfloat16": 1.0}, "bfloat16"), (dict.fromkeys(seconds, 1), "float32")):
        cache.write_text(json.dumps({machine: stored}))
        assert cpu_precision.choose("bfloat16") == computed
        assert json.loads(cache.read_text()) == {machine: stored}


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_other_precisions_stay(cache, precision):
    assert cpu_precision.choose(precision) == precision
    assert not cache.exists()


def test_nothing_is_measured_for_an_accelerator(cache):
    with target.compile_for("gpu"):
        assert cpu_precision.choose("bfloat16") == "bfloat16"
    assert not cache.exists()


def test_only_a_difference_is_explained():
    assert not cpu_precision.explain("bfloat16", "bfloat16")
    assert cpu_precision.explain("bfloat16", "float32").startswith("computes in float32: ")
