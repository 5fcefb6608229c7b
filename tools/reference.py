"""Write the command reference and the configuration reference of the documentation from the code.

    python -m tools.reference             # write docs/reference/commands.md and docs/reference/configuration.md
    python -m tools.reference --check     # fail if a committed page is stale

Commands come from the tables of `imagenet_repro.cli`. Keys come from the dataclasses of `imagenet_repro.config`: their
types, defaults and ranges from the classes, their meanings from the comment beside or above each field. A key without
a comment means what the same key of the section's kind before it means. JAX is not imported.
"""

import ast
import dataclasses
import inspect
import io
import re
import sys
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from imagenet_repro.cli.command import Command, Option
from imagenet_repro.cli.main import COMMANDS, EXIT_CODES
from imagenet_repro.config import ensemble, run, sweep
from tools.generated import REPOSITORY, write_or_check

FOLDER = REPOSITORY / "docs" / "reference"
NOTE = "<!-- Written by `python -m tools.reference` from the code; do not edit. -->\n"
WORDS = {int: "integer", float: "number", str: "text", bool: "`True` or `False`", dict: "dictionary", tuple: "list"}
ROOTS = (  # heading, what it configures, class
    ("A network's run", run.Config),
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


@dataclasses.dataclass
class Seen:
    """The content of the page so far: the key of each class, and the meaning of each key."""

    classes: dict[type, str] = dataclasses.field(default_factory=dict)
    meanings: dict[str, str] = dataclasses.field(default_factory=dict)


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
        parts += [f"## {heading}\n", paragraphs(kind), *section_parts(kind, "", seen)]
    return "\n".join(parts)


def section_parts(kind: type, prefix: str, seen: Seen, *, is_variant: bool = False) -> Iterator[str]:
    """Yield a table of a section's own keys, then the sections within it.

    Args:
      kind: the dataclass of the section.
      prefix: the dotted key of the section with a dot at its end; empty at the top.
      seen: the content of the page so far, which is extended.
      is_variant: whether the section's `name` chose this class, so that the name needs no row.
    """
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    plain = [
        field for field in fields if not sections_of(hints[field.name]) and not (field.name == "name" and is_variant)
    ]
    if plain:
        texts = field_texts(kind)
        rows = [field_row(field, hints[field.name], prefix, texts, seen) for field in plain]
        yield table(("key", "meaning", "type", "default"), rows)
    for field in fields:
        variants = sections_of(hints[field.name])
        if variants:
            yield from field_section(field, hints[field.name], variants, prefix, seen)


def field_section(
    field: dataclasses.Field, hint: Any, variants: tuple[type, ...], prefix: str, seen: Seen
) -> Iterator[str]:
    """Yield the description of a key whose value is a section, a list of sections, or one of several kinds."""
    key = f"{prefix}{field.name}"
    container = {dict: "Sections by name, each with", tuple: "A list of sections, each with"}
    many = container.get(typing.get_origin(hint), "")
    inner = f"{key}.NAME." if many.startswith("Sections") else f"{key}[i]." if many else f"{key}."
    yield f"### `{key}`\n"
    if variants[0] in seen.classes and len(variants) == 1:
        where = seen.classes[variants[0]]
        yield f"As [`{where}`](#{anchor(where)}) above.\n"
        return
    if many:
        yield f"{many} the keys below.\n"
    if len(variants) == 1:
        seen.classes[variants[0]] = key
        yield paragraphs(variants[0])
        yield from section_parts(variants[0], inner, seen)
        return
    default = getattr(field.default, "name", "") or getattr(variants[0], "name", "")
    names = ", ".join(f"`{variant.name}`" for variant in variants)
    yield f"Chosen by `{inner}name`: {names}. The default is `{default}`.\n"
    if all(variant in seen.classes for variant in variants):
        yield f"Their keys are as [`{seen.classes[variants[0]]}`](#{anchor(seen.classes[variants[0]])}) above.\n"
        return
    for variant in variants:
        seen.classes.setdefault(variant, key)
        yield f"**`name = {variant.name}`** — {paragraphs(variant)}"
        yield from section_parts(variant, inner, seen, is_variant=True)


def sections_of(hint: Any) -> tuple[type, ...]:
    """Return the dataclasses that a field's value may be an instance, a list or a dictionary of; else nothing."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return (hint,)
    if typing.get_origin(hint) in (types.UnionType, typing.Union, dict, tuple):
        kinds = [kind for part in typing.get_args(hint) for kind in sections_of(part)]
        return tuple(kinds)
    return ()


def field_row(
    field: dataclasses.Field, hint: Any, prefix: str, texts: dict[str, tuple[str, str]], seen: Seen
) -> tuple[str, str, str, str]:
    """Return the table row of a key: its dotted name, its meaning, its type with the range, its default."""
    default, comment = texts.get(field.name, ("", ""))
    kind = type_text(hint) + range_text(field)
    key = f"{prefix}{field.name}"
    meaning = sentence(comment) or seen.meanings.get(key, "")
    seen.meanings[key] = meaning
    return f"`{key}`", meaning, kind, f"`{default}`" if default else ""


def type_text(hint: Any) -> str:
    """Return a type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in literal_values(hint))
    if origin is tuple and arguments[-1:] == (Ellipsis,):
        return f"list of: {type_text(arguments[0])}"
    if origin is tuple:
        return f"{len(arguments)} values: {type_text(arguments[0])}"
    if origin is dict:
        return "dictionary"
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def literal_values(hint: Any) -> list[Any]:
    """Return the values of a `Literal`, those of literals within it included."""
    values = []
    for value in typing.get_args(hint):
        values += literal_values(value) if typing.get_origin(value) is Literal else [value]
    return values


def range_text(field: dataclasses.Field) -> str:
    """Return the range of a key's numbers, such as " in [0, 1]"; empty if there is none."""
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is None and high is None:
        return ""
    if high is None:
        return f", at least {low:g}"
    return f" in [{low:g}, {high:,}]" if isinstance(high, int) else f" in [{low:g}, {high:g}]"


def field_texts(kind: type) -> dict[str, tuple[str, str]]:
    """Return the default, as it is written, and the comment of each field, those of base classes included."""
    texts: dict[str, tuple[str, str]] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            texts |= own_field_texts(base)
    return texts


def own_field_texts(kind: type) -> dict[str, tuple[str, str]]:
    """Return the default and the comment of each field that a class itself defines."""
    source = textwrap.dedent(inspect.getsource(kind))
    comments = comments_by_line(source)
    [definition] = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for node in definition.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        beside = comments.get(node.end_lineno or node.lineno, (False, ""))[1]
        texts[node.target.id] = (default_text(node.value), beside or comment_above(comments, node.lineno))
    return texts


def comments_by_line(source: str) -> dict[int, tuple[bool, str]]:
    """Return by line number whether a comment has the line for itself, and its text."""
    comments = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = (not token.line[: token.start[1]].strip(), token.string.lstrip("# "))
    return comments


def comment_above(comments: dict[int, tuple[bool, str]], line: int) -> str:
    """Return the block of comments that ends on the line above."""
    lines: list[str] = []
    while comments.get(line - 1 - len(lines), (False, ""))[0]:
        lines.insert(0, comments[line - 1 - len(lines)][1])
    return " ".join(lines)


def default_text(node: ast.expr | None) -> str:
    """Return a field's default as written in the source; for a call that declares the field, its first argument."""
    if not isinstance(node, ast.Call):
        return "" if node is None else ast.unparse(node)
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if "default_factory" in keywords:
        return "{}" if ast.unparse(keywords["default_factory"]) == "dict" else ""
    default = node.args[0] if node.args else keywords.get("default")
    return ast.unparse(default) if default is not None else ""


# --- Markdown ---------------------------------------------------------------------------------------------------


def paragraphs(kind: type) -> str:
    """Return the docstring of a class, without a list of attributes."""
    return escape(inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:")[0]) + "\n"


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
