"""Tests of docs/adding.md: its blocks fit the files that they change, and what it adds passes the tests and trains."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.command_line import xla_flags
from tests.tools import page_blocks
from tools.generated import REPOSITORY

PAGE = (REPOSITORY / "docs" / "adding.md").read_text(encoding="utf-8")
ADDED = ("imagenet_repro/models/mixer.py", "tests/models/test_mixer.py", "configs/mixer.py")


def copy(directory):
    """Copy the files of the repository that Git knows of, and what is not committed yet; skip outside a clone."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("needs a clone")
    for path in listing.stdout.splitlines():
        if (REPOSITORY / path).is_file():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / path, directory / path)


def test_the_blocks_fit_the_files(tmp_path):
    for _, path, _ in page_blocks.edits(PAGE):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if path not in ADDED:
            shutil.copy(REPOSITORY / path, tmp_path / path)
    page_blocks.apply(PAGE, tmp_path)
    for path in {path for _, path, _ in page_blocks.edits(PAGE)}:
        compile((tmp_path / path).read_text(encoding="utf-8"), path, "exec")
    assert all((tmp_path / path).exists() for path in ADDED)


@pytest.mark.slow
def test_what_the_page_adds_passes_the_tests_that_it_names_and_trains(tmp_path):
    copy(tmp_path)
    page_blocks.apply(PAGE, tmp_path)
    environment = os.environ | {"TFDS_DATA_DIR": str(tmp_path / "data"), "XLA_FLAGS": xla_flags(1)}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(tmp_path)}
    for line in page_blocks.commands(PAGE):
        command = [sys.executable, *line.split()[1:]]
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=1500
        )
        assert ended.returncode == 0, f"{line}\n{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}"
    result = json.loads((tmp_path / "runs/mixer/result.json").read_text(encoding="utf-8"))
    assert (result["system"], result["spent"]["steps"]) == ("mixer_s16", 3)
