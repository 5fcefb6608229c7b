"""Tests of workdirs: one run, one configuration, one process."""

import subprocess
import sys

import pytest

from imagenet_repro.config import resolve_config
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage.workdir import Workdir
from tests.conftest import REPOSITORY


def test_a_second_process_is_refused_while_the_first_runs(tmp_path):
    holder = f"""
import sys
from imagenet_repro.storage.workdir import Workdir
workdir = Workdir({str(tmp_path)!r})
workdir.lock()
print("locked", flush=True)
sys.stdin.read()
"""
    first = subprocess.Popen(
        [sys.executable, "-c", holder], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match=f"process {first.pid} on this machine is using it; wait"):
        Workdir(tmp_path).lock()
    first.communicate("")
    Workdir(tmp_path).lock()


def test_keys_that_affect_no_result_may_change(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.record_config(resolve_config({}), {})
    workdir.metrics.write_text('{"kind": "train", "step": 1}\n')
    workdir.record_config(resolve_config({"log_every": 7, "data": {"threads": 3, "data_dir": "/elsewhere"}}), {})
    with pytest.raises(UserError, match=r"batch_size: 256 there, 32 now"):
        workdir.record_config(resolve_config({"batch_size": 32}), {})
    with pytest.raises(UserError, match=r"optimizer\.b1: absent there, 0\.9 now"):
        workdir.record_config(resolve_config({"optimizer": {"name": "adamw"}}), {})


@pytest.mark.parametrize("trace", ["checkpoints/2", "metrics.jsonl", "result.json"])
def test_a_start_that_wrote_nothing_can_be_repeated_with_another_configuration(tmp_path, trace):
    workdir = Workdir(tmp_path)
    bad = {"model": {"weights": "bad.pth"}}
    workdir.record_config(resolve_config(bad), {"weights": {"path": "bad.pth", "sha256": "0"}})
    workdir.metrics.touch()  # opened before the step is compiled, which can fail too
    workdir.record_config(resolve_config({}), {})
    assert workdir.config() == resolve_config({})
    assert workdir.weights() == {}
    (tmp_path / trace).parent.mkdir(exist_ok=True)
    (tmp_path / trace).write_text("{}\n")
    with pytest.raises(UserError, match=r"model\.weights:  there, bad\.pth now"):
        workdir.record_config(resolve_config(bad), {})


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="cannot be written"):
        Workdir(tmp_path / "file" / "run").lock()


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*config\.json; train writes it"):
        Workdir(tmp_path).config()
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"result\.json is damaged"):
        Workdir(tmp_path).result()


def test_the_directory_of_stored_codes_may_change(tmp_path):
    workdir = Workdir(tmp_path)
    features = {"channels": {"a": {}}, "cache_dir": "/here"}
    workdir.record_config(resolve_config(features), {})
    workdir.metrics.write_text("{}\n")
    workdir.record_config(resolve_config(features | {"cache_dir": "/elsewhere"}), {})
    with pytest.raises(UserError, match=r"channels\.a\.step: 4 there, 8 now"):
        workdir.record_config(resolve_config({"channels": {"a": {"step": 8}}}), {})
