"""Tests of the grid of linear heads: against heads trained one by one, and against PyTorch's update written out."""

import itertools
import math

import numpy as np
import pytest

from imagenet_repro.probes import linear_heads
from imagenet_repro.probes.linear_heads import Head, HeadGrid
from tests.probes.stored import clusters, store

CLASSES, STEPS, BATCH = 3, 12, 64
LAYERS = {"first": slice(0, 4), "all": slice(0, 6)}
RATES = (0.02, 0.3)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    x, y = clusters(150, 6, CLASSES)
    return store(tmp_path_factory.mktemp("rows"), y, pooled=x).rows(("pooled",))


def train(rows, layers=LAYERS, rates=RATES):
    grid = HeadGrid(layers, rates, CLASSES, seed=3)
    batches = linear_heads.shuffled_batches(rows, BATCH, seed=1)
    *_, state = linear_heads.train(grid, batches, steps=STEPS, batch_size=BATCH, momentum=0.9)
    assert state.step == STEPS
    return grid, state.params


@pytest.fixture(scope="module")
def trained(rows):
    return train(rows)


def test_heads_trained_one_by_one_equal_the_grid(rows, trained):
    grid, params = trained
    for number, head in enumerate(grid.heads):
        alone, single = train(rows, {head.layer: LAYERS[head.layer]}, (head.learning_rate,))
        assert alone.heads == [head]
        for one, other in zip(
            linear_heads.one_head(grid, params, number), linear_heads.one_head(alone, single, 0), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=1e-6) if isinstance(one, np.ndarray) else None


def test_a_head_follows_sgd_with_momentum_and_a_cosine(rows, trained):
    grid, params = trained
    number = grid.heads.index(Head("first", 0.3))
    weight, bias = (
        np.asarray(grid.initial()["first"][name][RATES.index(0.3)], np.float64) for name in ("weight", "bias")
    )
    momentum = [np.zeros_like(weight), np.zeros_like(bias)]
    batches = linear_heads.shuffled_batches(rows, BATCH, seed=1)
    for step in range(STEPS):
        x, labels = next(batches)
        x = x[:, LAYERS["first"]].astype(np.float64)
        logits = x @ weight + bias
        shares = np.exp(logits - logits.max(1, keepdims=True))
        slope = (shares / shares.sum(1, keepdims=True) - np.eye(CLASSES)[labels]) / BATCH
        momentum = [0.9 * m + g for m, g in zip(momentum, (x.T @ slope, slope.sum(0)), strict=True)]
        rate = 0.3 * BATCH / 256 * (1 + math.cos(math.pi * step / STEPS)) / 2
        weight, bias = weight - rate * momentum[0], bias - rate * momentum[1]
    _, found_weight, found_bias = linear_heads.one_head(grid, params, number)
    np.testing.assert_allclose(found_weight, weight, atol=1e-5)
    np.testing.assert_allclose(found_bias, bias, atol=1e-5)


def test_scores_count_every_image_once(rows, trained):
    grid, params = trained
    scores = linear_heads.score(grid, params, rows)
    (block,) = rows.blocks()
    for number in range(len(grid.heads)):
        part, weight, bias = linear_heads.one_head(grid, params, number)
        guesses = (block.features[:, part].astype(np.float32) @ weight + bias).argmax(1)
        assert scores.wrong[number, 0] == np.sum(guesses != block.label)
    assert scores.images == len(block.label)
    assert scores.wrong[scores.best, 0] == scores.wrong[:, 0].min()


def test_an_epoch_has_every_row_once(rows):
    batches = linear_heads.shuffled_batches(rows, 50, seed=0)
    epochs = [[next(batches) for _ in range(3)] for _ in range(2)]
    first, second = (np.concatenate([x for x, _ in epoch]) for epoch in epochs)
    assert not np.array_equal(first, second)
    assert np.array_equal(np.sort(first, axis=0), np.sort(second, axis=0))


@pytest.mark.parametrize("batch_size", [50, 64, 400])  # 150 rows: whole epochs, parts of them, and several in a batch
def test_batches_from_a_step_on_are_those_of_the_whole_training(rows, batch_size):
    whole = list(itertools.islice(linear_heads.shuffled_batches(rows, batch_size, seed=2), 8))
    for step in (1, 2, 3, 7):
        rest = linear_heads.shuffled_batches(rows, batch_size, seed=2, start_step=step)
        for (x, labels), (features, expected) in zip(rest, whole[step:], strict=False):
            np.testing.assert_array_equal(x, features)
            np.testing.assert_array_equal(labels, expected)


def test_of_equal_heads_the_one_of_the_least_cross_entropy_is_best():
    wrong = np.array([[3, 0], [2, 1], [2, 0]])
    assert linear_heads.HeadScores(wrong, np.array([1.0, 9.0, 5.0]), 10).best == 2
