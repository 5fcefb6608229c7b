"""Tests of tokenizers: texts that come back, truncation, and names that do not exist."""

import pickle

import numpy as np
import pytest

from imagenet_repro.data.tokenizers import ByteTokenizer, Tokenizer, open_tokenizer
from imagenet_repro.errors import UserError


def decode(row):
    return bytes(int(token) - 1 for token in row if 1 <= token <= 256).decode()


def test_bytes_come_back_between_a_start_and_an_end():
    tokenizer = open_tokenizer("bytes")
    assert isinstance(tokenizer, Tokenizer)
    texts = ["a cup", "", "Kaffeetasse für zwei ☕"]
    tokens, n_truncated = pickle.loads(pickle.dumps(tokenizer)).encode(texts, 32)
    assert n_truncated == 0
    assert tokens.shape == (3, 32)
    assert [decode(row) for row in tokens] == texts
    assert tokens[:, 0].tolist() == [257, 257, 257]
    assert tokens.argmax(axis=1).tolist() == [len(text.encode()) + 1 for text in texts]  # the end is the highest
    assert tokens.max() < tokenizer.vocabulary


def test_a_long_text_is_cut_before_its_end():
    tokens, n_truncated = ByteTokenizer().encode(["abcdef", "ab", "abc"], 4)
    np.testing.assert_array_equal(tokens, [[257, 98, 99, 258]] * 3)
    assert n_truncated == 2


def test_no_room_and_no_such_tokenizer_are_refused():
    with pytest.raises(UserError, match="at least 2"):
        ByteTokenizer().encode(["a"], 1)
    with pytest.raises(UserError, match=r"no tokenizer 'byte'.*bytes"):
        open_tokenizer("byte")
