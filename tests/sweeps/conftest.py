"""A prepared data set for all tests of sweeps."""

import pytest

from tests import runs


@pytest.fixture(scope="session")
def fractal(tmp_path_factory):
    """Where six categories of forty fractals lie, and seven each to be scored."""
    return runs.prepare_fractal(tmp_path_factory.mktemp("data"), train_images=40)
