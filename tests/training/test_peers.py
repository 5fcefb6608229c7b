"""Tests of a run whose processes are lost: the signs of life of a process, and two real processes."""

import os
import signal
import subprocess
import sys

import pytest

from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.training import peers
from tests import command_line


class Service:
    """A key-value store for several clients."""

    def __init__(self):
        self.signs = {}

    def key_value_set(self, key, value, allow_overwrite):
        assert allow_overwrite
        self.signs[key] = value

    def key_value_dir_get(self, prefix):
        return [(key, value) for key, value in self.signs.items() if key.startswith(prefix)]


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(peers, "time", Clock())
    return peers.time


def watches(count):
    service = Service()
    return [peers.Watch(service, index, count, "127.0.0.1:1") for index in range(count)]


def look_for(seconds, clock, *those):
    """Let some processes show signs of life for a time, and return what the first of them says at last."""
    end = clock.now + seconds
    while clock.now < end:
        clock.sleep(peers.INTERVAL)
        said = [watch.look() for watch in those]
    return said[0]


def test_a_silent_process_is_lost_within_a_minute(clock):
    first, second, third = watches(3)
    assert look_for(300, clock, first, second, third) == ""
    assert look_for(peers.SILENCE, clock, first, third) == ""
    assert look_for(2 * peers.INTERVAL, clock, first, third).startswith(
        "process 1 of 3 was lost: it has shown no sign"
    )
    assert peers.SILENCE + 2 * peers.INTERVAL < 60


def test_a_process_that_never_showed_a_sign_is_lost_too(clock):
    first, _ = watches(2)
    assert look_for(60, clock, first).startswith("process 1 of 2 was lost")


def test_a_process_that_was_suspended_gives_the_others_time(clock):
    first, second = watches(2)
    look_for(20, clock, first, second)
    clock.sleep(1000)
    assert first.look() == ""
    assert look_for(100, clock, first, second) == ""


def test_the_others_leave_soon_after_a_process_has_ended_with_an_error(clock):
    first, second = watches(2)
    look_for(20, clock, first, second)
    second.end_with(2)
    assert look_for(peers.INTERVAL, clock, first) == ""
    assert look_for(peers.FAREWELL + peers.INTERVAL, clock, first) == (
        "process 1 of 2 has ended with an error, which its own output shows"
    )


@pytest.mark.parametrize(
    ("error", "code", "waits"),
    [(UserError("no"), 2, False), (SaveError("no"), 74, True), (RuntimeError("Gloo all-reduce failed"), 1, True)],
)
def test_an_error_that_a_lost_process_may_have_caused_waits_until_the_loss_is_noticed(
    error, code, waits, clock, monkeypatch
):
    first, _ = watches(2)
    monkeypatch.setattr(peers._joined, "watch", first)
    with pytest.raises(type(error)), peers.explained():
        raise error
    assert (clock.now > peers.SILENCE + 2 * peers.INTERVAL) == waits
    assert first._code == code


def test_a_stopped_watch_ends_its_thread(monkeypatch):
    first, _ = watches(2)
    monkeypatch.setattr(peers.distributed.global_state, "client", first._client)
    first.start()
    first.stop()
    assert not first._thread.is_alive()
    first.stop()


PROGRAM = """
import os, signal, sys, time
from unittest import mock
from imagenet_repro.training import devices, peers
victim, seconds = int(sys.argv[1]), float(sys.argv[2])
with mock.patch.multiple(peers, INTERVAL=0.2, SILENCE=seconds):
    devices.start()
    import jax
    if jax.process_index() == victim:
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(3600)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "message"), [(0, "does not answer"), (1, "no sign of life for 10 s")])
def test_the_other_process_of_a_killed_one_ends_with_a_sentence(victim, message):
    with command_line.coordinator() as shared:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(victim), "10"],
                cwd=command_line.REPOSITORY,
                env=os.environ | shared | {"JAX_PLATFORMS": "cpu", "PROCESS_ID": str(index)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(2)
        ]
        assert processes[victim].wait(timeout=1500) == -signal.SIGKILL
        _, err = processes[1 - victim].communicate(timeout=1500)
    last = err.strip().splitlines()[-1]
    assert last.startswith(f"process {victim} of 2 was lost: ")
    assert message in last
    assert last.endswith("the same commands resume")
    assert processes[1 - victim].returncode == 75
