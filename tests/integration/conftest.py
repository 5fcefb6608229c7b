"""Real servers for tests: each is started by its script when a test first asks for it, and stopped at the end."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.servers import Server


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
