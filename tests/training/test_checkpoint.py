"""Tests of checkpoints: contents, retention, damage, other devices and failing disks."""

import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.training import parallel
from imagenet_repro.training.checkpoint import Checkpoints
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
        checkpoints.save(number, placed(state(number)), {"steps": number}, 0.5)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.best_step() == 2
    same(checkpoints.restore(placed(state()), "best").state, state(2))


def test_without_a_checkpoint_none_is_returned(tmp_path, placed):
    assert Checkpoints(tmp_path / "new", keep=1).restore(placed(state())) is None


def damage_a_byte(step):
    file = max((step / "state").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(step):
    file = max((step / "state").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    file.write_bytes(file.read_bytes()[:-100])


def lose_state(step):
    shutil.rmtree(step / "state")


def lose_files_before_the_seal(step):
    (step / "seal.json").unlink()
    shutil.rmtree(step / "state" / "d")
    shutil.rmtree(step / "state" / "ocdbt.process_0")


@pytest.mark.parametrize("damage", [damage_a_byte, truncate, lose_state, lose_files_before_the_seal])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_is_used(tmp_path, placed, damage):
    save_all(tmp_path, placed, [None, None]).close()
    damage(tmp_path / "2")
    messages = []
    result = Checkpoints(tmp_path, keep=2, say=messages.append).restore(placed(state()))
    assert result.step == 1
    same(result.state, state(1))
    assert len(messages) == 1
    assert str(tmp_path / "2") in messages[0]


def test_one_process_of_several_does_not_fall_back_by_itself(tmp_path, placed, monkeypatch):
    checkpoints = save_all(tmp_path, placed, [None, None])

    def fail(*args, **kwargs):
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.restore", fail)
    with pytest.raises(UserError, match=rf"process 0 cannot restore {tmp_path}/2 .*Input/output error.*delete"):
        checkpoints.restore(placed(state()))


def test_only_damaged_checkpoints_are_an_error_and_not_a_fresh_start(tmp_path, placed):
    save_all(tmp_path, placed, [None, None]).close()
    for step in ("1", "2"):
        damage_a_byte(tmp_path / step)
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        Checkpoints(tmp_path, keep=2, say=lambda _: None).restore(placed(state()))


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
    checkpoints.save(1, placed(state(1)), {"steps": 1})
    checkpoints.wait()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.wait_until_finished", full)

    def save_and_wait():
        checkpoints.save(2, placed(state(2)), {"steps": 2})
        checkpoints.wait()

    with pytest.raises(SaveError, match=r"step 2 could not.*No space left on device.*step 1 is kept"):
        save_and_wait()


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, placed, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=2)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(SaveError, match=r"step 1 could not.*needs .* MB and 0\.0 MB are free"):
        checkpoints.save(1, placed(state(1)), {"steps": 1})
    assert checkpoints.steps() == []


def test_a_directory_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="another --workdir"):
        Checkpoints(tmp_path / "file" / "checkpoints", keep=1)
