"""Amounts and names as tables and figures write them."""

import math
import re
from collections import Counter
from collections.abc import Sequence

NAME_LENGTH = 34  # characters
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # what no SVG may contain
UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def quantity(value: int | float) -> str:
    """Return a count with three significant digits and a unit, as papers write sizes: 61.1 M, 714 M, 4.09 G."""
    if value < 1000:
        return f"{value:g}"
    # A value that three digits round up to the next unit takes that unit: 999,999 is 1.00 M, not 1000 k.
    scale, unit = next((scale, unit) for scale, unit in UNITS if value >= 0.9995 * scale)
    scaled = value / scale
    decimals = max(0, 2 - math.floor(math.log10(scaled * 1.0005)))
    return f"{scaled:.{decimals}f} {unit}"


def seconds(value: int | float) -> str:
    """Return whole seconds, with one decimal below a hundred."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}"


def signed(points: float) -> str:
    """Return a difference with its sign and one decimal; zero has no sign."""
    text = f"{points:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def clipped(name: str) -> str:
    """Return the name, or its beginning if it is too long for a figure."""
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1].rstrip() + "…"


def clipped_name(name: str) -> str:
    """Return the name of a system, without its middle if it is too long for a figure: its end tells it apart."""
    if len(name) <= NAME_LENGTH:
        return name
    tail = NAME_LENGTH // 2
    return f"{name[: NAME_LENGTH - tail - 1].rstrip()}…{name[-tail:].lstrip()}"


def escaped_character(character: str) -> str:
    r"""Return an escape that stands for a character, such as `\x07`."""
    if ord(character) > 127:
        return character.encode("ascii", "backslashreplace").decode()
    return f"\\x{ord(character):02x}"


def printable(text: str) -> str:
    """Return a text in which control characters and halves of surrogate pairs, which no file can hold, are escapes."""
    return UNPRINTABLE.sub(lambda match: escaped_character(match[0]), text)


def enumerated(names: Sequence[str]) -> str:
    """Return names as a list in a sentence: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def short_names(names: Sequence[str]) -> list[str]:
    """Return each class name up to its first comma.

    If two classes would share the short name, more of the name or the class's number is added.
    """
    heads = [clipped(name.split(",")[0].strip()) for name in names]
    stages = [heads, list(map(clipped, names)), [f"{head} (class {i})" for i, head in enumerate(heads)]]
    counts = list(map(Counter, stages))
    candidates = zip(*stages, strict=True)
    return [next(name for name, count in zip(one, counts, strict=True) if count[name] == 1) for one in candidates]
