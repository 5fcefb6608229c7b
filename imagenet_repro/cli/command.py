"""The table that describes a command: its options, its help and the function that it calls.

Each option is written once, in the table. The parser is built from it, and the values are passed to the command's
`run` function as keyword arguments.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

from imagenet_repro.config import parse_text
from imagenet_repro.errors import UserError


@dataclasses.dataclass(frozen=True)
class Option:
    """One option or positional argument of a command.

    Attributes:
      flag: as it is typed, such as "--workdir"; a positional argument has no dashes.
      help: one line for the list of options.
      metavar: the placeholder for the value in the help; empty: chosen by argparse.
      type: str, int or float; a text is read as that of a configuration's key (config/text.py).
      low: the smallest number allowed; None: any.
      high: the largest number allowed; None: any.
      default: the value where the option is absent.
      choices: the valid values; empty: any.
      required: whether the command needs it.
      nargs: "+" for one or more values, "?" for a positional argument that may be absent; None: exactly one value.
      is_switch: whether the option takes no value, and is True where it is given.
      writes: whether the command writes to the place that the option names, a "file" or a "directory". The place is
        tried before the command runs, so that an output that cannot be written costs no work. "either": the command
        tries it, because other options decide which it is.
      parameter: the name of the keyword argument of `run`; empty: the flag without its dashes.
    """

    flag: str
    help: str
    metavar: str = ""
    type: Callable[[str], Any] = str
    low: float | None = None
    high: float | None = None
    default: Any = None
    choices: Sequence[str] = ()
    required: bool = False
    nargs: Literal["+", "?"] | None = None
    is_switch: bool = False
    writes: Literal["", "file", "directory", "either"] = ""
    parameter: str = ""

    @property
    def keyword(self) -> str:
        """The name of the keyword argument that `run` receives the value under."""
        return self.parameter or self.flag.removeprefix("--")

    def parse(self, text: str) -> Any:
        """Return the value of a text.

        Raises:
          UserError: it is not of the option's type, not finite, or out of range.
        """
        if self.type is str:
            return text
        value = parse_text(text, self.type, self.flag)
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            bounds = f"at least {self.low:g}" if self.high is None else f"in [{self.low:g}, {self.high:g}]"
            raise UserError(f"{self.flag}: {text} is out of range; it must be {bounds}")
        return value


@dataclasses.dataclass(frozen=True)
class Settings:
    """A family of options of the form `--PREFIX.KEY=VALUE`, whose keys the called code knows.

    Attributes:
      prefix: the part before the dot.
      help: what the keys are, for the help.
      parameter: the name of the keyword argument of `run`, a dictionary of texts by key; empty: the prefix.
    """

    prefix: str
    help: str
    parameter: str = ""

    @property
    def keyword(self) -> str:
        """The name of the keyword argument that `run` receives the texts under."""
        return self.parameter or self.prefix


# Keys of `imagenet_repro.pretrained.preprocessing`, of every command that reads weights of others.
PREPROCESS = Settings(
    "preprocess",
    "images for weights of others: mean and std of red, green and blue in [0, 1]; size in pixels; crop, a share such"
    " as 0.875 of the resized shorter side, or squash; kernel: nearest, bilinear or bicubic; antialias",
)


# Options of every command that takes the network of a run or of a file of weights.
NETWORK = (
    Option("--workdir", metavar="DIR", help="the workdir of a run"),
    Option("--checkpoint", metavar="WHICH", help="with --workdir: last (default), best, or a step"),
    Option(
        "--weights",
        metavar="FILE",
        help="published weights: .safetensors, .pth, .npz of ViT, a directory, package:NAME, hub:USER/NAME",
    ),
    Option("--model", default="", metavar="NAME", help="with --weights: the network, or published weights of it"),
    Option("--options", metavar="DICT", help="options of that network, such as \"{'auxiliary': False}\""),
)


def _refuse(chosen: str, other: str, is_given: dict[str, bool]) -> None:
    """Raise UserError for the first given option that belongs to the other of --workdir and --weights."""
    for flag, given in is_given.items():
        if given:
            raise UserError(f"{flag} belongs to {other} and would be ignored with {chosen}; leave it out")


def parse_network_options(
    *,
    workdir: str | None,
    checkpoint: str | None,
    model: str,
    options: str | None,
    preprocess: dict[str, str],
    **switches: bool,
) -> dict[str, Any] | None:
    """Check that `NETWORK` is given for a run or for a file, not for both; return the parsed options of a network.

    Args:
      workdir: of a run; None: a file of weights is given.
      checkpoint: of a run.
      model: of a file.
      options: of the file's network, as a text.
      preprocess: of images for a file.
      switches: further options that belong to a file, by their names.

    Raises:
      UserError: an option that would be ignored, or a text that is no dictionary.
    """
    if workdir is None:
        _refuse("--weights", "--workdir", {"--checkpoint": checkpoint is not None})
    else:
        given = {"--model": model != "", "--options": options is not None}
        given |= {f"--{name}": value for name, value in switches.items()}
        _refuse("--workdir", "--weights", given | {f"--preprocess.{key}": True for key in preprocess})
    return None if options is None else parse_text(options, dict, "--options")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
      name: as it is typed.
      help: its description; the first line is its summary in the list of commands.
      run: called with the options and settings as keyword arguments; returns the exit code. Imports heavy modules
        itself.
      options: in the order of the help.
      settings: families of options `--PREFIX.KEY=VALUE`.
      one_of: flags; exactly one of them must be given.
      shows_exit_codes: whether the help ends with the table of exit codes.
      details: returns the end of a long help, or of the part of it that a word after `--help` names; None: there is
        no more help. Raises UserError for an unknown word.
    """

    name: str
    help: str
    run: Callable[..., int]
    options: Sequence[Option]
    settings: Sequence[Settings] = ()
    one_of: Sequence[str] = ()
    shows_exit_codes: bool = False
    details: Callable[[str], str] | None = None

    @property
    def summary(self) -> str:
        """The first line of the help."""
        return self.help.splitlines()[0]
