"""The entry point of the command line: parses arguments, calls one command, and turns errors into exit codes."""

import argparse
import contextlib
import errno
import os
import pydoc
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from imagenet_repro.cli import (
    audit,
    calibrate,
    compare,
    ensemble,
    evaluate,
    export,
    human,
    localize,
    models,
    plan,
    power,
    predict,
    prepare,
    probe,
    score,
    shortage,
    sweep,
    train,
)
from imagenet_repro.cli.command import Command, Option, Settings
from imagenet_repro.errors import EXIT_SAVE_FAILED, EXIT_STOPPED, EXIT_USER_ERROR, UserError
from imagenet_repro.storage import encoding, files, user

COMMANDS: dict[str, Command] = {
    module.COMMAND.name: module.COMMAND
    for module in (
        train,
        sweep,
        plan,
        power,
        evaluate,
        predict,
        localize,
        export,
        prepare,
        probe,
        score,
        compare,
        audit,
        human,
        ensemble,
        calibrate,
        models,
    )
}
INSTALLED_NAME = "imagenet-repro"  # [project.scripts] in pyproject.toml
CLONE_NAME = "main.py"
MODULE_NAME = "python -m imagenet_repro"
# What the system says of a path that nobody may read or write, or that cannot exist. The path says what to do.
UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ESTALE, errno.EIO)
OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # where printing ends, and no place is named

EXIT_CODES = """exit codes:
  0   finished
  2   an error that you can fix: an unknown key, missing data, a workdir that holds another configuration
  3   the loss is not finite; the last good checkpoint is kept
  4   predict: the result is written without the images that could not be read, which are named
  74  a checkpoint or a result could not be written
  75  stopped by SIGTERM or Ctrl-C after finishing the step and saving, or another process of the run was killed; the
      same command resumes
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code of the process.

    Args:
      arguments: the words after the program's name; None: those of the process.
    """
    # XLA and gRPC read these when JAX is imported, and print messages for their own developers otherwise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    program = _program()
    if arguments is None:
        encoding.restart_in_utf8_mode()
    encoding.escape_what_a_terminal_lacks()
    shortage.warn_of_limit(program)
    options, rest = build_parser(program).parse_known_args(arguments)
    values = vars(options)
    command = COMMANDS[values.pop("command")]
    try:
        settings = parse_settings(rest, command.settings)
        values |= require_writable_outputs(command, values)
        return command.run(**values, **settings)
    except UserError as error:
        print(f"\n{program}: {_as_typed(shortage.describe(error) or str(error), program)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\n{program}: stopped before there was anything to save", file=sys.stderr)
        return EXIT_STOPPED
    except (MemoryError, OSError, RuntimeError, ImportError) as error:
        if message := shortage.describe(error):
            print(f"\n{program}: {message}", file=sys.stderr)
            return EXIT_USER_ERROR
        if not isinstance(error, OSError):
            raise
        if error.filename is not None and error.errno in UNUSABLE:
            print(f"\n{program}: {error.filename}: {error.strerror}", file=sys.stderr)
            return EXIT_USER_ERROR
        if error.filename is not None or error.errno not in OUTPUT_ERRORS:
            raise
        return _end_without_output(program, error)


def _end_without_output(program: str, error: OSError) -> int:
    """Return the exit code after the terminal or the file that receives the output took no more of it."""
    with contextlib.suppress(OSError):
        if error.errno != errno.EPIPE:  # a reader such as `head` has seen enough
            print(f"\n{program}: the output could not be written: {error.strerror}", file=sys.stderr)
    # What is still in the buffer cannot be written either, and Python would say so at its end.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_SAVE_FAILED


def require_writable_outputs(command: Command, values: Mapping[str, Any]) -> dict[str, str]:
    """Check that the places to which a command writes can be written, before it starts to work.

    Args:
      command: the command.
      values: the values of its options by keyword.

    Returns:
      The places by keyword, with `~` replaced by the home directory.

    Raises:
      SaveError: a place cannot be written.
    """
    checks = {"file": files.require_writable_file, "directory": files.require_writable_directory}
    given = {option: values[option.keyword] for option in command.options if option.writes and values[option.keyword]}
    places = {option: str(user.expand(place)) for option, place in given.items()}
    for option, place in places.items():
        if option.writes in checks:
            checks[option.writes](place, option.flag)
    return {option.keyword: place for option, place in places.items()}


def build_parser(program: str = CLONE_NAME) -> argparse.ArgumentParser:
    """Return the parser of all commands.

    Args:
      program: the program's name in usage lines and examples.
    """
    parser = _parser(
        program,
        "Reproduce every winning system of the ImageNet challenge, and what came after, under one identical budget.",
        EXIT_CODES,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS.values():
        _add_command(subparsers, command, program)
    return parser


def parse_settings(words: Sequence[str], families: Sequence[Settings]) -> dict[str, dict[str, str]]:
    """Return the texts of arguments `--PREFIX.KEY=VALUE` or `--PREFIX.KEY VALUE`, by keyword of `run` and key.

    Raises:
      UserError: an argument has another form, an unknown prefix or no value.
    """
    settings: dict[str, dict[str, str]] = {family.keyword: {} for family in families}
    keywords = {family.prefix: family.keyword for family in families}
    remaining = iter(words)
    for word in remaining:
        name, equals, text = word.partition("=")
        prefix, dot, key = name.removeprefix("--").partition(".")
        if not (name.startswith("--") and dot and prefix in keywords):
            raise UserError(f"unknown argument '{word}'; see --help")
        value = text if equals else next(remaining, "--")
        if not equals and value.startswith("--"):
            raise UserError(f"{name} needs a value: {name}=VALUE")
        settings[keywords[prefix]][key] = value
    return settings


def _program() -> str:
    started = Path(sys.argv[0])
    if started.absolute() == Path(__file__).parents[1] / "__main__.py":
        return MODULE_NAME
    return INSTALLED_NAME if started.stem == INSTALLED_NAME else CLONE_NAME


def _as_typed(text: str, program: str) -> str:
    """Return a text whose commands are those of the program that the user started."""
    if program == CLONE_NAME:
        return text
    return re.sub(rf"(\bpython )?\b{re.escape(CLONE_NAME)}(?= )", program, text)


def _parser(program: str, description: str, epilog: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=program, **_appearance(description, epilog))


def _appearance(description: str, epilog: str | None) -> dict[str, Any]:
    """Return the arguments of every parser: texts keep their line breaks, and options must be written in full."""
    return {
        "description": description,
        "epilog": epilog,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }


def _add_command(subparsers: "argparse._SubParsersAction", command: Command, program: str) -> None:
    description = _as_typed(command.help, program)
    epilog = EXIT_CODES if command.shows_exit_codes else None
    parser = subparsers.add_parser(
        command.name, help=command.summary, add_help=command.details is None, **_appearance(description, epilog)
    )
    if command.details is not None:
        about = "show this message with all keys of the configuration, or the keys of one section"
        keywords: dict[str, Any] = {"nargs": "?", "const": "", "default": argparse.SUPPRESS, "metavar": "SECTION"}
        parser.add_argument("-h", "--help", action=_LongHelp, help=about, details=command.details, **keywords)
    exclusive = parser.add_mutually_exclusive_group(required=True) if command.one_of else parser
    for option in command.options:
        _add_option(exclusive if option.flag in command.one_of else parser, option)
    for family in command.settings:
        parser.add_argument_group(f"--{family.prefix}.KEY=VALUE", family.help)


class _LongHelp(argparse.Action):
    """The option `--help` or `--help=PART` of a command whose help is long; a terminal shows it page by page."""

    def __init__(self, *, details: Callable[[str], str], **options: Any):
        super().__init__(**options)
        self._details = details

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        try:
            text = self._details(values) if values else f"{parser.format_help()}\n{self._details('')}"
        except UserError as error:
            parser.error(str(error))
        if sys.stdout.isatty() and len(text.splitlines()) > shutil.get_terminal_size().lines:
            pydoc.pager(text)
        else:
            print(text, end="")
        parser.exit()


def _add_option(parser: "argparse._ActionsContainer", option: Option) -> None:
    keywords: dict[str, Any] = {"help": option.help, "default": option.default}
    if option.flag.startswith("--"):
        keywords |= {"dest": option.keyword, "required": option.required}
    if option.is_switch:
        keywords |= {"action": "store_true", "default": False}
    else:
        keywords |= {"type": _argument_type(option), "nargs": option.nargs, "choices": option.choices or None}
        keywords |= {"metavar": option.metavar or None}
    parser.add_argument(option.flag, **keywords)


def _argument_type(option: Option) -> Callable[[str], Any]:
    """Return the function that reads an option's value for argparse, which prints the usage with the error."""

    def parse(text: str) -> Any:
        try:
            return option.parse(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(f"{option.flag}: ")) from error

    return parse
