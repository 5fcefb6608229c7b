"""How the fields of a configuration are declared."""

import dataclasses
from typing import Any


def bounded(default: Any, low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field whose number must lie in [low, high]; tuples are checked element by element."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})
