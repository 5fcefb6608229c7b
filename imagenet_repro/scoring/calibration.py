"""Calibration of probabilities: calibration error and its bias, likelihood, temperature, and risk by coverage.

A system's probabilities are the softmax of its stored scores, and its confidence in an image is the largest of them.
Whether it is right follows from its stored first guess, as for every error rate. Probabilities are calibrated if four
in five of all images with confidence 0.8 are right, and so on.

The expected calibration error is measured in bins, as a mean of distances, and distances do not average out: even a
perfectly calibrated system shows a positive error on a finite number of images. The error is therefore always reported
beside an estimate of its bias.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from imagenet_repro.errors import UserError
from imagenet_repro.scoring.predictions import Predictions, format_ids

BINS = 15  # as in Guo et al. 2017
CHUNK = 512  # images at a time
RESAMPLES = 1000
DRAWN = 1_000_000  # random numbers drawn at a time
COLDEST, HOTTEST = 1e-3, 1e3  # range in which the best temperature is searched

Binning = Literal["width", "mass"]


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, so that `chance_error` is drawn only once
class ScoredProbabilities:
    """Per-image quantities from which the measures are computed, at one temperature.

    Attributes:
      confidence: the largest probability.
      right: whether the first guess is right.
      surprise: negative logarithm of the label's probability, in nats.
      distance: sum over classes of the squared distance from the label's indicator, in [0, 2].
    """

    confidence: Float[np.ndarray, " n"]
    right: Bool[np.ndarray, " n"]
    surprise: Float[np.ndarray, " n"]
    distance: Float[np.ndarray, " n"]

    @property
    def negative_log_likelihood(self) -> float:
        """Negative log likelihood, mean over images, in nats."""
        return float(self.surprise.mean())

    @property
    def brier(self) -> float:
        """Brier score, the mean squared distance of probabilities from the label's indicator, in [0, 2].

        Brier 1950, his eq. 2.
        """
        return float(self.distance.mean())

    @property
    def error(self) -> float:
        """Top-1 error, in [0, 1]."""
        return float(1 - self.right.mean())


def score_probabilities(predictions: Predictions, temperature: float = 1.0) -> ScoredProbabilities:
    """Compare the probabilities of stored predictions, their scores divided by a temperature, with the labels.

    Raises:
      UserError: an image has no label, a score is NaN or +inf, or the label's class has the score -inf.
    """
    _check(predictions)
    confidence, surprise, distance = [], [], []
    for logits, label in _chunks(predictions):
        logs = _log_softmax(logits / temperature)
        probabilities, of_label = np.exp(logs), np.take_along_axis(logs, label[:, None], axis=1)[:, 0]
        confidence.append(probabilities.max(axis=1))
        surprise.append(-of_label)
        distance.append(1 - 2 * np.exp(of_label) + np.sum(probabilities**2, axis=1))
    right = predictions.top5[:, 0] == predictions.label
    return ScoredProbabilities(np.concatenate(confidence), right, np.concatenate(surprise), np.concatenate(distance))


def _check(predictions: Predictions) -> None:
    if np.any(predictions.label < 0):
        raise UserError("these predictions are for images without labels, so they cannot be scored")
    of_label = np.take_along_axis(predictions.logits, predictions.label[:, None], axis=1)[:, 0]
    bad = ~np.isfinite(of_label) | np.any(np.isnan(predictions.logits) | (predictions.logits == np.inf), axis=1)
    if np.any(bad):
        ids = predictions.id[bad]
        raise UserError(
            f"{len(ids):,} images have no probability for their label because a score is not finite: {format_ids(ids)}"
        )


def _chunks(predictions: Predictions) -> Iterator[tuple[Float[np.ndarray, "b c"], Int32[np.ndarray, " b"]]]:
    for start in range(0, len(predictions), CHUNK):
        rows = slice(start, start + CHUNK)
        yield predictions.logits[rows].astype(np.float64), predictions.label[rows]


def _log_softmax(logits: Float[np.ndarray, "b c"]) -> Float[np.ndarray, "b c"]:
    from scipy.special import log_softmax

    return log_softmax(logits, axis=1)


# --- expected calibration error ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class CalibrationBins:
    """Images grouped by confidence; bins without images are left out.

    Attributes:
      images: number of images in each bin.
      right: number of right images in each bin.
      confidence: mean confidence in each bin.
    """

    images: Int[np.ndarray, " b"]
    right: Int[np.ndarray, " b"]
    confidence: Float[np.ndarray, " b"]

    @property
    def accuracy(self) -> Float[np.ndarray, " b"]:
        """Share of right first guesses in each bin."""
        return self.right / self.images

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance between a bin's accuracy and confidence, weighted by images.

        Guo et al. 2017, eq. 3.
        """
        return float(np.abs(self.accuracy - self.confidence) @ self.images / self.images.sum())

    @property
    def debiased(self) -> float:
        """The error minus an estimate of its bias; it may be negative.

        For small errors this removes only a part of the bias. If the measured accuracies were the true ones, the error
        on the same number of other images would exceed that by as much as the measured error exceeds the true one. The
        estimate is therefore twice the error minus the mean of that error, with normally distributed accuracies
        (Kumar, Liang & Ma 2019, "Verified uncertainty calibration", in their code for the absolute error). They draw
        samples; here the mean of a folded normal distribution gives it in closed form.
        """
        from scipy.stats import norm

        gap = self.accuracy - self.confidence
        deviation = np.maximum(np.sqrt(self.accuracy * (1 - self.accuracy) / self.images), np.finfo(float).tiny)
        z = np.minimum(np.abs(gap) / deviation, 40.0)  # the density is zero in double precision beyond that
        again = 2 * deviation * norm.pdf(z) + np.abs(gap) * (1 - 2 * norm.sf(z))
        return 2 * self.error - float(again @ self.images / self.images.sum())


def bin_indices(confidence: Float[np.ndarray, " n"], binning: Binning) -> Int[np.ndarray, " n"]:
    """Return the bin of each image, from 0 to 14.

    `width` bins have equal width, (k/15, (k + 1)/15]: Naeini et al. 2015, Guo et al. 2017. `mass` bins have numbers of
    images as equal as possible: Nguyen & O'Connor 2015; images of equal confidence are divided in their order.
    """
    if binning == "width":
        return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins = np.empty(len(confidence), int)
    for index, rows in enumerate(np.array_split(np.argsort(confidence, kind="stable"), BINS)):
        bins[rows] = index
    return bins


def bin_images(judged: ScoredProbabilities, binning: Binning) -> CalibrationBins:
    """Count images by bins of their confidence."""
    place = bin_indices(judged.confidence, binning)
    images = np.bincount(place, minlength=BINS)
    right = np.bincount(place[judged.right], minlength=BINS)
    total = np.bincount(place, judged.confidence, minlength=BINS)
    some = images > 0
    return CalibrationBins(images[some], right[some], total[some] / images[some])


@dataclasses.dataclass(frozen=True)
class ChanceError:
    """The calibration error that a perfectly calibrated system with the same confidences would show."""

    mean: float
    high: float  # 95 % of draws are at most this


@functools.cache
def chance_error(judged: ScoredProbabilities, binning: Binning) -> ChanceError:
    """Return the bias of the measured error, estimated by drawing whether each image is right.

    Each image is right with its confidence as the probability. This is consistency resampling (Bröcker & Smith 2007,
    "Increasing the reliability of reliability diagrams"; Vaicenavicius et al. 2019, "Evaluating model calibration in
    classification"), with 1,000 draws.
    """
    order = np.argsort(bin_indices(judged.confidence, binning), kind="stable")
    place, confidence = bin_indices(judged.confidence, binning)[order], judged.confidence[order]
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    expected = np.add.reduceat(confidence, starts)
    rng = np.random.default_rng(0)
    errors = []
    for rows in np.array_split(np.arange(RESAMPLES), max(1, RESAMPLES * len(place) // DRAWN)):
        right = rng.random((len(rows), len(place)), np.float32) < confidence
        gaps = np.add.reduceat(right, starts, axis=1, dtype=np.int64) - expected
        errors.append(np.abs(gaps).sum(axis=1) / len(place))
    drawn = np.concatenate(errors)
    return ChanceError(float(drawn.mean()), float(np.quantile(drawn, 0.95)))


# --- temperature ------------------------------------------------------------------------------------------------


def fit_temperature(predictions: Predictions) -> float:
    """Return the divisor of scores that gives the labels the highest likelihood (Guo et al. 2017, sec. 4.2).

    The negative log likelihood is convex in the inverse temperature, so its slope has at most one zero.

    Raises:
      UserError: an error of `score_probabilities`; or the likelihood rises without end with a lower or a higher
        temperature, because all first guesses are right or scores are unrelated to labels.
    """
    from scipy.optimize import brentq

    _check(predictions)
    cold, hot = _slope(predictions, 1 / COLDEST), _slope(predictions, 1 / HOTTEST)
    if not (hot < 0 < cold):
        why = "because lower ones are always better: every label has the highest score" if cold <= 0 else (
            "because higher ones are always better: the scores are unrelated to the labels"
        )  # fmt: skip
        raise UserError(f"no temperature can be fitted to these {len(predictions):,} images, {why}")
    low, high = np.log([1 / HOTTEST, 1 / COLDEST])
    logarithm = brentq(lambda logarithm: _slope(predictions, np.exp(logarithm)), low, high)
    return float(np.exp(-logarithm))  # pyright: ignore[reportOperatorIssue]  # a float without full_output


def _slope(predictions: Predictions, inverse: float) -> float:
    """Return the slope of the mean negative log likelihood in the inverse temperature.

    It is the mean score under the probabilities minus the score of the label.
    """
    total = 0.0
    for logits, label in _chunks(predictions):
        probabilities = np.exp(_log_softmax(logits * inverse))
        finite = np.where(np.isneginf(logits), 0.0, logits)  # their probability is 0
        total += np.sum(probabilities * finite) - np.take_along_axis(finite, label[:, None], axis=1).sum()
    return total / len(predictions)


# --- risk against coverage --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RiskCurve:
    """Error of the first guess among the most confident images, by the share of images that are answered.

    Attributes:
      coverage: share of answered images, k of n for k from 1.
      risk: error among them.
    """

    coverage: Float[np.ndarray, " n"]
    risk: Float[np.ndarray, " n"]

    @property
    def area(self) -> float:
        """Area under the curve, which is the mean risk (AURC; Geifman, Uziel & El-Yaniv 2019)."""
        return float(self.risk.mean())


def risk_curve(judged: ScoredProbabilities) -> RiskCurve:
    """Return the risk curve; images of equal confidence are answered together, each with their average error."""
    _, group = np.unique(-judged.confidence, return_inverse=True)
    return _risk((np.bincount(group, ~judged.right) / np.bincount(group))[np.sort(group)])


def best_risk_curve(judged: ScoredProbabilities) -> RiskCurve:
    """Return the lowest curve possible at this error rate: all right answers come first."""
    return _risk(np.sort(~judged.right).astype(float))


def _risk(wrong: Float[np.ndarray, " n"]) -> RiskCurve:
    answered = np.arange(1, len(wrong) + 1)
    return RiskCurve(answered / len(wrong), np.cumsum(wrong) / answered)
