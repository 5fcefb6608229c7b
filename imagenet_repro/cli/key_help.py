"""The list of configuration keys for `main.py train --help`, 80 columns wide, from the schema."""

import textwrap
from collections.abc import Iterator, Sequence

from imagenet_repro.config import run
from imagenet_repro.config.described import KeyGroup, KeyText, SectionText, Seen, describe
from imagenet_repro.errors import UserError, nearest

WIDTH = 80
WIDEST_KEY, WIDEST_DEFAULT = 34, 18  # columns; longer ones push what follows to the right
INTRODUCTION = """\
configuration keys, as a recipe sets them or --config.KEY=VALUE:

  key  default  type and range
      meaning

--help=SECTION lists the keys of one section, such as --help=optimizer.
"""
ROOTS = (
    ("A network's run", run.Config),
    ("A run of hand-made features: a recipe with `channels`", run.FeatureConfig),
    ("A classifier on frozen features: a recipe with `classifier`", run.FrozenConfig),
)


def key_help(section: str) -> str:
    """Return the list of the keys of all runs, or of one section.

    Args:
      section: a section or a key; empty: all.

    Raises:
      UserError: there is no such section.
    """
    seen = Seen()
    groups = [(heading, describe(kind, seen)) for heading, kind in ROOTS]
    if not section:
        parts = [INTRODUCTION, *(part for heading, group in groups for part in _root(heading, group))]
        return "\n".join(parts)
    parts = [part for _, group in groups for part in _chosen(group, section)]
    if not parts:
        known = {name for _, group in groups for name in _names(group)}
        raise UserError(f"--help={section}: there is no such section or key; {nearest(section, known)}")
    return "\n".join(parts)


def _root(heading: str, group: KeyGroup) -> Iterator[str]:
    yield f"{heading.replace('`', '')}\n{'-' * len(heading.replace('`', ''))}"
    yield _keys(group.keys)
    for section in group.sections:
        yield from _section(section)


def _section(section: SectionText) -> Iterator[str]:
    """Yield the heading of a section and its keys, kind by kind."""
    many = {"": "", "dictionary": ", sections by name", "list": ", a list of sections"}[section.container]
    if section.same_as:
        yield _wrapped(f"{section.key}{many}: as {section.same_as} above", 0) + "\n"
        return
    if section.names:
        kinds = ", ".join(section.names)
        yield _wrapped(f"{section.key}{many}: {section.inner}name is one of {kinds}; default {section.default}", 0)
        yield ""
    for group in section.groups:
        title = f"{section.inner}name={group.name}" if group.name else f"{section.key}{many}"
        yield _wrapped(f"{title}: {group.text}", 0)
        yield _keys(group.keys)
        for inner in group.sections:
            yield from _section(inner)


def _keys(keys: Sequence[KeyText]) -> str:
    """Return the keys of a group, aligned; each with its meaning below it."""
    key_width = min(max((len(key.key) for key in keys), default=0), WIDEST_KEY)
    default_width = min(max((len(key.default) for key in keys), default=0), WIDEST_DEFAULT)
    lines = []
    for key in keys:
        start = f"  {key.key:<{key_width}}  {key.default:<{default_width}}  "
        kind = key.kind.replace("`", "")
        if len(start) + len(kind) <= WIDTH:
            lines.append((start + kind).rstrip())
        else:
            lines += [start.rstrip(), _wrapped(kind, 6)] if len(start) <= WIDTH else [_wrapped(start + kind, 6, 2)]
        if key.meaning:
            lines.append(_wrapped(key.meaning, 6))
    return "\n".join(lines) + "\n"


def _wrapped(text: str, indent: int, first: int | None = None) -> str:
    """Return a text in lines of at most 80 columns, without the marks of code."""
    return textwrap.fill(
        " ".join(text.replace("`", "").split()),
        WIDTH,
        initial_indent=" " * (indent if first is None else first),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _chosen(group: KeyGroup, wanted: str) -> Iterator[str]:
    """Yield the sections and keys of a group that a name stands for."""
    matching = [key for key in group.keys if key.key == wanted]
    if matching:
        yield _keys(matching)
    for section in group.sections:
        if section.key == wanted:
            yield from _section(section)
        else:
            for inner in section.groups:
                yield from _chosen(inner, wanted)


def _names(group: KeyGroup) -> Iterator[str]:
    """Yield the names of all sections and keys of a group."""
    yield from (key.key for key in group.keys)
    for section in group.sections:
        yield section.key
        for inner in section.groups:
            yield from _names(inner)
