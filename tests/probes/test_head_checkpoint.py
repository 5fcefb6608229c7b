"""Tests of checkpoints of linear heads in training: the same bits after an interruption, and files that do not fit."""

import jax
import numpy as np
import pytest

from imagenet_repro.probes import linear_heads
from imagenet_repro.probes.head_checkpoint import HeadCheckpoint
from imagenet_repro.probes.linear_heads import HeadGrid
from tests.probes.stored import clusters, store

GRID = HeadGrid({"first": slice(0, 4), "all": slice(0, 6)}, (0.02, 0.3), 3, seed=3)
STEPS, BATCH = 9, 64


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    x, y = clusters(150, 6, 3)
    return store(tmp_path_factory.mktemp("rows"), y, pooled=x).rows(("pooled",))


def train(rows, checkpoint, *, until=STEPS):
    """Train on from the checkpoint; return the last state and the number of steps taken."""
    start = checkpoint.load() or GRID.initial_state()
    batches = linear_heads.shuffled_batches(rows, BATCH, 1, start.step)
    for state in linear_heads.train(GRID, batches, steps=STEPS, batch_size=BATCH, momentum=0.9, start=start):
        checkpoint.save_if_due(state)
        if state.step == until:
            break
    return state, state.step - start.step


def open_checkpoint(directory, seconds=0.0, **dependencies):
    return HeadCheckpoint(directory, GRID, {"features": "a"} | dependencies, seconds=seconds)


def test_an_interrupted_training_continues_with_the_same_bits(rows, tmp_path):
    whole, taken = train(rows, open_checkpoint(tmp_path / "never", seconds=1e9))
    assert taken == STEPS
    assert not (tmp_path / "never").exists()
    for stop in (4, 7):
        train(rows, open_checkpoint(tmp_path), until=stop)
    continued, taken = train(rows, open_checkpoint(tmp_path))
    assert taken == STEPS - 7
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(continued), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_training_with_other_dependencies_has_another_file(rows, tmp_path):
    train(rows, open_checkpoint(tmp_path), until=2)
    assert open_checkpoint(tmp_path).load().step == 2
    assert open_checkpoint(tmp_path, features="b").load() is None
    other = HeadGrid(GRID.layers, (0.02, 0.4), 3, seed=3)
    assert HeadCheckpoint(tmp_path, other, {"features": "a"}).load() is None


def test_a_damaged_file_is_reported_and_training_starts_again(rows, tmp_path, capsys):
    checkpoint = open_checkpoint(tmp_path)
    train(rows, checkpoint, until=2)
    content = checkpoint.path.read_bytes()
    for damaged in (content[:-200], content.replace(b"00001.npy", b"99999.npy"), b""):
        checkpoint.path.write_bytes(damaged)
        assert checkpoint.load() is None
        assert "trained from the first step" in capsys.readouterr().out


def test_the_file_is_gone_after_it_is_removed(rows, tmp_path):
    checkpoint = open_checkpoint(tmp_path)
    train(rows, checkpoint, until=1)
    checkpoint.remove()
    checkpoint.remove()
    assert not list(tmp_path.iterdir())
