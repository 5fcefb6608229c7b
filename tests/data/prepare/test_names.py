"""Names: what is accepted is read back from tfds' own file, and messages show every character."""

import random

import pytest
import tensorflow_datasets as tfds

from imagenet_repro.data.prepare import names


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("n01440764", ""),
        ("dog, hound", ""),
        ("猫 שלום é 🐈", ""),
        ("ca\\nt", ""),  # a backslash, not a line end
        (" c", "blank"),
        ("c\u00a0", "blank"),
        (" ", "blank"),
        ("c\nd", "line end"),
        ("c\rd", "line end"),
        ("c\u2028d", "line end"),
        ("c\x1bd", "control character"),
        (b"caf\xe9".decode(errors="surrogateescape"), "not UTF-8"),
    ],
)
def test_class_names_that_cannot_be_stored(name, problem):
    found = names.class_problem(name)
    assert problem in found
    assert bool(found) == bool(problem)


def test_accepted_class_names_survive_tfds(tmp_path):
    """Random strings of characters that are dropped, split or changed somewhere."""
    generator = random.Random(0)
    alphabet = "ab \t\n\r\x0b\x0c\x1c\x1d\x85\xa0\u2028\u3000\ufeff\\'\"é\u0301猫🐈"
    accepted = {"".join(generator.choices(alphabet, k=generator.randint(1, 4))) for _ in range(5000)}
    accepted = sorted(name for name in accepted if not names.class_problem(name))
    assert len(accepted) > 100
    tfds.features.ClassLabel(names=accepted).save_metadata(tmp_path, "label")
    read = tfds.features.ClassLabel()
    read.load_metadata(tmp_path, "label")
    assert read.names == accepted


def test_messages_escape_what_a_terminal_would_not_show():
    raw = b"a\xffb".decode(errors="surrogateescape")
    assert names.printable(f"{raw}\n\x1b[31m猫") == "a\\xffb\\n\\x1b[31m猫"
    assert names.some(["b\n", "a"]) == "a, b\\n"
    assert names.some("gfedcba") == "a, b, c, d, e and 2 more"


def test_names_that_look_alike_are_grouped():
    assert names.lookalikes(["cat", "Cat", "dog"]) == [["Cat", "cat"]]
    assert names.lookalikes(["caf\u00e9", "cafe\u0301"]) == [["cafe\u0301", "caf\u00e9"]]
    assert names.lookalikes(["cat", "dog"]) == []
