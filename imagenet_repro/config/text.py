"""Values from text, such as an override on the command line: the declared type of a key decides how it is read.

| type | text | value |
|---|---|---|
| text | `2024_01`, `1e3`, `0x10`, `true`, `None`, `[1]` | the same text |
| whole number | `1000`, `1_000`, `1e3`, `0x3e8` | 1000 |
| number | `0.5`, `.5`, `5e-1` | 0.5 |
| truth value | `true`, `yes`, `on`, `1`; `false`, `no`, `off`, `0`, in any case | `True`, `False` |
| list | `(0.2,1)`, `[0.2, 1]`, `0.2,1` | (0.2, 1.0) |
| dictionary | `{'stem': 'small'}`, or as JSON | the same dictionary |

One pair of quotes around a whole text is dropped, so `"'true'"` is the text `true`; a second pair stays. In a list,
quotes protect commas. `None` is a value only where the type has it beside others. A number must be finite: nan, inf
and 1e999 are refused, as is 1e-999, which is closer to 0 than any other number.
"""

import ast
import dataclasses
import decimal
import json
import math
import re
import types
import typing
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from imagenet_repro.errors import UserError

LARGEST_INTEGER = 2**63 - 1  # of the 64 bits that arrays, files and databases have
LONGEST_SHOWN = 100  # characters of a text in a message
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_NOTHING = ("none", "null")
_BASED = re.compile(r"[+-]?0(?:[xX][0-9a-fA-F_]+|[oO][0-7_]+|[bB][01_]+)")
_NUMBER = re.compile(r"[+-]?(?=\.?[0-9])[0-9_]*\.?[0-9_]*(?:[eE][+-]?[0-9]+)?")
# A part of a list: up to a comma that is not in quotes. A quote in the middle of a part is an ordinary character.
_PART = re.compile(r"""\s*("[^"]*"(?=\s*(?:,|$))|'[^']*'(?=\s*(?:,|$))|[^,]*?)\s*(?:,|$)""", re.DOTALL)


def parse_text(text: str, hint: Any, key: str) -> Any:
    """Return the value of a text for a key of a declared type.

    Args:
      text: as typed.
      hint: the type: str, bool, int, float, a Literal of texts, a tuple, list or dictionary, or a union of these.
      key: the key or option, for messages.

    Raises:
      UserError: the text is not of this type, or a number is not finite; the message names the key.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    is_union = origin in (types.UnionType, typing.Union)
    if _is_section(hint) or (is_union and all(map(_is_section, arguments))):
        return _parse_section(text, key)
    if is_union:
        return _parse_alternatives(text, arguments, key)
    if hint in (tuple, list) or (origin in (tuple, list) and _is_section(arguments[0])):
        return _parse_sections(text, key)
    if origin in (tuple, list, Iterable):
        return _parse_list(text, origin, arguments, key)
    parse_scalar = {bool: _parse_truth, int: parse_integer, float: parse_float}.get(hint)
    return unquoted(text) if parse_scalar is None else parse_scalar(text, key)


def parse_integer(text: str, key: str) -> int:
    """Return the whole number of a text such as `1_000`, `1e3` or `0x10`.

    Raises:
      UserError: it is not a whole number, or needs more than 64 bits.
    """
    bare = text.strip()
    try:
        number = decimal.Decimal(int(bare, 0) if _BASED.fullmatch(bare) else _matched(bare))
        is_whole = number.is_finite() and number == number.to_integral_value()
    except (ValueError, ArithmeticError):
        is_whole = False
    if not is_whole:
        raise UserError(f"{key}: {shown(text)} is not valid; a whole number is needed")
    if not -LARGEST_INTEGER <= number <= LARGEST_INTEGER:
        raise UserError(f"{key}: {shown(text)} is too large; a whole number up to {LARGEST_INTEGER} is needed")
    return int(number)


def parse_float(text: str, key: str) -> float:
    """Return the finite number of a text such as `0.5` or `1e-3`.

    Raises:
      UserError: it is not a number, not finite, or so small that it would become 0.
    """
    bare = text.strip()
    try:
        number = float(int(bare, 0)) if _BASED.fullmatch(bare) else float(_matched(bare))
    except (ValueError, OverflowError) as error:
        raise UserError(f"{key}: {shown(text)} is not valid; a finite number is needed") from error
    if math.isinf(number):
        raise UserError(f"{key}: {shown(text)} is too large for a number; 1.8e308 is the limit")
    if number == 0 and re.search("[1-9]", re.split("[eEpPxXbBoO]", bare)[0]):
        raise UserError(f"{key}: {shown(text)} is too small for a number; 4.9e-324 is the limit, or write 0")
    return number + 0.0  # without the sign of -0


def unquoted(text: str) -> str:
    """Return a text without one pair of quotes around all of it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def shown(value: Any) -> str:
    """Return a value as Python writes it, for a message, shortened."""
    try:
        text = repr(value)
    except Exception:  # a whole number of thousands of digits, or an object of the user's that cannot be shown
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _matched(text: str) -> str:
    """Return a text of the form of a decimal number without its underscores; raise ValueError for any other."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    float(text)  # knows where underscores may stand
    return text.replace("_", "")


def _is_section(hint: Any) -> bool:
    """Return whether values of a type are dictionaries: sections of the schema, or open dictionaries."""
    return hint is dict or typing.get_origin(hint) is dict or dataclasses.is_dataclass(hint)


def _parse_truth(text: str, key: str) -> bool:
    word = unquoted(text).strip().lower()
    if word not in _TRUE + _FALSE:
        raise UserError(f"{key}: {shown(text)} is not valid; true or false is needed")
    return word in _TRUE


def _parse_alternatives(text: str, hints: Sequence[Any], key: str) -> Any:
    """Return the value of the first type that the text has; a text comes last, since every text is one."""
    if type(None) in hints and text.strip().lower() in _NOTHING:
        return None
    errors = []
    for hint in sorted((hint for hint in hints if hint is not type(None)), key=lambda hint: hint is str):
        try:
            return parse_text(text, hint, key)
        except UserError as error:
            errors.append(error)
    raise errors[0]


def _parse_list(text: str, kind: Any, hints: Sequence[Any], key: str) -> tuple | list:
    """Return the values of a list; a tuple of a fixed length has a type for each place."""
    bare = text.strip()
    if bare[:1] + bare[-1:] in ("()", "[]"):
        bare = bare[1:-1]
    parts = _split_at_commas(bare)
    has_fixed_length = kind is tuple and hints[-1] is not Ellipsis and len(hints) == len(parts)
    values = [
        parse_text(part, hint, key)
        for part, hint in zip(parts, hints if has_fixed_length else [hints[0]] * len(parts), strict=True)
    ]
    return tuple(values) if kind is tuple else values


def _split_at_commas(text: str) -> list[str]:
    """Return the parts of a text between commas that are not in quotes; a comma at the end adds no part."""
    parts, start = [], 0
    while text[start:].strip():
        match = _PART.match(text, start)
        assert match, "a part may be any text"
        parts.append(match[1])
        start = match.end()
    return parts


def _parse_section(text: str, key: str) -> dict[str, Any]:
    """Return a dictionary that is written in Python or JSON."""
    value = _read_literal(text)
    if not isinstance(value, dict):
        example = "\"{'stem': 'small'}\""
        raise UserError(
            f"{key}: {shown(text)} is not valid; set one of its keys, {key}.KEY=VALUE, or write a dictionary as in"
            f" Python or JSON, such as {example}"
        )
    return value


def _parse_sections(text: str, key: str) -> list | tuple:
    """Return a list that is written in Python or JSON."""
    value = _read_literal(text)
    if not isinstance(value, list | tuple):
        raise UserError(f'{key}: {shown(text)} is not valid; a list as in Python or JSON is needed, such as "[{{}}]"')
    return value


def _read_literal(text: str) -> Any:
    """Return the value of a literal of Python or JSON; None where the text is neither."""
    for read in (ast.literal_eval, json.loads):
        try:
            with warnings.catch_warnings(action="ignore"):  # of Python's parser, about the text
                return read(text.strip())
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
    return None
