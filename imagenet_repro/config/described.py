"""The schema as texts: each key with its meaning, type, range and default, for the help and for the documentation.

Types and ranges come from the dataclasses, meanings from the comment beside or above each field. A key without a
comment means what the same key of the section's kind before it means.
"""

import ast
import dataclasses
import functools
import inspect
import io
import textwrap
import tokenize
import types
import typing
from typing import Any, Literal, NamedTuple

WORDS = {int: "integer", float: "number", str: "text", bool: "`True` or `False`", dict: "dictionary", tuple: "list"}


Container = Literal["", "dictionary", "list"]


class KeyText(NamedTuple):
    """One key.

    Attributes:
      key: dotted.
      meaning: the comment of its field; empty: there is none.
      kind: the type, and the range of numbers; values are in back quotes.
      default: as it is written in the source.
    """

    key: str
    meaning: str
    kind: str
    default: str


@dataclasses.dataclass
class KeyGroup:
    """The keys of one dataclass.

    Attributes:
      name: the value of the section's `name` that chooses the class, where several may be chosen; otherwise empty.
      text: the docstring, without a list of attributes.
      keys: its own keys.
      sections: of its fields that are sections.
    """

    name: str
    text: str
    keys: list[KeyText]
    sections: list["SectionText"]


@dataclasses.dataclass
class SectionText:
    """A key whose value is a section, a list or a dictionary of sections, or one of several kinds of sections.

    Attributes:
      key: dotted.
      inner: the start of the keys in it, such as `optimizer.`.
      container: "" for one section, "dictionary" or "list" for many.
      names: the kinds, by the values of `name`; empty where there is one kind alone.
      default: the kind that is chosen where none is named.
      same_as: the key of an earlier section with the same keys, which are not repeated; empty: there is none.
      groups: the keys of each kind.
    """

    key: str
    inner: str
    container: Container
    names: tuple[str, ...]
    default: str
    same_as: str
    groups: list[KeyGroup]


@dataclasses.dataclass
class Seen:
    """The keys that were described so far: the key of each class, and the meaning of each key."""

    classes: dict[type, str] = dataclasses.field(default_factory=dict)
    meanings: dict[str, str] = dataclasses.field(default_factory=dict)


def describe(kind: type, seen: Seen, prefix: str = "", *, variant: str = "") -> KeyGroup:
    """Return the keys of a dataclass and of the sections in it.

    Args:
      kind: the dataclass.
      seen: what was described before, which is extended.
      prefix: the dotted key of the section with a dot at its end; empty at the top.
      variant: the `name` that chose this class, so that the name needs no line of its own.
    """
    hints, fields, texts = typing.get_type_hints(kind), dataclasses.fields(kind), _field_texts(kind)
    plain = [field for field in fields if not _sections_of(hints[field.name])]
    keys = [
        _key_text(field, hints[field.name], prefix, texts, seen)
        for field in plain
        if not (field.name == "name" and variant)
    ]
    sections = [
        _section_text(field, hints[field.name], variants, prefix, seen)
        for field in fields
        if (variants := _sections_of(hints[field.name]))
    ]
    text = inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:")[0]
    return KeyGroup(variant, text, keys, sections)


def _section_text(
    field: dataclasses.Field, hint: Any, variants: tuple[Any, ...], prefix: str, seen: Seen
) -> SectionText:
    """Return the description of a field that is a section."""
    containers: dict[Any, Container] = {dict: "dictionary", tuple: "list"}
    container: Container = containers.get(typing.get_origin(hint), "")
    key = f"{prefix}{field.name}"
    inner = key + {"dictionary": ".NAME.", "list": "[i].", "": "."}[container]
    names: tuple[str, ...] = tuple(variant.name for variant in variants) if len(variants) > 1 else ()
    default = getattr(field.default, "name", "") or names[0] if names else ""
    section = SectionText(key, inner, container, names, default, "", [])
    if all(variant in seen.classes for variant in variants):
        section.same_as = next(seen.classes[variant] for variant in variants)
        return section
    for variant in variants:
        seen.classes.setdefault(variant, key)
        section.groups.append(describe(variant, seen, inner, variant=variant.name if names else ""))
    return section


def _sections_of(hint: Any) -> tuple[Any, ...]:
    """Return the dataclasses that a field's value may be an instance, a list or a dictionary of; else nothing."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return (hint,)
    if typing.get_origin(hint) in (types.UnionType, typing.Union, dict, tuple):
        kinds = [kind for part in typing.get_args(hint) for kind in _sections_of(part)]
        return tuple(kinds)
    return ()


def _key_text(
    field: dataclasses.Field, hint: Any, prefix: str, texts: dict[str, tuple[str, str]], seen: Seen
) -> KeyText:
    default, comment = texts.get(field.name, ("", ""))
    kind = "amount" if field.metadata.get("is_amount") and hint is str else _type_text(hint)
    key = f"{prefix}{field.name}"
    meaning = comment or seen.meanings.get(key, "")
    seen.meanings[key] = meaning
    return KeyText(key, meaning, kind + _range_text(field), default)


def _type_text(hint: Any) -> str:
    """Return a type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in _literal_values(hint))
    if origin is tuple and arguments[-1:] == (Ellipsis,):
        return f"list of: {_type_text(arguments[0])}"
    if origin is tuple:
        return f"{len(arguments)} values: {_type_text(arguments[0])}"
    if origin is dict:
        return "dictionary"
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _literal_values(hint: Any) -> list[Any]:
    """Return the values of a `Literal`, those of literals within it included."""
    values = []
    for value in typing.get_args(hint):
        values += _literal_values(value) if typing.get_origin(value) is Literal else [value]
    return values


def _range_text(field: dataclasses.Field) -> str:
    """Return the range of a key's numbers, such as " in [0, 1]"; empty if there is none."""
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is None and high is None:
        return ""
    if high is None:
        return f", at least {low:g}"
    return f" in [{low:g}, {high:,}]" if isinstance(high, int) else f" in [{low:g}, {high:g}]"


# --- the source ------------------------------------------------------------------------------------------------


def _field_texts(kind: type) -> dict[str, tuple[str, str]]:
    """Return the default, as it is written, and the comment of each field, those of base classes included."""
    texts: dict[str, tuple[str, str]] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            texts |= _own_field_texts(base)
    return texts


@functools.cache
def _own_field_texts(kind: type) -> dict[str, tuple[str, str]]:
    """Return the default and the comment of each field that a class itself defines."""
    source = textwrap.dedent(inspect.getsource(kind))
    comments = _comments_by_line(source)
    [definition] = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for node in definition.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        beside = comments.get(node.end_lineno or node.lineno, (False, ""))[1]
        texts[node.target.id] = (_default_text(kind, node), beside or _comment_above(comments, node.lineno))
    return texts


def _comments_by_line(source: str) -> dict[int, tuple[bool, str]]:
    """Return by line number whether a comment has the line for itself, and its text."""
    comments = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = (not token.line[: token.start[1]].strip(), token.string.lstrip("# "))
    return comments


def _comment_above(comments: dict[int, tuple[bool, str]], line: int) -> str:
    """Return the block of comments that ends on the line above."""
    lines: list[str] = []
    while comments.get(line - 1 - len(lines), (False, ""))[0]:
        lines.insert(0, comments[line - 1 - len(lines)][1])
    return " ".join(lines)


def _default_text(kind: type, node: ast.AnnAssign) -> str:
    """Return a field's default as written in the source, or its value where that is written with a name.

    For a call that declares the field, it is the first argument.
    """
    default = node.value
    if isinstance(default, ast.Call):
        keywords = {keyword.arg: keyword.value for keyword in default.keywords}
        if "default_factory" in keywords:
            return "{}" if ast.unparse(keywords["default_factory"]) == "dict" else ""
        default = default.args[0] if default.args else keywords.get("default")
    if default is None:
        return ""
    if any(isinstance(part, ast.Name) for part in ast.walk(default)):
        return repr(getattr(kind, ast.unparse(node.target)))
    return ast.unparse(default)
