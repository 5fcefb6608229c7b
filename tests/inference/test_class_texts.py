"""Class names and templates of zero-shot classification: their sources, their warnings, and what is refused."""

import json

import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.inference import class_texts
from imagenet_repro.inference.class_texts import PackagedLists, choose_class_texts, choose_templates
from imagenet_repro.scoring import sets, wordnet

SOURCE = """
import os
OPENAI_IMAGENET_TEMPLATES = (
    lambda c: f'a bad photo of a {c}.',
    lambda c: f"itap of my {c}.",
)
a_subset = OPENAI_IMAGENET_TEMPLATES
SIMPLE_IMAGENET_TEMPLATES = (lambda c: f'art of the {c}.',)
IMAGENET_CLASSNAMES = ("tench", "goldfish")
"""
WNIDS = sets.imagenet_wnids()
CLIPS = PackagedLists(
    tuple(name.split(",")[0] for name in wordnet.readable_names(WNIDS)),
    {"80": ("a bad photo of a {}.", class_texts.SINGLE), "7": ("itap of a {}.", "art of the {}.")},
)


def test_lists_are_read_from_the_source_of_the_package():
    assert class_texts.parse_lists(SOURCE) == PackagedLists(
        ("tench", "goldfish"), {"80": ("a bad photo of a {}.", "itap of my {}."), "7": ("art of the {}.",)}
    )
    assert class_texts.parse_lists(SOURCE.replace("lambda c: f'art of the {c}.'", "os.remove")) is None
    assert class_texts.parse_lists("") is None


@pytest.mark.skipif(class_texts.packaged_lists() is None, reason="open-clip-torch is not installed")
def test_the_package_has_its_lists():
    lists = class_texts.packaged_lists()
    assert (len(lists.names), len(set(lists.templates["80"])), len(lists.templates["7"])) == (1000, 80, 7)
    assert lists.names[1] == "goldfish"
    assert class_texts.SINGLE in lists.templates["80"]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_imagenets_classes_have_the_names_of_clip_and_other_classes_their_own():
    chosen = choose_class_texts("", WNIDS[5:8], CLIPS)
    assert (chosen.classes, chosen.texts, chosen.warning) == (WNIDS, CLIPS.names, "")
    own = choose_class_texts("", ["hot_dog", "cat"], CLIPS)
    assert (own.classes, own.texts, own.warning) == (("hot_dog", "cat"), ("hot dog", "cat"), "")


def test_names_of_another_list_are_named_with_the_difference(tmp_path):
    assert "CLIP's own list raised ViT-B/32 by 1.5 points" in choose_class_texts("", WNIDS, None).warning
    names = ["a tench", *CLIPS.names[1:]]
    chosen = choose_class_texts(write(tmp_path / "names.txt", "\n".join(names) + "\n\n"), WNIDS, CLIPS)
    assert chosen.texts == tuple(names)
    assert chosen.warning.startswith("1 of 1,000 class names")
    assert "'a tench' in place of 'tench'" in chosen.warning
    same = choose_class_texts(write(tmp_path / "names.json", list(CLIPS.names)), WNIDS, CLIPS)
    assert same.warning == ""
    theirs = write(tmp_path / "wordnet.txt", "\n".join(wordnet.readable_names(WNIDS)))
    assert "WordNet's class names" in choose_class_texts(theirs, WNIDS, None).warning


def test_an_object_names_each_class_of_the_data_set(tmp_path):
    path = write(tmp_path / "names.json", {"n01440764": "tench", "b": "ball", "a": "ape"})
    assert choose_class_texts(path, ["a", "b"], None).texts == ("ape", "ball")
    assert choose_class_texts(path, ["n01440764"], None).classes == ("n01440764",)  # not all of ImageNet's have names


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("n.txt", "cat\ndog\n", r"has 2 names and the data set 3 classes"),
        ("n.json", {"a": "ape", "c": "cat"}, r"no name for 1 of 3 classes, the first 'b'"),
        ("n.txt", "cat\n\ndog\n", "entry 2 is empty"),
        ("n.txt", "\n\n", "has no texts"),
        ("n.json", [1, 2, 3], "something else among them"),
        ("n.json", "[", "cannot be read"),
    ],
)
def test_names_that_do_not_cover_the_classes_are_refused(name, content, message, tmp_path):
    with pytest.raises(UserError, match=message):
        choose_class_texts(write(tmp_path / name, content), ["a", "b", "c"], CLIPS)


def test_numbers_are_no_names():
    with pytest.raises(UserError, match=r"numbers its 3 classes.*--classnames=FILE"):
        choose_class_texts("", ["0", "1", "2"], CLIPS)


def test_templates_are_those_of_clip_of_a_file_or_one(tmp_path):
    assert choose_templates("", CLIPS).texts == CLIPS.templates["80"]
    assert choose_templates("7", CLIPS).texts == CLIPS.templates["7"]
    assert choose_templates(write(tmp_path / "t.txt", "{} here\nthe {}\n"), CLIPS).texts == ("{} here", "the {}")
    assert choose_templates("", None).texts == (class_texts.SINGLE,)


def test_a_single_template_is_named_with_what_it_costs(tmp_path):
    for packaged, advice in ((None, "install open-clip-torch"), (CLIPS, "1 of them not given here")):
        warning = choose_templates(write(tmp_path / "t.txt", class_texts.SINGLE), packaged).warning
        assert advice in warning
        assert "80" in warning
        assert "3.5 points" in warning
    assert choose_templates("7", CLIPS).warning == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [("a photo\n", "'a photo' has 0 places"), ("{} and {}\n", "has 2 places"), ("", "has no texts")],
)
def test_templates_without_one_place_are_refused(content, message, tmp_path):
    with pytest.raises(UserError, match=message):
        choose_templates(write(tmp_path / "t.txt", content), CLIPS)


def test_the_lists_of_a_package_that_is_missing_are_refused():
    with pytest.raises(UserError, match="open-clip-torch, which is not installed"):
        choose_templates("80", None)


def test_prompts_of_a_class_are_together():
    assert class_texts.fill(["cat", "dog"], ["a {}.", "the {}"]) == ["a cat.", "the cat", "a dog.", "the dog"]
