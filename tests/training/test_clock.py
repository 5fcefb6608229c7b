"""Tests of the clock of training, the stop signal and the agreement of several processes."""

import os
import signal

import pytest

from imagenet_repro.training import clock


@pytest.fixture
def now(monkeypatch):
    """Return a clock that a test advances."""
    time = [100.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: time[0])
    return time


def test_time_stands_still_until_started_and_while_paused(now):
    training = clock.TrainingClock(seconds=5.0)
    now[0] += 50
    assert training.seconds == 5.0
    training.start()
    now[0] += 2
    with training.paused():
        now[0] += 1000
        assert training.seconds == 7.0
    now[0] += 3
    assert training.seconds == 10.0


def test_the_first_signal_is_noted_and_the_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with clock.StopSignal() as stop:
        assert stop.received is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


def test_one_process_decides_by_itself_at_every_step():
    agreement = clock.Agreement(interval=100)
    assert agreement.meet(1, 0.5, False) == (0.5, False)
    assert agreement.meet(2, 0.7, True) == (0.7, True)


def test_several_processes_keep_their_last_agreement_between_agreements(monkeypatch):
    everyone = []
    monkeypatch.setattr(clock.jax, "process_count", lambda: 2)
    monkeypatch.setattr(clock.multihost_utils, "process_allgather", lambda mine: clock.np.stack([mine, everyone[-1]]))
    agreement = clock.Agreement(interval=10)
    everyone.append(clock.np.asarray([9.0, 0.0]))
    assert agreement.meet(1, 1.0, False) == (1.0, False)
    everyone.append(clock.np.asarray([9.0, 1.0]))
    assert agreement.meet(9, 5.0, False) == (1.0, False)  # no agreement since then
    assert agreement.meet(10, 6.0, False) == (6.0, True)  # the clock of the first process, and a stop of any process
