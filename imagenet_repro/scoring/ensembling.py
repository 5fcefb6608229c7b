"""Ensembles of several systems' stored predictions, and the contribution of each member.

A member's scores are the stored ones, in float16. They are averaged in float64, either as probabilities (their
softmax) or as scores. Classes are ordered as everywhere: larger score first, ties to the lower index; an image with
NaN among the averaged scores has no guesses. An ensemble of one member has that member's stored guesses.

Weights are non-negative numbers that sum to 1. They are given, or found on predictions of the same members for other
images, because weights found on the scored images could not be evaluated there.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from imagenet_repro.config.ensemble import Average, SearchedWeights
from imagenet_repro.errors import UserError
from imagenet_repro.scoring.metrics import GUESSES, ErrorRates, best_classes, is_wrong, label_ranks
from imagenet_repro.scoring.predictions import FLOAT16_MAX, Predictions, align, format_ids, to_float16

CHUNK = 256  # images at a time
ROUNDS = 25  # rounds of greedy selection, so a weight is a multiple of 1/25 or of a larger fraction
LEAST = np.finfo(np.float64).tiny  # replaces probabilities that underflow in double precision
LARGEST_GAP = 1e-4  # nats by which the weights' cross-entropy may exceed the lowest one


@dataclasses.dataclass(frozen=True)
class Members:
    """Predictions of several systems for the same images in the same order; `align_members` creates them."""

    names: tuple[str, ...]
    predictions: tuple[Predictions, ...]

    @property
    def id(self) -> Shaped[np.ndarray, " n"]:
        """Ids of the images."""
        return self.predictions[0].id

    @property
    def label(self) -> Int[np.ndarray, " n"]:
        """Labels of the images."""
        return self.predictions[0].label

    @property
    def wrong(self) -> Bool[np.ndarray, "m 2 n"]:
        """Whether each member's stored first guess is wrong, and whether all its first five are."""
        return np.stack(
            [np.stack([is_wrong(one.top5, one.label, k) for k in (1, GUESSES)]) for one in self.predictions]
        )


def align_members(names: Sequence[str], predictions: Sequence[Predictions]) -> Members:
    """Return predictions with their classes and images in the first member's order.

    Args:
      names: names of the members, for messages and tables.
      predictions: predictions of each member.

    Raises:
      UserError: there are fewer than two members, they differ in images, labels or number of classes, an image has no
        label, or two members hold the same scores.
    """
    if len(predictions) < 2:
        raise UserError("an ensemble needs at least two members")
    for name, one in zip(names, predictions, strict=True):
        if np.any(one.label < 0):
            raise UserError(f"{name} holds images without labels, so it cannot be scored")
    first, *others = predictions
    pairs = zip(names[1:], others, strict=True)
    in_order = [first, *(align(first, names[0], one, name) for name, one in pairs)]
    _check_copies(names, in_order)
    return Members(tuple(names), tuple(in_order))


def _check_copies(names: Sequence[str], predictions: Sequence[Predictions]) -> None:
    for index, one in enumerate(predictions):
        for name, other in zip(names[:index], predictions, strict=False):
            if np.array_equal(one.logits, other.logits):
                raise UserError(f"{name} and {names[index]} hold the same scores: one of them is a copy")


# --- averaging --------------------------------------------------------------------------------------------------


def combine(
    members: Members, weights: Float[np.ndarray, " m"], average: Average, provenance: dict[str, Any]
) -> Predictions:
    """Return the ensemble's own predictions.

    For averaged probabilities their logarithms are stored, which softmax inverts.

    Args:
      members: the members; at least one has a positive weight.
      weights: weight of each member; their sum is 1.
      average: the scores that are averaged.
      provenance: provenance of the result.
    """
    if np.count_nonzero(weights) == 1:
        return dataclasses.replace(members.predictions[int(np.argmax(weights))], provenance=provenance)
    top5, logits = [], []
    for rows in _chunks(members):
        scores = average_scores(_scores(members, rows, average), weights)
        top5.append(best_classes(scores))
        logits.append(
            to_float16(_logarithms(members, rows, scores, weights) if average == "probabilities" else scores)
        )
    return Predictions(members.id, members.label, np.concatenate(top5), np.concatenate(logits), provenance)


def wrong_by_weights(
    members: Members, weightings: Float[np.ndarray, "k m"], average: Average
) -> Bool[np.ndarray, "k 2 n"]:
    """Return whether each image is wrong with one guess, and with five, under each of several weightings."""
    result = np.empty((len(weightings), 2, len(members.label)), bool)
    several = np.count_nonzero(weightings, axis=1) > 1
    result[~several] = members.wrong[np.argmax(weightings[~several], axis=1)]
    for rows in _chunks(members):
        scores = _scores(members, rows, average)
        for index in np.flatnonzero(several):
            rank = label_ranks(average_scores(scores, weightings[index]), members.label[rows])
            result[index, :, rows] = np.stack([rank >= 1, rank >= GUESSES])
    return result


def average_scores(scores: Float[np.ndarray, "m b c"], weights: Float[np.ndarray, " m"]) -> Float[np.ndarray, "b c"]:
    """Return the weighted sum over members; members of weight 0 are left out, even if they have NaN.

    Members are added one by one, because a matrix product may round equal columns differently and so break their tie.
    """
    total = np.zeros(scores.shape[1:])
    for weight, score in zip(weights, scores, strict=True):
        if weight > 0:
            total += weight * score
    return total


def _chunks(members: Members) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, len(members.label), CHUNK))


def _scores(members: Members, rows: slice, average: Average) -> Float[np.ndarray, "m b c"]:
    from scipy.special import softmax

    logits = np.stack([one.logits[rows] for one in members.predictions]).astype(np.float64)
    if average == "logits":
        return logits
    with np.errstate(invalid="ignore"):  # an infinite score has no softmax and gives NaN
        return softmax(logits, axis=-1)


def _logarithms(
    members: Members, rows: slice, scores: Float[np.ndarray, "b c"], weights: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "b c"]:
    """Return the logarithms of averaged probabilities; -inf only for classes that every member rules out."""
    used = [one.logits[rows] for one, weight in zip(members.predictions, weights, strict=True) if weight > 0]
    ruled_out = np.all(np.stack(used) == -np.inf, axis=0)
    return np.where(ruled_out, -np.inf, np.log(np.maximum(scores, LEAST)))


# --- weights ----------------------------------------------------------------------------------------------------


def normalize_weights(numbers: Sequence[float]) -> Float[np.ndarray, " m"]:
    """Scale numbers so that they sum to 1. Raises `UserError` if one is negative or all are 0."""
    weights = np.asarray(numbers, np.float64)
    if not np.all(np.isfinite(weights)) or np.any(weights < 0) or not np.any(weights):
        raise UserError(
            f"weights must be non-negative numbers, at least one of them positive, not {', '.join(map(str, numbers))}"
        )
    return weights / weights.sum()


def find_weights(how: SearchedWeights, held_out: Members, average: Average) -> Float[np.ndarray, " m"]:
    """Find weights for the members from their predictions for held-out images.

    `accuracy` weights are proportional to each member's top-1 accuracy. `validation` weights minimize the ensemble's
    cross-entropy, which is convex in them. For `greedy` see `greedy_weights`.

    Args:
      how: one of these methods.
      held_out: predictions of the members, in their order.
      average: the scores that the ensemble will average.

    Raises:
      UserError: no member is right on any image, or the cross-entropy is not finite.
    """
    if how == "greedy":
        return greedy_weights(held_out, average)
    if how == "validation":
        return validation_weights(held_out, average)
    accuracy = 1 - held_out.wrong[:, 0].mean(axis=1)
    if not np.any(accuracy):
        raise UserError("no member's first guess is right on any held-out image, so no weights follow from them")
    return accuracy / accuracy.sum()


def greedy_weights(held_out: Members, average: Average) -> Float[np.ndarray, " m"]:
    """Select members with replacement (Caruana et al. 2004, "Ensemble selection from libraries of models", sec. 2).

    The best member comes first. Each of 25 rounds adds the member, perhaps again, that gives the ensemble the lowest
    top-5 error; ties go to the lowest top-1 error, then to the first member. The earliest round with the lowest errors
    counts, and a member's weight is the number of times that it was added up to that round.
    """
    size = len(held_out.names)
    counts = np.zeros(size)
    rounds = []
    for _ in range(ROUNDS):
        choices = counts + np.eye(size)
        top1, top5 = wrong_by_weights(held_out, choices / choices.sum(axis=1, keepdims=True), average).sum(axis=2).T
        best = int(np.lexsort((top1, top5))[0])
        counts = choices[best]
        rounds.append((int(top5[best]), int(top1[best]), counts))
    top5, top1, counts = min(rounds, key=lambda one: one[:2])
    return counts / counts.sum()


def validation_weights(held_out: Members, average: Average) -> Float[np.ndarray, " m"]:
    """Return the weights with the lowest cross-entropy on held-out images, by sequential quadratic programming.

    The cross-entropy is convex in the weights. No weights can therefore be better by more than the gap between the
    slope at the solution and the steepest slope towards a single member (Frank & Wolfe 1956), and this gap is checked.

    Raises:
      UserError: a score of a held-out image is NaN, or every member gives a label's class the score -inf.
    """
    from scipy.optimize import minimize

    loss = _cross_entropy_of_probabilities(held_out) if average == "probabilities" else _cross_entropy_of(held_out)
    size = len(held_out.names)
    solution = minimize(
        loss,
        np.full(size, 1 / size),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * size,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-12, "maxiter": 200},
    )
    weights = np.where(solution.x < 1e-9, 0.0, solution.x)
    weights /= weights.sum()
    slope = loss(weights)[1]
    if not weights @ slope - slope.min() < LARGEST_GAP:
        raise UserError(
            f"no weights with the lowest cross-entropy were found ({solution.message}); use another --weights"
        )
    return weights


Loss = Callable[[np.ndarray], tuple[float, np.ndarray]]  # value and slope


def _cross_entropy_of_probabilities(held_out: Members) -> Loss:
    """Return the cross-entropy of averaged probabilities as a function of the weights."""
    chunks = []
    for rows in _chunks(held_out):
        scores = _scores(held_out, rows, "probabilities")
        chunks.append(np.take_along_axis(scores, held_out.label[None, rows, None], axis=2)[..., 0])
    of_label = np.concatenate(chunks, axis=1).T  # images, members
    bad = ~(of_label.max(axis=1) > 0)  # also NaN
    if np.any(bad):
        raise UserError(f"no member gives a positive probability to the label of {format_ids(held_out.id[bad])}")
    of_label = np.maximum(of_label, LEAST)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total = np.maximum(of_label @ weights, LEAST)
        return -float(np.log(total).mean()), -(of_label / total[:, None]).mean(axis=0)

    return loss


def _cross_entropy_of(held_out: Members) -> Loss:
    """Return the cross-entropy of averaged scores as a function of the weights; a call reads all scores."""
    from scipy.special import log_softmax

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total, slope = 0.0, np.zeros(len(weights))
        for rows in _chunks(held_out):
            scores = np.clip(_scores(held_out, rows, "logits"), -FLOAT16_MAX, FLOAT16_MAX)
            label = held_out.label[rows, None]
            logs = log_softmax(average_scores(scores, weights), axis=1)
            total -= np.take_along_axis(logs, label, axis=1).sum()
            expected = np.einsum("bc,mbc->m", np.exp(logs), scores)
            slope += expected - np.take_along_axis(scores, label[None], axis=2).sum(axis=(1, 2))
        return float(total) / len(held_out.label), slope / len(held_out.label)

    for name, one in zip(held_out.names, held_out.predictions, strict=True):
        bad = np.isnan(one.logits).any(axis=1)
        if np.any(bad):
            raise UserError(f"{name} has NaN among the scores of {format_ids(one.id[bad])}")
    return loss


# --- what each member adds --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class EnsembleErrors:
    """Images that are wrong for an ensemble, each member alone, without each member, and as members are added.

    Every array is over images, for one guess and for five; None if no positive weight remains.

    Attributes:
      whole: the ensemble.
      alone: each member, by its stored guesses.
      without: all members but this one, the weights of the others in proportion.
      until: this member and those before it.
    """

    whole: Bool[np.ndarray, "2 n"]
    alone: tuple[Bool[np.ndarray, "2 n"], ...]
    without: tuple[Bool[np.ndarray, "2 n"] | None, ...]
    until: tuple[Bool[np.ndarray, "2 n"] | None, ...]


def score_ensemble(members: Members, weights: Float[np.ndarray, " m"], average: Average) -> EnsembleErrors:
    """Return which images an ensemble and its parts get wrong, in one pass over the scores."""
    size = len(weights)
    without = [np.where(np.arange(size) == index, 0.0, weights) for index in range(size)]
    until = [np.where(np.arange(size) <= index, weights, 0.0) for index in range(size)]
    parts = np.stack([weights, *without, *until])
    sums = parts.sum(axis=1)
    left = sums > 0
    results = iter(wrong_by_weights(members, parts[left] / sums[left, None], average))
    complete = next(results)  # an ensemble has a positive weight
    others = [next(results) if has_weight else None for has_weight in left[1:]]
    return EnsembleErrors(complete, tuple(members.wrong), tuple(others[:size]), tuple(others[size:]))


def error_rates(wrong_images: Bool[np.ndarray, "2 n"]) -> ErrorRates:
    """Return both error rates of one array of `EnsembleErrors`."""
    return ErrorRates(wrong_images.shape[1], *map(int, wrong_images.sum(axis=1)))
