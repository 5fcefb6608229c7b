"""Every pair of systems: the difference of their error rates, and whether it is significant.

Two questions are answered. *These two checkpoints on these images* takes one run of each system: McNemar's test, with
p values that Holm's method adjusts over all pairs. *These two recipes* takes all runs: crossed effects of seeds and
images, with intervals of all pairs that cover at once (`statistics.crossed_effects`). Recipes are compared wherever a
system has two seeds or more, since the other systems take the variance of its seeds. The verdict and the letters of a
comparison answer one of the two questions, and name it. Where many seeds are shared, the sign-flip test is a second
opinion on recipes, which assumes less and takes the images as given.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from imagenet_repro.errors import UserError
from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun
from imagenet_repro.report.sections.classes import same_seed
from imagenet_repro.report.sections.leaderboard import ALL_PAIRS, telling_pairs
from imagenet_repro.scoring.metrics import FINE_DIGITS_FROM, GUESSES
from imagenet_repro.scoring.predictions import format_ids
from imagenet_repro.statistics import crossed_effects
from imagenet_repro.statistics.groups import letters
from imagenet_repro.statistics.hypothesis_tests import holm, mcnemar_p, seeds_needed
from imagenet_repro.statistics.intervals import bootstrap_discordant
from imagenet_repro.statistics.joint_counts import joint_counts
from imagenet_repro.statistics.paired_seeds import seed_difference
from imagenet_repro.statistics.populations import NEW_IMAGES, NEW_IMAGES_AND_SEEDS, NEW_SEEDS, interval_heading

RATES = (1, GUESSES)
LEAST_P = 0.0001  # the smallest p that is written out; smaller ones depend on the model more than on the systems
TIE = 1e-9  # means closer than this are equal, since float rounding must not break a tie
FLIPPED_SEEDS = 9  # the fewest shared seeds of a sign-flip test; many pairs need more
FOUND = 0.8  # probability with which the gap that the verdict names is found

Question = Literal["checkpoints", "recipes"]
Answer = Literal["checkpoints", "recipes", "sign_flips"]


@dataclasses.dataclass(frozen=True)
class CheckpointDifference:
    """The difference between one run of each of two systems, on the same images.

    Attributes:
      seeds: seeds of the two runs: the lowest that both systems have, or the lowest of each if they share none.
      only_a, only_b: number of images on which only the first, or only the second, is wrong.
      difference: error rate of the first minus error rate of the second, in [-1, 1].
      interval: bootstrap interval of the difference, for new images and these checkpoints.
      p: McNemar's mid-p.
      adjusted: p adjusted by Holm over all pairs.
      is_significant: whether the adjusted p is at or below the level.
    """

    seeds: tuple[int, int]
    only_a: int
    only_b: int
    difference: float
    interval: tuple[float, float]
    p: float
    adjusted: float
    is_significant: bool


@dataclasses.dataclass(frozen=True)
class RecipeDifference:
    """The difference between two systems in the population of new images and new seeds.

    Attributes:
      seeds: number of seeds of the two systems.
      difference: mean error rate of the first minus that of the second, in [-1, 1].
      seed_error: standard error of the difference by new seeds on the same images.
      image_error: standard error of the difference by new images, beside what the seeds have of it.
      degrees: degrees of freedom of both together.
      interval: interval of the difference; those of all pairs cover at once.
      adjusted: p value by Tukey and Kramer, adjusted for all pairs.
      is_significant: whether the interval excludes zero.
    """

    seeds: tuple[int, int]
    difference: float
    seed_error: float
    image_error: float
    degrees: float
    interval: tuple[float, float]
    adjusted: float
    is_significant: bool


@dataclasses.dataclass(frozen=True)
class SignFlips:
    """The difference between two systems over the seeds that both have, on these images.

    Attributes:
      seeds: seeds that both systems have, enough for a significant outcome after the adjustment.
      difference: error rate of the first minus error rate of the second, mean over seeds, in [-1, 1].
      deviation: standard deviation of the differences over seeds.
      interval: Student's t interval of the mean, for new seeds on these images.
      p: p value of the sign-flip test.
      adjusted: p adjusted by Holm over all pairs that share enough seeds.
      is_significant: whether the adjusted p is at or below the level.
    """

    seeds: tuple[int, ...]
    difference: float
    deviation: float
    interval: tuple[float, float]
    p: float
    adjusted: float
    is_significant: bool


@dataclasses.dataclass(frozen=True)
class PairDifference:
    """The answers about two systems, for one error rate.

    Attributes:
      checkpoints: the difference between one run of each.
      recipes: the difference in the population; None if all systems have one seed.
      sign_flips: the difference over shared seeds; None if the systems share too few.
    """

    checkpoints: CheckpointDifference
    recipes: RecipeDifference | None
    sign_flips: SignFlips | None

    def answer(self, question: Question) -> CheckpointDifference | RecipeDifference:
        """Return the answer to one of the questions.

        Raises:
          ValueError: the question is that of recipes, and all systems have one seed.
        """
        if question == "checkpoints":
            return self.checkpoints
        if self.recipes is None:
            raise ValueError("with one seed of every system only checkpoints can be compared")
        return self.recipes


@dataclasses.dataclass(frozen=True)
class Differences:
    """The differences between all pairs of a comparison.

    Attributes:
      names: names of the systems, in the comparison's order, which every index here follows.
      orders: indices of the systems by rising mean error, for 1 and for 5 guesses.
      pairs: for 1 and for 5 guesses, the pairs by (i, j) with i < j.
      n_images: number of scored images.
      level: largest adjusted p that is called significant. The intervals have a confidence of 1 - level: all pairs at
        once for recipes, otherwise each for its pair by itself: of many such some exclude zero by chance, so the
        adjusted p decides.
      question: the question that verdict, matrices and letters answer: that of recipes where a system has two seeds.
      gaps: true differences in top-1 error that are found with a probability of 80 %, of the best and the worst pair;
        None if all systems have one seed.
    """

    names: tuple[str, ...]
    orders: Mapping[int, tuple[int, ...]]
    pairs: Mapping[int, Mapping[tuple[int, int], PairDifference]]
    n_images: int
    level: float
    question: Question
    gaps: tuple[float, float] | None

    def points(self, guesses: int, question: Question) -> Float[np.ndarray, "n n"]:
        """Return the row's error minus the column's, in percentage points."""
        table = np.zeros((len(self.names), len(self.names)))
        for (i, j), pair in self.pairs[guesses].items():
            table[i, j] = 100 * pair.answer(question).difference
            table[j, i] = -table[i, j]
        return table

    def significant(self, guesses: int, question: Question) -> Bool[np.ndarray, "n n"]:
        """Return whether row and column differ significantly."""
        table = np.zeros((len(self.names), len(self.names)), bool)
        for (i, j), pair in self.pairs[guesses].items():
            table[i, j] = table[j, i] = pair.answer(question).is_significant
        return table

    def letters(self, guesses: int, question: Question) -> list[str]:
        """Return each system's letters: two systems share one exactly if they do not differ significantly.

        The best system has the letter `a`.
        """
        return letters(self.significant(guesses, question), self.orders[guesses])


def differences(comparison: Comparison, *, level: float = 0.05) -> Differences:
    """Compare every pair of systems in both error rates.

    Args:
      comparison: systems scored on the same images.
      level: largest p, adjusted over all pairs, that is called significant.

    Raises:
      UserError: the runs were scored on different images or against different labels, or on none.
    """
    systems = comparison.systems
    check_same(systems)
    crossed = _crossed(systems) if comparison.has_several_seeds and len(systems) > 1 else {}
    return Differences(
        names=tuple(one.name for one in systems),
        orders={k: _order(systems, k) for k in RATES},
        pairs={k: _pairs(systems, k, level, crossed.get(k)) for k in RATES},
        n_images=comparison.n_images,
        level=level,
        question="recipes" if crossed else "checkpoints",
        gaps=_gaps_found(crossed[1], level) if crossed else None,
    )


def _crossed(systems: Sequence[ComparedSystem]) -> dict[int, crossed_effects.Runs]:
    """Return the runs as crossed effects take them, for 1 and for 5 guesses."""
    return {k: crossed_effects.summarize(system.wrong(k) for system in systems) for k in RATES}


def _gaps_found(runs: crossed_effects.Runs, level: float) -> tuple[float, float]:
    noise = crossed_effects.noise_of(runs)
    return crossed_effects.minimal_gaps(runs.seeds.tolist(), runs.images, noise, wanted=FOUND, confidence=1 - level)


def _order(systems: Sequence[ComparedSystem], guesses: int) -> tuple[int, ...]:
    means = [system.mean_error(guesses) for system in systems]
    return tuple(sorted(range(len(means)), key=means.__getitem__))


def _pairs(
    systems: Sequence[ComparedSystem], guesses: int, level: float, runs: crossed_effects.Runs | None
) -> dict[tuple[int, int], PairDifference]:
    system_pairs = list(itertools.combinations(systems, 2))
    checkpoints = _compare_checkpoints(system_pairs, guesses, level)
    recipes = _compare_recipes(runs, level) if runs else [None] * len(system_pairs)
    flips = _flip_signs(system_pairs, guesses, level)
    indices = itertools.combinations(range(len(systems)), 2)
    return {key: PairDifference(checkpoints[at], recipes[at], flips.get(at)) for at, key in enumerate(indices)}


def _compare_checkpoints(
    system_pairs: Sequence[tuple[ComparedSystem, ComparedSystem]], guesses: int, level: float
) -> list[CheckpointDifference]:
    runs = [same_seed(*pair) for pair in system_pairs]
    only_a, only_b = _count_discordant(runs, guesses)
    p_values = mcnemar_p(only_a, only_b)
    n_images = len(system_pairs[0][0].runs[0].guesses.id) if system_pairs else 0
    shares = [
        bootstrap_discordant(a, b, n_images, confidence=1 - level)
        for a, b in zip(only_a.tolist(), only_b.tolist(), strict=True)
    ]
    columns = (runs, only_a.tolist(), only_b.tolist(), shares, p_values.tolist(), holm(p_values).tolist())
    return [
        CheckpointDifference(
            (a.seed, b.seed), one, other, share.difference, share.interval, p, adjusted, adjusted <= level
        )
        for (a, b), one, other, share, p, adjusted in zip(*columns, strict=True)
    ]


def _count_discordant(
    pairs: Sequence[tuple[FinishedRun, ...]], guesses: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Return for each pair on how many images only the first is wrong, and on how many only the second."""
    runs = list({id(run): run for run in itertools.chain(*pairs)}.values())
    if not runs:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rows = {id(run): row for row, run in enumerate(runs)}
    both = joint_counts(run.guesses.wrong(guesses) for run in runs)
    first, second = (np.array([rows[id(pair[at])] for pair in pairs], np.int64) for at in (0, 1))
    errors, shared = both.diagonal(), both[first, second]
    return errors[first] - shared, errors[second] - shared


def _compare_recipes(runs: crossed_effects.Runs, level: float) -> list[RecipeDifference]:
    """Compare all pairs in the population of new images and new seeds, in the order of `itertools.combinations`."""
    pairs = crossed_effects.compare(runs, confidence=1 - level)
    p_values = pairs.p_values()
    return [
        RecipeDifference(
            seeds=(int(runs.seeds[pairs.first[at]]), int(runs.seeds[pairs.second[at]])),
            difference=float(pairs.difference[at]),
            seed_error=float(np.sqrt(pairs.seed_variance[at])),
            image_error=float(np.sqrt(pairs.image_variance[at])),
            degrees=float(pairs.degrees[at]),
            interval=(float(pairs.low[at]), float(pairs.high[at])),
            adjusted=float(p_values[at]),
            is_significant=bool(pairs.is_different[at]),
        )
        for at in range(len(pairs.first))
    ]


def _flip_signs(
    system_pairs: Sequence[tuple[ComparedSystem, ComparedSystem]], guesses: int, level: float
) -> dict[int, SignFlips]:
    """Compare the pairs that share enough seeds; return their differences by their index among the pairs."""
    fewest = max(FLIPPED_SEEDS, seeds_needed(max(1, len(system_pairs)), level))
    shared = {at: seeds for at, (a, b) in enumerate(system_pairs) if len(seeds := _shared_seeds(a, b)) >= fewest}
    tests = {}
    for at, seeds in shared.items():
        errors = (_errors_of_seeds(system, seeds, guesses) for system in system_pairs[at])
        tests[at] = seed_difference(*errors, confidence=1 - level)
    adjusted = holm(np.array([one.p for one in tests.values()], np.float64)).tolist()
    return {
        at: SignFlips(shared[at], one.mean, one.deviation, one.interval, one.p, p, p <= level)
        for (at, one), p in zip(tests.items(), adjusted, strict=True)
    }


def _shared_seeds(a: ComparedSystem, b: ComparedSystem) -> tuple[int, ...]:
    return tuple(seed for seed in a.seeds if seed in b.seeds)


def _errors_of_seeds(system: ComparedSystem, seeds: Sequence[int], guesses: int) -> Float[np.ndarray, " n"]:
    errors = dict(zip(system.seeds, system.errors(guesses), strict=True))
    return np.array([errors[seed] for seed in seeds], np.float64)


def check_same(systems: Sequence[ComparedSystem]) -> None:
    """Raise UserError, naming images, if runs were scored on different images or against different labels."""
    first = systems[0].runs[0]
    for system in systems:
        for run in system.runs:
            _check_run(run, f"{system.name} (seed {run.seed})", first, f"{systems[0].name} (seed {first.seed})")


def _check_run(run: FinishedRun, name: str, first: FinishedRun, first_name: str) -> None:
    ids, first_ids = run.guesses.id, first.guesses.id
    if ids is first_ids and run.guesses.label is first.guesses.label:  # as `collect` reads equal ones
        return
    if not np.array_equal(ids, first_ids):
        only = {first_name: _surplus(first_ids, ids), name: _surplus(ids, first_ids)}
        parts = "; ".join(
            f"only {which}: {format_ids(np.array(surplus))}" for which, surplus in only.items() if surplus
        )
        raise UserError(
            f"{first_name} and {name} were scored on different images; {parts}; evaluate both on one split"
        )
    differ = run.guesses.label != first.guesses.label
    if np.any(differ):
        images = format_ids(ids[differ])
        raise UserError(
            f"{first_name} and {name} were scored against different labels, those of {images}; score both with the"
            " same labels"
        )


def _surplus(ids: Shaped[np.ndarray, " n"], others: Shaped[np.ndarray, " m"]) -> list[str]:
    """Return the ids that only the first has, or that it has more often."""
    return list(Counter(ids.tolist()) - Counter(others.tolist()))


# --- tables ------------------------------------------------------------------------------------------------------


def rows(found: Differences, answer: Answer) -> tuple[list[str], list[list[str]]]:
    """Return the headings and cells of a table of all pairs that have one kind of answer, top-1 first.

    Differences are in percentage points, with a plain minus sign so that programs can read them. A pair without an
    answer has no row.
    """
    table = [
        [f"top-{k} error", found.names[i], found.names[j], *_cells(found, one)]
        for k, (i, j), one in _answers(found, answer)
    ]
    return ["metric", "system a", "system b", *_headings(found, answer), "significant"], table


def excerpt(found: Differences, answer: Answer) -> tuple[int, ...] | None:
    """Return the rows of the table that a page shows: those of `telling_pairs`; None if it shows all."""
    if len(found.names) <= ALL_PAIRS:
        return None
    telling = {
        (k, *sorted((order[i], order[j]))) for k, order in found.orders.items() for i, j in telling_pairs(order)
    }
    return tuple(at for at, (k, pair, _) in enumerate(_answers(found, answer)) if (k, *pair) in telling)


def _answers(
    found: Differences, answer: Answer
) -> Iterator[tuple[int, tuple[int, int], CheckpointDifference | RecipeDifference | SignFlips]]:
    """Yield the answers of one kind with the number of guesses and the pair."""
    for k in RATES:
        for pair, answers in found.pairs[k].items():
            one: CheckpointDifference | RecipeDifference | SignFlips | None = getattr(answers, answer)
            if one is not None:
                yield k, pair, one


def _headings(found: Differences, answer: Answer) -> list[str]:
    confidence = 1 - found.level
    if answer == "recipes":
        interval = interval_heading(NEW_IMAGES_AND_SEEDS, confidence)
        errors = ["standard error by seeds", "by images", "degrees of freedom"]
        return ["seeds", "a - b, points", interval, *errors, "p adjusted (Tukey-Kramer)"]
    if answer == "sign_flips":
        interval = interval_heading(NEW_SEEDS, confidence)
        return ["shared seeds", "a - b, points", "standard deviation, points", interval, "p (sign-flip test)",
                "p adjusted (Holm)"]  # fmt: skip
    interval = interval_heading(NEW_IMAGES, confidence)
    return ["seeds", "a - b, points", interval, "only a wrong", "only b wrong", "p (McNemar, mid-p)",
            "p adjusted (Holm)"]  # fmt: skip


def _cells(found: Differences, one: CheckpointDifference | RecipeDifference | SignFlips) -> list[str]:
    difference, interval = _signed(one.difference, found), _interval(one.interval, found)
    if isinstance(one, RecipeDifference):
        errors = [percent(error, found, 1) for error in (one.seed_error, one.image_error)]
        numbers = [_distinct(one.seeds), difference, interval, *errors, f"{one.degrees:,.1f}", _p(one.adjusted)]
    elif isinstance(one, SignFlips):
        deviation = percent(one.deviation, found)
        numbers = [str(len(one.seeds)), difference, deviation, interval, _p(one.p), _p(one.adjusted)]
    else:
        counts = [f"{one.only_a:,}", f"{one.only_b:,}"]
        numbers = [_distinct(one.seeds), difference, interval, *counts, _p(one.p), _p(one.adjusted)]
    return [*numbers, "yes" if one.is_significant else "no"]


def _distinct(seeds: Sequence[int]) -> str:
    return " and ".join(str(seed) for seed in dict.fromkeys(seeds))


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= LEAST_P else f"<{LEAST_P}"


def _interval(interval: tuple[float, float], found: Differences) -> str:
    return f"[{', '.join(_signed(end, found) for end in interval)}]"


def _signed(share: float, found: Differences) -> str:
    text = f"{100 * share:+.{digits(found)}f}"
    return text if float(text) else text[1:]


def percent(share: float, found: Differences, more_digits: int = 0) -> str:
    """Return a share in percent as text, with as many decimals as the number of images gives it."""
    points = round(100 * share, 9)  # so that float noise does not decide a tie
    return f"{points:.{digits(found) + more_digits}f}"


def digits(found: Differences) -> int:
    """Return the number of decimals of percentages, by the number of scored images."""
    return 2 if found.n_images >= FINE_DIGITS_FROM else 1
