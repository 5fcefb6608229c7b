"""Names of classes and files: which survive being stored, and their form in messages."""

import shlex
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

MAX_SHOWN = 5  # names that a message lists
_LINE_ENDS = {"Cc", "Zl", "Zp"}  # Unicode's categories of control characters and separators of lines


def printable(text: str) -> str:
    """Return a text with the characters that a terminal would not show escaped, as are bytes that are not UTF-8."""
    decoded = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in decoded)


def typed(path: object) -> str:
    """Return a path as one word of a command that a user can type."""
    return shlex.quote(printable(str(path)))


def some(names: Iterable[str]) -> str:
    """Return the first few names in order, escaped, and the number of the others."""
    ordered = sorted(names)
    shown = ", ".join(map(printable, ordered[:MAX_SHOWN]))
    return shown if len(ordered) <= MAX_SHOWN else f"{shown} and {len(ordered) - MAX_SHOWN} more"


def is_utf8(name: str) -> bool:
    """Return whether a name from the file system was UTF-8; other bytes are lone surrogates in it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def class_problem(name: str) -> str:
    """Return why a class of this name would have another one when it is read; empty for a name that survives.

    tfds stores the names as lines of a text file, and drops blanks around them and empty lines when it reads them.
    """
    if not is_utf8(name):
        return "is not UTF-8"
    if any(unicodedata.category(one) in _LINE_ENDS for one in name):
        return "has a line end or another control character"
    if name != name.strip():
        return "begins or ends with a blank"
    return ""


def lookalikes(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ in letter case or in the form of their Unicode characters alone."""
    groups = defaultdict(set)
    for name in names:
        groups[canonical(name).casefold()].add(name)
    return [sorted(group) for _, group in sorted(groups.items()) if len(group) > 1]


def canonical(name: str) -> str:
    """Return the one form of a name among those that Unicode holds equal, such as an accent apart from its letter."""
    return unicodedata.normalize("NFC", name)
