"""Every pair of systems of a comparison: how far apart, and whether that is more than luck.

Two questions are answered side by side, each with its own p values, and Holm's adjustment over all pairs within one
question and one error rate: *these two checkpoints on these images* from a run of each, *these two recipes* from the
runs that share a seed. The words and letters of a comparison answer one of them, and say which.
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
from imagenet_repro.scoring.metrics import FINE_DIGITS_FROM, GUESSES
from imagenet_repro.statistics.groups import letters
from imagenet_repro.statistics.hypothesis_tests import holm, mcnemar, seeds_needed
from imagenet_repro.statistics.intervals import bootstrap_difference
from imagenet_repro.statistics.paired_seeds import seed_difference

RATES = (1, GUESSES)
MAX_NAMED = 3  # images in one message
LEAST_P = 0.0001  # that is written out: what is smaller says more of the model than of the systems
TIED = 1e-9  # between two means, whatever rounding says

Question = Literal["checkpoints", "recipes"]


@dataclasses.dataclass(frozen=True)
class CheckpointDifference:
    """One run of each of two systems on the same images; errors are shares, the first system's minus the second's.

    Attributes:
      seeds: of the two runs; the lowest that both systems have, or the lowest of each where they share none.
      only_a, only_b: images that only one of them got wrong.
      difference: of the errors.
      interval: of the difference, by resampling images.
      p: McNemar's mid-p.
      adjusted: by Holm over all pairs.
      different: whether that is at or below the level.
    """

    seeds: tuple[int, int]
    only_a: int
    only_b: int
    difference: float
    interval: tuple[float, float]
    p: float
    adjusted: float
    different: bool


@dataclasses.dataclass(frozen=True)
class RecipeDifference:
    """All runs of two systems that share a seed; errors are shares, the first system's minus the second's.

    Attributes:
      seeds: that both systems have, at least two.
      difference: mean over seeds.
      deviation: standard deviation of the differences.
      interval: Student's t interval of the mean.
      p: of the sign-flip test.
      adjusted: by Holm over all pairs that share two seeds.
      too_few: whether no outcome of so many seeds could be significant after the adjustment.
      different: whether the adjusted p is at or below the level.
    """

    seeds: tuple[int, ...]
    difference: float
    deviation: float
    interval: tuple[float, float]
    p: float
    adjusted: float
    too_few: bool
    different: bool


@dataclasses.dataclass(frozen=True)
class PairDifference:
    """Both answers about two systems in one error rate."""

    checkpoints: CheckpointDifference
    recipes: RecipeDifference | None  # None where they share one seed or none

    @property
    def question(self) -> Question:
        """The further one that there are runs enough to answer."""
        return "recipes" if self.recipes and not self.recipes.too_few else "checkpoints"

    def answer(self, question: Question) -> CheckpointDifference | RecipeDifference | None:
        """To one of the questions."""
        return self.recipes if question == "recipes" else self.checkpoints


@dataclasses.dataclass(frozen=True)
class Differences:
    """All pairs of a comparison.

    Attributes:
      names: of the systems, in the comparison's order, which every index here follows.
      orders: the systems by rising mean error, for 1 and for 5 guesses.
      pairs: for 1 and for 5 guesses, by (i, j) with i < j.
      images: how many were scored.
      level: largest p, adjusted, that is called different. The intervals have a confidence of 1 - level, each for
        its pair alone: of many, some exclude zero by luck, and the adjusted p is what to go by.
    """

    names: tuple[str, ...]
    orders: Mapping[int, tuple[int, ...]]
    pairs: Mapping[int, Mapping[tuple[int, int], PairDifference]]
    images: int
    level: float

    @property
    def question(self) -> Question:
        """The one that tables, matrices and letters of this comparison answer: of recipes if all pairs allow it."""
        asked = {pair.question for pair in self.pairs[1].values()}
        return "recipes" if asked == {"recipes"} else "checkpoints"

    def points(self, guesses: int, question: Question) -> Float[np.ndarray, "n n"]:
        """Error of the row's system minus the column's, in points of percent; NaN where there is no answer."""
        table = np.zeros((len(self.names), len(self.names)))
        for (i, j), pair in self.pairs[guesses].items():
            answer = pair.answer(question)
            table[i, j] = 100 * answer.difference if answer else np.nan
            table[j, i] = -table[i, j]
        return table

    def different(self, guesses: int, question: Question) -> Bool[np.ndarray, "n n"]:
        """Whether row and column are told apart; not where there is no answer."""
        table = np.zeros((len(self.names), len(self.names)), bool)
        for (i, j), pair in self.pairs[guesses].items():
            answer = pair.answer(question)
            table[i, j] = table[j, i] = answer is not None and answer.different
        return table

    def letters(self, guesses: int, question: Question) -> list[str]:
        """Of each system; two share one exactly where they are not told apart, `a` is the best system's."""
        return letters(self.different(guesses, question), self.orders[guesses])


def differences(comparison: Comparison, *, level: float = 0.05) -> Differences:
    """Compares every pair of systems in both error rates.

    Args:
      comparison: systems scored on the same images.
      level: largest p, adjusted over all pairs, that is called different.

    Raises:
      UserError: the runs were scored on different images or against different labels, or on none.
    """
    check_same(comparison.systems)
    orders = {k: _order(comparison.systems, k) for k in RATES}
    pairs = {k: _pairs(comparison.systems, k, level) for k in RATES}
    return Differences(tuple(one.name for one in comparison.systems), orders, pairs, comparison.images, level)


def _order(systems: Sequence[ComparedSystem], guesses: int) -> tuple[int, ...]:
    means = [system.mean_error(guesses) for system in systems]
    return tuple(sorted(range(len(means)), key=means.__getitem__))


def _pairs(systems: Sequence[ComparedSystem], guesses: int, level: float) -> dict[tuple[int, int], PairDifference]:
    both = list(itertools.combinations(systems, 2))
    checkpoints, recipes = _checkpoints(both, guesses, level), _recipes(both, guesses, level)
    indices = itertools.combinations(range(len(systems)), 2)
    return {key: PairDifference(checkpoints[at], recipes.get(at)) for at, key in enumerate(indices)}


def _checkpoints(
    both: Sequence[tuple[ComparedSystem, ComparedSystem]], guesses: int, level: float
) -> list[CheckpointDifference]:
    runs = [_runs(a, b) for a, b in both]
    wrong = [[run.guesses.wrong(guesses) for run in two] for two in runs]
    tests = [mcnemar(*two) for two in wrong]
    shares = [bootstrap_difference(*two, confidence=1 - level) for two in wrong]
    adjusted = holm(np.array([test.p for test in tests], np.float64)).tolist()
    return [
        CheckpointDifference(
            (a.seed, b.seed), test.only_a, test.only_b, share.difference, share.interval, test.p, p, p <= level
        )
        for (a, b), test, share, p in zip(runs, tests, shares, adjusted, strict=True)
    ]  # fmt: skip


def _recipes(
    both: Sequence[tuple[ComparedSystem, ComparedSystem]], guesses: int, level: float
) -> dict[int, RecipeDifference]:
    """Of the pairs that share two seeds, by their place."""
    shared = {at: seeds for at, (a, b) in enumerate(both) if len(seeds := _shared(a, b)) > 1}
    found = {}
    for at, seeds in shared.items():
        errors = (_errors(system, seeds, guesses) for system in both[at])
        found[at] = seed_difference(*errors, confidence=1 - level)
    adjusted = holm(np.array([one.p for one in found.values()], np.float64)).tolist()
    # The adjustment rises with every p: what it makes of the smallest ones possible is the best that it could be.
    best = holm(np.array([one.least_p for one in found.values()], np.float64)).tolist()
    return {
        at: RecipeDifference(shared[at], one.mean, one.deviation, one.interval, one.p, p, least > level, p <= level)
        for (at, one), p, least in zip(found.items(), adjusted, best, strict=True)
    }


def _runs(a: ComparedSystem, b: ComparedSystem) -> tuple[FinishedRun, FinishedRun]:
    shared = _shared(a, b)
    if not shared:
        return a.runs[0], b.runs[0]
    return next(run for run in a.runs if run.seed == shared[0]), next(run for run in b.runs if run.seed == shared[0])


def _shared(a: ComparedSystem, b: ComparedSystem) -> tuple[int, ...]:
    return tuple(seed for seed in a.seeds if seed in b.seeds)


def _errors(system: ComparedSystem, seeds: Sequence[int], guesses: int) -> Float[np.ndarray, " n"]:
    errors = dict(zip(system.seeds, system.errors(guesses), strict=True))
    return np.array([errors[seed] for seed in seeds], np.float64)


def check_same(systems: Sequence[ComparedSystem]) -> None:
    """Raises UserError naming images where runs were scored on different ones or against different labels."""
    first = systems[0].runs[0]
    for system in systems:
        for run in system.runs:
            _check_run(run, f"{system.name} (seed {run.seed})", first, f"{systems[0].name} (seed {first.seed})")


def _check_run(run: FinishedRun, name: str, first: FinishedRun, first_name: str) -> None:
    ids, first_ids = run.guesses.id, first.guesses.id
    if not np.array_equal(ids, first_ids):
        only = {first_name: _surplus(first_ids, ids), name: _surplus(ids, first_ids)}
        parts = "; ".join(f"only {which}: {_some(more)}" for which, more in only.items() if more)
        raise UserError(
            f"{first_name} and {name} were scored on different images; {parts}; evaluate both on one split"
        )
    differ = run.guesses.label != first.guesses.label
    if np.any(differ):
        images = _some(ids[differ].tolist())
        raise UserError(
            f"{first_name} and {name} were scored against different labels, those of {images}; score both with one set"
        )


def _surplus(ids: Shaped[np.ndarray, " n"], others: Shaped[np.ndarray, " m"]) -> list[str]:
    """What the first has more of, an image that it has twice included."""
    return list(Counter(ids.tolist()) - Counter(others.tolist()))


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - MAX_NAMED:,} more" if len(ids) > MAX_NAMED else ""
    return ", ".join(ids[:MAX_NAMED]) + more


# --- words -------------------------------------------------------------------------------------------------------


def sentence(comparison: Comparison, found: Differences) -> str:
    """The verdict in a few sentences: who has the lowest top-1 error, and from whom that can be told apart.

    Of each other system it answers the further question that there are runs enough for, and says which one.

    Args:
      comparison: the systems.
      found: their differences.
    """
    if len(comparison.systems) == 1:
        return _alone(comparison.systems[0], found)
    best = found.orders[1][0]
    pairs = {i: found.pairs[1][min(best, i), max(best, i)] for i in found.orders[1] if i != best}
    leaders = _leaders(comparison.systems, found)
    owner = "its" if len(leaders) == 1 else f"{found.names[best]}'s"
    parts = [_least(leaders, found)]
    for question in ("recipes", "checkpoints"):
        asked = {i: pair for i, pair in pairs.items() if pair.question == question}
        if asked:
            parts.append(_verdict(found, owner, best, asked))
    few = [comparison.systems[i] for i, pair in pairs.items() if pair.question == "checkpoints"]
    return " ".join(parts + ([_too_few(comparison.systems[best], few, found)] if few else []))


def _alone(system: ComparedSystem, found: Differences) -> str:
    rates = " and ".join(f"{_percent(system.mean_error(k), found)} % top-{k}" for k in RATES)
    return f"{system.name} errs on {rates} ({_runs_in_words([system])}); there is no other to compare it with."


def _leaders(systems: Sequence[ComparedSystem], found: Differences) -> list[ComparedSystem]:
    """All that have the lowest error."""
    ordered = [systems[i] for i in found.orders[1]]
    return [system for system in ordered if system.mean_error(1) - ordered[0].mean_error(1) <= TIED]


def _least(leaders: Sequence[ComparedSystem], found: Differences) -> str:
    verb, each = ("errs", "") if len(leaders) == 1 else ("err", " each")
    rate = f"{_percent(leaders[0].mean_error(1), found)} % top-1 error{each}"
    return f"{_listed([one.name for one in leaders])} {verb} least: {rate} ({_runs_in_words(leaders)})."


def _verdict(found: Differences, owner: str, best: int, pairs: Mapping[int, PairDifference]) -> str:
    """What one question says of the best system and of others that it was asked of."""
    sides: dict[str, list[str]] = {}
    for i, pair in pairs.items():
        sides.setdefault(_side(pair, best < i), []).append(found.names[i])
    ordered = sorted(sides.items(), key=lambda side: len(side[1]))
    clauses = [f"{side} {_owners(names)}" for side, names in ordered]
    side, names = ordered[-1]
    if len(names) > 1 and len(pairs) == len(found.names) - 1:  # the longest list needs no names
        clauses[-1] = f"{side} {'every' if side.endswith('than') else 'any'} other's"
    question = next(iter(pairs.values())).question
    about = _about_recipes if question == "recipes" else _about_checkpoints
    subject, test = about(owner, list(pairs.values()))
    family = sum(pair.answer(question) is not None for pair in found.pairs[1].values())
    holm = f", Holm over {family} pairs" if family > 1 else ""
    return f"{subject} {_listed(clauses)} ({test}{holm})."


def _side(pair: PairDifference, first: bool) -> str:
    """On which side of the pair's other system this one stands; `first`: whether it is the pair's first."""
    answer = pair.answer(pair.question)
    if not answer.different:
        return "cannot be told apart from"
    return "errs less than" if (answer.difference < 0) == first else "errs more than"


def _about_checkpoints(owner: str, pairs: Sequence[PairDifference]) -> tuple[str, str]:
    seeds = {seed for pair in pairs for seed in pair.checkpoints.seeds}
    seed = f" of seed {seeds.pop()}" if len(seeds) == 1 else ""
    return f"On these images {owner} checkpoint{seed}", "McNemar"


def _about_recipes(owner: str, pairs: Sequence[PairDifference]) -> tuple[str, str]:
    return f"Over {_span([len(pair.recipes.seeds) for pair in pairs])} shared seeds {owner} recipe", "sign flips"


def _too_few(best: ComparedSystem, others: Sequence[ComparedSystem], found: Differences) -> str:
    counts = [len(_shared(best, other)) for other in others]
    seeds = "1 shared seed is" if set(counts) == {1} else f"{_span(counts)} shared seeds are"
    needed = seeds_needed(len(found.pairs[1]), found.level)
    return f"{seeds} too few to say so of the recipes: {needed} are needed."


def _runs_in_words(systems: Sequence[ComparedSystem]) -> str:
    counts = {len(system.runs) for system in systems}
    if counts == {1}:
        return "one seed"
    return f"mean of {_span(counts)} seeds"


def _span(counts: Collection[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _owners(names: Sequence[str]) -> str:
    return _listed([f"{name}'s" for name in names])


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# --- tables ------------------------------------------------------------------------------------------------------


def rows(found: Differences, question: Question) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of a table of all pairs that have an answer to one question, top-1 first.

    Differences are in points of percent, with a plain minus sign, so that programs read them too. Where there is no
    answer for a pair, it has no row.
    """
    interval = f"{100 * (1 - found.level):g} % interval"
    shared = ["metric", "system a", "system b"]
    ends = ["p adjusted (Holm)", "told apart"]
    if question == "recipes":
        heads = ["shared seeds", "a - b, points", "standard deviation, points", interval, "p (sign flips)"]
    else:
        heads = ["seeds", "a - b, points", interval, "wrong by a only", "wrong by b only", "p (McNemar, mid-p)"]
    cells = _recipe_cells if question == "recipes" else _checkpoint_cells
    table = [
        [f"top-{k} error", found.names[i], found.names[j], *cells(found, answer)]
        for k in RATES
        for (i, j), pair in found.pairs[k].items()
        if (answer := pair.answer(question))
    ]
    return [*shared, *heads, *ends], table


def _checkpoint_cells(found: Differences, one: CheckpointDifference) -> list[str]:
    return [
        " and ".join(str(seed) for seed in dict.fromkeys(one.seeds)),
        _signed(one.difference, found),
        _interval(one.interval, found),
        f"{one.only_a:,}",
        f"{one.only_b:,}",
        _p(one.p),
        _p(one.adjusted),
        "yes" if one.different else "no",
    ]


def _recipe_cells(found: Differences, one: RecipeDifference) -> list[str]:
    return [
        str(len(one.seeds)),
        _signed(one.difference, found),
        _percent(one.deviation, found),
        _interval(one.interval, found),
        _p(one.p),
        _p(one.adjusted),
        "too few seeds" if one.too_few else "yes" if one.different else "no",
    ]


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= LEAST_P else f"<{LEAST_P}"


def _interval(interval: tuple[float, float], found: Differences) -> str:
    return f"[{', '.join(_signed(end, found) for end in interval)}]"


def _signed(share: float, found: Differences) -> str:
    text = f"{100 * share:+.{_digits(found)}f}"
    return text if float(text) else text[1:]


def _percent(share: float, found: Differences) -> str:
    """As the leaderboard rounds: a share's last bits do not decide a tie."""
    return f"{round(100 * share, 9):.{_digits(found)}f}"


def _digits(found: Differences) -> int:
    return 2 if found.images >= FINE_DIGITS_FROM else 1
