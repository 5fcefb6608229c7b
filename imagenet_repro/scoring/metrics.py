"""Both error rates of the challenge, cross-entropy, and intervals for a proportion.

The first half runs on the device, inside a compiled step; the second on the host, on integer counts.

One order of the classes holds everywhere: larger score first, ties to the lower class index (the challenge left ties
open). It is written out with comparisons rather than left to a sort, so every platform gives the same integers. An
image with NaN among its scores has no order: it has no guesses (-1) and counts as wrong.
"""

import dataclasses
from collections.abc import Mapping
from typing import SupportsFloat, SupportsInt

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float32, Int32

from imagenet_repro.errors import UserError
from imagenet_repro.statistics.intervals import Method, binomial_interval

GUESSES = 5  # the challenge accepts five labels for an image
FINE_DIGITS_FROM = 10_000  # images, from which an interval is narrow enough for two decimals of a percentage


# --- on the device ---------------------------------------------------------------------------------------------


def top5(logits: Float32[Array, "b c"]) -> Int32[Array, "b k"]:
    """The `min(5, c)` best classes of each image, best first; a row of -1 where a score is NaN."""
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
    logits: Float32[Array, "b c"], labels: Int32[Array, " b"], weights: Float32[Array, " b"]
) -> dict[str, Int32[Array, ""]]:
    """Counts `images`, `top1_correct` and `top5_correct` over the images whose weight is not zero.

    An image is right among k guesses exactly when fewer than k classes come before its label. A label outside
    [0, c), such as the -1 of an unlabelled split, is never right. The counts add up over batches and devices
    (`lax.psum`), and `ErrorRates.from_counts` reads the sums.
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
    logits: Float32[Array, "b c"], targets: Float32[Array, "b c"] | Int32[Array, " b"]
) -> Float32[Array, " b"]:
    """Cross-entropy of each image in nats, from target probabilities or from integer labels.

    From labels, a score of -inf for another class counts as a probability of zero; from probabilities it gives NaN.
    """
    if targets.ndim == 1:
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return optax.softmax_cross_entropy(logits, targets)


def weighted_sum(values: Float32[Array, " b"], weights: Float32[Array, " b"]) -> Float32[Array, ""]:
    """Sum of `values * weights`, in which an image of weight zero adds nothing, whatever its value (NaN included)."""
    return jnp.sum(jnp.where(weights != 0, values * weights, 0.0))


def _has_order(logits: Float32[Array, "b c"]) -> Bool[Array, " b"]:
    return ~jnp.any(jnp.isnan(logits), axis=-1)


# --- on the host -----------------------------------------------------------------------------------------------


def format_rate(wrong: int, images: int, method: Method = "wilson") -> tuple[str, str]:
    """An error rate and its 95 % interval in percent, such as `("38.2", "[36.1, 40.3]")`.

    One decimal, and two from 10,000 images on, where the interval is narrow enough for the second to mean something.
    """
    digits = 2 if images >= FINE_DIGITS_FROM else 1
    low, high = binomial_interval(wrong, images, method)
    return f"{100 * wrong / images:.{digits}f}", f"[{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


@dataclasses.dataclass(frozen=True)
class ErrorRates:
    """Wrong images by their first guess and by their first five, of all images scored.

    Raises `UserError` where no image was scored, ValueError for counts that cannot be.
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

    @classmethod
    def from_counts(
        cls, counts: Mapping[str, SupportsInt], cross_entropy_sum: SupportsFloat | None = None
    ) -> "ErrorRates":
        """From the sums of `correct_counts` and of `weighted_sum` of the cross-entropy over all batches."""
        images = int(counts["images"])
        wrong = [images - int(counts[key]) for key in ("top1_correct", "top5_correct")]
        if cross_entropy_sum is None or images == 0:
            return cls(images, *wrong)
        return cls(images, *wrong, cross_entropy=float(cross_entropy_sum) / images)

    @property
    def top1_error(self) -> float:
        """Share of the images, in [0, 1]."""
        return self.top1_wrong / self.images

    @property
    def top5_error(self) -> float:
        """Share of the images, in [0, 1]."""
        return self.top5_wrong / self.images

    def __str__(self) -> str:
        top1, top5 = (" ".join(format_rate(wrong, self.images)) for wrong in (self.top1_wrong, self.top5_wrong))
        return f"top-1 error {top1} %, top-5 error {top5} % (95 % interval, {self.images:,} images)"
