"""The losses of image-text pairs over the axis "data": softmax as in CLIP, sigmoid as in SigLIP.

Each device has the features of its own share of the pairs, and returns its share of the loss: the mean over devices is
the loss of the whole batch, and the mean over devices of the gradients is that loss's gradient, as for every other
step. A pair is row i of the images with row i of the texts of the same device; every other combination, on any device,
is a negative.

The softmax needs all scores of a row, so every device gathers all features, and computes its own rows of the matrix of
scores in both directions. The sigmoid is a sum over pairs, so texts travel around the ring of devices, and a device
holds one block of scores at a time, also in the backward pass.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32

from imagenet_repro.training.step import AXIS

# Texts of the same words have the same score up to rounding; one of them does not beat the other.
MARGIN = 1e-5  # of the cosine


class PairLoss(NamedTuple):
    """A device's share of the loss, and the rank of each of its images' own text.

    Attributes:
      loss: float [], in nats; its mean over devices is the loss of the batch.
      better: int32 [b], the number of texts of the whole batch that an image is more similar to than to its own.
    """

    loss: Float[Array, ""]
    better: Int32[Array, " b"]


def softmax_loss(images: Float[Array, "b d"], texts: Float[Array, "b d"], scale: Float[Array, ""]) -> PairLoss:
    """Return the mean cross-entropy of finding each image's text and each text's image in the whole batch.

    Args:
      images: features of this device's images, of unit length.
      texts: features of their texts, of unit length.
      scale: the inverse temperature.

    Source: Radford et al. 2021 (arXiv 2103.00020), fig. 3.
    """
    all_images, all_texts = (lax.all_gather(features, AXIS, tiled=True) for features in (images, texts))
    own = lax.axis_index(AXIS) * len(images) + jnp.arange(len(images), dtype=jnp.int32)
    similarity = images @ all_texts.T
    of_images = _cross_entropy(scale * similarity, own)
    of_texts = _cross_entropy(scale * (texts @ all_images.T), own)
    return PairLoss((of_images + of_texts) / 2, _count_better(similarity, _own_similarity(images, texts)))


def _cross_entropy(logits: Float[Array, "b n"], own: Int32[Array, " b"]) -> Float[Array, ""]:
    """Return the mean over rows of the cross-entropy of the column `own`."""
    log_shares = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_shares, own[:, None], axis=1).mean()


def sigmoid_loss(
    images: Float[Array, "b d"], texts: Float[Array, "b d"], scale: Float[Array, ""], bias: Float[Array, ""]
) -> PairLoss:
    """Return the sum over all pairs of the batch of their binary cross-entropy, divided by the number of images.

    Args:
      images: features of this device's images, of unit length.
      texts: features of their texts, of unit length.
      scale: the inverse temperature.
      bias: added to every score.

    Source: Zhai et al. 2023 (arXiv 2303.15343), algorithm 1 and section 3.3: device i computes the block of its images
    with its texts, then with those of device i + 1, and so on.
    """
    return PairLoss(*_ring_loss(images, texts, scale, bias))


@jax.custom_vjp
def _ring_loss(images: Array, texts: Array, scale: Array, bias: Array) -> tuple[Array, Array]:
    """Return the sum of the blocks' losses and the number of better texts, block by block.

    Differentiating the loop would keep the scores of every block for the backward pass, so `_ring_backward` computes
    them again while the texts and their gradients go around the ring once more.
    """
    own = _own_similarity(images, texts)

    def add_block(carry: tuple, number: Array) -> tuple[tuple, None]:
        total, better, texts = carry
        total += _block_loss(images, texts, scale, bias, number)
        better += _count_better(images @ texts.T, own)
        return (total, better, _pass_on(texts)), None

    start = (jnp.zeros((), images.dtype), jnp.zeros(len(images), jnp.int32), texts)
    (total, better, _), _ = lax.scan(add_block, start, jnp.arange(lax.axis_size(AXIS)))
    return total, better


def _ring_forward(*inputs: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    return _ring_loss(*inputs), inputs


def _ring_backward(inputs: tuple[Array, ...], cotangents: tuple[Array, Any]) -> tuple[Array, ...]:
    images, texts, scale, bias = inputs
    of_loss = cotangents[0]  # the counts have none

    def add_block(carry: tuple, number: Array) -> tuple[tuple, None]:
        (of_images, of_scale, of_bias), (texts, of_texts) = carry
        block = functools.partial(_block_loss, number=number)
        new = jax.vjp(block, images, texts, scale, bias)[1](of_loss)
        sums = (of_images + new[0], of_scale + new[2], of_bias + new[3])
        return (sums, _pass_on((texts, of_texts + new[1]))), None

    start = jax.tree.map(jnp.zeros_like, ((images, scale, bias), (texts, texts)))
    start = (start[0], (texts, start[1][1]))
    ((of_images, of_scale, of_bias), (_, of_texts)), _ = lax.scan(add_block, start, jnp.arange(lax.axis_size(AXIS)))
    return of_images, of_texts, of_scale, of_bias  # after a whole turn, texts are where they began


_ring_loss.defvjp(_ring_forward, _ring_backward)


def _block_loss(images: Array, texts: Array, scale: Array, bias: Array, number: Array) -> Float[Array, ""]:
    """Return the loss of a block over its number of images; in block 0 the texts are those of the images."""
    is_pair = jnp.eye(len(images), dtype=bool) & (number == 0)
    scores = scale * (images @ texts.T) + bias
    return -jax.nn.log_sigmoid(jnp.where(is_pair, scores, -scores)).sum() / len(images)


def _pass_on(tree: Any) -> Any:
    """Return the arrays of the next device on the ring."""
    devices = lax.axis_size(AXIS)
    return lax.ppermute(tree, AXIS, [(i, (i - 1) % devices) for i in range(devices)])


def _own_similarity(images: Float[Array, "b d"], texts: Float[Array, "b d"]) -> Float[Array, "b 1"]:
    return (images * texts).sum(axis=1, keepdims=True)


def _count_better(similarity: Float[Array, "b n"], own: Float[Array, "b 1"]) -> Int32[Array, " b"]:
    return (similarity > own + MARGIN).sum(axis=1, dtype=jnp.int32)
