"""The part that is held out: a share of each class, the same for the same seed, stable when images are added."""

from collections import Counter

import pytest

from imagenet_repro.data.prepare import holdout
from imagenet_repro.data.prepare.listing import Image
from imagenet_repro.errors import UserError


def images(counts):
    return [Image("", label, f"{label}/{n}.jpg", None, 1) for label, count in counts.items() for n in range(count)]


def test_each_class_holds_out_its_rounded_share_and_keeps_an_image_on_each_side():
    counts = {"two": 2, "three": 3, "ten": 10, "thirteen": 13, "hundred": 100}
    divided = holdout.hold_out(images(counts), 0.2, seed=0)
    held_out = Counter(image.label for image in divided if image.split == "validation")
    assert held_out == {"two": 1, "three": 1, "ten": 2, "thirteen": 3, "hundred": 20}  # by hand
    assert Counter(image.label for image in divided if image.split == "train") == {
        label: count - held_out[label] for label, count in counts.items()
    }
    most = Counter(image.label for image in holdout.hold_out(images(counts), 0.99, seed=0) if image.split == "train")
    assert most == dict.fromkeys(counts, 1)


def test_the_choice_follows_from_the_seed_and_the_names():
    before = holdout.hold_out(images({"a": 50, "b": 50}), 0.2, seed=3)
    again = holdout.hold_out(images({"b": 50, "a": 50}), 0.2, seed=3)
    assert sorted(before) == sorted(again)
    assert sorted(before) != sorted(holdout.hold_out(images({"a": 50, "b": 50}), 0.2, seed=4))
    more = holdout.hold_out(images({"a": 50, "b": 55, "c": 9}), 0.2, seed=3)
    known = {image.name: image.split for image in before}
    moved = [image.name for image in more if known.get(image.name, image.split) != image.split]
    assert not [name for name in moved if name.startswith("a/")]
    assert len(moved) <= 5


def test_a_class_of_one_image_is_an_error():
    with pytest.raises(UserError, match=r"1 classes have one image each, .*: lone\. .*--holdout=0%"):
        holdout.hold_out(images({"lone": 1, "pair": 2}), 0.2, seed=0)
    assert {image.split for image in holdout.hold_out(images({"lone": 1, "pair": 2}), 0.0, seed=0)} == {"train"}


@pytest.mark.parametrize(("text", "share"), [("20%", 0.2), ("0.25", 0.25), ("0", 0.0), ("2.5%", 0.025)])
def test_shares(text, share):
    assert holdout.parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["20", "1", "100%", "-1%", "a fifth", "nan", "%", ""])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UserError, match="a share of each class is needed"):
        holdout.parse_share(text)
