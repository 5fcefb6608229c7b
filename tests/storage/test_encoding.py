"""Tests of characters under locales without them, in processes of their own."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

READER = """
import sys
from pathlib import Path
from imagenet_repro.storage import encoding
encoding.restart_in_utf8_mode()
encoding.escape_what_a_terminal_lacks()
path = Path(sys.argv[1])
print(sys.argv[1].encode() == path.read_bytes() == path.read_text().encode())
print(path.name, [child.name for child in path.parent.iterdir()] == [path.name])
"""


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0"}, r"\u732b"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}, r"\u732b"),
        ({"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"}, r"\u732b"),
        ({"LC_ALL": "C.UTF-8"}, "猫"),
    ],
)
def test_files_are_utf8_and_output_never_fails(environment, shown, tmp_path):
    path = tmp_path / "猫"
    path.write_text(str(path), encoding="utf-8")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    command = [sys.executable, "-c", READER, str(path)]
    result = subprocess.run(command, cwd=REPOSITORY, env=inherited | environment, capture_output=True, check=True)
    assert result.stdout.decode() == f"True\n{shown} True\n"
