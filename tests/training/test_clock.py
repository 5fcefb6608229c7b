"""Tests of the clock of training, the stop signal and the agreement of several processes."""

import os
import signal
import subprocess
import sys
import time
import types

import jax.numpy as jnp
import numpy as np
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


# A step that never ends, in a library that lets no handler of Python run: it locks a mutex of its own a second time.
ENDLESS_STEP = """
import ctypes
from imagenet_repro.training.clock import StopSignal

with StopSignal("stopping after this step"):
    print("running", flush=True)
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    while True:
        library.pthread_mutex_lock(mutex)
"""


def test_signals_are_answered_at_once_within_a_step():
    command = [sys.executable, "-c", ENDLESS_STEP]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "\n"
        said = "SIGINT: stopping after this step; a second one ends at once, without saving\n"
        assert process.stderr.readline() == said
        time.sleep(clock.ECHO_SECONDS)  # counted from the announcement, which came after the first signal
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 128 + signal.SIGTERM


@pytest.mark.parametrize(("later", "codes"), [(0.9, []), (1.1, [128 + signal.SIGINT])])
def test_a_signal_that_arrives_twice_is_one_request(later, codes, monkeypatch):
    """As from `timeout`, which signals the process and then its group."""
    moments = iter([5.0, 5.0 + later * clock.ECHO_SECONDS])
    monkeypatch.setattr(clock, "time", types.SimpleNamespace(monotonic=lambda: next(moments)))
    ended = []
    monkeypatch.setattr(clock, "os", types.SimpleNamespace(_exit=ended.append))
    reader, writer = os.pipe()
    os.write(writer, bytes([signal.SIGTERM, signal.SIGINT]))
    os.close(writer)
    clock._listen(reader, "", True)
    assert ended == codes


FORKING = """
import os, signal
from imagenet_repro.training.clock import StopSignal

with StopSignal("stopping") as stop:
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0 if stop.received == "SIGTERM" else 1)
    assert os.waitpid(child, 0)[1] == 0
assert stop.received is None
"""


def test_a_forked_child_keeps_its_signals_for_itself():
    ended = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_one_process_decides_by_itself_at_every_step():
    agreement = clock.Agreement()
    assert agreement.entry(1.0, True) == {}
    assert agreement.meet(0.5, False, in_flight=2) == (0.5, False)
    assert agreement.meet(0.7, True, in_flight=2) == (0.7, True)


@pytest.fixture
def second(monkeypatch):
    """Make this process the second of two; return the rows of the first; its last row is told directly."""
    first = []
    monkeypatch.setattr(clock.jax, "process_index", lambda: 1)
    monkeypatch.setattr(clock.multihost_utils, "process_allgather", lambda row: np.stack([first[-1], row]))
    return first


def put(batch):
    return {name: jnp.asarray(value) for name, value in batch.items()}


def test_processes_tell_one_another_in_one_row_of_their_share(second):
    agreement = clock.Agreement(put, 4, timed=True)
    entry = agreement.entry(7.5, True)[clock.HOSTS]
    assert entry.dtype == np.float32
    np.testing.assert_array_equal(entry, [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])  # only the first has a clock


def test_the_first_process_sends_seconds_to_the_microsecond(monkeypatch):
    monkeypatch.setattr(clock.jax, "process_index", lambda: 0)
    agreement = clock.Agreement(put, 2, timed=True)
    agreement.hear(np.asarray(agreement.entry(10_000_000.123457, False)[clock.HOSTS]).sum(0))
    assert agreement.meet(0.0, False, in_flight=1) == (pytest.approx(10_000_000.123457, abs=1e-6), False)


def test_several_processes_act_on_what_all_have_heard(second):
    agreement = clock.Agreement(put, 4, timed=True, seconds=3.0)
    assert agreement.meet(9.0, True, in_flight=2) == (3.0, False)  # not even the process that received the signal
    agreement.hear(np.float32([0, 5, 500_000]))
    assert agreement.meet(9.0, True, in_flight=2) == (5.5, False)
    agreement.hear(np.float32([1, 6, 0]))
    assert agreement.meet(9.0, False, in_flight=2) == (6.0, True)
    agreement.hear(np.float32([0, 7, 0]))
    assert agreement.meet(9.0, False, in_flight=2) == (7.0, True)


def test_with_nothing_in_flight_processes_ask_one_another(second):
    agreement = clock.Agreement(put, 4, timed=True, seconds=3.0)
    second.append(np.float32([1, 8, 250_000]))
    assert agreement.meet(9.0, False, in_flight=0) == (8.25, True)


def test_entries_that_carry_no_clock_are_placed_once(second):
    placed = []
    agreement = clock.Agreement(lambda batch: placed.append(batch) or put(batch), 4)
    for stop in (False, True, False):
        assert agreement.entry(7.5, stop)[clock.HOSTS][0, 0] == stop
    assert len(placed) == 2
    assert agreement.meet(9.0, False, in_flight=2) == (9.0, False)  # its own clock, on which nothing depends
