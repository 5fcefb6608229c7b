"""Tests of workdirs: one run, one configuration, one process."""

import json
import random
import subprocess
import sys

import pytest

from imagenet_repro.config import Data, resolve_config
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage import files
from imagenet_repro.storage.json_files import write_json
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


RESULT = {
    "system": "alexnet_2012",
    "parameters": 1,
    "multiply_adds": 1,
    "spent": {"images": 8, "seconds": 1.0},
    "rates": {
        "images": 4,
        "top1_wrong": 2,
        "top5_wrong": 1,
        "top1_error": 0.5,
        "top5_error": 0.25,
        "cross_entropy": 1,
    },
    "provenance": {
        "config": {"budget": "1ep", "data": {"name": "n", "train_split": "t", "eval_split": "e"}},
    },
}


def mutations(content, count):
    """Yield copies of a file with a flipped bit, a shorter end or a hole."""
    rng = random.Random(0)
    for number in range(count):
        mutated, place = bytearray(content), rng.randrange(len(content))
        if number % 3 == 0:
            mutated[place] ^= 1 << rng.randrange(8)
        elif number % 3 == 1:
            del mutated[place:]
        else:
            del mutated[place : place + rng.randrange(1, 20)]
        yield bytes(mutated)


@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_every_kind_of_damage_to_a_file_is_a_message_that_names_it(tmp_path, name):
    workdir, config = Workdir(tmp_path), resolve_config({})
    provenance = {"precision": "float32", "weights": {"path": "w", "sha256": "0"}}
    workdir.record_config(config, provenance)
    workdir.metrics.write_text("{}\n")
    write_json(tmp_path / "result.json", RESULT)
    assert workdir.result() == RESULT
    readers = (
        [workdir.result]
        if name == "result.json"
        else [workdir.config, workdir.precision, workdir.weights, lambda: workdir.record_config(config, provenance)]
    )
    failures = []
    for mutated in mutations((tmp_path / name).read_bytes(), 60):
        (tmp_path / name).write_bytes(mutated)
        for read in readers:
            try:
                read()
            except UserError as error:
                failures.append(str(error))
    assert len(failures) > 40
    changed = f"--workdir={tmp_path} holds a run of another configuration"
    assert all(name in failure or changed in failure or "has changed since" in failure for failure in failures)


@pytest.mark.parametrize("damage", ["{", "[1]", json.dumps(RESULT | {"rates": RESULT["rates"] | {"top1_wrong": 5}})])
def test_a_damaged_result_is_set_aside_so_that_it_can_be_written_again(tmp_path, damage):
    workdir = Workdir(tmp_path)
    assert workdir.set_damaged_result_aside() == ""
    (tmp_path / "result.json").write_text(damage)
    assert f"{tmp_path / 'result.json'} is " in workdir.set_damaged_result_aside()
    assert not workdir.is_finished
    assert (tmp_path / "result.json.damaged").read_text() == damage
    write_json(tmp_path / "result.json", RESULT)
    assert workdir.set_damaged_result_aside() == ""
    assert workdir.is_finished


def test_partial_files_of_killed_runs_are_removed_at_the_next_start(tmp_path):
    names = (".result.json.0000001.part", "predictions/.a.npz.0000001.part", "checkpoints/.probe-a1.part")
    parts = [tmp_path / name for name in names]
    for part in parts:
        part.parent.mkdir(exist_ok=True)
        part.touch()
    Workdir(tmp_path).lock()
    assert not any(part.exists() for part in parts)


def test_the_directory_of_stored_codes_may_change(tmp_path):
    workdir = Workdir(tmp_path)
    features = {"channels": {"a": {}}, "cache_dir": "/here"}
    workdir.record_config(resolve_config(features), {})
    workdir.metrics.write_text("{}\n")
    workdir.record_config(resolve_config(features | {"cache_dir": "/elsewhere"}), {})
    with pytest.raises(UserError, match=r"channels\.a\.step: 4 there, 8 now"):
        workdir.record_config(resolve_config({"channels": {"a": {"step": 8}}}), {})


def test_the_file_of_predictions_has_a_name_that_file_systems_take(tmp_path):
    workdir = Workdir(tmp_path)
    protocols = ["p" * 250 + end for end in "ab"]
    paths = [workdir.predictions(Data(name="猫" * 90), "validation", 7, protocol) for protocol in protocols]
    assert len({*paths}) == 2
    for path in paths:
        assert path.name.startswith("猫" * 50)
        files.require_writable_file(path, "the predictions")
    assert workdir.predictions(Data(name="a/b"), "train[:5%]", 7).name == "a_b_train__5___step7.npz"
