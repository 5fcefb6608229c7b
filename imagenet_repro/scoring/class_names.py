"""Names of classes: whether two lists name the same classes, and the index of each class in the other list.

A class index means nothing without the list that it counts. Two data sets may number the same classes differently, so
systems, data sets, files of weights and predictions are brought together by the names of their classes.

| two lists | result |
|---|---|
| equal | nothing to do |
| the same names in another order | aligned by name, with a note |
| some of the other's names | aligned by name, with a note, where the caller allows it |
| a list without names, or of numbers 0 to n - 1 | the same number of classes is all that is checked, with a note |
| anything else | refused, with the difference |

A WordNet id and a name of that noun are the same class where only one id of the list has that name: n01443537 is
"goldfish" and "goldfish, Carassius auratus", but none of ImageNet's two classes is just "crane".
"""

import dataclasses
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import wordnet

MAX_NAMED = 3  # classes in one message


@dataclasses.dataclass(frozen=True)
class ClassMatch:
    """The classes of one list among those of another.

    Attributes:
      index: the index in the other list of each class.
      note: a sentence for the reader about what was aligned or could not be checked; empty if the lists are equal.
      is_checked: whether both lists have names.
    """

    index: Int32[np.ndarray, " c"]
    note: str = ""
    is_checked: bool = True

    @property
    def is_same_order(self) -> bool:
        """Whether each class has the same index in both lists."""
        return bool(np.array_equal(self.index, np.arange(len(self.index))))


def of_provenance(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes in stored predictions; empty if an older version stored them."""
    names = provenance.get("classes")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def numbered(count: int) -> tuple[str, ...]:
    """Return the numbers 0 to `count` - 1 in place of names."""
    return tuple(map(str, range(count)))


def has_names(names: Sequence[str]) -> bool:
    """Return whether a list names its classes, and does not only number them."""
    return len(names) > 0 and tuple(names) != numbered(len(names))


def match(
    names: Sequence[str], owner: str, others: Sequence[str], other_owner: str, *, partial: bool = False
) -> ClassMatch:
    """Return the index of each class of a list in another list.

    Args:
      names: class names by index; without names, `numbered` of their count.
      owner: what has these classes, for messages.
      others: class names by index of the other list.
      other_owner: what has those classes, for messages.
      partial: whether the first list may lack classes of the other.

    Raises:
      UserError: the classes are not the same; the message names the difference.
    """
    names, others = tuple(names), tuple(others)
    are_named = has_names(names) and has_names(others)
    if names == others and are_named:
        return ClassMatch(_identity(names))
    keys, other_keys = _comparable(names, others)
    # Folders named 0, 1, 10, 11, … have these numbers as names, which then are those of a list that counts.
    if not are_named and (names == others or set(keys) != set(other_keys)):
        return _match_numbers(names, owner, others, other_owner)
    places = {key: index for index, key in enumerate(other_keys)}
    is_complete = len(names) == len(others) or (partial and len(names) < len(others))
    if not is_complete or not set(keys) <= places.keys() or _repeated(keys) or _repeated(other_keys):
        raise UserError(_difference((names, keys, owner), (others, other_keys, other_owner)))
    index = np.array([places[key] for key in keys], np.int32)
    return ClassMatch(index, _note(names, owner, others, other_owner, index))


def check_same_order(names: Sequence[str], owner: str, others: Sequence[str], other_owner: str) -> None:
    """Raise UserError unless both lists have the same classes in the same order, as far as they have names."""
    index = match(names, owner, others, other_owner).index
    if not np.array_equal(index, _identity(names)):
        raise UserError(f"{_other_order(names, owner, others, other_owner, index)}, and the same order is needed")


def _match_numbers(names: Sequence[str], owner: str, others: Sequence[str], other_owner: str) -> ClassMatch:
    """Match classes without names, where only their number is known."""
    if len(names) != len(others):
        raise UserError(
            f"{owner} has {len(names):,} classes and {other_owner} {len(others):,}; without names they cannot be"
            " aligned"
        )
    nameless = [one for one, own in ((owner, names), (other_owner, others)) if not has_names(own)]
    reason = f"{nameless[0]} has no names for its classes" if len(nameless) == 1 else "neither has names for them"
    note = (
        f"{owner} and {other_owner} have {len(names):,} classes each; whether these are the same, in the same order,"
        f" was not checked: {reason}"
    )
    return ClassMatch(_identity(names), note, is_checked=False)


def _identity(names: Sequence[str]) -> Int32[np.ndarray, " c"]:
    return np.arange(len(names), dtype=np.int32)


def _note(names: Sequence[str], owner: str, others: Sequence[str], other_owner: str, index: np.ndarray) -> str:
    """Return a sentence on how one list is aligned with another."""
    if len(names) < len(others):
        return (
            f"{owner} has {len(names):,} of the {len(others):,} classes of {other_owner}; they are aligned by name,"
            f" and guesses are among all {len(others):,}"
        )
    if np.array_equal(index, _identity(names)):
        return f"{owner} and {other_owner} have the same classes under other names, by WordNet"
    return f"{_other_order(names, owner, others, other_owner, index)}; they are aligned by name"


def _other_order(names: Sequence[str], owner: str, others: Sequence[str], other_owner: str, index: np.ndarray) -> str:
    first = int(np.flatnonzero(index != _identity(names))[0])
    return (
        f"{owner} has the classes of {other_owner} in another order: index {first} is '{names[first]}' and not"
        f" '{others[first]}'"
    )


# --- differences ------------------------------------------------------------------------------------------------

_List = tuple[Sequence[str], Sequence[str], str]  # names, what they are compared by, and their owner


def _difference(one: _List, other: _List) -> str:
    """Return a message on two lists that are not of the same classes."""
    parts = []
    for names, keys, owner in (one, other):
        if repeated := _repeated(keys):
            parts.append(f"{owner} has {_listed([names[keys.index(key)] for key in repeated])} more than once")
    for (names, keys, owner), (_, other_keys, _) in ((one, other), (other, one)):
        only = [name for name, key in zip(names, keys, strict=True) if key not in set(other_keys)]
        if only:
            parts.append(f"only {owner} has {_listed(only)}")
    pairs = enumerate(zip(one[1], other[1], strict=False))
    first = next((index for index, (key, other_key) in pairs if key != other_key), None)
    if first is not None:
        parts.append(f"index {first} is '{one[0][first]}' and '{other[0][first]}'")
    counts = f" ({len(one[0]):,} and {len(other[0]):,})" if len(one[0]) != len(other[0]) else ""
    return (
        f"{one[2]} and {other[2]} do not have the same classes{counts}: {'; '.join(parts)}. Classes are the"
        " same if their names are"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:MAX_NAMED]) + more


def _repeated(keys: Sequence[str]) -> list[str]:
    return [key for key, count in Counter(keys).items() if count > 1]


# --- spelling ---------------------------------------------------------------------------------------------------


def _comparable(names: Sequence[str], others: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return both lists in a form in which equal strings are the same class.

    File systems differ in how they store letters with accents, so all are composed. If only one of the lists has
    WordNet ids, words of the other become these ids where only one id of the list has them.
    """
    keys, other_keys = ([unicodedata.normalize("NFC", name) for name in names] for names in (names, others))
    are_ids = all(map(wordnet.is_wordnet_id, keys)), all(map(wordnet.is_wordnet_id, other_keys))
    if are_ids == (False, True):
        return _as_ids(keys, other_keys), other_keys
    if are_ids == (True, False):
        return keys, _as_ids(other_keys, keys)
    return keys, other_keys


def _as_ids(names: Sequence[str], ids: Sequence[str]) -> list[str]:
    """Return names with those that stand for exactly one of the ids replaced by it.

    All words of an id, as they are published, count before one of its words alone: "missile" is n03773504 and not
    n04008634, "projectile, missile".
    """
    complete, single = defaultdict(set), defaultdict(set)
    for wnid, readable in zip(ids, wordnet.readable_names(ids), strict=True):
        words = wordnet.words(wnid)
        for text in (wnid, readable, ", ".join(words)):
            complete[_plain(text)].add(wnid)
        for text in words:
            single[_plain(text)].add(wnid)
    candidates = [complete.get(_plain(name)) or single.get(_plain(name)) or set() for name in names]
    certain = [next(iter(one)) if len(one) == 1 else "" for one in candidates]
    counts = Counter(certain)
    return [wnid if counts[wnid] == 1 and wnid else name for name, wnid in zip(names, certain, strict=True)]


def _plain(text: str) -> str:
    """Return a name without differences of case, underscores and spaces."""
    return " ".join(text.replace("_", " ").lower().split())
