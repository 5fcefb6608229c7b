"""Declarations of configuration fields. Every rule that `load.py` checks is in a field's type or metadata.

A field that is an open dictionary may say in its metadata how texts for it are read: `types` of its values by name, or
`schemas`, of whose settings it holds some; with `has_several`, each with several values. A field of sections by name
may give the pattern of these `names`, which are identifiers otherwise.
"""

import dataclasses
from typing import Any


def bounded(default: Any, low: float | None = None, high: float | None = None, *, increasing: bool = False) -> Any:
    """Return a dataclass field whose number must lie in [low, high].

    Args:
      default: the value of the field where the configuration does not set it.
      low: the smallest number allowed; None: any.
      high: the largest number allowed; None: any.
      increasing: whether the values of a tuple must not decrease. Each of them must lie in [low, high].
    """
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "increasing": increasing})


def amount(default: str | tuple[str, ...]) -> Any:
    """Return a dataclass field of an amount (amount.py), or of several; empty only where the default is."""
    return dataclasses.field(default=default, metadata={"is_amount": True})


def label(default: str) -> Any:
    """Return the field `name` of a section that has no variants and whose other keys do not depend on the name.

    In every other section a new `name` on the command line drops the other keys that the file sets there.
    """
    return dataclasses.field(default=default, metadata={"keeps_section": True})
