"""Tests of sentences made of class names."""

import numpy as np
import pytest

from imagenet_repro.data import prompts
from imagenet_repro.data.tokenizers import ByteTokenizer
from imagenet_repro.errors import UserError


def test_every_class_is_in_every_template():
    templates = ("a photo of a {name}.", "{}!")
    tokens, n_truncated = prompts.class_tokens(["cup", "dog {x}"], templates, ByteTokenizer(), 24, "config.x")
    expected = ["a photo of a cup.", "cup!", "a photo of a dog {x}.", "dog {x}!"]
    np.testing.assert_array_equal(tokens.reshape(4, 24), ByteTokenizer().encode(expected, 24)[0])
    assert (tokens.shape, n_truncated) == ((2, 2, 24), 0)
    assert prompts.class_tokens(["cup"] * 3, templates, ByteTokenizer(), 10, "config.x")[1] == 3


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a photo", r"config\.x: the template 'a photo' needs \{name\}"),
        ("a {label}", r"needs \{name\}"),
        ("{name} and {name}", r"once"),
        ("a {name", "cannot be filled"),
    ],
)
def test_templates_without_one_place_for_the_name_are_refused(template, message):
    with pytest.raises(UserError, match=message):
        prompts.fill(template, "cup", "config.x")
    with pytest.raises(UserError, match="at least one template"):
        prompts.class_tokens(["cup"], (), ByteTokenizer(), 24, "config.x")
