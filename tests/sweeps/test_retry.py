"""Waiting for a storage that does not answer."""

import pytest

from imagenet_repro.errors import SaveError
from imagenet_repro.sweeps import retry
from imagenet_repro.sweeps.queue import UnreachableError


@pytest.fixture(autouse=True)
def passed(monkeypatch):
    """Seconds on a clock that only waiting moves."""
    now = [0.0]
    monkeypatch.setattr(retry.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(retry.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def failing(error, times):
    """A call that fails so many times and then answers 7."""
    errors = iter([error] * times)

    def call():
        for one in errors:
            raise one
        return 7

    return call


def test_a_storage_that_comes_back_is_asked_again_and_the_failure_said_once(capsys):
    assert retry.retry_unreachable(failing(UnreachableError("no server"), 5), lambda: False) == 7
    assert capsys.readouterr().err == "no server; trying for 10 minutes\n"


def test_one_that_does_not_come_back_is_given_up_after_ten_minutes(passed):
    with pytest.raises(UnreachableError, match="no server"):
        retry.retry_unreachable(failing(UnreachableError("no server"), 10**6), lambda: False)
    assert passed[0] == pytest.approx(retry.PATIENCE, abs=2 * retry.PAUSE)


def test_who_is_told_to_end_does_not_wait(passed):
    with pytest.raises(UnreachableError):
        retry.retry_unreachable(failing(UnreachableError("no server"), 10**6), lambda: passed[0] > 3)
    assert passed[0] < 10


def test_a_full_disk_is_no_reason_to_wait(passed):
    with pytest.raises(SaveError):
        retry.retry_unreachable(failing(SaveError("disk is full"), 1), lambda: False)
    assert passed[0] == 0
