"""The settings in which the systems of a comparison differ: a table, and a sentence for the verdict."""

from collections.abc import Mapping, Sequence
from typing import Any

from imagenet_repro.report import run_settings
from imagenet_repro.report.records import Comparison
from imagenet_repro.report.tables import MISSING, Table
from imagenet_repro.report.text import enumerated

TITLE = "What differs"
# The keys that choose an architecture, or the features of a system before 2012; with all keys below them.
ARCHITECTURE = ("model.name", "model.options", "system", "channels")
MOST_NAMED = 6  # parts of the configuration in a sentence


def table(comparison: Comparison) -> Table | None:
    """Return a row for each setting in which systems differ, with a column for each system; None if there is none."""
    settings = [system.settings for system in comparison.systems]
    keys = run_settings.differing_keys(settings)
    if not keys:
        return None
    rows = tuple((key, *(run_settings.as_text(one.get(key)) or MISSING for one in settings)) for key in keys)
    caption = (
        "Every key of the configuration in which the systems differ, with its value in each. Seeds, names, and keys"
        " that only say where data are or how fast a run works are left out; files of weights with equal content are"
        f" equal. {MISSING}: empty, or the system has no such key."
    )
    return Table("what_differs", ("setting", *(system.name for system in comparison.systems)), rows, caption)


def sentence(comparison: Comparison) -> str:
    """Return a sentence with the parts of the configuration that differ beside the architecture, if any does.

    Systems of different kinds have different keys. These say nothing more than the kind, so the parts that are named
    differ among systems of one kind.
    """
    settings = [system.settings for system in comparison.systems]
    if len(settings) < 2:
        return ""
    if not run_settings.differing_keys(settings):
        return "These systems have equal settings; runs with the same name and settings count as seeds of one system."
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for one in settings:
        kinds.setdefault(_kind(one), []).append(one)
    keys = list(dict.fromkeys(key for alike in kinds.values() for key in run_settings.differing_keys(alike)))
    others = [key for key in keys if not _is_architecture(key)]
    clauses = []
    if len(kinds) > 1:
        clauses.append(f"{enumerated([*kinds])} have different recipes")
    if others:
        also = "also " if len(kinds) > 1 or len(others) < len(keys) else ""
        clauses.append(f"these systems {also}differ in {_name(_parts(others))}")
    if not clauses:
        return ""
    text = "; ".join(clauses)
    is_mixed = len(kinds) > 1 or len(others) < len(keys)
    meaning = ", so the difference is not one of architecture alone" if is_mixed else ""
    return f"{text[0].upper()}{text[1:]}{meaning} (table “{TITLE}”)."


def _kind(settings: Mapping[str, Any]) -> str:
    """Return the kind of a system, in the plural."""
    if any(key.partition(".")[0] == "channels" for key in settings):
        return "systems of hand-made features"
    return "classifiers of frozen features" if "classifier" in settings else "networks"


def _name(parts: list[str]) -> str:
    """Return the first parts of the configuration and the number of the others."""
    if len(parts) <= MOST_NAMED:
        return enumerated(parts)
    return enumerated([*parts[: MOST_NAMED - 1], f"{len(parts) - MOST_NAMED + 1} more parts of the configuration"])


def _is_architecture(key: str) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in ARCHITECTURE)


def _parts(keys: Sequence[str]) -> list[str]:
    """Return the parts of the configuration that hold these keys: a section with several of them, or a key."""
    sections: dict[str, list[str]] = {}
    for key in keys:
        sections.setdefault(key.partition(".")[0], []).append(key)
    return [name if len(inside) > 1 else inside[0].removesuffix(".name") for name, inside in sections.items()]
