"""Zero-shot classification: texts about each class as the head of an image tower (Radford et al. 2021, sec. 3.1)."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from imagenet_repro.models.image_text import ImageTextNetwork, unit
from imagenet_repro.models.nn.attention import dense
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import widen

BATCH = 256  # texts that are computed at once


def class_embeddings(
    network: ImageTextNetwork, tokens: Int[np.ndarray, "c t l"], show: Callable[[int], None] = lambda texts: None
) -> Float32[np.ndarray, "c d"]:
    """Return one vector of length 1 for each class: the normalised mean of its texts' normalised features.

    This is the ensemble of CLIP (sec. 3.1.4; `zeroshot_classifier` of its notebook).

    Args:
      network: in evaluation mode.
      tokens: of t texts for each of c classes.
      show: called after every batch with its number of texts.
    """
    classes, texts, _ = tokens.shape
    rows = tokens.reshape(classes * texts, -1)
    if network.text.pooling == "eot" and network.text.end_token is None:
        rows = _without_padding(rows)
    graphdef, state = nnx.split(network.text)
    size = min(BATCH, len(rows))

    @jax.jit
    def encode(state: nnx.State, batch: Int[Array, "b l"]) -> Float[Array, "b d"]:
        return unit(nnx.merge(graphdef, state)(batch))

    parts = []
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        padded = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
        parts.append(np.asarray(encode(state, jnp.asarray(padded)))[: len(batch)])
        show(len(batch))
    means = np.concatenate(parts).reshape(classes, texts, -1).mean(axis=1)
    return np.asarray(unit(jnp.asarray(means)), np.float32)


def _without_padding(rows: Int[np.ndarray, "n l"]) -> Int[np.ndarray, "m k"]:
    """Return rows without the columns after the last end of text, which change nothing where attention is causal."""
    used = int(rows.argmax(axis=1).max()) + 1
    return rows[:, : min(rows.shape[1], 8 * math.ceil(used / 8))]


class ZeroShotNetwork(Network):
    """An image tower whose head is one text vector for each class.

    Logits are scale * cosine + bias; for SigLIP they are those of a sigmoid for each class.

    Args:
      network: the towers; the image tower is shared with it.
      embeddings: vectors of length 1.
    """

    def __init__(self, network: ImageTextNetwork, embeddings: Float32[np.ndarray, "c d"]):
        classes, width = embeddings.shape
        self.image: Network = network.image
        scale = jnp.exp(network.logit_scale[...])
        bias = 0.0 if network.logit_bias is None else float(network.logit_bias[...])
        self.head_ = dense(width, classes, bias=bias, wide=True, dtype=network.text.dtype, rngs=nnx.Rngs(0))
        self.head_.weight.set_value(jnp.asarray(embeddings.T) * scale)

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b n c"]:
        """Return the image tower's normalised tokens after the last block."""
        return self.image.features(images)

    def pool(self, features: Float[Array, "b n c"]) -> Float[Array, "b d"]:
        """Return the features of images, float32, of length 1."""
        return unit(self.image.head(self.image.pool(features)))

    def head(self, pooled: Float[Array, "b d"]) -> Float[Array, "b classes"]:
        """Return float32 logits."""
        return widen(self.head_(pooled))

    def split_at_map(
        self, images: Float[Array, "b h w 3"]
    ) -> tuple[Float[Array, "b mh mw d"], Callable[[Float[Array, "b mh mw d"]], Float[Array, "b classes"]]]:
        """Return the map of the patch tokens before the last block, and the function from it to the logits."""
        patches, features = self.image.split_at_map(images)
        return patches, lambda patches: self.head(unit(features(patches)))
