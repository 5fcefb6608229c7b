"""Tests of the evaluation of a split: every image once, and batches in flight while results are read."""

import collections
import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.config import resolve_config
from imagenet_repro.inference import evaluator
from imagenet_repro.training import parallel, state
from tests.data import memory_split

COUNT, BATCH, CLASSES = 37, 8, 5
WEIGHTS = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)


def score(params, stats, images):
    return (images.astype(jnp.float32).mean((1, 2)) - 127.5) @ params["w"]


class Watched(parallel.ShardMap):
    """A spread whose compiled step logs that a batch was given to the devices."""

    def __init__(self, events):
        super().__init__()
        self._events = events

    def compile_evaluation(self, step, state, batch):
        compiled = super().compile_evaluation(step, state, batch)

        def give(*arguments):
            self._events.append("give")
            return compiled(*arguments)

        return give


@pytest.fixture(scope="module")
def evaluated():
    """Return the order of events, the rates and the predictions of one evaluation."""
    events = []
    config = resolve_config({"data": {"image_size": 16, "threads": 1, "workers": 0}, "batch_size": BATCH})
    one = evaluator.Evaluator(config, score, Watched(events), memory_split.make_split(COUNT), show=events.append)
    trained = state.TrainState(jnp.zeros((), jnp.int32), {"w": jnp.asarray(WEIGHTS)}, {}, (), {}, jnp.zeros(2))
    rates, predictions = one.predict(one.spread.put_state(trained), {})
    return events, rates, predictions


def test_two_batches_are_in_flight_while_the_result_of_another_is_read(evaluated):
    events, *_ = evaluated
    assert events == ["give", "give", *["give", 8] * 3, 8, 5]


def test_every_image_is_scored_once_and_counted_as_predicted(evaluated):
    _, rates, predictions = evaluated
    assert list(predictions.id) == [f"img_{number:02d}" for number in range(COUNT)]
    assert list(predictions.label) == [number % 5 for number in range(COUNT)]
    assert rates.images == COUNT
    best = predictions.logits.argmax(1)
    assert rates.top1_wrong == np.sum(best != predictions.label) == predictions.error_rates().top1_wrong
    logits = predictions.logits.astype(np.float64)
    chosen = logits[np.arange(COUNT), predictions.label]
    assert rates.cross_entropy == pytest.approx(np.mean(np.log(np.exp(logits).sum(1)) - chosen), rel=1e-2)  # float16


def test_records_that_cannot_be_decoded_are_left_out_of_every_count():
    lines = []
    settings = {"data": {"image_size": 16, "threads": 1, "workers": 0, "max_bad_share": 0.1}, "batch_size": BATCH}
    split = memory_split.make_split(COUNT, bad=(0, 9, 36))
    one = evaluator.Evaluator(resolve_config(settings), score, parallel.ShardMap(), split, lines.append)
    trained = one.spread.put_state(
        state.TrainState(jnp.zeros((), jnp.int32), {"w": jnp.asarray(WEIGHTS)}, {}, (), {}, jnp.zeros(2))
    )
    rates, predictions = one.predict(trained, {"step": 7})
    assert rates.images == len(predictions) == COUNT - 3
    assert predictions.provenance == {"step": 7, "classes": list("abcde"), "left_out": 3}
    assert [line.split(":")[0] for line in lines] == [f"cannot decode img_{number:02d}" for number in (0, 9, 36)]
    row = one.rates(trained)
    assert (row["evaluated"], row["left_out"]) == (COUNT - 3, 3)
    assert row["top1_error"] == rates.top1_wrong / (COUNT - 3)


class CountedRecords(list):
    """Records that count how often each was read."""

    def __init__(self, records):
        super().__init__(records)
        self.reads = collections.Counter()

    def __getitem__(self, index):
        self.reads[index] += 1
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_ids_come_with_the_images(workers):
    split = memory_split.make_split(COUNT)
    records = CountedRecords(split.records)
    config = resolve_config({"data": {"image_size": 16, "threads": 2, "workers": workers}, "batch_size": BATCH})
    one = evaluator.Evaluator(config, score, parallel.ShardMap(), dataclasses.replace(split, records=records))
    trained = state.TrainState(jnp.zeros((), jnp.int32), {"w": jnp.asarray(WEIGHTS)}, {}, (), {}, jnp.zeros(2))
    _, predictions = one.predict(one.spread.put_state(trained), {})
    assert list(predictions.id) == [f"img_{number:02d}" for number in range(COUNT)]
    assert records.reads == ({} if workers else dict.fromkeys(range(COUNT), 1))  # workers have their own copies
