"""The scripts that start and stop real servers."""

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
UNAVAILABLE = 69  # how a script ends where packages or rights are missing


class Server:
    """One server in one directory; `postgresql.sh` and `slurm.sh` say what they do and print."""

    def __init__(self, script: str, directory: str):
        self.directory = Path(directory)
        self._script = script

    def start(self) -> str:
        """Starts it unless it runs, and returns what clients need; skips the test where that cannot be."""
        ended = self._call("start")
        if ended.returncode == UNAVAILABLE:
            pytest.skip(ended.stderr.strip())
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def runs(self) -> bool:
        """Whether it answers."""
        return self._call("status").returncode == 0

    def stop(self) -> None:
        """Stops it and removes its files."""
        ended = self._call("stop")
        assert ended.returncode in (0, UNAVAILABLE), ended.stderr

    def _call(self, verb: str) -> subprocess.CompletedProcess[str]:
        command = [HERE / self._script, verb, self.directory]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
