"""Tokenizers: from texts to the numbers that a text tower embeds.

"bytes" needs no file and no training: a text's UTF-8 bytes between a start and an end, as in ByT5 (Xue et al. 2021,
arXiv 2105.13626), whose idea it follows and not its numbers. The tokenizers of CLIP and SigLIP read a vocabulary that
the user has, through the libraries `tokenizers` and `sentencepiece` (`pip install "imagenet_repro[text]"`).
"""

import gzip
import html
import importlib
import importlib.util
import string
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from imagenet_repro.errors import UserError, nearest
from imagenet_repro.storage import user

BYTES, CLIP = "bytes", "clip"
_PADDINGS = {"siglip": 1, "siglip_i18n": 1, "siglip2": 0}  # as big_vision trained them
NAMES = (BYTES, CLIP, *_PADDINGS)
_FILES = {
    CLIP: "bpe_simple_vocab_16e6.txt.gz of openai/CLIP, or tokenizer.json",
    "siglip": "the SentencePiece model of T5 with 32,000 tokens (spiece.model beside weights of transformers)",
    "siglip_i18n": "the SentencePiece model of mT5 with 250,000 tokens (spiece.model beside weights of transformers)",
    "siglip2": "tokenizer.model or tokenizer.json of Gemma, with 256,000 tokens",
}
_CLIP_MERGES = 49_152 - 256 - 2  # OpenAI's code reads no more of the file
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # of its code
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


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
        """See `Tokenizer`; a character outside of ASCII is two to four tokens, and truncation may keep some."""
        if length < 2:
            raise UserError(f"{length} tokens have no place for a start and an end; at least 2 are needed")
        tokens, n_truncated = np.zeros((len(texts), length), np.int32), 0
        for row, text in zip(tokens, texts, strict=True):
            content = text.encode("utf-8", "replace")
            n_truncated += len(content) > length - 2
            content = content[: length - 2]
            row[: len(content) + 2] = [self.start, *(byte + 1 for byte in content), self.end]
        return tokens, n_truncated


class ClipTokenizer:
    """CLIP's byte pair encoding of lower-case text (Radford et al. 2021, sec. 2.4), computed by `tokenizers`.

    Mistaken encodings are repaired by `ftfy`, HTML entities become characters, and spaces are made single, as in
    OpenAI's code. Its two special tokens are the highest; in a text their names are ordinary characters.

    Args:
      path: of `bpe_simple_vocab_16e6.txt.gz`, also unpacked, or of a `tokenizer.json`.

    Raises:
      UserError: a library is missing, or the file cannot be understood.
    """

    def __init__(self, path: str | Path):
        _library("ftfy")
        path = user.expand(path)
        is_json = path.suffix == ".json"
        self._encoder = _load_json(path) if is_json else _clip_encoder(_read_merges(path))
        ends = [self._encoder.token_to_id(name) for name in ("<|startoftext|>", "<|endoftext|>")]
        if is_json and None in ends:
            raise UserError(f"{path} has no <|startoftext|> and <|endoftext|>, so that it is not a tokenizer of CLIP")
        size = self._encoder.get_vocab_size()
        self.start, self.end = ends if is_json else (size, size + 1)
        self.vocabulary = size if is_json else size + 2

    def encode(self, texts: Sequence[str], length: int) -> tuple[Int32[np.ndarray, "n length"], int]:
        """See `Tokenizer`; padding is 0."""
        ftfy = _library("ftfy")
        cleaned = [_single_spaces(html.unescape(html.unescape(ftfy.fix_text(text)))).lower() for text in texts]
        encodings = self._encoder.encode_batch(cleaned, add_special_tokens=False)
        rows = [encoding.ids for encoding in encodings]
        return _padded(rows, length, start=self.start, end=self.end, padding=0)


class SentencePieceTokenizer:
    """The tokens of a SentencePiece model, an end token and padding, as SigLIP and SigLIP 2 have them.

    Texts are made lower-case. SigLIP's are also freed from punctuation, as for its zero-shot evaluation (big_vision's
    `canonicalize_text`); open_clip does the same with SigLIP 2, and so does this.

    Args:
      path: of a `.model` of SentencePiece, or of a `tokenizer.json`.
      padding: the token that follows the end.

    Raises:
      UserError: a library is missing, or the file cannot be understood.
    """

    end = 1  # of the vocabularies of T5, mT5 and Gemma

    def __init__(self, path: str | Path, padding: int):
        path = user.expand(path)
        self.padding, self._is_json = padding, path.suffix == ".json"
        if self._is_json:
            self._model = _load_json(path)
            self.vocabulary = self._model.get_vocab_size()
        else:
            self._model = _load_sentencepiece(path)
            self.vocabulary = self._model.get_piece_size()

    def encode(self, texts: Sequence[str], length: int) -> tuple[Int32[np.ndarray, "n length"], int]:
        """See `Tokenizer`."""
        cleaned = [_single_spaces(text.replace("_", " ").translate(_NO_PUNCTUATION).lower()) for text in texts]
        if self._is_json:
            rows = [encoding.ids for encoding in self._model.encode_batch(cleaned, add_special_tokens=False)]
        else:
            rows = self._model.encode(cleaned)
        return _padded(rows, length, start=None, end=self.end, padding=self.padding)


def open_tokenizer(name: str, path: str | Path = "") -> Tokenizer:
    """Return a tokenizer.

    Args:
      name: "bytes", "clip", "siglip", "siglip_i18n" or "siglip2".
      path: of its vocabulary; "clip" without one reads the file in the package `open-clip-torch`, where installed.

    Raises:
      UserError: there is no such tokenizer, a library or the vocabulary is missing, or it cannot be understood.
    """
    if name not in NAMES:
        raise UserError(f"config.tokenizer: there is no tokenizer '{name}': {nearest(name, NAMES)}")
    if name == BYTES:
        if path:
            raise UserError(f"the tokenizer '{name}' has no vocabulary, and {path} would be ignored; leave it out")
        return ByteTokenizer()
    path = path or (packaged_vocabulary() if name == CLIP else "")
    if not path:
        raise UserError(
            f"the tokenizer '{name}' needs its vocabulary: --tokenizer=FILE, {_FILES[name]} (hubs are not accessed)"
        )
    if not user.expand(path).is_file():
        raise UserError(f"{path}: there is no such file; the tokenizer '{name}' needs {_FILES[name]}")
    return ClipTokenizer(path) if name == CLIP else SentencePieceTokenizer(path, _PADDINGS[name])


def packaged_vocabulary() -> str:
    """Return the path of CLIP's vocabulary in the package `open-clip-torch`; empty where it is not installed."""
    spec = importlib.util.find_spec("open_clip")  # imports nothing
    path = Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz") if spec and spec.origin else None
    return str(path) if path and path.is_file() else ""


def check_fits(tokenizer: Tokenizer, name: str, vocabulary: int, owner: str) -> None:
    """Check that a tokenizer has the vocabulary of a text tower.

    Args:
      tokenizer: the tokenizer.
      name: its name or file, for the message.
      vocabulary: number of tokens that the tower embeds.
      owner: what has the tower, for the message.

    Raises:
      UserError: they have different numbers of tokens.
    """
    if tokenizer.vocabulary != vocabulary:
        raise UserError(
            f"the tokenizer {name} has {tokenizer.vocabulary:,} tokens and the text tower of {owner}"
            f" {vocabulary:,}; name the tokenizer with which it was trained"
        )


# --- parts -----------------------------------------------------------------------------------------------------


def _library(name: str) -> Any:
    """Return a library of the extra `text`; it is loaded here, since it is large and may be missing."""
    if importlib.util.find_spec(name) is None:
        raise UserError(
            f"tokenizers of CLIP and SigLIP need the package {name}, which is not installed; type"
            ' pip install "imagenet_repro[text]"'
        )
    return importlib.import_module(name)


def _single_spaces(text: str) -> str:
    return " ".join(text.split())


def _padded(
    rows: Sequence[Sequence[int]], length: int, *, start: int | None, end: int, padding: int
) -> tuple[Int32[np.ndarray, "n length"], int]:
    """Return rows between a start (where there is one) and an end, padded, and the number of rows truncated."""
    starts = [] if start is None else [start]
    room = length - len(starts) - 1
    if room < 0:
        raise UserError(f"{length} tokens have no place for a start and an end; at least 2 are needed")
    tokens = np.full((len(rows), length), padding, np.int32)
    for target, row in zip(tokens, rows, strict=True):
        content = [*starts, *row[:room], end]
        target[: len(content)] = content
    return tokens, sum(len(row) > room for row in rows)


def _read_merges(path: Path) -> list[tuple[str, str]]:
    """Return the pairs of CLIP's vocabulary in their order."""
    try:
        content = path.read_bytes()
        lines = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8").split("\n")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read as a vocabulary of CLIP ({error}); download it again") from error
    pairs = [tuple(line.split()) for line in lines[1 : 1 + _CLIP_MERGES] if line.strip()]
    wrong = next((pair for pair in pairs if len(pair) != 2), None)
    if not pairs or wrong is not None:
        raise UserError(
            f"{path} is no vocabulary of CLIP: each line after the first is a pair of tokens, and one is"
            f" '{' '.join(wrong or ())[:40]}'; take bpe_simple_vocab_16e6.txt.gz"
        )
    return [(first, second) for first, second in pairs]


def _clip_encoder(merges: Sequence[tuple[str, str]]) -> Any:
    library = _library("tokenizers")
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {word: index for index, word in enumerate(words)}
    encoder = library.Tokenizer(library.models.BPE(vocab=vocabulary, merges=list(merges), end_of_word_suffix="</w>"))
    parts = library.pre_tokenizers
    words_of_clip = parts.Split(library.Regex(_CLIP_WORDS), behavior="removed", invert=True)
    encoder.pre_tokenizer = parts.Sequence([words_of_clip, parts.ByteLevel(add_prefix_space=False, use_regex=False)])
    return encoder


def _byte_letters() -> list[str]:
    """Return the letter of each byte, those of printable bytes first, as byte-level encodings order them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [*map(chr, printable), *(chr(256 + index) for index in range(others))]


def _load_json(path: Path) -> Any:
    library = _library("tokenizers")
    try:
        encoder = library.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a plain Exception
        raise UserError(
            f"{path} is no tokenizer.json ({' '.join(str(error).split())[:120]}); download it again"
        ) from (error)
    encoder.no_truncation()
    encoder.no_padding()
    return encoder


def _load_sentencepiece(path: Path) -> Any:
    library = _library("sentencepiece")
    try:
        return library.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise UserError(f"{path} is no model of SentencePiece ({str(error)[:120]}); download it again") from error
