"""Checks of the values that a user gives for a network's options."""

import math
from typing import Any, NamedTuple

from imagenet_repro.errors import UserError


class Rule(NamedTuple):
    """The values that an option may have: a type, and for numbers a range."""

    kind: type
    low: float = -math.inf
    below: float = math.inf
    optional: bool = False  # whether None is valid too; it stands for the variant's own value

    def allows(self, value: Any) -> bool:
        """Return whether `value` is valid: an int counts as a float, a bool does not count as a number."""
        if value is None:
            return self.optional
        if isinstance(value, bool) or self.kind in (bool, str):
            return type(value) is self.kind
        is_number = isinstance(value, (int, float) if self.kind is float else int)
        return is_number and math.isfinite(value) and self.low <= value < self.below

    def __str__(self) -> str:
        valid = {bool: "True or False", str: "a string", int: "a whole number", float: "a number"}[self.kind]
        if self.low > -math.inf:
            valid += f" from {self.low} on" if self.below == math.inf else f" from {self.low} to below {self.below}"
        return f"{valid}, or None" if self.optional else valid


RULES = {  # of options whose range does not follow from the default
    "dropout": Rule(float, 0, 1),
    "auxiliary_dropout": Rule(float, 0, 1),
    "drop_path": Rule(float, 0, 1),
    "norm_momentum": Rule(float, 0, 1),
    "norm_epsilon": Rule(float, 0, 1),
    "image_size": Rule(int, 1),
    "depth": Rule(int, 1, optional=True),
    "scan": Rule(bool, optional=True),
    "remat": Rule(bool, optional=True),
}
CLASSES = Rule(int, 0)


def check_options(network: str, defaults: dict[str, Any], options: dict[str, Any]) -> None:
    """Check that `network` has the options, and that each value has the type of its default and the range of `RULES`.

    Raises:
      UserError: the network lacks an option, or a value is not valid.
    """
    for option, value in options.items():
        if option not in defaults:
            valid = ", ".join(f"{key}={default!r}" for key, default in defaults.items()) or "none"
            raise UserError(f"{network} has no option '{option}'; its options and their defaults: {valid}")
        _check(network, option, value, _rule(option, defaults[option]))


def check_num_classes(network: str, num_classes: Any) -> None:
    """Check a number of classes; 0 is a network without a head.

    Raises:
      UserError: it is not a whole number from 0 on.
    """
    _check(network, "num_classes", num_classes, CLASSES)


def _rule(option: str, default: Any) -> Rule:
    rule = RULES.get(option, Rule(type(default)))
    return rule if default is None else rule._replace(optional=False)


def _check(network: str, option: str, value: Any, rule: Rule) -> None:
    if not rule.allows(value):
        raise UserError(f"{network}: {option} is {value!r}; it must be {rule}")
