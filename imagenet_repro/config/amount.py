"""Amounts of training, such as "90ep", for budgets and for the intervals of evaluations and checkpoints.

The units are ep (epochs, as in "90ep"), img (images seen, "1.2e8img"), st (steps, "450000st"), flop (floating point
operations of the training step, "2e18flop"), and s (seconds of training, "3600s"; compilation, evaluation and saving
do not count).
"""

import dataclasses
import math
import re
import typing
from typing import Literal

from imagenet_repro.errors import UserError

Unit = Literal["ep", "img", "st", "flop", "s"]
UNITS = {"ep": "epochs", "img": "images", "st": "steps", "flop": "operations", "s": "seconds"}


@dataclasses.dataclass(frozen=True)
class Amount:
    """A positive amount in one unit."""

    value: float
    unit: Unit

    @classmethod
    def parse(cls, text: str, key: str = "budget") -> "Amount":
        """Return the amount that `text` describes, such as "90ep".

        Raises:
          UserError: `text` is not a positive number followed by a unit; the message names `key`.
        """
        match = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(ep|img|st|flop|s)\s*", text)
        try:
            value = float(match[1]) if match else 0.0
        except ValueError:
            value = 0.0
        if match is None or not value > 0 or math.isinf(value):
            units = ", ".join(f"{unit} ({name})" for unit, name in UNITS.items())
            raise UserError(f"config.{key}: {text!r} is not an amount; write a positive number and a unit: {units}")
        return cls(value, typing.cast(Unit, match[2]))

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"
