"""Compact letter displays, which summarize all pairwise comparisons of several systems."""

from collections.abc import Iterable, Sequence
from string import ascii_lowercase

import numpy as np
from jaxtyping import Bool


def letters(is_different: Bool[np.ndarray, "n n"], order: Sequence[int]) -> list[str]:
    """Return each system's letters: two systems share a letter exactly if they do not differ significantly.

    Piepho (2004), "An algorithm for a letter-based representation of all-pairwise comparisons": a single group of all
    systems is split at every pair that differs, and groups that are subsets of others are absorbed. After `z` the
    letters continue with `a2`, `b2` and so on.

    Args:
      is_different: whether the systems of each pair differ significantly; symmetric, false on the diagonal.
      order: indices of all systems; the first letters go to the first of them.

    Returns:
      The letters of each system, by its index.
    """
    groups = [frozenset(order)]
    for a, b in np.argwhere(np.triu(is_different)).tolist():
        split = (part for group in groups for part in ((group - {a}, group - {b}) if {a, b} <= group else (group,)))
        groups = _drop_subsets(split)
    rank = {system: index for index, system in enumerate(order)}
    groups.sort(key=lambda group: sorted(rank[system] for system in group))
    members = [[_letter(k) for k, group in enumerate(groups) if system in group] for system in range(len(order))]
    return list(map("".join, members))


def _letter(index: int) -> str:
    turn, place = divmod(index, len(ascii_lowercase))
    return ascii_lowercase[place] + (str(turn + 1) if turn else "")


def _drop_subsets(groups: Iterable[frozenset[int]]) -> list[frozenset[int]]:
    """Return the groups that are no subset of another group."""
    distinct = set(groups)
    return [group for group in distinct if not any(group < other for other in distinct)]
