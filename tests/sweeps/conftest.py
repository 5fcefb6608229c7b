"""Shared fixtures of the tests of sweeps: a prepared data set, and a function that starts sweeps."""

import pytest

from tests import command_line
from tests.sweeps import full_sweeps


@pytest.fixture(scope="session")
def fractal(tmp_path_factory):
    """Return the directory of a data set of six categories with forty training and seven validation fractals each."""
    return command_line.prepare_fractal(tmp_path_factory.mktemp("data"), train_images=40)


@pytest.fixture
def start(tmp_path):
    """Yield a function that starts sweeps in `tmp_path`; all their processes end with the test."""
    with full_sweeps.sweeping(tmp_path) as start_sweep:
        yield start_sweep
