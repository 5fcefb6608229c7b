"""The titled code blocks of a page, applied to the files that their titles name."""

import re

BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', flags=re.MULTILINE | re.DOTALL)


def edits(page):
    """Yield language, path and text of each block with a title."""
    return ((language, path, text) for language, path, text in BLOCK.findall(page) if path)


def commands(page):
    """Return the lines of the blocks in bash."""
    return [
        line for language, _, text in BLOCK.findall(page) if language == "bash" for line in text.splitlines() if line
    ]


def apply(page, directory):
    """Make and change the files below a directory as the blocks of a page say; a file must not exist before."""
    for language, path, text in edits(page):
        file = directory / path
        if language == "diff":
            file.write_text(changed(file.read_text(encoding="utf-8"), text, path), encoding="utf-8")
        else:
            assert not file.exists(), f"{path} is to be made, and exists"
            file.write_text(text, encoding="utf-8")


def changed(content, diff, path):
    """Return a text with the lines of a diff without line numbers, whose old lines must occur exactly once."""
    rows = [(line[:1] or " ", line[1:]) for line in diff.splitlines()]
    old = [text for sign, text in rows if sign in " -"]
    new = [text for sign, text in rows if sign in " +"]
    lines = content.splitlines()
    places = [start for start in range(len(lines)) if lines[start : start + len(old)] == old]
    assert len(places) == 1, f"{path} has the old lines of the block {len(places)} times: {old}"
    lines[places[0] : places[0] + len(old)] = new
    return "\n".join(lines) + "\n"
