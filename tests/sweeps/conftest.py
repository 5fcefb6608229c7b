"""A prepared data set for all tests of sweeps."""

import pytest

from tests import command_line
from tests.sweeps import full_sweeps


@pytest.fixture(scope="session")
def fractal(tmp_path_factory):
    """Where six categories of forty fractals lie, and seven each to be scored."""
    return command_line.prepare_fractal(tmp_path_factory.mktemp("data"), train_images=40)


@pytest.fixture
def start(tmp_path):
    """Starts sweeps in `tmp_path`, of which nothing outlives the test."""
    with full_sweeps.sweeping(tmp_path) as function:
        yield function
