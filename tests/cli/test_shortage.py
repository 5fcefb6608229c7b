"""Tests of the messages about too little memory."""

import dataclasses
import resource
import sys

import pytest

from imagenet_repro.cli import main
from imagenet_repro.errors import UserError


def fail(monkeypatch, error):
    def run(**arguments):
        raise error

    command = dataclasses.replace(main.COMMANDS["models"], run=run)
    monkeypatch.setitem(main.COMMANDS, "models", command)
    return main.main(["models"])


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (MemoryError(), "MemoryError"),
        (MemoryError("std::bad_alloc"), "std::bad_alloc"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"), "allocating 8 bytes"),
        (OSError(12, "Cannot allocate memory"), "Cannot allocate memory"),
        (caused(UserError("the data set is damaged"), RuntimeError("can't start new thread")), "new thread"),
    ],
)
def test_too_little_memory_is_a_sentence_with_a_remedy(monkeypatch, capsys, error, shown):
    assert fail(monkeypatch, error) == 2
    err = capsys.readouterr().err
    assert "there is too little memory" in err
    assert shown in err
    assert "ulimit -v unlimited" in err
    assert "damaged" not in err


@pytest.mark.parametrize("error", [RuntimeError("a defect"), ImportError("no module"), OSError(2, "No such file")])
def test_any_other_error_keeps_its_traceback(monkeypatch, error):
    with pytest.raises(type(error)):
        fail(monkeypatch, error)


@pytest.mark.parametrize(("limit", "warned"), [(2 * 10**9, True), (10**12, False), (resource.RLIM_INFINITY, False)])
def test_a_limit_that_is_too_low_for_libraries_is_named_at_the_start(monkeypatch, capsys, limit, warned):
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    with pytest.raises(SystemExit):
        main.main(["models", "--help"])
    assert ("2.0 GB of addresses (ulimit -v)" in capsys.readouterr().err) == warned
