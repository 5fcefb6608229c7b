"""Tests that an installed package has everything that a clone has."""

import fnmatch
import runpy
import subprocess
import tomllib

import pytest
import setuptools

from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def tracked(directory):
    """Return the files of a directory that Git tracks; skip the test outside a clone."""
    listing = subprocess.run(
        ["git", "ls-files", directory], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("needs a clone")
    return listing.stdout.splitlines()


def test_data_files_of_the_package_are_installed():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    data_files = [path for path in tracked("imagenet_repro") if not path.endswith(".py")]
    assert data_files
    for path in data_files:
        assert any(fnmatch.fnmatch(path, pattern) for pattern in patterns), path


def test_every_directory_of_code_and_of_recipes_is_a_package(monkeypatch):
    calls = []
    monkeypatch.setattr(setuptools, "setup", lambda **options: calls.append(options))
    monkeypatch.chdir(REPOSITORY)
    runpy.run_path(str(REPOSITORY / "setup.py"))
    (options,) = calls
    directories = {options["package_dir"].get(name, name.replace(".", "/")) for name in options["packages"]}
    for path in (*tracked("imagenet_repro"), *tracked("configs")):
        if path.endswith(".py"):
            assert path.rpartition("/")[0] in directories, path


def test_the_command_has_the_name_that_the_code_expects():
    from imagenet_repro.cli.main import INSTALLED_NAME

    assert PROJECT["project"]["scripts"] == {INSTALLED_NAME: "imagenet_repro.cli.main:main"}
