"""Real servers, which are started and stopped by scripts."""

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
UNAVAILABLE = 69  # exit code of a script if packages or permissions are missing


class Server:
    """One server in one directory; the comments of `postgresql.sh` and `slurm.sh` describe their commands."""

    def __init__(self, script: str, directory: str):
        self.directory = Path(directory)
        self._script = script

    def start(self) -> str:
        """Start the server unless it is running, and return what clients need; skip the test if it is unavailable."""
        process = self._call("start")
        if process.returncode == UNAVAILABLE:
            pytest.skip(process.stderr.strip())
        assert process.returncode == 0, process.stderr
        return process.stdout.strip()

    def is_running(self) -> bool:
        """Return whether the server answers."""
        return self._call("status").returncode == 0

    def stop(self) -> None:
        """Stop the server and remove its files."""
        process = self._call("stop")
        assert process.returncode in (0, UNAVAILABLE), process.stderr

    def _call(self, verb: str) -> subprocess.CompletedProcess[str]:
        command = [HERE / self._script, verb, self.directory]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
