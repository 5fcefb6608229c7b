"""Amounts of training, such as "90ep", for budgets and for the intervals of evaluations and checkpoints.

The units are ep (epochs, as in "90ep"), img (images seen, "1.2e8img"), st (steps, "450000st"), flop (floating point
operations of the training step, "2e18flop"), and s (seconds of training, "3600s"; compilation, evaluation and saving
do not count).
"""

import dataclasses
import re
import typing
from typing import Literal

from imagenet_repro.config.text import parse_float, shown
from imagenet_repro.errors import UserError

Unit = Literal["ep", "img", "st", "flop", "s"]
UNITS = {"ep": "epochs", "img": "images", "st": "steps", "flop": "operations", "s": "seconds"}
SMALLEST, LARGEST = 1e-9, 1e30  # beyond them, numbers of steps would not be finite


@dataclasses.dataclass(frozen=True)
class Amount:
    """A positive amount in one unit."""

    value: float
    unit: Unit

    @classmethod
    def parse(cls, text: str, key: str = "budget") -> "Amount":
        """Return the amount that `text` describes, such as "90ep".

        Raises:
          UserError: `text` is not a number in [SMALLEST, LARGEST] followed by a unit; the message names `key`.
        """
        match = re.fullmatch(r"(.*?)(ep|img|st|flop|s)\s*", text, re.DOTALL)
        try:
            value = parse_float(match[1], f"config.{key}") if match else 0.0
        except UserError:
            value = 0.0
        if match is None or not SMALLEST <= value <= LARGEST:
            units = ", ".join(f"{unit} ({name})" for unit, name in UNITS.items())
            raise UserError(
                f"config.{key}: {shown(text)} is not an amount; write a number from {SMALLEST:g} to {LARGEST:g} and a"
                f" unit: {units}"
            )
        return cls(value, typing.cast(Unit, match[2]))

    def __str__(self) -> str:
        short = f"{self.value:g}"
        return f"{short if float(short) == self.value else repr(self.value)}{self.unit}"
