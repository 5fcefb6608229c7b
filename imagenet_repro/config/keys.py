"""The fields of the schema that a dotted key names."""

import dataclasses
import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from imagenet_repro.config.text import parse_text
from imagenet_repro.errors import UserError


class Key(NamedTuple):
    """A field, or a value inside of a dictionary.

    Attributes:
      hint: the declared type.
      default: the field's default; None where there is none.
      keeps_section: whether it is the `name` of a section whose other keys do not depend on it.
    """

    hint: Any
    default: Any = None
    keeps_section: bool = False


@functools.cache
def field_types(kind: Any) -> dict[str, Any]:
    """Return the type of every field of a dataclass."""
    return typing.get_type_hints(kind)


def find_keys(kind: Any, settings: Any, path: Sequence[str], *, is_open: bool = False) -> Iterator[Key]:
    """Yield what a dotted key may name: one field, several where the variant of a section is not known, or none.

    Args:
      kind: the dataclass of the section.
      settings: its nested settings, whose `name` chooses the variant of a section.
      path: the parts of the key.
      is_open: whether the settings only replace those of others, so that a section without a name is of any variant.
    """
    field = next((field for field in dataclasses.fields(kind) if field.name == path[0]), None)
    if field is None:
        return
    hint = field_types(kind)[field.name]
    inner = settings.get(field.name) if isinstance(settings, Mapping) else None
    if len(path) == 1:
        default = None if field.default is dataclasses.MISSING else field.default
        yield Key(hint, default, bool(field.metadata.get("keeps_section")))
    elif hint is dict:
        yield from _find_in_dictionary(field, inner, path[1:])
    elif typing.get_origin(hint) is dict:
        section = inner.get(path[1]) if isinstance(inner, Mapping) else None
        element = typing.get_args(hint)[1]
        yield from find_keys(element, section, path[2:], is_open=is_open) if len(path) > 2 else [Key(element)]
    else:
        for variant in _variants(hint, field, inner, is_open=is_open):
            yield from find_keys(variant, inner, path[1:], is_open=is_open)


def _find_in_dictionary(field: dataclasses.Field, settings: Any, path: Sequence[str]) -> Iterator[Key]:
    """Yield what a key inside of an open dictionary may name."""
    has_several = bool(field.metadata.get("has_several"))  # then a `name` has several values and chooses no variant
    for schema in field.metadata.get("schemas", ()):
        for key in find_keys(schema, None if has_several else settings, path, is_open=True):
            yield key._replace(hint=_several(key.hint), keeps_section=True) if has_several else key
    value_types = field.metadata.get("types", {})
    if len(path) == 1 and (path[0] in value_types or "other" in field.metadata):
        yield Key(value_types.get(path[0], field.metadata.get("other")))


def _several(hint: Any) -> Any:
    """Return the type of a list of values of a type; lists within lists are read as Python writes them."""
    return tuple if typing.get_origin(hint) is tuple else tuple[hint, ...]


def _variants(hint: Any, field: dataclasses.Field, settings: Any, *, is_open: bool) -> Sequence[Any]:
    """Return the dataclasses that a section may have."""
    if dataclasses.is_dataclass(hint):
        return (hint,)
    variants: list[Any] = [one for one in typing.get_args(hint) if dataclasses.is_dataclass(one)]
    if typing.get_origin(hint) is not types.UnionType or not variants:
        return ()
    name = settings.get("name") if isinstance(settings, Mapping) else None
    if name is None and is_open:
        return variants
    chosen = name if name is not None else field.default.name
    return [variant for variant in variants if variant.name == chosen]


def parse_key(text: str, keys: Sequence[Key], name: str) -> Any:
    """Return the value of a text for a key; a key that does not exist keeps its text, for the schema to refuse.

    Args:
      text: as typed.
      keys: what the key may name, as from `find_keys`.
      name: of the key, for messages.

    Raises:
      UserError: the text has none of the types.
    """
    errors = []
    for hint in dict.fromkeys(key.hint for key in keys):
        try:
            return parse_text(text, hint, name)
        except UserError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return text


def short_keys(keys: Iterable[str], among: Iterable[str]) -> dict[str, str]:
    """Return the shortest ends of dotted keys that no other key shares; `optimizer.name` becomes `optimizer`.

    Args:
      keys: the keys to shorten.
      among: all keys, among which the short ones must be unambiguous.
    """
    stems = {key: key.removesuffix(".name") for key in (*among, *keys)}
    counts: dict[str, set[str]] = {}
    for stem in stems.values():
        for end in _ends(stem):
            counts.setdefault(end, set()).add(stem)
    return {key: next(end for end in _ends(stems[key]) if len(counts[end]) == 1 or end == stems[key]) for key in keys}


def _ends(key: str) -> list[str]:
    """Return the ends of a dotted key, the shortest first."""
    parts = key.split(".")
    return [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
