"""Tests of lists of class names: aligned, not checked, or refused with their difference."""

import numpy as np
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import class_names, sets, wordnet


def match(names, others, **options):
    return class_names.match(names, "one", others, "other", **options)


def test_equal_lists_need_no_note():
    found = match(("cat", "dog"), ("cat", "dog"))
    assert (found.index.tolist(), found.note, found.is_checked) == ([0, 1], "", True)


@pytest.mark.parametrize("seed", range(5))
def test_any_order_is_aligned_by_name(seed):
    rng = np.random.default_rng(seed)
    others = [f"class {number}" for number in range(30)]
    names = rng.permutation(others).tolist()
    found = match(names, others)
    assert [others[place] for place in found.index] == names
    first = next(i for i in range(30) if names[i] != others[i])
    sentence = f"another order: index {first} is '{names[first]}' and not '{others[first]}'; they are aligned by name"
    assert found.note == f"one has the classes of other in {sentence}"


def test_some_of_the_classes_are_aligned_where_that_is_allowed():
    found = match(("fish", "cat"), ("cat", "dog", "fish"), partial=True)
    assert found.index.tolist() == [2, 0]
    assert found.note == "one has 2 of the 3 classes of other; they are aligned by name, and guesses are among all 3"
    with pytest.raises(UserError, match=r"do not have the same classes \(2 and 3\): only other has 'dog'; index 0 is"):
        match(("fish", "cat"), ("cat", "dog", "fish"))
    with pytest.raises(UserError, match=r"\(3 and 2\): only one has 'dog'"):
        match(("cat", "dog", "fish"), ("fish", "cat"), partial=True)


def test_other_classes_are_refused_with_the_difference():
    message = (
        r"one and other do not have the same classes: only one has 'a', 'b', 'c' and 1 more; only other has 'w', 'x',"
        r" 'y' and 1 more; index 1 is 'a' and 'w'\."
    )
    with pytest.raises(UserError, match=message):
        match(["same", *"abcd"], ["same", *"wxyz"])


@pytest.mark.parametrize(
    ("names", "others", "nameless"),
    [
        (class_names.numbered(3), ("a", "b", "c"), "one has no names for its classes"),
        (("a", "b", "c"), class_names.numbered(3), "other has no names for its classes"),
        (class_names.numbered(3), class_names.numbered(3), "neither has names for them"),
        (("1", "2", "3"), class_names.numbered(3), "other has no names for its classes"),
    ],
)
def test_without_names_the_number_is_all_that_is_checked(names, others, nameless):
    found = match(names, others)
    assert (found.is_checked, found.index.tolist()) == (False, [0, 1, 2])
    assert found.note.endswith(f"was not checked: {nameless}")
    with pytest.raises(UserError, match="one has 3 classes and other 4; without names they cannot be aligned"):
        match(names, class_names.numbered(4))


def test_folders_named_by_numbers_are_brought_into_the_order_of_the_numbers():
    names = sorted(class_names.numbered(12))
    found = match(names, class_names.numbered(12))
    assert (found.is_checked, found.index.tolist()) == (True, list(map(int, names)))


def test_a_name_that_occurs_twice_is_refused():
    with pytest.raises(UserError, match="one has 'crane' more than once"):
        match(("crane", "maillot", "crane"), ("maillot", "crane", "crate"))


def test_accents_in_either_form_are_the_same_name():
    assert match(("r\u00e9", "bar"), ("bar", "re\u0301")).index.tolist() == [1, 0]


def test_one_order_is_required_where_numbers_are_stored():
    class_names.check_same_order(("a", "b"), "one", ("a", "b"), "other")
    with pytest.raises(UserError, match="in another order: index 0 is 'b' and not 'a', and the same order is needed"):
        class_names.check_same_order(("b", "a"), "one", ("a", "b"), "other")


# --- WordNet ids and words --------------------------------------------------------------------------------------


def test_ids_and_published_words_are_the_same_classes():
    wnids = sets.imagenet_wnids()
    readable = wordnet.readable_names(wnids)
    assert match(readable, wnids).index.tolist() == list(range(1_000))
    assert match(readable, wnids).note == "one and other have the same classes under other names, by WordNet"
    order = np.random.default_rng(0).permutation(1_000)
    found = match(wnids, [readable[place] for place in order])
    np.testing.assert_array_equal(order[found.index], np.arange(1_000))


def test_single_words_count_where_one_id_has_them():
    ids = ("n01443537", "n02123045", "n03773504", "n04008634")
    found = match(("Tabby", "Carassius_auratus", "missile", "projectile"), ids)
    assert found.index.tolist() == [1, 0, 2, 3]


def test_words_of_two_classes_are_refused():
    cranes = ("n02012849", "n03126707")  # the bird and the machine
    with pytest.raises(UserError, match="one and other do not have the same classes: only one has 'crane', 'lifter'"):
        match(("crane", "lifter"), cranes)
