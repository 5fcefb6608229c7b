"""Fixtures of real servers. A script starts each when a test first needs it and stops it at the end."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import command_line
from tests.integration.servers import Server
from tests.sweeps import full_sweeps


@contextmanager
def server(script: str) -> Iterator[Server]:
    """Run a server within the block, in a directory that its own user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="imagenet_repro-") as directory:
        Path(directory).chmod(0o755)
        running = Server(script, directory)
        try:
            running.start()
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """Return a PostgreSQL server that a test may kill and restart."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'psycopg[binary]'")
    with server("postgresql.sh") as running:
        yield running


@pytest.fixture
def postgresql_url(postgresql: Server) -> str:
    """Return the URL of a running PostgreSQL server. All tests share its database, so studies need different names."""
    return postgresql.start()


@pytest.fixture(scope="session")
def slurm() -> Iterator[Server]:
    """Start a SLURM cluster of one node with two processors, which sbatch and submitit find.

    `cluster.py` queries it.
    """
    with server("slurm.sh") as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", running.start().removeprefix("export SLURM_CONF=").strip())
        yield running


@pytest.fixture(scope="session")
def sweep_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a sweep of two LeNets with three seeds each."""
    data = command_line.prepare_fractal(tmp_path_factory.mktemp("data"), train_images=40)
    return full_sweeps.write(tmp_path_factory.mktemp("sweep"), data, seeds=(0, 1, 2))


@pytest.fixture(scope="session")
def uninterrupted(sweep_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of that sweep after an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    command_line.run(*full_sweeps.arguments(sweep_file, workdir), seconds=full_sweeps.SECONDS)
    return workdir


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable]:
    """Yield a function that starts sweeps in `tmp_path`; all their processes end with the test."""
    with full_sweeps.sweeping(tmp_path) as start_sweep:
        yield start_sweep
