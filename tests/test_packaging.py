"""Tests that an installed package has everything that a clone has."""

import ast
import fnmatch
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib

import pytest
import setuptools

from imagenet_repro.cli import main
from tests.command_line import xla_flags
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
    assert PROJECT["project"]["scripts"] == {main.INSTALLED_NAME: "imagenet_repro.cli.main:main"}


def run_module(directory, *arguments, path=REPOSITORY):
    """Run `python -m imagenet_repro` in a directory, with the package at `path`."""
    environment = os.environ | {"PYTHONPATH": str(path), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags(1)}
    command = [sys.executable, "-m", "imagenet_repro", *arguments]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)


def test_the_package_runs_as_a_module_from_any_directory_and_names_itself(tmp_path):
    ended = run_module(tmp_path, "train", "--config=resne.py:50", "--workdir=w")
    assert ended.returncode == 2
    assert "python -m imagenet_repro: --config=resne.py:50: there is no file 'resne.py'" in ended.stderr
    assert "did you mean 'resnet.py'?" in ended.stderr


@pytest.mark.parametrize("program", ["imagenet-repro", "python -m imagenet_repro"])
def test_messages_and_help_show_the_command_that_was_typed(program):
    text = "type `python main.py prepare x`, or look with `main.py sweep --status`; see main.py"
    assert main._as_typed(text, "main.py") == text
    expected = f"type `{program} prepare x`, or look with `{program} sweep --status`; see main.py"
    assert main._as_typed(text, program) == expected


@pytest.mark.slow
def test_a_wheel_has_what_a_clone_has_and_works_without_one(tmp_path):
    clone, target, empty = tmp_path / "clone", tmp_path / "target", tmp_path / "empty"
    empty.mkdir()
    for path in (
        *tracked("imagenet_repro"),
        *tracked("configs"),
        "pyproject.toml",
        "setup.py",
        "README.md",
        "LICENSE",
    ):
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / path, clone / path)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, f"--target={target}", str(clone)], check=True, capture_output=True)
    for path in (*tracked("imagenet_repro"), *tracked("configs")):
        assert (target / path.replace("configs/", "imagenet_repro/configs/", 1)).is_file(), path
    settings = (
        "prepare",
        "fractal",
        "--fractal.categories=6",
        "--fractal.train_images=8",
        "--fractal.validation_images=4",
    )
    data = f"--data_dir={tmp_path / 'data'}"
    assert run_module(empty, *settings, "--fractal.size=32", data, path=target).returncode == 0
    keys = ("name=fractal/c6_n8_v4_s32", f"data_dir={tmp_path / 'data'}")
    train = ("train", "--config=demo.py:lenet5", "--workdir=run", "--config.budget=2st", "--config.batch_size=4")
    ended = run_module(empty, *train, *(f"--config.data.{key}" for key in keys), path=target)
    assert ended.returncode == 0, ended.stderr
    for rest in (("evaluate", "--workdir=run"), ("compare", "run", "--out=page")):
        ended = run_module(empty, *rest, path=target)
        assert ended.returncode == 0, ended.stderr
    assert (empty / "page/report.html").is_file()


def pins(path):
    """Return the pinned version of each requirement of a file, by its name without extras."""
    lines = [line.partition(";")[0].strip() for line in path.read_text().splitlines()]
    rows = [re.fullmatch(r"([\w.-]+)(?:\[[\w,.-]+\])?==(\S+)", line) for line in lines]
    assert all(rows), f"{path.name} has requirements alone, each with its version"
    return {(row[1].lower(), row[2]) for row in rows}


# An extra excludes the newest version of these requirements, so that it locks its own.
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
