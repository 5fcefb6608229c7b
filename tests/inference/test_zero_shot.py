"""Prompts as tokens, and embeddings that are kept until texts or weights change."""

import numpy as np
import pytest

from imagenet_repro.data.tokenizers import ByteTokenizer
from imagenet_repro.errors import UserError
from imagenet_repro.inference import zero_shot
from imagenet_repro.models import image_text
from imagenet_repro.storage import user

NAMES, TEMPLATES = ["cat", "dog"], ["a {}.", "a photo of a {}."]


def test_prompts_are_encoded_class_by_class_and_truncation_is_counted():
    prompts = zero_shot.encode_prompts(ByteTokenizer(), NAMES, TEMPLATES, 10)
    assert prompts.tokens.shape == (2, 2, 10)
    assert bytes(token - 1 for token in prompts.tokens[1, 0] if 1 <= token <= 256) == b"a dog."
    assert zero_shot.truncation_note(prompts) == "2 of 4 prompts are longer than 10 tokens and were truncated"
    assert zero_shot.truncation_note(zero_shot.encode_prompts(ByteTokenizer(), NAMES, TEMPLATES, 40)) == ""


@pytest.fixture
def computed(monkeypatch, tmp_path):
    """Return the list of token arrays that were embedded; each embedding is the number of the computation."""
    calls = []
    monkeypatch.setattr(user, "cache_directory", lambda: tmp_path)

    def embed(network, tokens, show):
        calls.append(tokens)
        return np.full((len(tokens), 3), len(calls), np.float32)

    monkeypatch.setattr(zero_shot.zero_shot, "class_embeddings", embed)
    return calls


def embeddings(prompts=None, weights="0" * 64, **options):
    prompts = prompts or zero_shot.encode_prompts(ByteTokenizer(), NAMES, TEMPLATES, 40)
    network = image_text.abstract_image_text("ours_tiny_clip")
    return zero_shot.cached_embeddings(network, prompts, {"sha256": weights}, options)


def test_embeddings_are_computed_again_only_for_other_texts_weights_or_options(computed, tmp_path):
    first, note = embeddings()
    assert "computed, and kept in" in note
    second, note = embeddings(image_size=336)  # which the text tower does not see
    assert "read from" in note
    np.testing.assert_array_equal(first, second)
    embeddings(zero_shot.encode_prompts(ByteTokenizer(), ["cat", "cow"], TEMPLATES, 40))
    embeddings(weights="1" * 64)
    embeddings(activation="gelu")
    assert len(computed) == 4
    for path in (tmp_path / "text_embeddings").iterdir():
        path.write_bytes(b"damaged")
    assert embeddings()[0][0, 0] == 5


def test_embeddings_that_are_not_finite_are_refused(computed, monkeypatch):
    monkeypatch.setattr(zero_shot.zero_shot, "class_embeddings", lambda *_: np.full((2, 3), np.nan, np.float32))
    with pytest.raises(UserError, match="not finite"):
        embeddings()


def test_a_directory_that_cannot_be_written_keeps_nothing(computed, tmp_path):
    (tmp_path / "text_embeddings").write_text("a file in the way")
    _, note = embeddings()
    assert "computed, and not kept" in note
