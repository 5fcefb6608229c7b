"""The caption of each training image: one of those that belong to it, drawn for each use of the image by the seed."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from imagenet_repro.data.sources import Record, Split
from imagenet_repro.data.tokenizers import Tokenizer
from imagenet_repro.errors import UserError

_N_SAMPLED = 1000  # records whose captions are counted at the start of a run


@runtime_checkable
class Captioner(Protocol):
    """From a record to the tokens of one of its captions; it can be pickled for processes that read images.

    Attributes:
      length: tokens of a caption, padding included.
    """

    @property
    def length(self) -> int:
        """The number of tokens of a caption, padding included."""
        ...

    def tokens(self, record: Record, rng: np.random.Generator) -> Int32[np.ndarray, " length"]:
        """Return the tokens of one of the record's captions, which `rng` draws."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ClassNameCaptioner:
    """The name of a record's class in one of several templates.

    Args:
      table: tokens of every class in every template.
    """

    table: Int32[np.ndarray, "classes templates length"]

    @property
    def length(self) -> int:
        """See `Captioner`."""
        return self.table.shape[2]

    def tokens(self, record: Record, rng: np.random.Generator) -> Int32[np.ndarray, " length"]:
        """See `Captioner`.

        Raises:
          UserError: the record has no label.
        """
        if record.label < 0:
            raise UserError(f"record {record.id} has no label, and its caption is the name of its class")
        return self.table[record.label, rng.integers(self.table.shape[1])]


@dataclasses.dataclass(frozen=True, eq=False)
class StoredCaptioner:
    """One of the captions that are stored with a record.

    Args:
      tokenizer: of the captions.
      length: tokens of a caption, padding included.
    """

    tokenizer: Tokenizer
    length: int

    def tokens(self, record: Record, rng: np.random.Generator) -> Int32[np.ndarray, " length"]:
        """See `Captioner`.

        Raises:
          UserError: a caption of the record is empty, or it has none.
        """
        captions = checked_captions(record)
        return self.tokenizer.encode([captions[int(rng.integers(len(captions)))]], self.length)[0][0]


def checked_captions(record: Record) -> Sequence[str]:
    """Return the captions of a record; raise UserError where it has none, or an empty one."""
    if not record.captions or not all(map(str.strip, record.captions)):
        number = sum(bool(caption.strip()) for caption in record.captions)
        raise UserError(
            f"record {record.id} has {len(record.captions)} captions, {number} of them not empty: a pair needs a text."
            " Prepare the data set again without it, or name another config.captions.feature"
        )
    return record.captions


def count_truncated(split: Split, captioner: StoredCaptioner) -> tuple[int, int]:
    """Return how many captions of a split are truncated, and how many captions were examined.

    Captions are in the records, so of a split with more than 1,000 images a random sample of 1,000 is read.

    Raises:
      UserError: a caption is empty, or a record has none.
    """
    count = min(split.num_examples, _N_SAMPLED)
    indices = np.random.default_rng(0).choice(split.num_examples, count, replace=False)
    captions = [text for index in indices.tolist() for text in checked_captions(split.records[index])]
    return captioner.tokenizer.encode(captions, captioner.length)[1], len(captions)
