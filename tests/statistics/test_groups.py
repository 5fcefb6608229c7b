import itertools
import re

import numpy as np

from imagenet_repro.statistics import groups
from imagenet_repro.statistics.groups import letters


def letters_of(text):
    return set(re.findall(r"[a-z]\d*", text))


def check(different, order):
    texts = letters(different, order)
    assert all("".join(re.findall(r"[a-z]\d*", text)) == text != "" for text in texts)
    for i, j in itertools.combinations(range(len(different)), 2):
        assert bool(letters_of(texts[i]) & letters_of(texts[j])) != different[i, j]
    assert "a" in letters_of(texts[order[0]])
    return texts


def test_two_systems_share_a_letter_exactly_if_they_do_not_differ():
    rng = np.random.default_rng(0)
    for _ in range(300):
        systems = rng.integers(1, 9)
        upper = np.triu(rng.random((systems, systems)) < rng.random(), 1)
        check(upper | upper.T, rng.permutation(systems).tolist())


def test_letters_by_hand():
    # 2 and 0 do not differ, nor do 0 and 1; 2 and 1 do, and 3 differs from all
    different = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]], bool)
    assert check(different, [2, 0, 1, 3]) == ["ab", "b", "a", "c"]
    assert check(np.zeros((3, 3), bool), [0, 1, 2]) == ["a", "a", "a"]


def test_more_groups_than_letters():
    different = np.kron(np.eye(5), [[0, 1], [1, 0]]).astype(bool)  # one of each of five couples: 32 groups
    texts = check(different, list(range(10)))
    assert letters_of("".join(texts)) == {*map(chr, range(97, 123)), *(f"{x}2" for x in "abcdef")}


def test_many_groups_are_covered_by_few():
    n = 24  # couples, where only partners differ, have 2^12 largest groups, trios 3^8
    for size in (2, 3):
        different = np.kron(np.eye(n // size), 1 - np.eye(size)).astype(bool)
        texts = letters(different, list(range(n)))
        assert len(letters_of("".join(texts))) < 40
        check(different, list(range(n)))


def test_the_cover_keeps_the_meaning_of_letters(monkeypatch):
    monkeypatch.setattr(groups, "MOST_GROUPS", 0)
    test_two_systems_share_a_letter_exactly_if_they_do_not_differ()
    test_letters_by_hand()
