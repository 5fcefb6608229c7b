"""Fixtures for the tests of commands."""

import pytest

import main
from imagenet_repro.training import devices
from tests import command_line


@pytest.fixture
def refused(monkeypatch, capsys):
    """A function that returns the message of a command that must fail with exit code 2.

    The command runs in this process, whose devices have already started.
    """
    monkeypatch.chdir(command_line.REPOSITORY)
    monkeypatch.setattr(devices, "start", lambda: None)

    def call(*arguments):
        assert main.main([*arguments]) == 2
        return capsys.readouterr().err

    return call
