import functools
import gzip
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import wordnet
from tests.conftest import shared_path
from tools import wordnet_table

DOG, HUSKY, TABBY, GOLDFISH, CRANES = "n02084071", "n02110185", "n02123045", "n01443537", 134

# a diamond with a tail: 1 above 2 and 3, both above 4, which is above 5; 6 below 2 alone; 7 an instance of 6
DIAMOND = """  1 a notice of copyright
00000001 03 n 01 top 0 002 ~ 00000002 n 0000 ~ 00000003 n 0000 | a gloss
00000002 03 n 01 left 0 003 @ 00000001 n 0000 ~ 00000004 n 0000 ~ 00000006 n 0000 | with | in it
00000003 03 n 01 right 0 002 @ 00000001 n 0000 ~ 00000004 n 0000 | a gloss
00000004 03 n 02 both 1 Both_of_them 0 004 @ 00000002 n 0000 @ 00000003 n 0000 ~ 00000005 n 0000 + 00000009 v 0101 | a
00000005 03 n 0a a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j_k 0 001 @ 00000004 n 0000 | ten words
00000006 03 n 01 leaf 0 002 @ 00000002 n 0000 ~i 00000007 n 0000 | a gloss
00000007 03 n 01 Named 0 001 @i 00000006 n 0000 | a gloss
"""


@functools.cache
def imagenet():
    folder = Path(tfds.__file__).parent / "datasets" / "imagenet2012"
    return folder.joinpath("labels.txt").read_text().split()


@functools.cache
def independent():
    """Read parents and children of kinds from the table with an independent expression."""
    text = gzip.decompress(wordnet.TABLE.read_bytes()).decode()
    parents = {wnid: kinds.split() for wnid, kinds in re.findall(r"(?m)^(n\d{8})\t([^\t]*)\t", text)}
    children = {}
    for wnid, kinds in parents.items():
        for kind in kinds:
            children.setdefault(kind, []).append(wnid)
    return parents, children


@functools.cache
def longest_way_down(wnid):
    return max((1 + longest_way_down(child) for child in independent()[1].get(wnid, ())), default=0)


def all_above(wnid):
    return {wnid}.union(*map(all_above, independent()[0][wnid]))


def forget():
    for cached in (wordnet._nouns, wordnet._heights, wordnet.ancestors):
        cached.cache_clear()


@pytest.fixture
def diamond(tmp_path, monkeypatch):
    lines = "".join(wordnet_table.table(DIAMOND.splitlines(keepends=True)))
    tmp_path.joinpath("table.gz").write_bytes(gzip.compress(lines.encode()))
    monkeypatch.setattr(wordnet, "TABLE", tmp_path / "table.gz")
    monkeypatch.setattr(wordnet, "ROOT", "n00000001")
    forget()
    yield [f"n0000000{i}" for i in range(8)]
    forget()


def test_the_way_from_dog_to_entity():
    assert wordnet.words(DOG) == ("dog", "domestic dog", "Canis familiaris")
    assert [wordnet.words(parent)[0] for parent in wordnet.parents(DOG)] == ["canine", "domestic animal"]
    above = "canine carnivore placental mammal vertebrate chordate animal organism whole object entity"
    expected = {*above.split(), "domestic animal", "living thing", "physical entity"}
    assert {wordnet.words(wnid)[0] for wnid in wordnet.ancestors(DOG)} == expected
    assert wordnet.parents(wordnet.ROOT) == ()
    assert wordnet.ancestors(wordnet.ROOT) == frozenset()


def test_counts_of_wordnet_3():
    parents, _ = independent()
    assert len(parents) == wordnet_table.NOUNS == 82_115
    assert sum(map(len, parents.values())) == 75_850  # pointers @ in data.noun
    assert wordnet.height(wordnet.ROOT) == 19  # the greatest depth of the noun taxonomy


def test_instances_are_children_of_their_class():
    alabama = "n09053185"
    assert wordnet.words(alabama)[0] == "Alabama"
    assert "American state" in {wordnet.words(wnid)[0] for wnid in wordnet.ancestors(alabama)}
    assert wordnet.ROOT in wordnet.ancestors("n09026499")
    assert (
        wordnet.height("n03028079") == longest_way_down("n03028079") == 2
    )  # church, because cathedrals have instances


def test_a_diamond_by_hand(diamond):
    _, top, left, right, both, last, leaf, named = diamond
    assert [wordnet.height(wnid) for wnid in diamond[1:]] == [3, 2, 2, 1, 0, 0, 0]
    assert wordnet.words(last)[-1] == "j k"
    assert wordnet.words(both) == ("both", "Both of them")
    assert wordnet.parents(both) == (left, right)
    assert wordnet.parents(named) == (leaf,)
    assert wordnet.ancestors(last) == {both, left, right, top}
    assert wordnet.lowest_common_ancestor(last, leaf) == left
    assert wordnet.lowest_common_ancestor(last, right) == right
    assert wordnet.lowest_common_ancestor(named, leaf) == leaf
    assert wordnet.lowest_common_ancestor(left, right) == top
    assert wordnet.costs([last, leaf, right, named]).tolist() == [
        [0, 2, 2, 2],
        [2, 0, 3, 0],
        [2, 3, 0, 3],
        [2, 0, 3, 0],
    ]


def test_costs_are_the_heights_of_the_lowest_common_ancestors():
    chosen = [*imagenet()[3::19], DOG]
    result = wordnet.costs(chosen)
    for (i, a), (j, b) in itertools.combinations(enumerate(chosen), 2):
        expected = min(map(longest_way_down, all_above(a) & all_above(b)))
        assert result[i, j] == result[j, i] == expected == wordnet.height(wordnet.lowest_common_ancestor(a, b))
    assert not result.diagonal().any()


def test_known_distances():
    tiger, malamute = "n02129604", "n02110063"
    result = wordnet.costs([HUSKY, malamute, TABBY, tiger, GOLDFISH])
    shared = [wordnet.lowest_common_ancestor(HUSKY, wnid) for wnid in (malamute, TABBY, tiger, GOLDFISH)]
    assert [wordnet.words(wnid)[0] for wnid in shared] == ["sled dog", "domestic animal", "carnivore", "vertebrate"]
    assert result[0].tolist() == [0, 1, 6, 7, 11]
    assert result[2, 3] == wordnet.height("n02120997") == 4  # feline


def test_the_1000_classes():
    names = wordnet.readable_names(imagenet())
    assert len(set(names)) == len(names) == 1000
    assert all(map(wordnet.is_wordnet_id, imagenet()))
    assert names[1] == "goldfish, Carassius auratus"
    assert names[CRANES] == "crane (wading bird)"
    assert "crane (lifting device)" in names
    of_each = list(map(wordnet.super_class, imagenet()))
    assert set(of_each) == {*wordnet.SUPER_CLASSES, wordnet.OTHER}
    assert of_each[151:269] == ["dog"] * 118  # Chihuahua to Mexican hairless
    assert of_each.count("dog") == 118
    assert of_each.count("bird") == 59
    assert of_each.count(wordnet.OTHER) == 4


def test_words_are_those_of_imagenet():
    lines = [line.split("\t") for line in shared_path("data/tiny-imagenet-100/classes.tsv").read_text().splitlines()]
    assert wordnet.readable_names([wnid for wnid, _ in lines]) == [words for _, words in lines]


def test_each_group_has_nouns_below_its_own_noun():
    for name, members in wordnet.SUPER_CLASSES.items():
        assert all(map(wordnet.is_wordnet_id, members))
        assert wordnet.super_class(members[0]) == name


def test_only_ids_are_replaced_by_words():
    names = ["tench", "n01440764", "n99999999", "n0144076", ""]
    assert wordnet.readable_names(names) == ["tench", "tench, Tinca tinca", "n99999999", "n0144076", ""]
    assert wordnet.readable_names(
        ["goldfish, Carassius auratus", GOLDFISH, "goldfish, Carassius auratus (goldfish)"]
    ) == [
        "goldfish, Carassius auratus",
        "goldfish, Carassius auratus (cyprinid)",
        "goldfish, Carassius auratus (goldfish)",
    ]
    assert not any(map(wordnet.is_wordnet_id, ("n99999999", "n0144076", "", "n01440764 ", "dog")))


@pytest.mark.parametrize(
    "of", [wordnet.words, wordnet.parents, wordnet.ancestors, wordnet.height, wordnet.super_class]
)
def test_an_id_that_is_no_noun_is_refused(of):
    with pytest.raises(UserError, match=r"'n99999999' is not a noun of WordNet 3\.0"):
        of("n99999999")
    with pytest.raises(UserError, match="'dog' is not a noun"):
        wordnet.costs([DOG, "dog"])


def test_the_table_has_everything_that_is_read():
    rows = [line.rstrip("\n").split("\t") for line in wordnet_table.table(DIAMOND.splitlines(keepends=True))]
    assert np.array(rows).shape == (7, 4)
    assert rows[3] == ["n00000004", "n00000002 n00000003", "", "both, Both of them"]
    assert rows[6] == ["n00000007", "", "n00000006", "Named"]
