"""Compact letter displays, which summarize all pairwise comparisons of several systems."""

import itertools
from collections.abc import Sequence
from string import ascii_lowercase

import numpy as np
from jaxtyping import Bool

# Groups up to which every largest group is listed. There can be 3^(n/3) of them for n systems.
MOST_GROUPS = 64


def letters(is_different: Bool[np.ndarray, "n n"], order: Sequence[int]) -> list[str]:
    """Return each system's letters: two systems share a letter exactly if they do not differ significantly.

    Piepho (2004), "An algorithm for a letter-based representation of all-pairwise comparisons": a single group of all
    systems is split at every pair that differs, and groups that are subsets of others are absorbed. Where that gives
    more than 64 groups, a cover takes its place: groups are added until each pair that does not differ is in one, and
    groups that the others make redundant are removed, as in Piepho's sweeping. The time is polynomial in the number
    of systems. After `z` the letters continue with `a2`, `b2` and so on.

    Args:
      is_different: whether the systems of each pair differ significantly; symmetric, false on the diagonal.
      order: indices of all systems; the first letters go to the first of them.

    Returns:
      The letters of each system, by its index.
    """
    n = len(order)
    by_rank = np.asarray(is_different, bool)[np.ix_(order, order)]
    groups = _split(by_rank)
    if groups is None:
        groups = _cover(by_rank)
    members = sorted(_members(group) for group in groups)
    texts = ["".join(_letter(k) for k, group in enumerate(members) if rank in group) for rank in range(n)]
    return [text for _, text in sorted(zip(order, texts, strict=True))]


def _letter(index: int) -> str:
    turn, place = divmod(index, len(ascii_lowercase))
    return ascii_lowercase[place] + (str(turn + 1) if turn else "")


# A group is an integer whose bit `rank` is set for each of its systems: subsets and intersections are one operation.


def _members(group: int) -> list[int]:
    return [rank for rank in range(group.bit_length()) if group >> rank & 1]


def _split(is_different: Bool[np.ndarray, "n n"]) -> list[int] | None:
    """Return all largest groups without a pair that differs; None if there are more than `MOST_GROUPS` on the way."""
    groups = [(1 << len(is_different)) - 1]
    for a, b in np.argwhere(np.triu(is_different)).tolist():
        both = 1 << a | 1 << b
        kept = [group for group in groups if group & both != both]
        parts = {group & ~(1 << system) for group in groups if group & both == both for system in (a, b)}
        # Only the new parts can be subsets of others; the larger ones come first, so that they absorb the smaller.
        for part in sorted(parts, key=lambda part: (-part.bit_count(), part)):
            if all(part & group != part for group in kept):
                kept.append(part)
        groups = kept
        if len(groups) > MOST_GROUPS:
            return None
    return groups


def _cover(is_different: Bool[np.ndarray, "n n"]) -> list[int]:
    """Return groups without a pair that differs, such that every other pair is inside a group."""
    n = len(is_different)
    alike = [_mask(~is_different[system]) & ~(1 << system) for system in range(n)]
    uncovered = list(alike)
    groups = [1 << system for system in range(n) if not alike[system]]
    for a, b in itertools.combinations(range(n), 2):
        if uncovered[a] >> b & 1:
            group = _grow(1 << a | 1 << b, alike[a] & alike[b], alike, uncovered)
            groups.append(group)
            for system in _members(group):
                uncovered[system] &= ~group
    return _sweep(groups, n)


def _grow(group: int, candidates: int, alike: Sequence[int], uncovered: Sequence[int]) -> int:
    """Return the group with candidates added while there are any, those first that cover the most further pairs."""
    while candidates:
        best = max(_members(candidates), key=lambda system: ((uncovered[system] & group).bit_count(), -system))
        group |= 1 << best
        candidates &= alike[best]
    return group


def _sweep(groups: Sequence[int], n: int) -> list[int]:
    """Return the groups without those whose pairs are all inside other groups; the last ones are examined first."""
    members = [np.array(_members(group)) for group in groups]
    counts = np.zeros((n, n), int)
    for group in members:
        counts[np.ix_(group, group)] += 1
    kept = []
    for mask, group in reversed(list(zip(groups, members, strict=True))):
        inside = np.ix_(group, group)
        if counts[inside].min() > 1:
            counts[inside] -= 1
        else:
            kept.append(mask)
    return kept


def _mask(flags: Bool[np.ndarray, " n"]) -> int:
    return sum(1 << index for index in np.flatnonzero(flags).tolist())
