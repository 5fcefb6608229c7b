"""Both error rates of the challenge and cross-entropy: on the device from scores, on the host from stored guesses.

The first half runs on the device, inside a compiled step; the second half runs on the host, on integer counts.

One order of the classes holds everywhere: the larger score comes first, and of equal scores the lower class index
(the challenge left ties open). The order is written out with comparisons rather than left to a sort, so every platform
gives the same integers; `jax.lax.top_k`, for instance, puts 0.0 before -0.0. An image with NaN among its scores has no
order: it has no guesses (-1) and counts as wrong.

Every interval of an error rate is Wilson's score interval at 95 %, for new images and these checkpoints;
`statistics.intervals` has the whole convention.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import SupportsFloat, SupportsInt

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Int32

from imagenet_repro.errors import UserError
from imagenet_repro.statistics.intervals import Method, binomial_interval
from imagenet_repro.statistics.populations import NEW_IMAGES, interval_heading

GUESSES = 5  # the challenge accepts five labels for an image
FINE_DIGITS_FROM = 10_000  # images from which an interval is narrow enough for two decimals of a percentage


# --- on the device ---------------------------------------------------------------------------------------------


def top5(logits: Float[Array, "b c"]) -> Int32[Array, "b k"]:
    """Return the `min(5, c)` best classes of each image, best first; -1 throughout if one of its scores is NaN."""
    classes = logits.shape[-1]
    index = jnp.arange(classes, dtype=jnp.int32)
    free = jnp.ones(logits.shape, bool)
    best = []
    for _ in range(min(GUESSES, classes)):
        highest = jnp.max(logits, axis=-1, keepdims=True, initial=-jnp.inf, where=free)
        ties = free & (logits == highest)
        chosen = jnp.min(jnp.where(ties, index, classes), axis=-1, keepdims=True)
        free &= index != chosen
        best.append(chosen)
    return jnp.where(_has_order(logits)[:, None], jnp.concatenate(best, axis=-1), -1)


def correct_counts(
    logits: Float[Array, "b c"], labels: Int32[Array, " b"], weights: Float[Array, " b"]
) -> dict[str, Int32[Array, ""]]:
    """Count `images`, `top1_correct` and `top5_correct` over the images whose weight is not zero.

    An image is right with k guesses exactly if fewer than k classes come before its label. A label outside [0, c),
    such as the -1 of an unlabelled split, is never right. The counts add up over batches and devices (`lax.psum`), and
    `ErrorRates.from_counts` reads the sums.
    """
    classes = logits.shape[-1]
    labels = labels[:, None]
    of_label = jnp.take_along_axis(logits, jnp.clip(labels, 0, classes - 1), axis=-1)
    before = (logits > of_label) | ((logits == of_label) & (jnp.arange(classes) < labels))
    rank = jnp.sum(before, axis=-1)
    counted = weights != 0
    scorable = counted & _has_order(logits) & ((labels >= 0) & (labels < classes))[:, 0]
    return {
        "images": jnp.sum(counted, dtype=jnp.int32),
        "top1_correct": jnp.sum(scorable & (rank < 1), dtype=jnp.int32),
        "top5_correct": jnp.sum(scorable & (rank < GUESSES), dtype=jnp.int32),
    }


def cross_entropy(
    logits: Float[Array, "b c"], targets: Float[Array, "b c"] | Int32[Array, " b"]
) -> Float[Array, " b"]:
    """Return the cross-entropy of each image in nats, from target probabilities or from integer labels.

    From labels, a score of -inf for another class is a probability of zero; from target probabilities it gives NaN.
    """
    if targets.ndim == 1:
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return optax.softmax_cross_entropy(logits, targets)


def weighted_sum(values: Float[Array, " b"], weights: Float[Array, " b"]) -> Float[Array, ""]:
    """Return the sum of `values * weights`; an image of weight zero adds nothing, even if its value is NaN."""
    return jnp.sum(jnp.where(weights != 0, values * weights, 0.0))


def _has_order(logits: Float[Array, "b c"]) -> Bool[Array, " b"]:
    return ~jnp.any(jnp.isnan(logits), axis=-1)


# --- on the host -----------------------------------------------------------------------------------------------


def is_wrong(top5: Int[np.ndarray, "n k"], labels: Int[np.ndarray, " n"], guesses: int) -> Bool[np.ndarray, " n"]:
    """Return whether each image's label is missing from its first `guesses` guesses.

    Args:
      top5: guessed classes of each image, best first; -1: no guess.
      labels: class of each image, not negative.
      guesses: number of guesses that count; if an image has fewer, all of them do.
    """
    is_right = np.zeros(len(labels), bool)
    for guess in top5[:, :guesses].T:  # three times as fast as `any` over so few columns
        is_right |= guess == labels
    return ~is_right


def best_classes(scores: Float[np.ndarray, "b c"]) -> Int[np.ndarray, "b k"]:
    """Return the `min(5, c)` best classes, best first, as int32; -1 throughout if one of an image's scores is NaN."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :GUESSES]
    return np.where(np.isnan(scores).any(axis=1, keepdims=True), -1, best).astype(np.int32)


def label_ranks(scores: Float[np.ndarray, "b c"], labels: Int[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
    """Return how many classes come before each image's label, as in `correct_counts`; 5 if a score is NaN."""
    of_label = np.take_along_axis(scores, labels[:, None], axis=1)
    before = (scores > of_label) | ((scores == of_label) & (np.arange(scores.shape[1]) < labels[:, None]))
    return np.where(np.isnan(scores).any(axis=1), GUESSES, before.sum(axis=1))


def format_rate(wrong: int, images: int, method: Method = "wilson") -> tuple[str, str]:
    """Return an error rate and its 95 % interval for new images as percentages, such as `("38.2", "[36.1, 40.3]")`.

    Rates have one decimal, and two from 10,000 images on, where the interval is narrow enough for a second one.
    """
    digits = 2 if images >= FINE_DIGITS_FROM else 1
    low, high = binomial_interval(wrong, images, method)
    return f"{100 * wrong / images:.{digits}f}", f"[{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


@dataclasses.dataclass(frozen=True)
class ErrorRates:
    """Numbers of images that are wrong with one guess and with five, and the number of images scored.

    Raises:
      UserError: no image was scored.
      ValueError: the counts are impossible.
    """

    images: int
    top1_wrong: int
    top5_wrong: int
    cross_entropy: float = float("nan")  # nats, mean over the images; NaN where it was not measured

    def __post_init__(self):
        if self.images == 0:
            raise UserError("no image was scored: the split is empty, or none of its images could be decoded")
        if not 0 <= self.top5_wrong <= self.top1_wrong <= self.images:
            raise ValueError(f"impossible counts: {self.top5_wrong} <= {self.top1_wrong} <= {self.images} fails")

    def __eq__(self, other: object) -> bool:
        return self._identity == other._identity if isinstance(other, ErrorRates) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[float | None, ...]:
        """The values that make two rates equal; a cross-entropy that was not measured equals another such."""
        entropy = None if math.isnan(self.cross_entropy) else self.cross_entropy
        return self.images, self.top1_wrong, self.top5_wrong, entropy

    @classmethod
    def from_counts(
        cls, counts: Mapping[str, SupportsInt], cross_entropy_sum: SupportsFloat | None = None
    ) -> "ErrorRates":
        """Return the rates, given sums over all batches of `correct_counts` and of the weighted cross-entropy."""
        images = int(counts["images"])
        wrong = [images - int(counts[key]) for key in ("top1_correct", "top5_correct")]
        if cross_entropy_sum is None or images == 0:
            return cls(images, *wrong)
        return cls(images, *wrong, cross_entropy=float(cross_entropy_sum) / images)

    @property
    def top1_error(self) -> float:
        """Top-1 error, a share of the images in [0, 1]."""
        return self.top1_wrong / self.images

    @property
    def top5_error(self) -> float:
        """Top-5 error, a share of the images in [0, 1]."""
        return self.top5_wrong / self.images

    def __str__(self) -> str:
        top1, top5 = (" ".join(format_rate(wrong, self.images)) for wrong in (self.top1_wrong, self.top5_wrong))
        return f"top-1 error {top1} %, top-5 error {top5} % ({interval_heading(NEW_IMAGES)}; {self.images:,} images)"
