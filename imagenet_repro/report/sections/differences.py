"""Every pair of systems: the difference of their error rates, and whether it is significant.

Two questions are answered side by side, each with separate p values, which Holm's method adjusts over all pairs
within one question and one error rate. *These two checkpoints on these images* takes one run of each system; *these
two recipes* takes the runs that share a seed. The verdict and the letters of a comparison answer one of the two, and
name it.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped

from imagenet_repro.errors import UserError
from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun
from imagenet_repro.report.sections.classes import same_seed
from imagenet_repro.scoring.metrics import FINE_DIGITS_FROM, GUESSES
from imagenet_repro.scoring.predictions import format_ids
from imagenet_repro.statistics.groups import letters
from imagenet_repro.statistics.hypothesis_tests import holm, mcnemar, seeds_needed
from imagenet_repro.statistics.intervals import bootstrap_difference
from imagenet_repro.statistics.paired_seeds import seed_difference

RATES = (1, GUESSES)
LEAST_P = 0.0001  # the smallest p that is written out; smaller ones depend on the model more than on the systems
TIE = 1e-9  # means closer than this are equal, since float rounding must not break a tie

Question = Literal["checkpoints", "recipes"]


@dataclasses.dataclass(frozen=True)
class CheckpointDifference:
    """The difference between one run of each of two systems, on the same images.

    Attributes:
      seeds: seeds of the two runs: the lowest that both systems have, or the lowest of each if they share none.
      only_a, only_b: number of images on which only the first, or only the second, is wrong.
      difference: error rate of the first minus error rate of the second, in [-1, 1].
      interval: bootstrap interval of the difference, for other images of the same kind.
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
    """The difference between two systems over the seeds that both have.

    Attributes:
      seeds: seeds that both systems have, at least two.
      difference: error rate of the first minus error rate of the second, mean over seeds, in [-1, 1].
      deviation: standard deviation of the differences over seeds.
      interval: Student's t interval of the mean, for other seeds.
      p: p value of the sign-flip test.
      adjusted: p adjusted by Holm over all pairs that share two seeds.
      has_too_few_seeds: whether no outcome of this many seeds could be significant after the adjustment.
      is_significant: whether the adjusted p is at or below the level.
    """

    seeds: tuple[int, ...]
    difference: float
    deviation: float
    interval: tuple[float, float]
    p: float
    adjusted: float
    has_too_few_seeds: bool
    is_significant: bool


@dataclasses.dataclass(frozen=True)
class PairDifference:
    """The answers to both questions about two systems, for one error rate.

    Attributes:
      checkpoints: the difference between one run of each.
      recipes: the difference over shared seeds; None if the systems share fewer than two.
    """

    checkpoints: CheckpointDifference
    recipes: RecipeDifference | None

    @property
    def question(self) -> Question:
        """Return the more general question that there are enough runs to answer."""
        return "recipes" if self.recipes and not self.recipes.has_too_few_seeds else "checkpoints"

    def answer(self, question: Question) -> CheckpointDifference | RecipeDifference | None:
        """Return the answer to one of the questions, or None if there is none."""
        return self.recipes if question == "recipes" else self.checkpoints


@dataclasses.dataclass(frozen=True)
class Differences:
    """The differences between all pairs of a comparison.

    Attributes:
      names: names of the systems, in the comparison's order, which every index here follows.
      orders: indices of the systems by rising mean error, for 1 and for 5 guesses.
      pairs: for 1 and for 5 guesses, the pairs by (i, j) with i < j.
      n_images: number of scored images.
      level: largest adjusted p that is called significant. The intervals have a confidence of 1 - level, each for its
        pair by itself: of many intervals some exclude zero by chance, so the adjusted p decides.
    """

    names: tuple[str, ...]
    orders: Mapping[int, tuple[int, ...]]
    pairs: Mapping[int, Mapping[tuple[int, int], PairDifference]]
    n_images: int
    level: float

    @property
    def question(self) -> Question:
        """Return the question that matrices and letters answer: that of recipes if every pair allows it."""
        questions = {pair.question for pair in self.pairs[1].values()}
        return "recipes" if questions == {"recipes"} else "checkpoints"

    def points(self, guesses: int, question: Question) -> Float[np.ndarray, "n n"]:
        """Return the row's error minus the column's, in percentage points; NaN if there is no answer."""
        table = np.zeros((len(self.names), len(self.names)))
        for (i, j), pair in self.pairs[guesses].items():
            answer = pair.answer(question)
            table[i, j] = 100 * answer.difference if answer else np.nan
            table[j, i] = -table[i, j]
        return table

    def significant(self, guesses: int, question: Question) -> Bool[np.ndarray, "n n"]:
        """Return whether row and column differ significantly; False if there is no answer."""
        table = np.zeros((len(self.names), len(self.names)), bool)
        for (i, j), pair in self.pairs[guesses].items():
            answer = pair.answer(question)
            table[i, j] = table[j, i] = answer is not None and answer.is_significant
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
    check_same(comparison.systems)
    orders = {k: _order(comparison.systems, k) for k in RATES}
    pairs = {k: _pairs(comparison.systems, k, level) for k in RATES}
    return Differences(tuple(one.name for one in comparison.systems), orders, pairs, comparison.n_images, level)


def _order(systems: Sequence[ComparedSystem], guesses: int) -> tuple[int, ...]:
    means = [system.mean_error(guesses) for system in systems]
    return tuple(sorted(range(len(means)), key=means.__getitem__))


def _pairs(systems: Sequence[ComparedSystem], guesses: int, level: float) -> dict[tuple[int, int], PairDifference]:
    system_pairs = list(itertools.combinations(systems, 2))
    checkpoints = _compare_checkpoints(system_pairs, guesses, level)
    recipes = _compare_recipes(system_pairs, guesses, level)
    indices = itertools.combinations(range(len(systems)), 2)
    return {key: PairDifference(checkpoints[at], recipes.get(at)) for at, key in enumerate(indices)}


def _compare_checkpoints(
    system_pairs: Sequence[tuple[ComparedSystem, ComparedSystem]], guesses: int, level: float
) -> list[CheckpointDifference]:
    runs = [same_seed(*pair) for pair in system_pairs]
    wrong = [(a.guesses.wrong(guesses), b.guesses.wrong(guesses)) for a, b in runs]
    tests = [mcnemar(*both) for both in wrong]
    shares = [bootstrap_difference(*both, confidence=1 - level) for both in wrong]
    adjusted = holm(np.array([test.p for test in tests], np.float64)).tolist()
    return [
        CheckpointDifference(
            (a.seed, b.seed), test.only_a, test.only_b, share.difference, share.interval, test.p, p, p <= level
        )
        for (a, b), test, share, p in zip(runs, tests, shares, adjusted, strict=True)
    ]  # fmt: skip


def _compare_recipes(
    system_pairs: Sequence[tuple[ComparedSystem, ComparedSystem]], guesses: int, level: float
) -> dict[int, RecipeDifference]:
    """Compare the pairs that share at least two seeds; return their differences by their index among the pairs."""
    shared = {at: seeds for at, (a, b) in enumerate(system_pairs) if len(seeds := _shared_seeds(a, b)) > 1}
    tests = {}
    for at, seeds in shared.items():
        errors = (_errors_of_seeds(system, seeds, guesses) for system in system_pairs[at])
        tests[at] = seed_difference(*errors, confidence=1 - level)
    adjusted = holm(np.array([one.p for one in tests.values()], np.float64)).tolist()
    # The adjustment rises with every p, so the smallest possible p values give the smallest possible adjusted ones.
    least_adjusted = holm(np.array([one.least_p for one in tests.values()], np.float64)).tolist()
    return {
        at: RecipeDifference(shared[at], one.mean, one.deviation, one.interval, one.p, p, least > level, p <= level)
        for (at, one), p, least in zip(tests.items(), adjusted, least_adjusted, strict=True)
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


# --- words -------------------------------------------------------------------------------------------------------


def verdict(comparison: Comparison, found: Differences) -> str:
    """Return the verdict in a few sentences: which system has the lowest top-1 error, and from which it differs.

    About each other system, it answers the more general question for which there are enough runs, and names that
    question.

    Args:
      comparison: the systems.
      found: their differences.
    """
    if len(comparison.systems) == 1:
        return _single_system(comparison.systems[0], found)
    best = found.orders[1][0]
    pairs = {i: found.pairs[1][min(best, i), max(best, i)] for i in found.orders[1] if i != best}
    leaders = _leaders(comparison.systems, found)
    owner = "its" if len(leaders) == 1 else f"{found.names[best]}'s"
    sentences = [_lowest_error(leaders, found)]
    for question in ("recipes", "checkpoints"):
        answered = {i: pair for i, pair in pairs.items() if pair.question == question}
        if answered:
            sentences.append(_answer(found, owner, best, answered))
    few = [comparison.systems[i] for i, pair in pairs.items() if pair.question == "checkpoints"]
    return " ".join(sentences + ([_too_few_seeds(comparison.systems[best], few, found)] if few else []))


def _single_system(system: ComparedSystem, found: Differences) -> str:
    rates = " and ".join(f"{_percent(system.mean_error(k), found)} % top-{k}" for k in RATES)
    return (
        f"{system.name} has {rates} error ({_seeds_in_words([system])}); there is no other system to compare it with."
    )


def _leaders(systems: Sequence[ComparedSystem], found: Differences) -> list[ComparedSystem]:
    """Return all systems that have the lowest error."""
    ordered = [systems[i] for i in found.orders[1]]
    return [system for system in ordered if system.mean_error(1) - ordered[0].mean_error(1) <= TIE]


def _lowest_error(leaders: Sequence[ComparedSystem], found: Differences) -> str:
    verb, each = ("has", "") if len(leaders) == 1 else ("have", " each")
    rate = f"{_percent(leaders[0].mean_error(1), found)} %{each}"
    names = _enumerate([one.name for one in leaders])
    return f"{names} {verb} the lowest top-1 error: {rate} ({_seeds_in_words(leaders)})."


def _answer(found: Differences, owner: str, best: int, pairs: Mapping[int, PairDifference]) -> str:
    """Return a sentence with the answer to one question about the best system and several others."""
    relations: dict[str, list[str]] = {}
    for i, pair in pairs.items():
        relations.setdefault(_relation(pair, best < i), []).append(found.names[i])
    ordered = sorted(relations.items(), key=lambda relation: len(relation[1]))
    clauses = [f"{relation} {_enumerate_owners(names)}" for relation, names in ordered]
    relation, names = ordered[-1]
    if len(names) > 1 and len(pairs) == len(found.names) - 1:  # the longest list needs no names
        clauses[-1] = f"{relation} {'every' if relation.endswith('than') else 'any'} other system's"
    question = next(iter(pairs.values())).question
    describe = _describe_recipes if question == "recipes" else _describe_checkpoints
    subject, test = describe(owner, list(pairs.values()))
    family = sum(pair.answer(question) is not None for pair in found.pairs[1].values())
    holm_note = f", Holm over {family} pairs" if family > 1 else ""
    return f"{subject} {_enumerate(clauses)} ({test}{holm_note})."


def _relation(pair: PairDifference, is_first: bool) -> str:
    """Return how one system of a pair compares with the other; `is_first`: whether it is the first of the pair."""
    answer = pair.answer(pair.question)
    if answer is None or not answer.is_significant:
        return "does not differ significantly from"
    return "has a lower error than" if (answer.difference < 0) == is_first else "has a higher error than"


def _describe_checkpoints(owner: str, pairs: Sequence[PairDifference]) -> tuple[str, str]:
    seeds = {seed for pair in pairs for seed in pair.checkpoints.seeds}
    seed = f" of seed {seeds.pop()}" if len(seeds) == 1 else ""
    return f"On these images, {owner} checkpoint{seed}", "McNemar's test"


def _describe_recipes(owner: str, pairs: Sequence[PairDifference]) -> tuple[str, str]:
    counts = [len(pair.recipes.seeds) for pair in pairs if pair.recipes]
    return f"Over {_span(counts)} shared seeds, {owner} recipe", "sign-flip test"


def _too_few_seeds(best: ComparedSystem, others: Sequence[ComparedSystem], found: Differences) -> str:
    counts = [len(_shared_seeds(best, other)) for other in others]
    seeds = "One shared seed" if set(counts) == {1} else f"{_span(counts)} shared seeds"
    needed = seeds_needed(len(found.pairs[1]), found.level)
    return f"{seeds} cannot show which recipe is better; at least {needed} are needed for that."


def _seeds_in_words(systems: Sequence[ComparedSystem]) -> str:
    counts = {len(system.runs) for system in systems}
    return "one seed" if counts == {1} else f"mean of {_span(counts)} seeds"


def _span(counts: Collection[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _enumerate_owners(names: Sequence[str]) -> str:
    return _enumerate([f"{name}'s" for name in names])


def _enumerate(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# --- tables ------------------------------------------------------------------------------------------------------


def rows(found: Differences, question: Question) -> tuple[list[str], list[list[str]]]:
    """Return the headings and cells of a table of all pairs that have an answer to one question, top-1 first.

    Differences are in percentage points, with a plain minus sign so that programs can read them. A pair without an
    answer has no row.
    """
    interval = f"{100 * (1 - found.level):g} % interval"
    common = ["metric", "system a", "system b"]
    ends = ["p adjusted (Holm)", "significant"]
    if question == "recipes":
        heads = ["shared seeds", "a - b, points", "standard deviation, points", interval, "p (sign-flip test)"]
    else:
        heads = ["seeds", "a - b, points", interval, "only a wrong", "only b wrong", "p (McNemar, mid-p)"]
    table = [
        [f"top-{k} error", found.names[i], found.names[j], *_cells(found, answer)]
        for k in RATES
        for (i, j), pair in found.pairs[k].items()
        if (answer := pair.answer(question))
    ]
    return [*common, *heads, *ends], table


def _cells(found: Differences, answer: CheckpointDifference | RecipeDifference) -> list[str]:
    return _recipe_cells(found, answer) if isinstance(answer, RecipeDifference) else _checkpoint_cells(found, answer)


def _checkpoint_cells(found: Differences, one: CheckpointDifference) -> list[str]:
    return [
        " and ".join(str(seed) for seed in dict.fromkeys(one.seeds)),
        _signed(one.difference, found),
        _interval(one.interval, found),
        f"{one.only_a:,}",
        f"{one.only_b:,}",
        _p(one.p),
        _p(one.adjusted),
        "yes" if one.is_significant else "no",
    ]


def _recipe_cells(found: Differences, one: RecipeDifference) -> list[str]:
    return [
        str(len(one.seeds)),
        _signed(one.difference, found),
        _percent(one.deviation, found),
        _interval(one.interval, found),
        _p(one.p),
        _p(one.adjusted),
        "too few seeds" if one.has_too_few_seeds else "yes" if one.is_significant else "no",
    ]


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= LEAST_P else f"<{LEAST_P}"


def _interval(interval: tuple[float, float], found: Differences) -> str:
    return f"[{', '.join(_signed(end, found) for end in interval)}]"


def _signed(share: float, found: Differences) -> str:
    text = f"{100 * share:+.{_digits(found)}f}"
    return text if float(text) else text[1:]


def _percent(share: float, found: Differences) -> str:
    return f"{round(100 * share, 9):.{_digits(found)}f}"  # rounded first, so that float noise does not decide a tie


def _digits(found: Differences) -> int:
    return 2 if found.n_images >= FINE_DIGITS_FROM else 1
