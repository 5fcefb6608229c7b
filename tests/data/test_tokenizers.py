"""Tests of tokenizers: texts that come back, truncation, published tokens, and vocabularies that do not fit."""

import gzip
import io
import pickle

import numpy as np
import pytest

from imagenet_repro.data.tokenizers import ByteTokenizer, Tokenizer, check_fits, open_tokenizer, packaged_vocabulary
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


def test_a_vocabulary_that_does_not_fit_is_refused_with_both_numbers():
    check_fits(ByteTokenizer(), "bytes", 259, "ours_tiny_clip")
    with pytest.raises(UserError, match=r"bytes has 259 tokens.*clip_vit_base_patch32 49,408"):
        check_fits(ByteTokenizer(), "bytes", 49408, "clip_vit_base_patch32")


@pytest.fixture(scope="module")
def merges(tmp_path_factory):
    """Return a vocabulary of five pairs in the format of CLIP's, packed as its own is."""
    pytest.importorskip("tokenizers")
    pytest.importorskip("ftfy")
    path = tmp_path_factory.mktemp("clip") / "bpe_simple_vocab_16e6.txt.gz"
    pairs = ["#version: 0.2", "c a", "ca t</w>", "o f</w>", "Ã ¼", "p h"]
    path.write_bytes(gzip.compress("\n".join(pairs).encode()))
    return path


def test_pairs_are_merged_in_their_order_between_start_and_end(merges):
    tokenizer = pickle.loads(pickle.dumps(open_tokenizer("clip", merges)))
    assert (tokenizer.vocabulary, tokenizer.start, tokenizer.end) == (512 + 5 + 2, 517, 518)
    tokens, n_truncated = tokenizer.encode(["Cat  of", "cat &amp;", "caf"], 5)
    letter = ord("a") - ord("!")
    assert tokens.tolist() == [
        [517, 513, 514, 518, 0],
        [517, 513, 256 + ord("&") - ord("!"), 518, 0],  # the end of a word has a letter of its own
        [517, 512, 256 + letter + 5, 518, 0],
    ]
    assert n_truncated == 0
    tokens, n_truncated = tokenizer.encode(["cat cat cat cat"], 4)
    assert (tokens.tolist(), n_truncated) == ([[517, 513, 513, 518]], 1)


@pytest.mark.skipif(not packaged_vocabulary(), reason="open-clip-torch is not installed")
def test_tokens_are_those_that_openai_published():
    pytest.importorskip("tokenizers")
    tokenizer = open_tokenizer("clip")
    assert (tokenizer.vocabulary, tokenizer.end) == (49408, 49407)
    tokens, _ = tokenizer.encode(["a photo of a cat", "it's 2 o'clock &amp; I'm HERE", "schÃ¶n, naïve café ☕"], 77)
    assert [[int(token) for token in row if token] for row in tokens] == [
        [49406, 320, 1125, 539, 320, 2368, 49407],
        [49406, 585, 568, 273, 334, 262, 6716, 261, 328, 880, 763, 49407],
        [49406, 844, 7255, 333, 267, 1097, 35689, 563, 15304, 26561, 49407],
    ]


def test_a_model_of_sentencepiece_has_an_end_and_its_padding(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    content = io.BytesIO()
    texts = ["a photo of a cat", "a photo of a dog", "the toy tench"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=content,
        vocab_size=40,
        hard_vocab_limit=False,
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "minloglevel": 2},
    )
    path = tmp_path / "spiece.model"
    path.write_bytes(content.getvalue())
    first, second = open_tokenizer("siglip", path), open_tokenizer("siglip2", path)
    expected = sentencepiece.SentencePieceProcessor(model_proto=content.getvalue()).encode("a photo of a cat")
    tokens, n_truncated = pickle.loads(pickle.dumps(first)).encode(["A photo, of a CAT."], 64)
    assert tokens[0].tolist() == [*expected, 1] + [1] * (63 - len(expected))
    tokens, n_truncated = second.encode(["a photo of a cat"], 64)
    assert (tokens[0, len(expected)], set(tokens[0, len(expected) + 1 :]), n_truncated) == (1, {0}, 0)
    tokens, n_truncated = second.encode(["a photo of a cat"], 3)
    assert (tokens[0].tolist(), n_truncated) == ([*expected[:2], 1], 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("clip", b"\x1f\x8bdamaged", "cannot be read as a vocabulary"),
        ("clip", b"#version\na b c\n", "is no vocabulary of CLIP.*'a b c'"),
        ("siglip2", b"damaged", "is no model of SentencePiece"),
    ],
)
def test_damaged_vocabularies_are_refused(name, content, message, tmp_path):
    pytest.importorskip("tokenizers" if name == "clip" else "sentencepiece")
    (tmp_path / "vocabulary").write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_tokenizer(name, tmp_path / "vocabulary")


def test_a_missing_vocabulary_is_named():
    with pytest.raises(UserError, match=r"--tokenizer=FILE.*Gemma"):
        open_tokenizer("siglip2")
    with pytest.raises(UserError, match=r"has no vocabulary, and x\.model would be ignored"):
        open_tokenizer("bytes", "x.model")
    with pytest.raises(UserError, match=r"no such file.*bpe_simple_vocab"):
        open_tokenizer("clip", "/no/such.gz")
