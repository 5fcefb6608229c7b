"""Tests of the choice of a Python for the Makefile, with scripts in place of interpreters."""

import os
import subprocess

import pytest

from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / "tools" / "environment.sh"

# What an interpreter does for the script: it prints its version, and it makes an environment that holds itself.
FAKE = """#!/bin/sh
if [ "$1" = -m ]; then
    rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; touch -d '1 hour ago' "$4/pyvenv.cfg"
else
    echo {version}
fi
"""
SHIM = "#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n"


@pytest.fixture
def machine(tmp_path):
    """Return a function that puts an interpreter on the machine, and one that runs the script there."""
    (tmp_path / "bin").mkdir()

    def install(name, text, directory="bin"):
        path = tmp_path / directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def run(*arguments):
        environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "PYENV_ROOT": str(tmp_path / "pyenv")}
        for name in ("python3", "python3.11", "python3.12", "python3.13"):  # hides the interpreters of the system
            if not (tmp_path / "bin" / name).exists():
                install(name, SHIM)
        return subprocess.run(
            [SCRIPT, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return install, run


def fake(version):
    return FAKE.format(version=version)


def test_the_newest_is_chosen_and_a_command_that_fails_is_passed_over(machine):
    install, run = machine
    install("python3.11", fake("3.11"))
    newest = install("python3.12", fake("3.12"))
    install("python3.13", SHIM)
    install("python3", fake("3.11"))
    assert run("--newest").stdout == f"{newest}\n"


def test_python3_counts_and_newer_than_supported_does_not(machine):
    install, run = machine
    install("python3", fake("3.14"))
    install("python3.11", fake("3.11"))
    assert run("--newest").stdout.endswith("bin/python3.11\n")
    third = install("python3", fake("3.13"))
    assert run("--newest").stdout == f"{third}\n"


def test_versions_of_pyenv_that_are_not_active_are_found(machine):
    install, run = machine
    install("python3.12", fake("3.12"))
    inactive = install("python", fake("3.13"), "pyenv/versions/3.13.0/bin")
    assert run("--newest").stdout == f"{inactive}\n"


def test_without_one_the_error_says_what_to_type(machine):
    _, run = machine
    result = run("--newest")
    assert result.returncode == 1
    assert "make PYTHON=" in result.stderr


def test_an_environment_keeps_its_python_until_another_is_asked_for(machine, tmp_path):
    install, run = machine
    install("python3.11", fake("3.11"))
    assert "setting up env with Python 3.11 (once)" in run("env").stdout
    made = os.stat(tmp_path / "env/made").st_mtime
    install("python3.13", fake("3.13"))
    for arguments in (("env",), ("env", "python3.11")):
        assert run(*arguments).stdout == ""
    assert os.stat(tmp_path / "env/made").st_mtime == made
    assert "env was made with Python 3.11: making it anew with Python 3.13" in run("env", "python3.13").stdout
    assert run("env", "python3.13").stdout == ""


def test_an_environment_whose_python_is_gone_is_made_anew(machine, tmp_path):
    install, run = machine
    install("python3.12", fake("3.12"))
    run("env")
    (tmp_path / "env/installed-cpu").touch()
    install("python", SHIM, "env/bin")
    assert "a Python that no longer runs: making it anew with Python 3.12" in run("env").stdout
    assert not (tmp_path / "env/installed-cpu").exists()


def test_an_environment_of_an_earlier_makefile_is_not_installed_again(machine, tmp_path):
    install, run = machine
    install("python3.12", fake("3.12"))
    run("env")
    (tmp_path / "env/made").unlink()
    (tmp_path / "env/installed-cpu").touch()
    created = os.stat(tmp_path / "env/pyvenv.cfg").st_mtime
    os.utime(tmp_path / "env/installed-cpu", (created + 1, created + 1))  # times of a file system may be coarse
    assert run("env").stdout == ""
    assert os.stat(tmp_path / "env/made").st_mtime < os.stat(tmp_path / "env/installed-cpu").st_mtime


def test_a_python_that_is_not_supported_is_an_error(machine):
    install, run = machine
    install("python3.9", fake("3.9"))
    for name in ("python3.9", "python3.99"):
        result = run("env", name)
        assert result.returncode == 1
        assert f"{name} is not a Python 3.11, 3.12 or 3.13 that runs here" in result.stderr
