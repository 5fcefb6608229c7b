"""The classifier of a network with two towers: prompts of its classes as tokens, and their cached embeddings."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int32

from imagenet_repro import __version__
from imagenet_repro.data.tokenizers import Tokenizer
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.inference import class_texts
from imagenet_repro.inference.protocols import progress_bar
from imagenet_repro.models import zero_shot
from imagenet_repro.models.image_text import ImageTextNetwork
from imagenet_repro.storage import files, user

FOLDER = "text_embeddings"  # below the user's directory of caches


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The texts of a zero-shot classifier as tokens.

    Attributes:
      tokens: [class, template, token].
      truncated: number of texts that were too long.
    """

    tokens: Int32[np.ndarray, "c t l"]
    truncated: int

    @property
    def count(self) -> int:
        """The number of texts."""
        return self.tokens.shape[0] * self.tokens.shape[1]


def encode_prompts(tokenizer: Tokenizer, names: Sequence[str], templates: Sequence[str], context: int) -> Prompts:
    """Return the prompts of all classes as tokens, each padded or truncated to `context`."""
    tokens, truncated = tokenizer.encode(class_texts.fill(names, templates), context)
    return Prompts(tokens.reshape(len(names), len(templates), context), truncated)


def truncation_note(prompts: Prompts) -> str:
    """Return a sentence about truncated prompts; empty if there are none."""
    if not prompts.truncated:
        return ""
    length = prompts.tokens.shape[2]
    return f"{prompts.truncated:,} of {prompts.count:,} prompts are longer than {length} tokens and were truncated"


def cached_embeddings(
    network: ImageTextNetwork, prompts: Prompts, weights: Mapping[str, str], options: Mapping[str, Any]
) -> tuple[Float32[np.ndarray, "c d"], str]:
    """Return the embeddings of classes, computed once for the same texts and weights, and a sentence about them.

    Args:
      network: in evaluation mode.
      prompts: of the classes.
      weights: of the network, as `provenance.of_file` describes them.
      options: of the network.
    """
    path = user.cache_directory() / FOLDER / f"{cache_key(prompts, weights['sha256'], options)}.npy"
    embeddings = _read(path, len(prompts.tokens))
    if embeddings is not None:
        return embeddings, f"embeddings of {prompts.count:,} texts: read from {path}"
    with progress_bar("texts", prompts.count) as show:
        embeddings = zero_shot.class_embeddings(network, prompts.tokens, show)
    if not np.isfinite(embeddings).all():
        raise UserError("the embeddings of the texts are not finite; the weights of the text tower are damaged")
    computed = f"embeddings of {prompts.count:,} texts: computed"
    if jax.process_index() != 0:
        return embeddings, computed
    try:
        with files.atomic_write(path, "text embeddings") as file:
            np.save(file, embeddings)
    except SaveError as error:  # they are computed again next time
        return embeddings, f"{computed}, and not kept ({error})"
    return embeddings, f"{computed}, and kept in {path}"


def cache_key(prompts: Prompts, weights: str, options: Mapping[str, Any]) -> str:
    """Return a name that changes with the weights, the network's options, the tokens and the version of this code."""
    content = hashlib.sha256(np.ascontiguousarray(prompts.tokens, "<i4").tobytes())
    about = {
        "weights": weights,
        "options": {key: value for key, value in options.items() if key not in ("image_size", "scan", "remat")},
        "shape": prompts.tokens.shape,
        "version": __version__,
        "tokens": content.hexdigest(),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def _read(path: Path, classes: int) -> Float32[np.ndarray, "c d"] | None:
    """Return stored embeddings; None where there are none, or they are damaged."""
    try:
        embeddings = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    is_valid = embeddings.dtype == np.float32 and embeddings.ndim == 2 and len(embeddings) == classes
    return embeddings if is_valid and np.isfinite(embeddings).all() else None
