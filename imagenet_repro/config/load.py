"""Strict reading of configuration files into the dataclasses of the schema.

A configuration file defines `get_config(argument=None)` and returns an `ml_collections.ConfigDict` with the keys that
it sets. `resolve_config` turns them into frozen dataclasses. An unknown key, a key that the chosen variant of a
section does not have, a value of another type or out of range raises `UserError` with the nearest valid name, before
anything is compiled. A section with variants (a crop, an optimizer, a schedule) has a key `name` that chooses the
dataclass, and only that dataclass's fields are valid beside it.

This module knows no field by its name: the rules of each field are in its type and its metadata (`fields.py`).
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from imagenet_repro.config.amount import Amount
from imagenet_repro.config.keys import field_types, find_keys, parse_key
from imagenet_repro.config.recipe_file import call_get_config
from imagenet_repro.config.run import AnyConfig, ConfigT, choose_schema
from imagenet_repro.config.text import LARGEST_INTEGER, LONGEST_SHOWN, shown
from imagenet_repro.errors import UserError, nearest

DEEPEST = 32  # levels of lists and dictionaries in a value


def load_config(spec: str, overrides: dict[str, str] | None = None) -> AnyConfig:
    """Return the configuration of `FILE.py` or `FILE.py:ARGUMENT`, with `overrides` of dotted keys applied.

    Args:
      spec: a Python file with `get_config(argument=None)`, and the argument to pass to it after a colon.
      overrides: texts by dotted key, such as `{"optimizer.learning_rate": "0.4"}`, each read by the declared type of
        its key (`text.py`). An override of a section's `name` drops the file's other keys of that section, since they
        belong to another variant.

    Raises:
      UserError: the file cannot be read or a key or value is not valid.
    """
    return resolve_config(read_settings(spec, overrides))


def read_settings(spec: str, overrides: dict[str, str] | None = None, kind: type | None = None) -> dict[str, Any]:
    """Return the nested settings of a configuration file, with overrides of dotted keys.

    Args:
      spec: as for `load_config`.
      overrides: as for `load_config`.
      kind: the schema of the file; None: that of a run.

    Raises:
      UserError: the file cannot be read, or a text does not have the type of its key.
    """
    settings = call_get_config(spec)
    overrides = overrides or {}
    sections = {path.partition(".")[0]: None for path in overrides}
    set_texts(settings, overrides, kind or choose_schema(sections | settings))
    return settings


def resolve_config(settings: Mapping[str, Any]) -> AnyConfig:
    """Return the typed configuration of nested `settings`, every key checked and every default filled in.

    A configuration with `channels` is a `FeatureConfig`, any other a `Config`.

    Raises:
      UserError: an unknown key, a wrong type or a value out of range; the message names the dotted key.
    """
    return build_section(choose_schema(settings), settings)


def build_section(kind: type, settings: Mapping[str, Any], name: str = "config") -> Any:
    """Return a frozen dataclass of nested settings, checked as strictly as by `resolve_config`.

    Args:
      kind: the dataclass.
      settings: values by key.
      name: the dotted key of the section, for messages.

    Raises:
      UserError: an unknown key, a wrong type or a value out of range.
    """
    return _build(kind, settings, name)


def replace_keys(config: ConfigT, overrides: dict[str, str]) -> ConfigT:
    """Return `config` with texts by dotted key set, checked as in `load_config`."""
    settings = config_to_dict(config)
    set_texts(settings, overrides, type(config))
    return build_section(type(config), settings)


def config_to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as nested JSON values, which `resolve_config` reads back into an equal one."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def flatten_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested settings by dotted key."""
    flat = {}
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            flat.update(flatten_settings(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def set_key(settings: dict[str, Any], path: str, value: Any, kind: type | None = None) -> None:
    """Set a value by dotted key. A new `name` drops the section's other keys, unless the field is declared a `label`.

    Args:
      settings: nested settings, changed in place.
      path: the dotted key.
      value: its value.
      kind: the schema; None: that of a run with these settings.

    Raises:
      UserError: a part of the path is a value and not a section.
    """
    *sections, last = path.split(".")
    section = settings
    for name in sections:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise UserError(f"config.{path}: '{name}' is a value, not a section")
    if last == "name":
        keys = list(find_keys(kind or choose_schema(settings), settings, [*sections, last]))
        old = section.get("name", keys[0].default if len(keys) == 1 else None)
        if old != value and not any(key.keeps_section for key in keys):
            section.clear()
    section[last] = value


def set_texts(settings: dict[str, Any], overrides: Mapping[str, str], kind: type, name: str = "config") -> None:
    """Set keys from texts, each read by the declared type of its key (`text.py`).

    A section comes before its keys, and its `name`, which decides what its other keys are, before those.

    Args:
      settings: nested settings, changed in place.
      overrides: texts by dotted key.
      kind: the schema.
      name: the schema's name in messages.

    Raises:
      UserError: a text does not have the type of its key; the message names the key.
    """
    for path in sorted(overrides, key=lambda path: (path.count("."), not path.endswith(".name"))):
        keys = list(find_keys(kind, settings, path.split(".")))
        set_key(settings, path, parse_key(overrides[path], keys, f"{name}.{path}"), kind)


def _build(kind: Any, settings: Any, path: str, *, is_variant: bool = False) -> Any:
    if not isinstance(settings, Mapping):
        raise UserError(f"{path}: a section with keys is needed here, not {shown(settings)}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = field_types(kind)
    values = {}
    for name, value in settings.items():
        if name not in fields:
            variant = f" for name='{settings['name']}'" if is_variant and "name" in settings else ""
            raise UserError(f"{path}.{name}: no such key{variant}; {nearest(str(name), fields)}")
        values[name] = _convert(value, hints[name], fields[name], f"{path}.{name}")
    return kind(**values)


def _convert(value: Any, hint: Any, field: dataclasses.Field, path: str) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value, path)
    if typing.get_origin(hint) is types.UnionType:
        return _build(_choose(value, hint, field, path), value, path, is_variant=True)
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if not isinstance(value, str) or value not in choices:
            raise UserError(f"{path}: {shown(value)} is not valid; {nearest(str(value), choices)}")
        return value
    if hint in (dict, tuple):
        return _convert_plain(value, hint, path)
    if typing.get_origin(hint) in (dict, tuple):
        convert = _convert_sections if typing.get_origin(hint) is dict else _convert_tuple
        return convert(value, typing.get_args(hint), field, path)
    return _check_range(_convert_scalar(value, hint, path), field, path)


def _convert_sections(value: Any, hints: tuple, field: dataclasses.Field, path: str) -> dict[str, Any]:
    """Return sections of one kind by names that the user chooses."""
    if not isinstance(value, Mapping) or not (value or field.metadata.get("may_be_empty")):
        raise UserError(f"{path}: sections by name are needed here, at least one, not {shown(value)}")
    pattern = field.metadata.get("names")
    for name in value:
        is_name = isinstance(name, str) and (pattern.fullmatch(name) if pattern else name.isidentifier())
        if not is_name:
            raise UserError(f"{path}: {shown(name)} cannot be a name; letters, digits and underscores can")
    return {name: _build(hints[1], section, f"{path}.{name}") for name, section in value.items()}


def _choose(value: Any, hint: Any, field: dataclasses.Field, path: str) -> type:
    """Return the variant that the section's `name` chooses; without a name, that of the default."""
    if not isinstance(value, Mapping):
        raise UserError(f"{path}: a section with keys is needed here, not {shown(value)}")
    variants = {variant.name: variant for variant in typing.get_args(hint)}
    name = value.get("name", field.default.name)
    if not isinstance(name, str) or name not in variants:
        raise UserError(f"{path}.name: {shown(name)} is not valid; {nearest(str(name), variants)}")
    return variants[name]


def _convert_tuple(value: Any, hints: tuple, field: dataclasses.Field, path: str) -> tuple:
    if not isinstance(value, tuple | list):
        raise UserError(f"{path}: a list of values is needed here, not {shown(value)}")
    if hints[-1] is Ellipsis:
        hints = (hints[0],) * len(value)
    kind = hints[0] if hints else None
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return tuple(_build(kind, part, f"{path}[{i}]") for i, part in enumerate(value))
    if len(hints) != len(value):
        raise UserError(f"{path}: {len(hints)} values are needed here, not {len(value)}")
    parts = tuple(_convert(v, h, field, path) for v, h in zip(value, hints, strict=True))
    if field.metadata.get("increasing") and list(parts) != sorted(parts):
        raise UserError(f"{path}: the values must not decrease, got {shown(parts)}")
    return parts


def _convert_plain(value: Any, kind: type, path: str) -> Any:
    """Return an open dictionary or list, whose values a file can hold."""
    if not isinstance(value, tuple | list if kind is tuple else Mapping):
        raise UserError(f"{path}: {shown(value)} is not valid; a value of type {kind.__name__} is needed")
    _check_plain(value, path)
    return kind(value)  # JSON knows no tuples


def _check_plain(value: Any, path: str, depth: int = 0) -> None:
    """Check that a value consists of texts, finite numbers, truth values, None, lists and dictionaries."""
    if depth > DEEPEST:
        raise UserError(f"{path[:LONGEST_SHOWN]}…: lists and dictionaries are nested too deeply")
    if isinstance(value, Mapping):
        for key, part in value.items():
            if not isinstance(key, str):
                raise UserError(f"{path}: {shown(key)} cannot be a key; a text is needed")
            _check_plain(part, f"{path}.{key}", depth + 1)
    elif isinstance(value, tuple | list):
        for number, part in enumerate(value):
            _check_plain(part, f"{path}[{number}]", depth + 1)
    elif isinstance(value, int | float):
        _check_finite(value, path)
    elif not isinstance(value, str | None):
        raise UserError(f"{path}: {shown(value)} is not valid; a text, a number, True, False or None is needed")


def _convert_scalar(value: Any, hint: type, path: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and hint in (int, float):
        _check_finite(value, path)
    if is_number and hint is float:
        return float(value) + 0.0  # without the sign of -0
    if is_number and hint is int and value == int(value):
        return int(value)
    if is_number and hint is str:
        raise UserError(f"{path}: the number {shown(value)} is not valid; a text is needed, in quotes: '{value}'")
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{path}: {shown(value)} is not valid; a value of type {hint.__name__} is needed")
    return value


def _check_finite(value: float, path: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path}: {value} is out of range; a finite number is needed")
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise UserError(f"{path}: {shown(value)} is out of range; at most {LARGEST_INTEGER} is possible")


def _check_range(value: Any, field: dataclasses.Field, path: str) -> Any:
    if field.metadata.get("is_amount") and (value or field.default):
        Amount.parse(value, path.removeprefix("config."))
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if (low is not None and value < low) or (high is not None and value > high):
        low, high = (f"{bound:,}" if isinstance(bound, int) else f"{bound or 0:g}" for bound in (low, high))
        bounds = f"at least {low}" if field.metadata["high"] is None else f"in [{low}, {high}]"
        raise UserError(f"{path}: {shown(value)} is out of range; it must be {bounds}")
    return value
