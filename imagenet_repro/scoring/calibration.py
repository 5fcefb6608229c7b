"""How far probabilities can be trusted: calibration error with its bias, likelihood, a temperature, risk by coverage.

A system's probabilities are the softmax of its stored scores, its confidence in an image the largest of them. Whether
it is right is counted from its stored first guess, as every error rate is. Probabilities are calibrated when of all
images with confidence 0.8, four in five are right.

The expected calibration error is measured in bins, as a mean of distances, and distances do not average out: of a
perfectly calibrated system a finite number of images shows a positive error too. So it never stands alone here.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from imagenet_repro.errors import UserError
from imagenet_repro.scoring.predictions import Predictions, format_ids

BINS = 15  # Guo et al. 2017
CHUNK = 512  # images at a time
RESAMPLES = 1000
DRAWN = 1_000_000  # random numbers at a time
COLDEST, HOTTEST = 1e-3, 1e3  # temperatures between which the best one is looked for

Binning = Literal["width", "mass"]


@dataclasses.dataclass(frozen=True, eq=False)  # known by itself, so that what is slow is drawn once
class ScoredProbabilities:
    """What the measures need of a system's probabilities, by image, at one temperature.

    Attributes:
      confidence: the largest probability.
      right: whether the first guess is.
      surprise: negative logarithm of the label's probability, nats.
      distance: sum over classes of the squared distance from the label's indicator, in [0, 2].
    """

    confidence: Float[np.ndarray, " n"]
    right: Bool[np.ndarray, " n"]
    surprise: Float[np.ndarray, " n"]
    distance: Float[np.ndarray, " n"]

    @property
    def negative_log_likelihood(self) -> float:
        """Mean over images, nats."""
        return float(self.surprise.mean())

    @property
    def brier(self) -> float:
        """Mean squared distance of probabilities from the truth, in [0, 2] (Brier 1950, his eq. 2)."""
        return float(self.distance.mean())

    @property
    def error(self) -> float:
        """Top-1 error, in [0, 1]."""
        return float(1 - self.right.mean())


def score_probabilities(found: Predictions, temperature: float = 1.0) -> ScoredProbabilities:
    """Probabilities of stored predictions, their scores divided by a temperature, against the labels.

    Raises:
      UserError: an image has no label, a score is NaN or +inf, or the label's class is ruled out by -inf.
    """
    _check(found)
    confidence, surprise, distance = [], [], []
    for logits, label in _chunks(found):
        logs = _log_softmax(logits / temperature)
        probabilities, of_label = np.exp(logs), np.take_along_axis(logs, label[:, None], axis=1)[:, 0]
        confidence.append(probabilities.max(axis=1))
        surprise.append(-of_label)
        distance.append(1 - 2 * np.exp(of_label) + np.sum(probabilities**2, axis=1))
    right = found.top5[:, 0] == found.label
    return ScoredProbabilities(np.concatenate(confidence), right, np.concatenate(surprise), np.concatenate(distance))


def _check(found: Predictions) -> None:
    if np.any(found.label < 0):
        raise UserError("these predictions are of images without labels; nothing can be counted on them")
    of_label = np.take_along_axis(found.logits, found.label[:, None], axis=1)[:, 0]
    bad = ~np.isfinite(of_label) | np.any(np.isnan(found.logits) | (found.logits == np.inf), axis=1)
    if np.any(bad):
        ids = found.id[bad]
        raise UserError(
            f"{len(ids):,} images have no probability for their label, since a score is no finite number: "
            f"{format_ids(ids)}"
        )


def _chunks(found: Predictions) -> Iterator[tuple[Float[np.ndarray, "b c"], Int32[np.ndarray, " b"]]]:
    for start in range(0, len(found), CHUNK):
        rows = slice(start, start + CHUNK)
        yield found.logits[rows].astype(np.float64), found.label[rows]


def _log_softmax(logits: Float[np.ndarray, "b c"]) -> Float[np.ndarray, "b c"]:
    from scipy.special import log_softmax

    return log_softmax(logits, axis=1)


# --- expected calibration error ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class CalibrationBins:
    """Images by confidence, those bins left out that have none.

    Attributes:
      images: in each.
      right: of these.
      confidence: their mean.
    """

    images: Int[np.ndarray, " b"]
    right: Int[np.ndarray, " b"]
    confidence: Float[np.ndarray, " b"]

    @property
    def accuracy(self) -> Float[np.ndarray, " b"]:
        """Share of right first guesses."""
        return self.right / self.images

    @property
    def error(self) -> float:
        """Mean over images of how far a bin's accuracy is from its mean confidence (Guo et al. 2017, eq. 3)."""
        return float(np.abs(self.accuracy - self.confidence) @ self.images / self.images.sum())

    @property
    def debiased(self) -> float:
        """The error less an estimate of its bias; it may be negative, and of small errors it removes a part alone.

        Were the measured accuracies the true ones, the error of as many other images would be larger by as much as
        the measured one is too large: twice it, less the mean of that, with accuracies normally distributed (Kumar,
        Liang & Ma 2019, "Verified uncertainty calibration", in their code for the absolute error; there drawn, here
        in closed form: the mean of a folded normal distribution).
        """
        from scipy.stats import norm

        gap = self.accuracy - self.confidence
        deviation = np.maximum(np.sqrt(self.accuracy * (1 - self.accuracy) / self.images), np.finfo(float).tiny)
        z = np.minimum(np.abs(gap) / deviation, 40.0)  # beyond which nothing is left of the distribution
        again = 2 * deviation * norm.pdf(z) + np.abs(gap) * (1 - 2 * norm.sf(z))
        return 2 * self.error - float(again @ self.images / self.images.sum())


def bin_indices(confidence: Float[np.ndarray, " n"], binning: Binning) -> Int[np.ndarray, " n"]:
    """The bin of each image, from 0 to 14: (k/15, (k + 1)/15], or fifteen bins of as equal numbers as possible.

    `width`: Naeini et al. 2015, Guo et al. 2017. `mass`: Nguyen & O'Connor 2015; images of equal confidence are
    divided in their order.
    """
    if binning == "width":
        return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    found = np.empty(len(confidence), int)
    for index, rows in enumerate(np.array_split(np.argsort(confidence, kind="stable"), BINS)):
        found[rows] = index
    return found


def bin_images(judged: ScoredProbabilities, binning: Binning) -> CalibrationBins:
    """Images counted by bins of their confidence."""
    place = bin_indices(judged.confidence, binning)
    images = np.bincount(place, minlength=BINS)
    right = np.bincount(place[judged.right], minlength=BINS)
    total = np.bincount(place, judged.confidence, minlength=BINS)
    some = images > 0
    return CalibrationBins(images[some], right[some], total[some] / images[some])


@dataclasses.dataclass(frozen=True)
class ChanceError:
    """The calibration error that a perfectly calibrated system of the same confidences would show."""

    mean: float
    high: float  # 95 % of draws are at most this


@functools.cache
def chance_error(judged: ScoredProbabilities, binning: Binning) -> ChanceError:
    """The bias of the measured error, by drawing whether each image is right with its confidence as the probability.

    Consistency resampling (Bröcker & Smith 2007, "Increasing the reliability of reliability diagrams"; Vaicenavicius
    et al. 2019, "Evaluating model calibration in classification"). 1,000 draws.
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


def fit_temperature(found: Predictions) -> float:
    """The number to divide scores by for the highest likelihood of the labels (Guo et al. 2017, sec. 4.2).

    The negative log likelihood is convex in the temperature's inverse, so its slope has one zero at most.

    Raises:
      UserError: as `judge`, or every temperature up or down is better than the last: all first guesses are right, or
        scores have nothing to do with labels.
    """
    from scipy.optimize import brentq

    _check(found)
    cold, hot = _slope(found, 1 / COLDEST), _slope(found, 1 / HOTTEST)
    if not (hot < 0 < cold):
        why = "colder is better without end: every label has the highest score" if cold <= 0 else (
            "hotter is better without end: scores say less than nothing of the labels"
        )  # fmt: skip
        raise UserError(f"no temperature can be found on these {len(found):,} images, {why}")
    inverse = brentq(lambda logarithm: _slope(found, np.exp(logarithm)), *np.log([1 / HOTTEST, 1 / COLDEST]))
    return float(np.exp(-inverse))


def _slope(found: Predictions, inverse: float) -> float:
    """Of the mean negative log likelihood, by the temperature's inverse: mean score less that of the label."""
    total = 0.0
    for logits, label in _chunks(found):
        probabilities = np.exp(_log_softmax(logits * inverse))
        finite = np.where(np.isneginf(logits), 0.0, logits)  # their probability is 0
        total += np.sum(probabilities * finite) - np.take_along_axis(finite, label[:, None], axis=1).sum()
    return total / len(found)


# --- risk against coverage --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RiskCurve:
    """Error of the first guess among the most confident images, by the share of images that are answered.

    Attributes:
      coverage: k of n images, k from 1 on.
      risk: error among those.
    """

    coverage: Float[np.ndarray, " n"]
    risk: Float[np.ndarray, " n"]

    @property
    def area(self) -> float:
        """Below the curve: the mean risk (AURC; Geifman, Uziel & El-Yaniv 2019)."""
        return float(self.risk.mean())


def risk_curve(judged: ScoredProbabilities) -> RiskCurve:
    """Images of equal confidence are answered together: each counts as much of an error as they do on average."""
    _, group = np.unique(-judged.confidence, return_inverse=True)
    return _risk((np.bincount(group, ~judged.right) / np.bincount(group))[np.sort(group)])


def best_risk_curve(judged: ScoredProbabilities) -> RiskCurve:
    """The lowest curve of any confidences at this error rate: all right answers first."""
    return _risk(np.sort(~judged.right).astype(float))


def _risk(wrong: Float[np.ndarray, " n"]) -> RiskCurve:
    answered = np.arange(1, len(wrong) + 1)
    return RiskCurve(answered / len(wrong), np.cumsum(wrong) / answered)
