"""Write the command reference and the configuration reference of the documentation from the code.

    python -m tools.reference             # write docs/reference/commands.md and docs/reference/configuration.md
    python -m tools.reference --check     # fail if a committed page is stale

Commands come from the tables of `imagenet_repro.cli`, keys from the dataclasses of `imagenet_repro.config`
(`config/described.py`). JAX is not imported.
"""

import re
import sys
import textwrap
from collections.abc import Iterator

from imagenet_repro.cli.command import Command, Option
from imagenet_repro.cli.main import COMMANDS, EXIT_CODES
from imagenet_repro.config import ensemble, run, sweep
from imagenet_repro.config.described import KeyGroup, KeyText, SectionText, Seen, describe
from tools.generated import REPOSITORY, write_or_check

FOLDER = REPOSITORY / "docs" / "reference"
NOTE = "<!-- Written by `python -m tools.reference` from the code; do not edit. -->\n"
ROOTS = (  # heading, what it configures, class
    ("A network's run", run.Config),
    ("A run of two towers on pairs", run.ContrastiveConfig),
    ("A run of hand-made features", run.FeatureConfig),
    ("A sweep", sweep.SweepConfig),
    ("An ensemble", ensemble.EnsembleConfig),
)


def main() -> int:
    """Write or check both pages."""
    files = {FOLDER / "commands.md": commands_page(), FOLDER / "configuration.md": configuration_page()}
    return write_or_check(files, __doc__, "python -m tools.reference")


# --- commands ---------------------------------------------------------------------------------------------------


def commands_page() -> str:
    """Return the command reference as Markdown."""
    codes = re.findall(r"^ +(\d+) +(.*)$", EXIT_CODES, flags=re.MULTILINE)
    summary = table(
        ("command", "what it does"),
        [(f"[`{command.name}`](#{command.name})", command.summary) for command in COMMANDS.values()],
    )
    parts = [
        "# Commands\n",
        NOTE,
        "In a clone, type `python main.py COMMAND`. Where the package is installed, `imagenet-repro COMMAND` is the "
        "same. `--help` after a command prints what this page says of it.\n",
        summary,
        "## Exit codes\n",
        table(("code", "meaning"), codes),
        *(command_section(command) for command in COMMANDS.values()),
    ]
    return "\n".join(parts)


def command_section(command: Command) -> str:
    """Return a command's help, and its options as a table."""
    rows = [option_row(option, option.flag in command.one_of) for option in command.options]
    rows += [(f"`--{family.prefix}.KEY=VALUE`", sentence(family.help), "") for family in command.settings]
    return "\n".join(
        [
            f"## `{command.name}` {{#{command.name}}}\n",
            help_text(command.help),
            table(("option", "meaning", "default"), rows),
        ]
    )


def option_row(option: Option, is_alternative: bool) -> tuple[str, str, str]:
    """Return the table row of an option: how it is typed, its meaning, its default."""
    is_positional = not option.flag.startswith("--")
    placeholder = option.metavar or ("|".join(option.choices) if option.choices else option.keyword.upper())
    if option.is_switch or is_positional:
        typed = option.flag
    else:
        typed = f"{option.flag} {placeholder} …" if option.nargs == "+" else f"{option.flag}={placeholder}"
    if option.required or (is_positional and option.nargs != "?"):
        default = "required"
    elif is_alternative:
        default = "one is required"
    else:
        default = f"`{option.default}`" if option.default not in (None, "", False, (), []) else ""
    return f"`{typed}`", sentence(option.help), default


def help_text(text: str) -> str:
    """Return a command's help as Markdown: indented lines become blocks of code."""
    parts = []
    for is_code, lines in groups(text.rstrip().splitlines()):
        block = "\n".join(lines).strip("\n")
        if block:
            parts.append(f"```\n{textwrap.dedent(block)}\n```\n" if is_code else f"{escape(block)}\n")
    return "\n".join(parts)


def groups(lines: list[str]) -> Iterator[tuple[bool, list[str]]]:
    """Yield runs of lines that are all indented, or all not; blank lines belong to the run before them."""
    current: list[str] = []
    is_code = False
    for line in lines:
        if line and line.startswith("  ") != is_code:
            if current:
                yield is_code, current
            current, is_code = [], line.startswith("  ")
        current.append(line)
    yield is_code, current


# --- configurations ---------------------------------------------------------------------------------------------


def configuration_page() -> str:
    """Return the configuration reference as Markdown."""
    parts = [
        "# Configuration\n",
        NOTE,
        "A recipe returns these keys as a nested dictionary; `--config.KEY=VALUE` sets any of them, with dots between "
        "sections. The type of a key decides how its text is read ([Values](../recipes.md#values)). A key that does "
        "not exist, a value out of range, or a key that no code reads for this run is an error, reported before "
        "anything compiles.\n",
    ]
    seen = Seen()
    for heading, kind in ROOTS:
        group = describe(kind, seen)
        parts += [f"## {heading}\n", paragraphs(group), *group_parts(group)]
    return "\n".join(parts)


def group_parts(group: KeyGroup) -> Iterator[str]:
    """Yield a table of a group's own keys, then the sections within it."""
    if group.keys:
        yield table(("key", "meaning", "type", "default"), [key_row(key) for key in group.keys])
    for section in group.sections:
        yield from section_parts(section)


def section_parts(section: SectionText) -> Iterator[str]:
    """Yield the description of a key whose value is a section, a list of sections, or one of several kinds."""
    yield f"### `{section.key}`\n"
    where = f"[`{section.same_as}`](#{anchor(section.same_as)}) above.\n"
    if section.same_as and not section.names:
        yield f"As {where}"
        return
    if section.container:
        many = {"dictionary": "Sections by name", "list": "A list of sections"}[section.container]
        yield f"{many}, each with the keys below.\n"
    if section.names:
        names = ", ".join(f"`{name}`" for name in section.names)
        yield f"Chosen by `{section.inner}name`: {names}. The default is `{section.default}`.\n"
    if section.same_as:
        yield f"Their keys are as {where}"
    for group in section.groups:
        yield f"**`name = {group.name}`** — {paragraphs(group)}" if group.name else paragraphs(group)
        yield from group_parts(group)


def key_row(key: KeyText) -> tuple[str, str, str, str]:
    """Return the table row of a key: its dotted name, its meaning, its type with the range, its default."""
    return f"`{key.key}`", sentence(key.meaning), key.kind, f"`{key.default}`" if key.default else ""


# --- Markdown ---------------------------------------------------------------------------------------------------


def paragraphs(group: KeyGroup) -> str:
    """Return the docstring of a class, without a list of attributes."""
    return escape(group.text) + "\n"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def sentence(text: str) -> str:
    """Return a note without line breaks."""
    return escape(" ".join(text.split()))


def escape(text: str) -> str:
    """Return a text that Markdown shows unchanged; text in back quotes remains code."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        piece if index % 2 else re.sub(r"([*_<>\[\]])", r"\\\1", piece) for index, piece in enumerate(pieces)
    )


def anchor(key: str) -> str:
    """Return the anchor that mkdocs gives to a heading of one key in back quotes."""
    return re.sub(r"[^\w-]", "", key.lower())


if __name__ == "__main__":
    sys.exit(main())
