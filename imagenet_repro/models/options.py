"""Whether the values given for a network's options are such as the options take."""

import math
from typing import Any, NamedTuple

from imagenet_repro.errors import UserError


class Rule(NamedTuple):
    """What an option takes: a type, and for numbers where they lie."""

    kind: type
    low: float = -math.inf
    below: float = math.inf
    optional: bool = False  # None, too: the variant's own value

    def allows(self, value: Any) -> bool:
        """Whether the option takes `value`: no bool for a number, an int for a float, no number that is not finite."""
        if value is None:
            return self.optional
        if isinstance(value, bool) or self.kind in (bool, str):
            return type(value) is self.kind
        number = isinstance(value, (int, float) if self.kind is float else int)
        return number and math.isfinite(value) and self.low <= value < self.below

    def __str__(self) -> str:
        valid = {bool: "True or False", str: "a string", int: "a whole number", float: "a number"}[self.kind]
        if self.low > -math.inf:
            valid += f" from {self.low} on" if self.below == math.inf else f" from {self.low} to below {self.below}"
        return f"{valid}, or None" if self.optional else valid


RULES = {  # what a default does not say
    "dropout": Rule(float, 0, 1),
    "drop_path": Rule(float, 0, 1),
    "image_size": Rule(int, 1),
    "depth": Rule(int, 1, optional=True),
    "scan": Rule(bool, optional=True),
}
CLASSES = Rule(int, 0)


def check_options(network: str, defaults: dict[str, Any], given: dict[str, Any]) -> None:
    """Raises UserError for an option that `network` lacks, and for a value that an option does not take.

    A value must be of its default's type, and in the range that `RULES` has for the option.
    """
    for option, value in given.items():
        if option not in defaults:
            valid = ", ".join(f"{key}={default!r}" for key, default in defaults.items()) or "none"
            raise UserError(f"{network} has no option '{option}'; its options and their defaults: {valid}")
        _check(network, option, value, _rule(option, defaults[option]))


def check_num_classes(network: str, num_classes: Any) -> None:
    """Raises UserError where there cannot be so many classes; 0 is a network without a head."""
    _check(network, "num_classes", num_classes, CLASSES)


def _rule(option: str, default: Any) -> Rule:
    rule = RULES.get(option, Rule(type(default)))
    return rule if default is None else rule._replace(optional=False)


def _check(network: str, option: str, value: Any, rule: Rule) -> None:
    if not rule.allows(value):
        raise UserError(f"{network}: {option} is {value!r}; it must be {rule}")
