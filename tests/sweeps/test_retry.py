"""Tests of retrying while a storage cannot be reached."""

import pytest

from imagenet_repro.errors import SaveError
from imagenet_repro.sweeps import retry
from imagenet_repro.sweeps.queue import UnreachableError


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Return a list with the seconds of a clock that advances only by sleeping."""
    now = [0.0]
    monkeypatch.setattr(retry.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(retry.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def failing(error, times):
    """Return a call that fails a number of times and then returns 7."""
    errors = iter([error] * times)

    def call():
        for next_error in errors:
            raise next_error
        return 7

    return call


def test_a_call_is_retried_and_the_failure_reported_once(capsys):
    assert retry.retry_unreachable(failing(UnreachableError("no server"), 5), lambda: False) == 7
    assert capsys.readouterr().err == "no server; retrying for 10 minutes\n"


def test_retrying_ends_after_ten_minutes(clock):
    with pytest.raises(UnreachableError, match="no server"):
        retry.retry_unreachable(failing(UnreachableError("no server"), 10**6), lambda: False)
    assert clock[0] == pytest.approx(retry.PATIENCE, abs=2 * retry.PAUSE)


def test_a_process_that_is_stopping_does_not_retry(clock):
    with pytest.raises(UnreachableError):
        retry.retry_unreachable(failing(UnreachableError("no server"), 10**6), lambda: clock[0] > 3)
    assert clock[0] < 10


def test_a_full_disk_is_not_retried(clock):
    with pytest.raises(SaveError):
        retry.retry_unreachable(failing(SaveError("disk is full"), 1), lambda: False)
    assert clock[0] == 0
