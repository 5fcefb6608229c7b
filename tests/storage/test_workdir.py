"""Workdirs: one run, one configuration, one process."""

import json
import subprocess
import sys

import pytest

from imagenet_repro.config import resolve_config
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage import provenance
from imagenet_repro.storage.workdir import Workdir
from tests.conftest import REPOSITORY


def test_a_second_process_is_refused_while_the_first_lives(tmp_path):
    holder = f"""
import sys
from imagenet_repro.storage.workdir import Workdir
place = Workdir({str(tmp_path)!r})
place.lock()
print("claimed", flush=True)
sys.stdin.read()
"""
    first = subprocess.Popen(
        [sys.executable, "-c", holder], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "claimed\n"
    with pytest.raises(UserError, match="another process is at work there"):
        Workdir(tmp_path).lock()
    first.communicate("")
    Workdir(tmp_path).lock()


def test_keys_that_change_no_number_may_change(tmp_path):
    place = Workdir(tmp_path)
    place.record_config(resolve_config({}), {})
    place.metrics.write_text('{"kind": "train", "step": 1}\n')
    place.record_config(resolve_config({"log_every": 7, "data": {"threads": 3, "data_dir": "/elsewhere"}}), {})
    with pytest.raises(UserError, match=r"batch_size: 256 there, 32 now"):
        place.record_config(resolve_config({"batch_size": 32}), {})
    with pytest.raises(UserError, match=r"optimizer\.b1: absent there, 0\.9 now"):
        place.record_config(resolve_config({"optimizer": {"name": "adamw"}}), {})


@pytest.mark.parametrize("trace", ["checkpoints/2", "metrics.jsonl", "result.json"])
def test_a_first_start_that_came_to_nothing_binds_no_later_one(tmp_path, trace):
    place = Workdir(tmp_path)
    bad = {"model": {"weights": "bad.pth"}}
    place.record_config(resolve_config(bad), {"weights": {"path": "bad.pth", "sha256": "0"}})
    place.metrics.touch()  # opened before the step is compiled, which can fail too
    place.record_config(resolve_config({}), {})
    assert place.config() == resolve_config({})
    assert place.weights() == {}
    (tmp_path / trace).parent.mkdir(exist_ok=True)
    (tmp_path / trace).write_text("{}\n")
    with pytest.raises(UserError, match=r"model\.weights:  there, bad\.pth now"):
        place.record_config(resolve_config(bad), {})


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="cannot be written"):
        Workdir(tmp_path / "file" / "run").lock()


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*config\.json; train writes it"):
        Workdir(tmp_path).config()
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"result\.json is damaged"):
        Workdir(tmp_path).result()


def test_provenance_is_json_with_code_versions_and_devices():
    found = json.loads(json.dumps(provenance.collect()))
    assert found["packages"]["jax"]
    assert found["devices"] == {"platform": "cpu", "cpu": 8}
    assert found["commit"]


def test_where_codes_are_kept_changes_nothing(tmp_path):
    place = Workdir(tmp_path)
    features = {"channels": {"a": {}}, "cache_dir": "/here"}
    place.record_config(resolve_config(features), {})
    place.metrics.write_text("{}\n")
    place.record_config(resolve_config(features | {"cache_dir": "/elsewhere"}), {})
    with pytest.raises(UserError, match=r"channels\.a\.step: 4 there, 8 now"):
        place.record_config(resolve_config({"channels": {"a": {"step": 8}}}), {})
