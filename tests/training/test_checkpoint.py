"""Tests of checkpoints: contents, retention, damage, other devices and failing disks."""

import dataclasses
import os
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.training import parallel
from imagenet_repro.training.checkpoint import Checkpoints
from imagenet_repro.training.state import TrainState
from tests.training import small_network

CONFIG = small_network.config(optimizer={"name": "adamw"}, ema_decay=0.9)


def state(seed=0):
    """Return a state with a different number in every array."""
    _, first = small_network.make(CONFIG)
    return jax.tree.map(lambda x: x + np.asarray(seed, x.dtype), first)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


@pytest.fixture
def placed():
    return parallel.create("shard_map").put_state


def save_all(path, placed, errors):
    checkpoints = Checkpoints(path, keep=2)
    for number, error in enumerate(errors, 1):
        checkpoints.save(number, placed(state(number)), {"steps": number, "seconds": number / 2}, error)
    checkpoints.close()
    return Checkpoints(path, keep=2)


def test_states_are_restored_and_the_last_two_and_the_best_are_kept(tmp_path, placed):
    checkpoints = save_all(tmp_path, placed, [0.9, 0.2, None, 0.4, None])
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.best_step() == 2
    for which, number in (("last", 5), ("best", 2), ("4", 4)):
        result = checkpoints.restore(placed(state()), which)
        assert (result.step, result.info["seconds"]) == (number, number / 2)
        same(result.state, state(number))
    with pytest.raises(UserError, match=r"no checkpoint '3'.*last, best, \[2, 4, 5\]"):
        checkpoints.restore(placed(state()), "3")


def test_a_checkpoint_that_is_rated_later_can_be_the_best_and_is_kept(tmp_path, placed):
    checkpoints = save_all(tmp_path, placed, [0.9, None])
    assert [checkpoints.rated(step) for step in (1, 2)] == [True, False]
    checkpoints.rate(2, 0.1)
    for number in (3, 4, 5):
        checkpoints.save(number, placed(state(number)), {"steps": number, "seconds": 1.0}, 0.5)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.best_step() == 2
    same(checkpoints.restore(placed(state()), "best").state, state(2))


def test_without_a_checkpoint_none_is_returned(tmp_path, placed):
    assert Checkpoints(tmp_path / "new", keep=1).restore(placed(state())) is None


# --- damage -----------------------------------------------------------------------------------------------------


def tiny(number):
    """Return a state of a few numbers, which is saved and restored in a tenth of a second."""
    arrays = {"a": np.full((4, 8), number, np.float32), "b": np.full(3, number, np.float32)}
    return TrainState(
        np.asarray(number, np.int32), arrays, {"mean": arrays["b"] + 1}, (arrays["a"] + 2,), {}, np.uint32([0, 1])
    )


def save_tiny(checkpoints, number, error=None, value=None):
    checkpoints.save(number, tiny(number if value is None else value), {"steps": number, "seconds": 1.0}, error)
    checkpoints.wait()


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    """Return a directory with checkpoints of steps 1 and 2; the first is the best."""
    path = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = Checkpoints(path, keep=2)
    save_tiny(checkpoints, 1, 0.2)
    save_tiny(checkpoints, 2, 0.4)
    checkpoints.close()
    return path


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest(step):
    """Return the file of the arrays of a checkpoint."""
    return max((path for path in (step / "state").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)


def without_seal(damage):
    """Return damage to a checkpoint whose run ended before the seal."""

    def do(step):
        (step / "seal.json").unlink()
        damage(step)

    return do


def half_copy(step):
    for path in sorted(path for path in step.rglob("*") if path.is_file())[::2]:
        path.unlink()


def kill_while_the_seal_is_written(step):
    (step / "seal.json").rename(step / ".seal.json.4194304.part")


SETS_ASIDE = {
    "an array is truncated": lambda step: os.truncate(largest(step), largest(step).stat().st_size - 9),
    "an array is empty": lambda step: os.truncate(largest(step), 0),
    "an array is deleted": lambda step: largest(step).unlink(),
    "an array is flipped": lambda step: flip(largest(step)),
    "the manifest is missing": lambda step: (step / "state/manifest.ocdbt").unlink(),
    "Orbax's metadata are flipped": lambda step: flip(step / "state/_METADATA"),
    "the checkpoint's metadata are flipped": lambda step: flip(step / "_CHECKPOINT_METADATA"),
    "the state is missing": lambda step: shutil.rmtree(step / "state"),
    "the budget is garbage": lambda step: (step / "info/metadata").write_bytes(b"\xff{"),
    "the seal is empty": lambda step: (step / "seal.json").write_text(""),
    "the seal is a list": lambda step: (step / "seal.json").write_text("[1]"),
    "the seal is flipped": lambda step: flip(step / "seal.json"),
    "the directory is empty": lambda step: (shutil.rmtree(step), step.mkdir()),
    "the directory is half copied": half_copy,
    "unsealed, an array is deleted": without_seal(lambda step: shutil.rmtree(step / "state/d")),
    "unsealed, the manifest is missing": without_seal(lambda step: (step / "state/manifest.ocdbt").unlink()),
    "unsealed, the metadata are missing": without_seal(lambda step: (step / "state/_METADATA").unlink()),
    "unsealed, the budget is garbage": without_seal(lambda step: (step / "info/metadata").write_text("[1]")),
}
KEEPS = {
    "killed while the seal was written": kill_while_the_seal_is_written,
    "killed before the seal": without_seal(lambda step: None),
    "killed in the middle of a checkpoint": lambda step: shutil.copytree(
        step, step.with_name("3.orbax-checkpoint-tmp")
    ),
    "its error is garbage": lambda step: (step / "metrics/metrics").write_bytes(b"\xff"),
    "an older error is a list": lambda step: (step.with_name("1") / "metrics/metrics").write_text("[1]"),
    "an older error is another one": lambda step: (step.with_name("1") / "metrics/metrics").write_text(
        '{"top1_error": 0.5}'
    ),
}


@pytest.mark.parametrize("damage", [*SETS_ASIDE, *KEEPS])
def test_a_run_survives_damage_to_its_newest_checkpoint_and_saves_that_step_again(two_checkpoints, tmp_path, damage):
    path, said = tmp_path / "checkpoints", []
    shutil.copytree(two_checkpoints, path)
    (SETS_ASIDE | KEEPS)[damage](path / "2")
    checkpoints = Checkpoints(path, keep=2, say=said.append)
    result = checkpoints.restore(tiny(0))
    expected = 1 if damage in SETS_ASIDE else 2
    assert (result.step, result.info["steps"]) == (expected, expected)
    same(result.state, tiny(expected))
    assert (path / "2.damaged").is_dir() == (damage in SETS_ASIDE)
    if damage in SETS_ASIDE:
        assert len(said) == 1
        assert str(path / "2") in said[0]
        assert "2.damaged" in said[0]
    elif "error" in damage:
        assert [str(path / step / "metrics/metrics") in said[0] for step in ("1", "2")].count(True) == len(said)
        assert (checkpoints.best_step() == 1) == (damage == "its error is garbage")
    save_tiny(checkpoints, expected + 1, value=9)
    checkpoints.close()
    assert all((path / str(step) / "seal.json").exists() for step in checkpoints.steps())
    assert not [leftover for leftover in path.rglob("*") if leftover.name.endswith((".part", "-tmp"))]
    again = Checkpoints(path, keep=2, read_only=True)
    same(again.restore(tiny(0)).state, tiny(9))
    again.close()


def test_a_step_can_be_damaged_any_number_of_times(two_checkpoints, tmp_path):
    path = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, path)
    for _ in range(3):
        flip(largest(path / "2"))
        checkpoints = Checkpoints(path, keep=2, say=lambda _: None)
        assert checkpoints.restore(tiny(0)).step == 1
        save_tiny(checkpoints, 2)
        checkpoints.close()
    assert sorted(p.name for p in path.iterdir()) == ["1", "2", "2.damaged", "2.damaged2", "2.damaged3"]


def test_an_old_checkpoint_whose_removal_was_interrupted_is_removed(two_checkpoints, tmp_path):
    path = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, path)
    checkpoints = Checkpoints(path, keep=3)
    for step in (3, 4):
        save_tiny(checkpoints, step, 0.5)
    checkpoints.close()
    (path / "2/_CHECKPOINT_METADATA").unlink()
    checkpoints = Checkpoints(path, keep=1, read_only=True)
    assert checkpoints.restore(tiny(0)).step == 4
    checkpoints.close()
    assert checkpoints.steps() == [1, 2, 3, 4]
    checkpoints = Checkpoints(path, keep=1)
    assert checkpoints.restore(tiny(0)).step == 4
    assert checkpoints.steps() == [1, 4]  # 1 is the best
    save_tiny(checkpoints, 5)
    checkpoints.close()
    assert checkpoints.steps() == [1, 5]


def test_a_reader_uses_the_one_before_and_changes_nothing(two_checkpoints, tmp_path):
    path, said = tmp_path / "checkpoints", []
    shutil.copytree(two_checkpoints, path)
    (path / "1/seal.json").unlink()
    flip(largest(path / "2"))
    (path / "3.orbax-checkpoint-tmp").mkdir()  # of the run that trains there
    before = sorted(path.rglob("*"))
    checkpoints = Checkpoints(path, keep=2, say=said.append, read_only=True)
    assert checkpoints.restore(tiny(0)).step == 1
    with pytest.raises(UserError, match=r"2 is damaged"):
        checkpoints.restore(tiny(0), "2")
    checkpoints.close()
    assert len(said) == 1
    assert "using the one before it" in said[0]
    assert sorted(path.rglob("*")) == before


def test_only_damaged_checkpoints_are_an_error_and_not_a_fresh_start(two_checkpoints, tmp_path):
    path = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, path)
    for step in ("1", "2"):
        flip(largest(path / step))
    checkpoints = Checkpoints(path, keep=2, say=lambda _: None)
    with pytest.raises(UserError, match=r"every checkpoint is damaged.*2 is damaged: state.*has changed"):
        checkpoints.restore(tiny(0))
    checkpoints.close()
    assert checkpoints.steps() == [1, 2]


def test_a_checkpoint_of_another_network_is_not_taken_for_a_damaged_one(two_checkpoints, tmp_path):
    path = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, path)
    other = dataclasses.replace(tiny(0), params={"c": np.zeros(5, np.float32)})
    checkpoints = Checkpoints(path, keep=2)
    with pytest.raises(UserError, match=r"cannot be restored .*may belong to another network"):
        checkpoints.restore(other)
    checkpoints.close()
    assert checkpoints.steps() == [1, 2]


def test_a_checkpoint_that_cannot_be_restored_is_not_sealed(tmp_path, monkeypatch):
    monkeypatch.setattr("imagenet_repro.training.checkpoint._shapes", lambda plain: {"params.lost": (3,)})
    checkpoints = Checkpoints(tmp_path, keep=2)
    with pytest.raises(SaveError, match=r"step 1 could not be written.*params\.lost \[3\] is not complete"):
        save_tiny(checkpoints, 1)
    checkpoints.close()
    assert not (tmp_path / "1/seal.json").exists()


@pytest.mark.parametrize("name", ["exp[seed=1]", "a*b?", "gs:", "\\x\n'\"", os.fsdecode(b"\xff")])
def test_no_name_of_a_directory_is_misread(tmp_path, name):
    path = tmp_path / name / "checkpoints"
    checkpoints = Checkpoints(path, keep=1)
    save_tiny(checkpoints, 1)
    save_tiny(checkpoints, 2)
    checkpoints.close()
    again = Checkpoints(path, keep=1)
    same(again.restore(tiny(0)).state, tiny(2))
    again.close()
    assert sorted(p.name for p in path.iterdir()) == ["2"]


def test_a_name_that_libraries_misread_is_refused_where_there_is_no_other_path(tmp_path, monkeypatch):
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, flags: 10_000 if str(path).endswith("[1]") else real(path, flags))
    monkeypatch.setattr(os, "close", lambda descriptor: None)
    with pytest.raises(UserError, match=r"choose another --workdir"):
        Checkpoints(tmp_path / "a[1]", keep=1)


def test_a_workdir_that_is_removed_while_a_run_trains_is_a_sentence(tmp_path, caplog, capfd):
    path = tmp_path / "run/checkpoints"
    checkpoints = Checkpoints(path, keep=1)
    save_tiny(checkpoints, 1)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(SaveError, match=rf"step 2 could not be written: {path} was removed"):
        save_tiny(checkpoints, 2)
    checkpoints.close()
    assert "Traceback" not in caplog.text + "".join(capfd.readouterr())


# --- several processes, other devices, failing disks --------------------------------------------------------------


def test_one_process_of_several_does_not_fall_back_by_itself(tmp_path, placed, monkeypatch):
    checkpoints = save_all(tmp_path, placed, [None, None])

    def fail(*args, **kwargs):
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.restore", fail)
    with pytest.raises(UserError, match=rf"process 0 cannot restore {tmp_path}/2 .*Input/output error.*delete"):
        checkpoints.restore(placed(state()))


@pytest.mark.parametrize(("saved_as", "restored_as"), [("shard_map", "fsdp"), ("fsdp", "pmap")])
def test_another_way_of_spreading_restores(tmp_path, saved_as, restored_as):
    save_all(tmp_path, parallel.create(saved_as).put_state, [None])
    target = parallel.create(restored_as).put_state(state())
    result = Checkpoints(tmp_path, keep=2).restore(target)
    same(result.state, state(1))
    placed_alike = jax.tree.map(lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim), result.state, target)
    assert all(jax.tree.leaves(placed_alike))


def test_a_failed_save_reports_the_checkpoint_that_remains(tmp_path, placed, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, placed(state(1)), {"steps": 1, "seconds": 1.0})
    checkpoints.wait()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.wait_until_finished", full)

    def save_and_wait():
        checkpoints.save(2, placed(state(2)), {"steps": 2, "seconds": 1.0})
        checkpoints.wait()

    with pytest.raises(SaveError, match=r"step 2 could not.*No space left on device.*step 1 is kept"):
        save_and_wait()


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, placed, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=2)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(SaveError, match=r"step 1 could not.*needs .* MB and 0\.0 MB are free"):
        checkpoints.save(1, placed(state(1)), {"steps": 1, "seconds": 1.0})
    assert checkpoints.steps() == []


def test_a_directory_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="another --workdir"):
        Checkpoints(tmp_path / "file" / "checkpoints", keep=1)
