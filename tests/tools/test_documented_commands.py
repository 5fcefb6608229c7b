"""Tests that every command in the documents has existing options."""

import re
import shlex

import pytest

from imagenet_repro.cli.main import COMMANDS, build_parser, parse_settings
from tools.generated import REPOSITORY

DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def documented_commands():
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
            for line in re.findall(r"(?:python main\.py|imagenet-repro) (.*)", block):
                yield pytest.param(line.split("||")[0], id=f"{document.name}: {line[:60]}")


@pytest.mark.parametrize("line", list(documented_commands()))
def test_options_exist(line):
    options, rest = build_parser().parse_known_args([word for word in shlex.split(line, comments=True) if word != "…"])
    parse_settings(rest, COMMANDS[options.command].settings)
