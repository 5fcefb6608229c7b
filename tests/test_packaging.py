"""Tests that an installed package has everything that a clone has."""

import ast
import fnmatch
import re
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


def pins(path):
    """Return the pinned version of each requirement of a file, by its name without extras."""
    lines = [line.partition(";")[0].strip() for line in path.read_text().splitlines()]
    rows = [re.fullmatch(r"([\w.-]+)(?:\[[\w,.-]+\])?==(\S+)", line) for line in lines]
    assert all(rows), f"{path.name} has requirements alone, each with its version"
    return {(row[1].lower(), row[2]) for row in rows}


# Requirements of which an extra excludes the newest version, so that it locks its own.
OWN_VERSIONS = {"trackio": {"pillow"}}


@pytest.mark.parametrize("extra", PROJECT["project"]["optional-dependencies"])
def test_each_extra_is_locked_on_top_of_the_requirements(extra):
    extras = re.search(r"for extra in ([\w -]+); do", (REPOSITORY / "Makefile").read_text())
    assert extra in extras[1].split()
    locked, base = pins(REPOSITORY / "requirements" / f"{extra}.txt"), pins(REPOSITORY / "requirements.txt")
    differing = {name for name, _ in base - locked}
    assert differing == OWN_VERSIONS.get(extra, set())
    assert differing <= {name for name, _ in locked}
    for requirement in PROJECT["project"]["optional-dependencies"][extra]:
        name = re.match(r"[\w.-]+", requirement)[0].lower()
        assert any(locked_name == name for locked_name, _ in locked), requirement


def _lacks_encoding(call):
    """Return whether a call reads or writes text in the encoding of the locale."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    keywords = {keyword.arg for keyword in call.keywords}
    if keywords & {"encoding", "fileobj"}:
        return False
    if name == "open":
        modes = [one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        return not call.args or any(set(mode) <= set("rwax+t") for mode in modes)
    return name in ("read_text", "write_text") or ("text" in keywords and name in ("run", "Popen"))


@pytest.mark.parametrize("directory", ["imagenet_repro", "tools", "benchmarks"])
def test_every_text_has_an_encoding(directory):
    """The encoding of the locale differs from machine to machine; ruff sees only some of these calls."""
    calls = [
        f"{path}:{node.lineno}"
        for path in tracked(directory)
        if path.endswith(".py")
        for node in ast.walk(ast.parse((REPOSITORY / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _lacks_encoding(node)
    ]
    assert not calls
