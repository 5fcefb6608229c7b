"""Names that tell the systems of a comparison apart, from the settings in which they differ."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from imagenet_repro.config.keys import short_keys
from imagenet_repro.report import run_settings

MOST_KEYS = 3  # of the combinations that are tried; beyond that keys are added one by one
MODEL = "model."


def tell_apart(names: Sequence[str], settings: Sequence[Mapping[str, Any]], places: Sequence[str]) -> list[str]:
    """Return the names; those that occur more than once are followed by the settings that tell them apart.

    The shortest set of keys is taken whose values differ between all systems of one name: of equally short ones that
    with keys of the model, then with the names of sections, then in the order of the configuration. Values that are
    empty are not written, so that `resnet18` stands beside `resnet18, weights=pre.safetensors`. Systems with equal
    settings are followed by their places.

    Args:
      names: one for each system.
      settings: those of each system, by dotted key (`run_settings.of_run`).
      places: where each system is, such as a directory.
    """
    unique = list(names)
    for name in dict.fromkeys(names):
        members = [index for index, other in enumerate(names) if other == name]
        if len(members) > 1:
            details = _details([settings[index] for index in members])
            for index, detail in zip(members, details, strict=True):
                unique[index] = ", ".join(filter(None, (name, detail)))
    return _with_places(unique, places)


def _with_places(names: Sequence[str], places: Sequence[str]) -> list[str]:
    return [f"{name} in {place}" if names.count(name) > 1 else name for name, place in zip(names, places, strict=True)]


def _details(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each system the values of the shortest set of keys that tells all apart."""
    keys = _shortest(settings)
    short = short_keys(keys, [key for one in settings for key in one])
    texts = {key: _texts([one.get(key) for one in settings]) for key in keys}
    return [
        ", ".join(f"{short[key]}={texts[key][index]}" for key in keys if texts[key][index])
        for index in range(len(settings))
    ]


def _texts(values: Sequence[Any]) -> list[str]:
    """Return values as texts; files of weights by their last part, where that tells them apart."""
    long, short = map(run_settings.as_text, values), map(run_settings.file_name, values)
    long, short = list(long), list(short)
    return short if len(set(short)) == len(set(long)) else long


def _shortest(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = sorted(run_settings.differing_keys(settings), key=_rank)
    codes = {key: _codes([one.get(key) for one in settings]) for key in keys}
    counts = {key: len(set(codes[key])) for key in keys}
    for size in range(1, MOST_KEYS + 1):
        for chosen in itertools.combinations(keys, size):
            can_suffice = math.prod(counts[key] for key in chosen) >= len(settings)
            if can_suffice and _count_distinct(chosen, codes) == len(settings):
                return list(chosen)
    return _add_one_by_one(keys, codes)


def _add_one_by_one(keys: Sequence[str], codes: Mapping[str, Sequence[int]]) -> list[str]:
    """Return keys that tell as many systems apart as all keys do, each time the one that tells most apart."""
    chosen: list[str] = []
    while keys:
        best = max(keys, key=lambda key: _count_distinct([*chosen, key], codes))
        if _count_distinct([*chosen, best], codes) == _count_distinct(chosen, codes):
            break
        chosen.append(best)
    return chosen


def _rank(key: str) -> tuple[bool, bool]:
    return not key.startswith(MODEL), not key.endswith(".name")


def _codes(values: Sequence[Any]) -> list[int]:
    """Return a number for each value, equal for equal values."""
    known: dict[str, int] = {}
    texts = [run_settings.identity({"": run_settings.filled(value)}) for value in values]
    return [known.setdefault(text, len(known)) for text in texts]


def _count_distinct(keys: Sequence[str], codes: Mapping[str, Sequence[int]]) -> int:
    """Return how many systems differ in these keys."""
    return len(set(zip(*(codes[key] for key in keys), strict=True))) if keys else 1
