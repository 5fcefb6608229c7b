"""Tokenizers: from texts to the numbers that a text tower embeds.

"bytes" needs no file and no training: a text's UTF-8 bytes between a start and an end, as in ByT5 (Xue et al. 2021,
arXiv 2105.13626), whose idea it follows and not its numbers.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from imagenet_repro.errors import UserError, nearest

BYTES = "bytes"


@runtime_checkable
class Tokenizer(Protocol):
    """A tokenizer; it can be pickled, since processes that read images also encode their captions.

    Attributes:
      vocabulary: number of different tokens.
    """

    vocabulary: int

    def encode(self, texts: Sequence[str], length: int) -> tuple[Int32[np.ndarray, "n length"], int]:
        """Return the tokens of each text, padded or truncated to `length`, and the number of texts truncated.

        A truncated text keeps its end token.
        """
        ...


class ByteTokenizer:
    """A token for each byte of a text: padding is 0, byte b is b + 1, the start is 257 and the end 258.

    The end is the highest token, by which text towers that pool there find it.
    """

    vocabulary = 259
    start, end = 257, 258

    def encode(self, texts: Sequence[str], length: int) -> tuple[Int32[np.ndarray, "n length"], int]:
        """See `Tokenizer`; a character outside of ASCII is two to four tokens, of which truncation may keep some."""
        if length < 2:
            raise UserError(f"{length} tokens have no place for a start and an end; at least 2 are needed")
        tokens, n_truncated = np.zeros((len(texts), length), np.int32), 0
        for row, text in zip(tokens, texts, strict=True):
            content = text.encode("utf-8", "replace")
            n_truncated += len(content) > length - 2
            content = content[: length - 2]
            row[: len(content) + 2] = [self.start, *(byte + 1 for byte in content), self.end]
        return tokens, n_truncated


def open_tokenizer(name: str) -> Tokenizer:
    """Return the tokenizer of a name.

    Raises:
      UserError: there is no such tokenizer.
    """
    if name != BYTES:
        raise UserError(f"config.tokenizer: there is no tokenizer '{name}': {nearest(name, [BYTES])}")
    return ByteTokenizer()
