"""A sweep's `cross`: the systems with every combination of the values of some settings, under readable names.

`cross = {"optimizer.learning_rate": (0.1, 0.3), "data.image_size": (64, 128)}` trains each system in four versions,
such as `resnet18,learning_rate=0.1,image_size=64`. A system's own `cross` adds keys, replaces the values of a key, or
with `()` leaves a key out. Its `leave_out` names combinations that are not trained.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, TypeVar

from imagenet_repro.config.keys import find_keys, short_keys
from imagenet_repro.config.load import config_to_dict, flatten_settings
from imagenet_repro.config.run import Config, FeatureConfig, FrozenConfig
from imagenet_repro.config.text import shown
from imagenet_repro.errors import UserError, nearest

SEPARATOR = ","  # between a system's name and the settings that tell its versions apart; names on paths have no spaces
NAMES = re.compile(r"[^\W\d]\w*(,[\w.]+=[^\s,/]*)*")  # of a system, and of its versions
LONGEST_NAME = 180  # characters; a name is that of a directory
SCHEMAS: tuple[Any, ...] = (Config, FeatureConfig, FrozenConfig)
OPEN = ("model.options.", "channels.")  # keys below these are names that only networks and recipes know
KEY = re.compile(r"\w+(\.\w+)*")

SystemT = TypeVar("SystemT")


def title(name: str) -> str:
    """Return the name of a system as tables and pages write it, with a space after each comma."""
    return name.replace(SEPARATOR, f"{SEPARATOR} ")


def original_name(name: str) -> str:
    """Return the name that a system has in the sweep's file."""
    return name.partition(SEPARATOR)[0]


def expand(cross: Mapping[str, Any], systems: Mapping[str, SystemT]) -> dict[str, SystemT]:
    """Return the systems by name, each with every combination of its crossed values in its `crossed`.

    Args:
      cross: the values of each key, by dotted key or nested.
      systems: the systems, whose own `cross` and `leave_out` are read.

    Raises:
      UserError: a key is not valid, values are missing or repeated, or a name would be too long.
    """
    shared = _read(cross, "config.cross")
    own = {name: _own(shared, system, f"config.systems.{name}") for name, system in systems.items()}
    all_values: dict[str, list[Any]] = {}
    for of_system in own.values():
        for key, values in of_system.items():
            all_values.setdefault(key, []).extend(value for value in values if value not in all_values.get(key, ()))
    parts = _name_parts(all_values)
    expanded: dict[str, SystemT] = {}
    for name, system in systems.items():
        for crossed in _combinations(own[name], getattr(system, "leave_out", ()), f"config.systems.{name}"):
            version = _version_name(name, crossed, parts)
            changes: dict[str, Any] = {"crossed": crossed, "cross": {}, "leave_out": ()} if own[name] else {}
            expanded[version] = dataclasses.replace(system, **changes)  # pyright: ignore[reportArgumentType]
    return expanded


def _read(cross: Mapping[str, Any], path: str, *, may_be_empty: bool = False) -> dict[str, list[Any]]:
    """Return the values by dotted key, checked; nested keys, which the command line sets, come last."""
    values = {}
    for key, of_key in _flat(cross):
        _check_key(key, of_key, path)
        values[key] = _check_values(of_key, f"{path}.{key}", may_be_empty=may_be_empty)
    for key, other in itertools.permutations(values, 2):
        if other.startswith(f"{key}."):
            raise UserError(f"{path}: {other} is a part of {key}; cross one of the two")
    return values


def _check_key(key: str, values: Any, path: str) -> None:
    """Raise UserError for a key that no run has; options of networks, which only the network knows, are left to it."""
    if not KEY.fullmatch(key):
        raise UserError(f"{path}: {shown(key)} is not the dotted key of a configuration")
    is_known = any(next(find_keys(kind, None, key.split("."), is_open=True), None) for kind in SCHEMAS)
    if not is_known and (isinstance(values, str) or not key.startswith(OPEN)):
        known = [name for kind in SCHEMAS for name in flatten_settings(config_to_dict(kind()))]
        raise UserError(f"{path}.{key}: no run has such a key; {nearest(key, dict.fromkeys(known))}")


def _flat(cross: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in cross.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _check_values(values: Any, path: str, *, may_be_empty: bool) -> list[Any]:
    if not isinstance(values, tuple | list):
        raise UserError(
            f"{path}: several values are needed here, such as (0.1, 0.3), not {shown(values)}; one value for all runs"
            " belongs in `set`"
        )
    plain = json.loads(json.dumps(values))  # tuples are lists in the record of a sweep
    if not plain and not may_be_empty:
        raise UserError(f"{path}: there is no value; give some, or remove the key")
    for index, value in enumerate(plain):
        if value in plain[:index]:
            raise UserError(f"{path}: {shown(value)} is there twice; each combination is trained once for each seed")
    return plain


def _own(shared: Mapping[str, list[Any]], system: Any, path: str) -> dict[str, list[Any]]:
    """Return the crossed values of one system."""
    own = _read(system.cross, f"{path}.cross", may_be_empty=True)
    for key, values in own.items():
        if not values and key not in shared:
            raise UserError(f"{path}.cross.{key}: there is no value, and no such key in config.cross to leave out")
    merged = {key: values for key, values in {**shared, **own}.items() if values}
    for axis in system.search:
        if axis.key in merged:
            raise UserError(f"{path}.search: {axis.key} is crossed as well; search it, or cross it")
    return merged


def _combinations(values: Mapping[str, list[Any]], leave_out: Sequence[Any], path: str) -> list[dict[str, Any]]:
    """Return every combination of values that is trained; one without any setting where nothing is crossed."""
    combinations = [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]
    for number, rule in enumerate(leave_out):
        pairs = _read_rule(rule, values, f"{path}.leave_out[{number}]")
        kept = [one for one in combinations if not pairs.items() <= _hashable(one).items()]
        if len(kept) == len(combinations):
            raise UserError(f"{path}.leave_out[{number}]: {shown(rule)} was left out before; remove it")
        combinations = kept
    if not combinations:
        raise UserError(f"{path}.leave_out: no combination remains; remove the system, or some of the rules")
    return combinations


def _read_rule(rule: Any, values: Mapping[str, list[Any]], path: str) -> dict[str, str]:
    """Return the values that a rule of `leave_out` names by key, each as a text."""
    if not isinstance(rule, Mapping) or not rule:
        raise UserError(f"{path}: values by crossed key are needed here, such as {{'batch_size': 512}}")
    own = [(key, rule[key]) for key in rule if key in values]  # also sections, which are values here
    pairs = dict([*own, *_flat({key: rule[key] for key in rule if key not in values})])
    for key, value in pairs.items():
        if key not in values:
            crossed = nearest(key, values) if values else "nothing is crossed"
            raise UserError(f"{path}: {key} is not crossed for this system; {crossed}")
        if json.loads(json.dumps(value)) not in values[key]:
            raise UserError(f"{path}: {shown(value)} is not among the values of {key}, {shown(values[key])}")
    plain = {key: json.loads(json.dumps(value)) for key, value in pairs.items()}
    return _hashable({key: values[key][values[key].index(value)] for key, value in plain.items()})


def _hashable(settings: Mapping[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value, sort_keys=True) for key, value in settings.items()}


def _name_parts(all_values: Mapping[str, Sequence[Any]]) -> dict[str, list[tuple[Any, str]]]:
    """Return by key each value with its part of a name, so that no two values of a key have the same."""
    short = short_keys(all_values, all_values)
    parts = {}
    for key, values in all_values.items():
        texts = list(map(value_text, values))
        if len(set(texts)) < len(texts):  # such as the paths of two files of one name
            texts = [f"{text}-{number}" for number, text in enumerate(texts, 1)]
        parts[key] = [(value, f"{short[key]}={text}") for value, text in zip(values, texts, strict=True)]
    return parts


def _version_name(name: str, crossed: Mapping[str, Any], parts: Mapping[str, Sequence[tuple[Any, str]]]) -> str:
    own = [next(text for known, text in parts[key] if known == value) for key, value in crossed.items()]
    version = SEPARATOR.join([name, *own])
    if len(version) > LONGEST_NAME:
        raise UserError(
            f"config.systems.{name}: the name of one of its versions would have {len(version)} characters, and a"
            f" directory may have {LONGEST_NAME}; write these systems into `systems`, each with a name and its `set`"
        )
    return version


def value_text(value: Any) -> str:
    """Return a value as the name of a system has it: without spaces, commas and slashes.

    A path is its last part, the values of a list are joined by underscores, and a section is its `name` and its keys.
    """
    if isinstance(value, Mapping):
        parts = [value_text(part) if key == "name" else f"{key}:{value_text(part)}" for key, part in value.items()]
        return "_".join(parts)
    if isinstance(value, list | tuple):
        return "_".join(map(value_text, value))
    text = PurePath(value).name or "none" if isinstance(value, str) else str(value)
    return re.sub(r"[\s,/=]+", "-", text)
