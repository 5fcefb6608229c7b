"""Tests of the loop with a small network: stages, plateau drops, and stops without an effect on the result."""

import contextlib
import dataclasses
import functools
import itertools
import os
import signal
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.config.amount import Amount
from imagenet_repro.data.bad_records import BadRecords
from imagenet_repro.errors import EXIT_STOPPED, LostProcessError
from imagenet_repro.training import log, loop, parallel, progressive
from imagenet_repro.training.budget import Budget, Meter
from imagenet_repro.training.checkpoint import Checkpoints
from imagenet_repro.training.clock import TrainingClock
from imagenet_repro.training.energy import EnergyMeter
from imagenet_repro.training.energy_counters import FoundCounters
from imagenet_repro.training.learning_rate import LearningRate
from imagenet_repro.training.step import TrainStep
from tests.training import fake_energy, small_network

CONFIG = small_network.config(
    budget="12st",
    evaluate_every="3st",
    checkpoint={"every": "2st", "keep": 20},
    log_every=1,
    augment={"mixup": 0.4},
    schedule={"name": "plateau", "factor": 0.5, "patience": 1},
    progressive={"stages": 2, "image_size_from": small_network.SIDE},
)
ERRORS = {3: 0.9, 6: 0.95, 9: 0.8, 12: 0.85}  # by step: the rate drops after the evaluations at 6 and 12
SPREAD = parallel.create("shard_map")
BUDGET = Budget(Amount.parse("12st"), progressive.staged(Meter(32, 100, 1000), Amount.parse("12st"), [2000]))


@functools.cache
def compiled():
    """Return the compiled steps of both stages; the second stage uses mixup."""
    step, first = small_network.make(CONFIG)
    stages = [
        TrainStep(step.network, progressive.stage_config(CONFIG, i), small_network.CLASSES, step.optimizer)
        for i in (0, 1)
    ]
    placed, batch = SPREAD.put_state(first), SPREAD.put_batch(small_network.batch(0))
    return [SPREAD.compile_training(stage, placed, batch) for stage in stages]


def go(workdir, stop_at=None, early_stopping=0, *, lost_at=None, lost_in_evaluation=None, left_out=()):
    """Run one process from the last checkpoint to the end, or to the step at which a signal arrives.

    A process that reads images is lost before step `lost_at`, or in the evaluation of step `lost_in_evaluation`.
    `left_out` has the new undecodable records of each step.
    """
    new_bad_records = itertools.chain(left_out, itertools.repeat([]))
    checkpoints = Checkpoints(workdir / "checkpoints", keep=20)
    fresh = SPREAD.put_state(small_network.make(CONFIG)[1])
    result = checkpoints.restore(fresh)
    spent = BUDGET.meter.spent(result.info["steps"] if result else 0, 0.0)
    evaluated = []

    def batches():
        for number in range(spent.steps, 12):
            if number + 1 == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            if number + 1 == lost_at:
                raise LostProcessError("process 7 was ended by SIGKILL")
            yield small_network.batch(number), SPREAD.put_batch(small_network.batch(number))

    def evaluate(state, last):
        if int(state.step) == lost_in_evaluation:
            raise LostProcessError("process 7 was ended by SIGKILL")
        evaluated.append((int(state.step), last))
        return {"top1_error": ERRORS[int(state.step)], "top5_error": 0.5, "evaluated": 42}

    run_log = log.RunLog(workdir, spent.steps, CONFIG)
    job = loop.TrainingJob(
        config=CONFIG,
        state=result.state if result else fresh,
        steps=compiled(),
        batches=batches(),
        evaluate=evaluate,
        name_images=lambda index: [],
        budget=BUDGET,
        spent=spent,
        checkpoints=checkpoints,
        bad_records=mock.Mock(spec=BadRecords, **{"update.side_effect": new_bad_records}),
        log=run_log,
        known=result.info if result else {},
        learning_rate=LearningRate(
            CONFIG.optimizer.learning_rate, CONFIG.schedule, result.info["plateau"] if result else None
        ),
        early_stopping=early_stopping,
    )
    try:
        return loop.run(job), evaluated
    finally:
        run_log.close()
        checkpoints.close()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, *go(workdir)


def rows(workdir, kind):
    return [row for row in log.read_rows(workdir / log.METRICS) if row["kind"] == kind]


def test_a_stalled_error_drops_the_rate_of_the_steps_that_follow(uninterrupted):
    workdir, outcome, evaluated = uninterrupted
    assert outcome.stopped_by is None
    assert evaluated == [(3, False), (6, False), (9, False), (12, True)]
    assert [row["learning_rate"] for row in rows(workdir, "train")] == pytest.approx([0.1] * 6 + [0.05] * 6)
    assert [(row["step"], row["scale"]) for row in rows(workdir, "event")] == [(6, 0.5), (12, 0.25)]


def test_records_that_cannot_be_decoded_are_in_the_log(tmp_path):
    go(tmp_path, stop_at=4, left_out=[[(4, "img_04"), (7, "img_07")], [], [(5, "img_05")]])
    events = [(row["step"], row["index"], row["image"]) for row in rows(tmp_path, "event")]
    assert events == [(0, 4, "img_04"), (0, 7, "img_07"), (2, 5, "img_05")]
    assert log.left_out(tmp_path / log.METRICS, 1) == {4, 7}


def test_operations_in_the_log_are_those_of_the_stages(uninterrupted):
    assert [row["flops"] for row in rows(uninterrupted[0], "train")] == [
        1000.0 * n + 1000 * max(0, n - 6) for n in range(1, 13)
    ]


def test_every_save_has_a_row_with_the_seconds_that_it_took(uninterrupted):
    result = rows(uninterrupted[0], "save")
    assert [row["step"] for row in result] == [2, 3, 4, 6, 8, 9, 10, 12]
    assert all(row["saving_seconds"] > 0 for row in result)


def test_waiting_for_batches_is_counted_within_the_seconds_of_training(uninterrupted):
    result = rows(uninterrupted[0], "train")
    waited = [
        row["waiting_seconds"] for row in result
    ]  # waiting for a few later steps counts too, because rows lag behind
    assert min(waited) >= 0
    assert 0 < sum(waited) < result[-1]["seconds"]


@pytest.mark.parametrize("stop_at", [4, 6, 7, 12])
def test_a_stop_changes_nothing_even_if_an_evaluation_was_due(uninterrupted, tmp_path, stop_at):
    outcome, before = go(tmp_path, stop_at)
    assert outcome.stopped_by == "SIGTERM"
    assert outcome.spent.steps == stop_at
    assert_resumes(tmp_path, uninterrupted, before)


def assert_resumes(workdir, uninterrupted, before):
    """Check that a run which made the evaluations `before` goes on to the state and log of an uninterrupted one."""
    outcome, after = go(workdir)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(outcome.state), jax.device_get(uninterrupted[1].state))
    assert before + after == uninterrupted[2]
    for kind in ("train", "eval", "event"):
        result, expected = ([{k: v for k, v in row.items() if "second" not in k} for row in rows(directory, kind)]
                           for directory in (workdir, uninterrupted[0]))  # fmt: skip
        assert result == expected
    best = [Checkpoints(directory / "checkpoints", keep=20) for directory in (workdir, uninterrupted[0])]
    assert best[0].best_step() == best[1].best_step() == 9
    for checkpoints in best:
        checkpoints.close()


@pytest.mark.parametrize(
    ("lost", "saved", "before"),
    [({"lost_at": 5}, 4, [(3, False)]), ({"lost_in_evaluation": 9}, 9, [(3, False), (6, False)])],
)
def test_a_killed_process_that_reads_images_ends_the_run_with_a_saved_state(
    uninterrupted, tmp_path, lost, saved, before
):
    message = rf"^process 7 was ended by SIGKILL\. The state of step {saved} is saved$"
    with pytest.raises(LostProcessError, match=message) as raised:
        go(tmp_path, **lost)
    assert raised.value.exit_code == EXIT_STOPPED
    assert_resumes(tmp_path, uninterrupted, before)


def test_a_signal_to_all_processes_of_a_run_is_a_stop(uninterrupted, tmp_path):
    outcome, before = go(tmp_path, stop_at=5, lost_at=5)
    assert (outcome.stopped_by, outcome.spent.steps) == ("SIGTERM", 4)
    assert_resumes(tmp_path, uninterrupted, before)


def test_the_best_state_of_a_run_may_be_one_with_a_postponed_evaluation(tmp_path, monkeypatch):
    monkeypatch.setitem(ERRORS, 6, 0.1)
    go(tmp_path, stop_at=6)
    go(tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    assert checkpoints.best_step() == 6
    checkpoints.close()


@pytest.mark.parametrize("stop_at", [None, 2, 5])
def test_evaluations_without_improvement_end_a_run_early_also_across_a_stop(tmp_path, stop_at):
    if stop_at:
        assert go(tmp_path, stop_at, early_stopping=1)[0].stopped_by == "SIGTERM"
    outcome, _ = go(tmp_path, early_stopping=1)
    assert (outcome.stopped_by, outcome.spent.steps) == (None, 6)  # 0.95 after 0.9
    assert [(row["step"], row["best"]) for row in rows(tmp_path, "event") if row["event"] == "early_stopping"] == [
        (6, 0.9)
    ]
    again, evaluated = go(tmp_path, early_stopping=1)  # killed before its result was written
    assert (again.spent.steps, evaluated) == (6, [])


class SlowLoss:
    """A measure of a slow step, which blocks until the step is done."""

    def __init__(self, clock):
        self._clock = clock

    def copy_to_host_async(self):
        pass

    def __float__(self):
        self._clock.seconds += 10
        return 1.0


def fake_job(budget, steps, **settings):
    """Return a job of steps that compute nothing."""
    return loop.TrainingJob(
        config=dataclasses.replace(CONFIG, evaluate_every="1000st", **settings),
        state=small_network.make(CONFIG)[1],
        steps=steps,
        batches=iter([({"index": np.arange(32)}, {})] * 30),
        evaluate=lambda state, last: {"top1_error": 0.9, "top5_error": 0.5, "evaluated": 42},
        name_images=lambda index: [],
        budget=Budget(Amount.parse(budget), Meter(32, 100, 1000)),
        spent=Meter(32, 100, 1000).spent(0, 0.0),
        checkpoints=mock.Mock(spec=Checkpoints),
        bad_records=mock.Mock(spec=BadRecords, **{"update.return_value": []}),
        log=mock.MagicMock(spec=log.RunLog, is_due=False),
        known={},
    )


@pytest.mark.parametrize(
    ("budget", "steps"), [("1s", 1), ("10s", 1), ("11s", 2), ("21s", 3), ("60s", 6), ("61s", 7), ("200s", 20)]
)
def test_steps_in_flight_do_not_overrun_a_budget_of_seconds(budget, steps, monkeypatch):
    clock = mock.Mock(spec=TrainingClock, seconds=0.0)
    clock.paused = contextlib.nullcontext
    monkeypatch.setattr(loop, "TrainingClock", lambda seconds: clock)
    names = ("gradient_norm", "top1_correct", "top5_correct", "learning_rate")
    measures = dict.fromkeys(names, jnp.ones(()))
    job = fake_job(budget, [lambda state, batch, learning_rate: (state, measures | {"loss": SlowLoss(clock)})])
    assert loop.run(job).spent.steps == steps


def test_energy_of_steps_is_logged_saved_and_returned():
    """Three steps of a second at 10 W; the evaluation, which takes longer, does not count."""
    clock = fake_energy.Clock(cpu=10.0)
    counters = FoundCounters(tuple(clock.counters.values()))
    meter = EnergyMeter(counters, "cpu", clock=clock, sleep=clock.sleep)
    names = ("loss", "gradient_norm", "top1_correct", "top5_correct", "learning_rate")

    def step(state, batch, learning_rate):
        clock.sleep(1)
        return state, dict.fromkeys(names, jnp.ones(()))

    def evaluate(state, last):
        clock.sleep(100)
        return {"top1_error": 0.9, "top5_error": 0.5, "evaluated": 42}

    job = dataclasses.replace(fake_job("3st", [step]), energy=meter, evaluate=evaluate)
    assert loop.run(job).energy["joules"] == 30.0
    saved = job.checkpoints.save.call_args.args[2]
    assert saved["energy"]["joules"] == 30.0
    logged = {call.args[0]: call.kwargs for call in job.log.write.call_args_list}
    assert logged["eval"]["joules"] == 30.0
    assert logged["train"]["joules"] == 30.0


@pytest.mark.parametrize("is_due", [False, True])
def test_progress_is_shown_by_time_between_the_rows_of_the_log(is_due):
    names = ("loss", "gradient_norm", "top1_correct", "top5_correct", "learning_rate")
    measures = dict.fromkeys(names, jnp.ones(()))
    job = fake_job("7st", [lambda state, batch, learning_rate: (state, measures)], log_every=3)
    job.log.is_due = is_due
    loop.run(job)
    assert [call.args[1] for call in job.log.write.call_args_list if call.args[0] == "train"] == [3, 6, 7]
    shown = [round(7 * call.args[0]) for call in job.log.show.call_args_list]
    assert shown == ([1, 2, 3, 4, 5, 6, 7, 7] if is_due else [3, 6, 7])


class Measure:
    """A measure of a step that logs the start of its copy to the host, and the wait for it."""

    def __init__(self, events, step):
        self._events, self._step = events, step

    def copy_to_host_async(self):
        if ("copy", self._step) not in self._events:  # JAX starts it again when it is waited for
            self._events.append(("copy", self._step))

    def __float__(self):
        self._events.append(("wait", self._step))
        return 1.0


@pytest.mark.parametrize("budget", ["8st", "1000s"])
def test_a_step_is_waited_for_only_after_the_next_two_were_given_to_the_devices(budget, monkeypatch):
    """With a budget of seconds, the first step is waited for at once: it may use up the budget."""
    events, names = [], ("gradient_norm", "top1_correct", "top5_correct", "learning_rate")
    clock = mock.Mock(spec=TrainingClock, seconds=1.0)
    clock.paused = contextlib.nullcontext
    monkeypatch.setattr(loop, "TrainingClock", lambda seconds: clock)

    def step(state, batch, learning_rate):
        number = 1 + sum(kind == "give" for kind, _ in events)
        events.append(("give", number))
        clock.seconds = 1000.0 if number == 8 else float(number)
        return state, dict.fromkeys(names, jnp.ones(())) | {"loss": Measure(events, number)}

    rare = dataclasses.replace(CONFIG.checkpoint, every="1000st")
    loop.run(fake_job(budget, [step], checkpoint=rare))
    at_once = 1 if budget == "1000s" else 0
    expected = []
    for number in range(1, 9):
        expected += [("give", number), ("copy", number)]
        expected += [("wait", number)] if number == at_once else []
        expected += [("wait", number - 2)] if number - 2 > at_once else []
    assert events == [*expected, ("wait", 7), ("wait", 8)]
