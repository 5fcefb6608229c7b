"""What the registry knows of one network before it is built."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Spec:
    """One row of a family's table of variants.

    `builder(*sizes, rngs=, num_classes=, dtype=, **options)` makes the module: what distinguishes the variant is
    positional and comes from this table, what a user may choose is keyword-only.
    """

    year: int
    title: str  # as a person would write it
    paper: str  # where it is described
    reference: str  # the implementation whose parameter names and results it has
    builder: Callable[..., Any]
    sizes: tuple[Any, ...] = ()
    image_size: int = 224  # pixels, square: where its published results were measured
    aliases: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """Name and default of every option a user may set."""
        builder = self.builder.__init__ if inspect.isclass(self.builder) else self.builder
        parameters = inspect.signature(builder).parameters.values()
        given = ("rngs", "num_classes", "dtype")
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in given}
