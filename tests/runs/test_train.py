"""Tests of the start of a run (`runs/train.py`), before anything is built."""

import dataclasses
import errno
import os

import pytest

import main
from imagenet_repro.config import resolve_config
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import SaveError
from imagenet_repro.runs import train
from imagenet_repro.storage.workdir import Workdir

CONFIG = resolve_config({"precision": "float32"})
SPLIT = Split("made_up", "train", "1.0.0", ("a", "b"), 1, [])
FEATURES = resolve_config({"channels": {"a": {}}})


@pytest.mark.parametrize("place", ["predictions", "metrics.jsonl/x", "checkpoints"])
def test_a_place_that_cannot_be_written_is_named_before_training(tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(
        SaveError, match=rf"{place.partition('/')[0]}.* cannot be written: .*; choose another --workdir"
    ):
        train._open(CONFIG, Workdir(tmp_path), SPLIT)


def test_a_full_place_of_stored_codes_is_named_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    config = resolve_config({"channels": {"a": {}}, "cache_dir": str(tmp_path / "file/codes")})
    with pytest.raises(SaveError, match=r"config\.cache_dir: .*file/codes cannot be written"):
        train._open(config, Workdir(tmp_path / "run"), SPLIT)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    train._open(FEATURES, Workdir(tmp_path / "other"), SPLIT)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SaveError, match="No space left on device"):
        train._open(FEATURES, Workdir(tmp_path / "full"), SPLIT)


def test_a_path_that_is_too_long_for_checkpoints_is_named_before_training(tmp_path):
    path = tmp_path.joinpath(*["d" * 200] * 19)
    workdir = Workdir(path / ("d" * (3990 - len(str(path)))))
    with pytest.raises(SaveError, match=r"checkpoints.*the path is longer than 4096 bytes"):
        train._open(CONFIG, workdir, SPLIT)


def test_a_started_run_without_its_configuration_takes_that_of_the_command(tmp_path, capsys):
    workdir = Workdir(tmp_path)
    train._open(CONFIG, workdir, SPLIT)
    recorded = workdir.config(), workdir.precision()
    workdir = Workdir(tmp_path)  # the lock ends with the first one
    assert capsys.readouterr().out == ""
    workdir.metrics.write_text("{}\n")
    (tmp_path / "config.json").unlink()
    train._open(CONFIG, workdir, SPLIT)
    assert (workdir.config(), workdir.precision()) == recorded
    assert "config.json is missing; the configuration of this command is taken" in capsys.readouterr().out


def test_a_run_keeps_its_name_unless_another_is_given(tmp_path):
    named, renamed = (dataclasses.replace(CONFIG, name=name) for name in ("mine", "other"))
    workdir = Workdir(tmp_path)
    assert train._with_recorded_name(CONFIG, workdir).name == ""
    train._open(named, workdir, SPLIT)
    workdir.metrics.write_text("{}\n")
    assert train._with_recorded_name(CONFIG, Workdir(tmp_path)).name == "mine"
    assert train._with_recorded_name(renamed, Workdir(tmp_path)).name == "other"
    workdir.record_config(renamed, {})  # a name is no other configuration


def test_the_command_passes_the_name_on(monkeypatch):
    named = []
    monkeypatch.setattr(train, "train", lambda config, workdir, **options: named.append(config.name) or 0)
    for name in ("", "mine"):
        main.main(["train", "--config=configs/resnet.py:18", "--workdir=w", *([f"--name={name}"] if name else [])])
    assert named == ["", "mine"]
