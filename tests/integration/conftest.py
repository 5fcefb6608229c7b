"""Real servers for tests: each is started by its script when a test first asks for it, and stopped at the end."""

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
    """A server that runs, in a directory that the server's own user may enter, which pytest's may not be."""
    with tempfile.TemporaryDirectory(prefix="imagenet_repro-") as directory:
        Path(directory).chmod(0o755)
        one = Server(script, directory)
        try:
            one.start()
            yield one
        finally:
            one.stop()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL that a test may kill and start again."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'psycopg[binary]'")
    with server("postgresql.sh") as one:
        yield one


@pytest.fixture
def postgresql_url(postgresql: Server) -> str:
    """The URL of a PostgreSQL that runs; its database is the whole session's, so studies need names of their own."""
    return postgresql.start()


@pytest.fixture(scope="session")
def slurm() -> Iterator[Server]:
    """A SLURM of one node and two processors, which sbatch and submitit find; `cluster.py` looks at its jobs."""
    with server("slurm.sh") as one, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", one.start().removeprefix("export SLURM_CONF=").strip())
        yield one


@pytest.fixture(scope="session")
def sweep_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two LeNets with three seeds each."""
    data = command_line.prepare_fractal(tmp_path_factory.mktemp("data"), train_images=40)
    return full_sweeps.write(tmp_path_factory.mktemp("sweep"), data, seeds=(0, 1, 2))


@pytest.fixture(scope="session")
def undisturbed(sweep_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where that sweep ended that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    command_line.run(*full_sweeps.arguments(sweep_file, workdir), seconds=full_sweeps.SECONDS)
    return workdir


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable]:
    """Starts sweeps in `tmp_path`, of which nothing outlives the test."""
    with full_sweeps.sweeping(tmp_path) as function:
        yield function
