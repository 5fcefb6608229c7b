"""Tests of the generated references: their content, and that the committed pages are current."""

import dataclasses
from typing import Literal

import pytest

from imagenet_repro.cli.command import Command, Option, Settings
from imagenet_repro.config import described
from imagenet_repro.config.fields import bounded
from tools import diagrams, reference
from tools.generated import REPOSITORY


@dataclasses.dataclass(frozen=True)
class Round:
    """A round one."""

    name: str = "round"
    radius: float = bounded(0.5, 0.0, 1.0)  # metres | yards


@dataclasses.dataclass(frozen=True)
class Square(Round):
    """A square one."""

    name: str = "square"
    side: int = bounded(3, 1)
    # On a line of its own,
    # and the next.
    colour: Literal["red", "blue"] = "red"


@dataclasses.dataclass(frozen=True)
class Root:
    """The root."""

    sizes: tuple[int, ...] = (1, 2)
    shape: Round | Square = Round()
    shapes: dict[str, Round] = dataclasses.field(default_factory=dict)


def test_keys_of_sections_and_variants():
    text = "\n".join(reference.group_parts(described.describe(Root, described.Seen())))
    assert "| `sizes` |  | list of: integer | `(1, 2)` |" in text
    assert "Chosen by `shape.name`: `round`, `square`. The default is `round`." in text
    assert "| `shape.radius` | metres \\| yards | number in [0, 1] | `0.5` |" in text
    assert "| `shape.colour` | On a line of its own, and the next. | `red`, `blue` | `'red'` |" in text
    assert "| `shape.side` |  | integer, at least 1 | `3` |" in text
    assert "`shape.name` |" not in text
    assert text.count("metres") == 2  # the second kind inherits the key
    assert "As [`shape`](#shape) above." in text  # the class was described before


def test_options_of_a_command():
    command = Command(
        name="draw",
        help="Draw.\n\n  python main.py draw a_b\n\nUnderscores_stay <so>.",
        run=lambda: 0,
        options=(
            Option("name", help="what"),
            Option("--out", required=True, metavar="FILE", help="where it goes"),
            Option("--kind", choices=("a", "b"), default="a", help="which"),
            Option("--fast", is_switch=True, help="sooner"),
        ),
        settings=(Settings("pen", "the pen"),),
    )
    text = reference.command_section(command)
    assert "```\npython main.py draw a_b\n```" in text
    assert "Underscores\\_stay \\<so\\>." in text
    for row in (
        "| `name` | what | required |",
        "| `--out=FILE` | where it goes | required |",
        "| `--kind=a\\|b` | which | `a` |",
        "| `--fast` | sooner |  |",
        "| `--pen.KEY=VALUE` | the pen |  |",
    ):
        assert row in text


@pytest.mark.parametrize("module", [reference, diagrams])
def test_the_committed_files_are_current(module, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["tool", "--check"])
    assert module.main() == 0, capsys.readouterr().err


def test_a_stale_page_is_named(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["tool", "--check"])
    monkeypatch.setattr(reference, "commands_page", lambda: "other")
    assert reference.main() == 1
    assert "docs/reference/commands.md is stale; run `python -m tools.reference`" in capsys.readouterr().err
    assert (REPOSITORY / "docs/reference/commands.md").read_text() != "other"
