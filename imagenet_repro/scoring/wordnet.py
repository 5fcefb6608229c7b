"""The nouns of WordNet 3.0, whose ids name ImageNet's classes: words, hypernyms, and distances between classes.

An id is "n" and the eight digits of the noun's position in WordNet's file, such as n02084071, "dog". The nouns form a
graph by "is a kind of", and all of them are kinds of n00001740, "entity". Some nouns are of several kinds: a dog is a
canine and a domestic animal. If that leaves a choice, the path that makes two classes nearer counts. Named things,
such as Alabama, are not kinds but instances of a noun.

`tools/wordnet_table.py` writes the table, which is read when it is first needed; `wordnet.LICENSE` holds Princeton
University's terms. G. Miller, WordNet: a lexical database for English, Communications of the ACM 38(11), 1995.
"""

import functools
import gzip
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from imagenet_repro.errors import UserError

TABLE = Path(__file__).parent / "wordnet.tsv.gz"
ID = re.compile(r"n\d{8}")
ROOT = "n00001740"  # entity
OTHER = "anything else"

# A class belongs to the first of these groups that has one of its ancestors, so narrower groups come first. Results on
# ImageNet are described in these words; they cover all but four of its 1,000 classes.
SUPER_CLASSES = {
    "dog": ("n02084071",),
    "feline": ("n02120997",),
    "other carnivore": ("n02075296",),
    "primate": ("n02469914",),
    "hoofed mammal": ("n02370806",),
    "other mammal": ("n01861778",),
    "bird": ("n01503061",),
    "reptile": ("n01661091",),
    "amphibian": ("n01627424",),
    "fish": ("n02512053",),
    "insect": ("n02159955",),
    "other arthropod": ("n01767661",),  # spiders, crabs
    "other animal": ("n00015388",),
    "fungus": ("n12992868",),
    "fruit, vegetable": ("n13134947", "n07707451"),
    "food, drink": ("n07555863", "n00021265"),  # solid food; nutrient
    "plant": ("n00017222",),
    "person": ("n00007846",),
    "landscape": ("n09287968",),  # geological formation
    "clothing": ("n03051540", "n03380867"),  # and footwear
    "weapon": ("n04565375",),
    "vehicle": ("n03100490",),  # conveyance
    "musical instrument": ("n03800933",),
    "sports, games": ("n03414162", "n04285146"),  # their equipment
    "furniture": ("n03405725",),
    "electronics": ("n03278248", "n03082979", "n03078287"),  # and computers, communication systems
    "kitchen, household": ("n02729837", "n03621049"),  # appliances, kitchen utensils
    "measuring instrument": ("n03733925",),
    "container": ("n03094503",),
    "building, structure": ("n04341686",),
    "covering, cloth": ("n03122748", "n03309808"),
    "tool": ("n04451818", "n03563967"),  # and other implements
    "other device": ("n03183080", "n03738472", "n03699975", "n03294048"),  # and mechanisms, machines, equipment
    "other artifact": ("n00021939",),
}


def is_wordnet_id(name: str) -> bool:
    """Return whether a name is the id of a noun."""
    return ID.fullmatch(name) is not None and name in _nouns()


def words(wnid: str) -> tuple[str, ...]:
    """Return the noun's synonyms, the most usual first: "dog", "domestic dog", "Canis familiaris".

    Raises `UserError` if there is no such noun, as all functions of this module that take an id do.
    """
    return tuple(_columns(wnid)[2].split(", "))


def parents(wnid: str) -> tuple[str, ...]:
    """Return the ids of the noun's kinds, then of the nouns that it is an instance of; only the root has none."""
    kinds, instance_of, _ = _columns(wnid)
    return tuple(f"{kinds} {instance_of}".split())


@functools.cache
def ancestors(wnid: str) -> frozenset[str]:
    """Return the ids of the noun's parents, of their parents, and so on up to the root, without the noun itself."""
    above = parents(wnid)
    return frozenset(above).union(*map(ancestors, above))


def height(wnid: str) -> int:
    """Return the number of steps of the longest way down to a noun without kinds: 0 there, 5 for dog, 19 for the root.

    The challenge of 2010 counted heights in this way, in all of WordNet rather than among its classes
    (`wordnet_height` in `meta.mat` of its development kit). Instances do not count: Notre Dame does not raise the
    height of cathedral.
    """
    _columns(wnid)
    return _heights().get(wnid, 0)


def lowest_common_ancestor(a: str, b: str) -> str:
    """Return the lowest noun that both are, or are kinds of; of equally low ones, that with the smallest id."""
    both = (ancestors(a) | {a}) & (ancestors(b) | {b})
    return min(both, key=lambda wnid: (height(wnid), wnid))


def costs(wnids: Sequence[str]) -> Int32[np.ndarray, "c c"]:
    """Return the hierarchical cost of guessing one class for another, as in the challenge of 2010 (`cost_matrix`).

    It is the height of their lowest common ancestor, without normalization, and 0 for a class and itself (readme of
    the challenge's development kit of 2010, hierarchical cost).
    """
    below: dict[str, list[int]] = {}
    for index, wnid in enumerate(wnids):
        for above in (wnid, *ancestors(wnid)):
            below.setdefault(above, []).append(index)
    matrix = np.full((len(wnids), len(wnids)), height(ROOT), np.int32)
    for above in sorted(below, key=height, reverse=True):  # lower ancestors overwrite higher ones
        matrix[np.ix_(below[above], below[above])] = height(above)
    np.fill_diagonal(matrix, 0)
    return matrix


def super_class(wnid: str) -> str:
    """Return the group of `SUPER_CLASSES` that the noun belongs to, or `OTHER`."""
    line = ancestors(wnid) | {wnid}
    return next((name for name, members in SUPER_CLASSES.items() if not line.isdisjoint(members)), OTHER)


def readable_names(names: Sequence[str]) -> list[str]:
    """Return distinct readable names of classes; ids become their words, such as "goldfish, Carassius auratus".

    Names that are not ids stay as they are. If several classes would get the same name, such as ImageNet's two cranes,
    the kind of each follows in brackets, or the id if that is not enough.
    """
    stages = [
        [change(name) if is_wordnet_id(name) else name for name in names] for change in (_plain, _with_kind, _with_id)
    ]
    seen = list(map(Counter, stages))
    of_each = zip(*stages, strict=True)
    return [next((x for x, count in zip(one, seen, strict=True) if count[x] == 1), one[-1]) for one in of_each]


def _plain(wnid: str) -> str:
    return ", ".join(words(wnid))


def _with_kind(wnid: str) -> str:
    kinds = [words(parent)[0] for parent in parents(wnid)[:1]]
    return " ".join([_plain(wnid), *(f"({kind})" for kind in kinds)])


def _with_id(wnid: str) -> str:
    return f"{_plain(wnid)} ({wnid})"


# --- the table --------------------------------------------------------------------------------------------------


def _columns(wnid: str) -> list[str]:
    """Return kinds, instance of and words: the columns that `tools/wordnet_table.py` describes, without the id."""
    line = _nouns().get(wnid)
    if line is None:
        raise UserError(f"'{wnid}' is not a noun of WordNet 3.0, whose ids look like {ROOT}")
    return line.split("\t")


@functools.cache
def _nouns() -> dict[str, str]:
    """Return the rest of each noun's line, by id."""
    text = gzip.decompress(TABLE.read_bytes()).decode("ascii")
    return {line[:9]: line[10:] for line in text.splitlines()}


@functools.cache
def _heights() -> dict[str, int]:
    """Return the height of every noun that another is a kind of."""
    steps = {wnid: line.partition("\t")[0].split() for wnid, line in _nouns().items()}
    heights: dict[str, int] = {}
    reached: Iterable[str] = steps
    level = 1
    while reached := {above for wnid in reached for above in steps[wnid]}:  # nouns `level` steps above some noun
        heights |= dict.fromkeys(reached, level)  # replaces a lower level: the longest way counts
        level += 1
    return heights
