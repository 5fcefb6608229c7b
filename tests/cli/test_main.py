"""Tests of the parser of all commands, of its errors and of its exit codes."""

import dataclasses
import io
import subprocess
import sys

import pytest

from imagenet_repro.cli import main
from imagenet_repro.cli.command import Settings
from imagenet_repro.cli.main import COMMANDS, build_parser, parse_settings
from imagenet_repro.errors import DivergedError, SaveError, UserError
from tests.conftest import REPOSITORY

FAMILIES = (Settings("data", "help"), Settings("config", "help", parameter="overrides"))


def test_help_imports_no_heavy_library():
    code = (
        "import sys\nfrom imagenet_repro.cli.main import COMMANDS, build_parser\n"
        "parser = build_parser()\nparser.format_help()\n"
        "heavy = {'jax', 'numpy', 'optax', 'flax', 'matplotlib', 'tensorflow_datasets', 'cv2'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


@pytest.mark.parametrize("name", [*COMMANDS])
def test_every_command_has_help_with_its_options(name, capsys):
    with pytest.raises(SystemExit) as exit_error:
        main.main([name, "--help"])
    assert exit_error.value.code == 0
    text = capsys.readouterr().out
    assert COMMANDS[name].summary in text
    for option in COMMANDS[name].options:
        assert option.flag in text
    for family in COMMANDS[name].settings:
        assert f"--{family.prefix}.KEY=VALUE" in text


def test_the_installed_command_is_called_by_its_name_in_examples():
    parser = build_parser("imagenet-repro")
    assert parser.prog == "imagenet-repro"
    subparsers = next(action for action in parser._actions if action.dest == "command")
    text = subparsers.choices["train"].format_help()
    assert "imagenet-repro train --config" in text
    assert "main.py" not in text


def test_settings_are_texts_by_key():
    words = ["--data.name=cifar10", "--config.optimizer.b1", "0.9", "--config.name=a=b"]
    assert parse_settings(words, FAMILIES) == {
        "data": {"name": "cifar10"},
        "overrides": {"optimizer.b1": "0.9", "name": "a=b"},
    }
    assert parse_settings([], FAMILIES) == {"data": {}, "overrides": {}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--other.name=x"], "unknown argument '--other.name=x'; see --help"),
        (["data.name=x"], "unknown argument 'data.name=x'"),
        (["--data=x"], "unknown argument '--data=x'"),
        (["--data.name"], "--data.name needs a value: --data.name=VALUE"),
        (["--data.name", "--data.split=x"], "--data.name needs a value"),
    ],
)
def test_other_words_are_refused(words, message):
    with pytest.raises(UserError) as error:
        parse_settings(words, FAMILIES)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("a"), 2, "main.py: a"),
        (DivergedError("b"), 3, "main.py: b"),
        (SaveError("c"), 74, "main.py: c"),
        (PermissionError(13, "Permission denied", "/runs/a"), 2, "main.py: /runs/a: Permission denied"),
        (OSError(36, "File name too long", "n" * 300), 2, "nnn: File name too long"),
        (OSError(28, "No space left on device"), 74, "main.py: the output could not be written: No space left"),
        (KeyboardInterrupt(), 75, "main.py: stopped before there was anything to save"),
    ],
)
def test_errors_become_messages_and_exit_codes(error, code, message, monkeypatch, capsys):
    def fail(**options):
        raise error

    command = COMMANDS["models"]
    monkeypatch.setitem(COMMANDS, "models", type(command)("models", "help", fail, command.options))
    assert main.main(["models"]) == code
    assert message in capsys.readouterr().err


def test_every_place_that_a_command_writes_to_is_tried_first(tmp_path, monkeypatch, capsys):
    """Each option that names an output says so, and its command does not start where it cannot be written."""
    (tmp_path / "file").touch()
    output_flags = {"--out", "--json", "--hlo", "--features", "--csv", "--page"}
    for name, command in COMMANDS.items():
        calls = []
        run = dataclasses.replace(command, run=lambda calls=calls, **options: calls.append(options) or 0)
        monkeypatch.setitem(COMMANDS, name, run)
        required = [option for option in command.options if option.required or option.flag in command.one_of[:1]]
        words = [f"{option.flag}={(option.choices or ['x'])[0]}" for option in required if option.flag[0] == "-"]
        words += ["x" for option in command.options if option.flag[0] != "-" and option.nargs != "?"]
        for option in command.options:
            assert bool(option.writes) == (option.flag in output_flags), (name, option.flag)
            if option.writes in ("file", "directory"):
                assert main.main([name, *words, f"{option.flag}={tmp_path}/file/below/out.x"]) == 74
                assert "file is a file; a directory is needed" in capsys.readouterr().err
                assert not calls
                monkeypatch.setenv("HOME", str(tmp_path))
                main.main([name, *words, f"{option.flag}=~/out.x"])
                assert calls[-1][option.keyword] == f"{tmp_path}/out.x"
                calls.clear()


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1", "utf-8"])
def test_what_a_terminal_cannot_show_is_escaped(encoding, monkeypatch):
    def run(**options):
        print("猫 Ä")
        raise UserError("no class ★")

    command = COMMANDS["models"]
    monkeypatch.setitem(COMMANDS, "models", type(command)("models", "help", run, command.options))
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    assert main.main(["models"]) == 2
    text = {name: stream.buffer.getvalue() for name, stream in streams.items() if stream.flush() is None}
    assert text["stdout"] == "猫 Ä\n".encode(encoding, "backslashreplace")
    assert text["stderr"].endswith("no class ★\n".encode(encoding, "backslashreplace"))
