"""Strict reading of configuration files into the dataclasses of the schema.

A configuration file defines `get_config(argument=None)` and returns an `ml_collections.ConfigDict` with the keys that
it sets. `resolve_config` turns them into frozen dataclasses. An unknown key, a key that the chosen variant of a
section does not have, a value of another type or out of range raises `UserError` with the nearest valid name, before
anything is compiled. A section with variants (a crop, an optimizer, a schedule) has a key `name` that chooses the
dataclass, and only that dataclass's fields are valid beside it.

This module knows no field by its name: the rules of each field are in its type and its metadata (`fields.py`).
"""

import ast
import dataclasses
import importlib.util
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from imagenet_repro.config.recipes import find_recipe, make_recipes_importable
from imagenet_repro.config.run import AnyConfig, ConfigT, choose_schema
from imagenet_repro.errors import UserError, nearest


def load_config(spec: str, overrides: dict[str, str] | None = None) -> AnyConfig:
    """Return the configuration of `FILE.py` or `FILE.py:ARGUMENT`, with `overrides` of dotted keys applied.

    Args:
      spec: a Python file with `get_config(argument=None)`, and the argument to pass to it after a colon.
      overrides: texts by dotted key, such as `{"optimizer.learning_rate": "0.4"}`. A text that is a Python literal is
        read as one; any other stays a string. An override of a section's `name` drops the file's other keys of that
        section, since they belong to another variant.

    Raises:
      UserError: the file cannot be read or a key or value is not valid.
    """
    return resolve_config(read_settings(spec, overrides))


def read_settings(spec: str, overrides: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the nested settings that `load_config` resolves."""
    settings = _call_get_config(spec)
    for path, text in sorted((overrides or {}).items(), key=lambda item: not item[0].endswith(".name")):
        set_key(settings, path, parse_literal(text))
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
    for path, text in overrides.items():
        set_key(settings, path, parse_literal(text))
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


def _call_get_config(spec: str) -> dict[str, Any]:
    path, _, argument = spec.partition(":")
    file = find_recipe(path)
    if file is None:
        parent = Path(path).parent
        existing = [str(p) for p in parent.glob("*.py")] if parent.is_dir() else []
        raise UserError(f"--config={spec}: there is no file '{path}'; {nearest(path, existing)}")
    make_recipes_importable(file)
    module_spec = importlib.util.spec_from_file_location(file.stem, file)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f"--config={spec}: '{path}' is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"--config={spec}: line {error.lineno} is not Python: {error.msg}") from error
    if not hasattr(module, "get_config"):
        raise UserError(f"--config={spec}: '{path}' defines no get_config(argument=None)")
    try:
        settings = module.get_config(argument) if argument else module.get_config()
    except (KeyError, ValueError, TypeError) as error:
        given = f"the argument '{argument}'" if argument else "no argument"
        raise UserError(
            f"--config={spec}: '{path}' does not accept {given} ({type(error).__name__}: {error});"
            " its docstring says which arguments it accepts"
        ) from error
    return settings.to_dict() if hasattr(settings, "to_dict") else dict(settings)


def set_key(settings: dict[str, Any], path: str, value: Any) -> None:
    """Set a value by dotted key. A new `name` drops the section's other keys, unless the field is declared a `label`.

    Raises:
      UserError: a part of the path is a value and not a section.
    """
    *sections, last = path.split(".")
    section = settings
    for name in sections:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise UserError(f"--config.{path}: '{name}' is a value, not a section")
    if last == "name" and section.get("name") != value and not _keeps_section(choose_schema(settings), sections):
        section.clear()
    section[last] = value


def _keeps_section(kind: type, sections: Sequence[str]) -> bool:
    """Return whether a section of the schema keeps its keys when its `name` changes."""
    for section in sections:
        kind = typing.get_type_hints(kind).get(section, object)
        if not dataclasses.is_dataclass(kind):
            return False
    return any(field.name == "name" and field.metadata.get("keeps_section") for field in dataclasses.fields(kind))


def parse_literal(text: str) -> Any:
    """Return the value of a Python literal, of `true` or `false` in any case, or else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _build(kind: type, settings: Any, path: str, *, is_variant: bool = False) -> Any:
    if not isinstance(settings, Mapping):
        raise UserError(f"{path}: a section with keys is needed here, not {settings!r}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in settings.items():
        if name not in fields:
            variant = f" for name='{settings['name']}'" if is_variant and "name" in settings else ""
            raise UserError(f"{path}.{name}: no such key{variant}; {nearest(name, fields)}")
        values[name] = _convert(value, hints[name], fields[name], f"{path}.{name}")
    return kind(**values)


def _convert(value: Any, hint: Any, field: dataclasses.Field, path: str) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value, path)
    if typing.get_origin(hint) is types.UnionType:
        return _build(_choose(value, hint, field, path), value, path, is_variant=True)
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise UserError(f"{path}: {value!r} is not valid; {nearest(str(value), choices)}")
        return value
    if typing.get_origin(hint) is dict:
        return _convert_sections(value, typing.get_args(hint)[1], path)
    if typing.get_origin(hint) is tuple:
        return _convert_tuple(value, typing.get_args(hint), field, path)
    return _check_range(_convert_scalar(value, hint, path), field, path)


def _convert_sections(value: Any, kind: type, path: str) -> dict[str, Any]:
    """Return sections of one kind by names that the user chooses."""
    if not isinstance(value, Mapping) or not value:
        raise UserError(f"{path}: sections by name are needed here, at least one, not {value!r}")
    for name in value:
        if not (isinstance(name, str) and name.isidentifier()):
            raise UserError(f"{path}: {name!r} cannot be a name; letters, digits and underscores can")
    return {name: _build(kind, section, f"{path}.{name}") for name, section in value.items()}


def _choose(value: Any, hint: Any, field: dataclasses.Field, path: str) -> type:
    """Return the variant that the section's `name` chooses; without a name, that of the default."""
    if not isinstance(value, Mapping):
        raise UserError(f"{path}: a section with keys is needed here, not {value!r}")
    variants = {variant.name: variant for variant in typing.get_args(hint)}
    name = value.get("name", field.default.name)
    if name not in variants:
        raise UserError(f"{path}.name: {name!r} is not valid; {nearest(str(name), variants)}")
    return variants[name]


def _convert_tuple(value: Any, hints: tuple, field: dataclasses.Field, path: str) -> tuple:
    if not isinstance(value, tuple | list):
        raise UserError(f"{path}: a list of values is needed here, not {value!r}")
    if hints[-1] is Ellipsis:
        hints = (hints[0],) * len(value)
    kind = hints[0] if hints else None
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return tuple(_build(kind, part, f"{path}[{i}]") for i, part in enumerate(value))
    if len(hints) != len(value):
        raise UserError(f"{path}: {len(hints)} values are needed here, not {len(value)}")
    parts = tuple(_convert(v, h, field, path) for v, h in zip(value, hints, strict=True))
    if field.metadata.get("increasing") and list(parts) != sorted(parts):
        raise UserError(f"{path}: the values must not decrease, got {parts}")
    return parts


def _convert_scalar(value: Any, hint: type, path: str) -> Any:
    if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # a text on the command line that looks like a number
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint is tuple and isinstance(value, list):
        return tuple(value)  # JSON knows no tuples
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{path}: {value!r} is not valid; a value of type {hint.__name__} is needed")
    return value


def _check_range(value: Any, field: dataclasses.Field, path: str) -> Any:
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if (
        (low is not None and value < low)
        or (high is not None and value > high)
        or (isinstance(value, float) and math.isnan(value))
    ):
        bounds = f"at least {low:g}" if high is None else f"in [{low:g}, {high:g}]"
        raise UserError(f"{path}: {value!r} is out of range; it must be {bounds}")
    return value
