"""Fixtures for the tests of commands."""

import pytest

import main
from imagenet_repro.training import devices
from tests import command_line


@pytest.fixture
def refused(monkeypatch, capsys):
    """Return a function that runs a command, which must fail with exit code 2, and returns its message.

    The command runs in this process, where JAX is already initialised.
    """
    monkeypatch.chdir(command_line.REPOSITORY)
    monkeypatch.setattr(devices, "start", lambda: None)

    def call(*arguments):
        assert main.main([*arguments]) == 2
        return capsys.readouterr().err

    return call
