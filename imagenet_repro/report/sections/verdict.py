"""The verdict of a comparison in a few sentences, which answers one question and names it (`differences`).

The title never states more than the tests show: a system is said to have the lowest error only where it differs
significantly from every other one. The difference to the next system stands with its interval, which is adjusted for
the number of pairs as the test is, so that both say the same.
"""

from collections.abc import Collection, Sequence

from imagenet_repro.report.records import ComparedSystem, Comparison
from imagenet_repro.report.sections.differences import (
    FOUND,
    RATES,
    CheckpointDifference,
    Differences,
    PairDifference,
    RecipeDifference,
    digits,
    percent,
)
from imagenet_repro.report.text import enumerated
from imagenet_repro.statistics.intervals import bootstrap_discordant
from imagenet_repro.statistics.populations import NEW_IMAGES, NEW_IMAGES_AND_SEEDS

MOST_NAMED = 4  # systems in one list of names
BEYOND = 100  # resamples of a bootstrap that lie outside of an adjusted interval, at the least


def verdict(comparison: Comparison, found: Differences) -> str:
    """Return the verdict, the order of the systems in top-1 error; its first line is the title.

    It answers the question of recipes where a system has two seeds, otherwise that of checkpoints, and says how large
    a difference must be to be found.

    Args:
      comparison: the systems.
      found: their differences.
    """
    if len(comparison.systems) == 1:
        return _single_system(comparison.systems[0], found)
    title, details = _title(comparison.systems, found), _details(found)
    if found.question == "checkpoints":
        details.append("One seed of each system cannot show which recipe is better; that needs several seeds.")
    else:
        details += [_borrowed_variance(comparison.systems), describe_gaps(found)]
    return f"{title}\n{' '.join(filter(None, details))}"


def verdict_without_pairs(comparison: Comparison) -> str:
    """Return the verdict on systems that were scored on different images, which says nothing of their order."""
    counts = [f"{system.name} {100 * system.mean_error(1):.1f} %" for system in comparison.systems[:MOST_NAMED]]
    more = len(comparison.systems) - len(counts)
    shown = enumerated([*counts, *([f"{more} more"] if more else [])])
    return (
        "The systems were scored on different images, so this page cannot say which differences are significant."
        f"\nTop-1 errors, each on the images of its own runs: {shown}."
    )


def describe_gaps(found: Differences) -> str:
    """Return a sentence with the true difference that would be found 80 % of the time; empty if that is unknown."""
    if found.gaps is None or found.gaps[1] == 0:
        return ""
    given = "With these seeds and images"
    if found.gaps[0] > 1:
        return f"{given} no gap would be found {100 * FOUND:g} % of the time."
    low, high = (percent(min(gap, 1.0), found) for gap in found.gaps)
    gap = f"{low} points" if low == high else f"{low} to {high} points, by the seeds of the pair,"
    return f"{given} a gap of {gap} would be found {100 * FOUND:g} % of the time."


# --- title -------------------------------------------------------------------------------------------------------


def _title(systems: Sequence[ComparedSystem], found: Differences) -> str:
    """Return the order of the systems, as far as it is significant."""
    best, *others = found.orders[1]
    tied = [other for other in others if not _pair(found, best, other).answer(found.question).is_significant]
    name, error = found.names[best], _error(systems[best], found)
    seeds = _seeds_in_words(systems)
    if len(others) == 1:
        other, other_error = found.names[others[0]], _error(systems[others[0]], found)
        if tied:
            errors = f"{error} each" if error == other_error else f"{error} and {other_error}"
            return f"{name} and {other} do not differ significantly in top-1 error: {errors} ({seeds})."
        return f"{name} has a lower top-1 error than {other}: {error} against {other_error} ({seeds})."
    if not tied:
        return f"{name} has the lowest top-1 error of {len(systems)} systems: {error} ({seeds})."
    if len(tied) == len(others):
        return (
            f"None of the other {len(others)} systems differs significantly from {name}, which has {error} top-1 error"
            f" ({seeds})."
        )
    names = [found.names[index] for index in tied]
    count = f"{len(tied)} of the other {len(others)} systems" if len(tied) > MOST_NAMED else enumerated(names)
    verb = "does" if len(tied) == 1 else "do"
    return f"{name} has {error} top-1 error ({seeds}), and {count} {verb} not differ significantly from it."


def _details(found: Differences) -> list[str]:
    """Return the difference to the next system, and the systems whose errors are higher where not all are."""
    best, *others = found.orders[1]
    higher = [other for other in others if _pair(found, best, other).answer(found.question).is_significant]
    sentences = [_difference(found, best, others[0])]
    if 0 < len(higher) < len(others):
        names = [found.names[index] for index in higher]
        count = f"{len(names)} systems" if len(names) > MOST_NAMED else enumerated(names)
        verb = "has" if len(names) == 1 else "have"
        sentences.append(f"{count[:1].upper() + count[1:] if count[0].isdigit() else count} {verb} a higher error.")
    return sentences


# --- difference --------------------------------------------------------------------------------------------------


def _difference(found: Differences, best: int, other: int) -> str:
    """Return a sentence with the difference to another system, its interval, its population and its test."""
    answer = _pair(found, best, other).answer(found.question)
    sign = 1 if other < best else -1
    family = len(found.pairs[1])
    low, high = sorted(sign * end for end in _adjusted_interval(answer, found, family))
    points = _signed(abs(answer.difference), found)
    name, other_name = found.names[best], found.names[other]
    gap = f"{other_name} has the same error as {name}"
    if float(points):
        gap = f"The error of {other_name} is {points} points above that of {name}"
    adjusted = f", adjusted for {family} pairs" if family > 1 else ""
    interval = f"{100 * (1 - found.level):g} % interval [{_signed(low, found)}, {_signed(high, found)}]{adjusted}"
    text = f"{gap}; {interval}, for {_population(answer)} ({_test(answer, family)})."
    if (low <= 0 <= high) == answer.is_significant:
        text += " The test decides; an end of the interval is close to zero."
    return text


def _pair(found: Differences, one: int, other: int) -> PairDifference:
    return found.pairs[1][min(one, other), max(one, other)]


def _adjusted_interval(
    answer: CheckpointDifference | RecipeDifference, found: Differences, family: int
) -> tuple[float, float]:
    """Return an interval at the level that the adjustment of the p value leaves to this pair."""
    if isinstance(answer, RecipeDifference) or family == 1:
        return answer.interval
    is_capped = answer.adjusted >= 1 or answer.p == 0
    level = found.level / family if is_capped else found.level * answer.p / answer.adjusted
    resamples = max(10_000, min(1_000_000, round(BEYOND / level)))
    only = answer.only_a, answer.only_b
    return bootstrap_discordant(*only, found.n_images, confidence=1 - level, resamples=resamples).interval


def _population(answer: CheckpointDifference | RecipeDifference) -> str:
    if isinstance(answer, RecipeDifference):
        return NEW_IMAGES_AND_SEEDS
    seeds = dict.fromkeys(answer.seeds)
    return NEW_IMAGES + (f" of seed {answer.seeds[0]}" if len(seeds) == 1 else "")


def _test(answer: CheckpointDifference | RecipeDifference, family: int) -> str:
    if isinstance(answer, RecipeDifference):
        return "crossed effects" + (f", Tukey-Kramer over {family} pairs" if family > 1 else "")
    return "McNemar's test" + (f", Holm over {family} pairs" if family > 1 else "")


# --- words -------------------------------------------------------------------------------------------------------


def _single_system(system: ComparedSystem, found: Differences) -> str:
    rates = " and ".join(f"{percent(system.mean_error(k), found)} % top-{k}" for k in RATES)
    return (
        f"{system.name} has {rates} error ({_seeds_in_words([system])}); there is no other system to compare it with."
    )


def _borrowed_variance(systems: Sequence[ComparedSystem]) -> str:
    single = [system.name for system in systems if len(system.runs) == 1]
    if not single:
        return ""
    verb, each = ("has", "it is") if len(single) == 1 else ("have", "they are")
    return f"{enumerated(single)} {verb} one seed; {each} taken to vary over seeds as the others do."


def _error(system: ComparedSystem, found: Differences) -> str:
    return f"{percent(system.mean_error(1), found)} %"


def _seeds_in_words(systems: Sequence[ComparedSystem]) -> str:
    counts = {len(system.runs) for system in systems}
    if counts == {1}:
        return "one seed" if len(systems) == 1 else "one seed each"
    return f"{'mean' if len(systems) == 1 else 'means'} of {_span(counts)} seeds"


def _span(counts: Collection[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _signed(share: float, found: Differences) -> str:
    """Return points with a minus sign where they are below zero; zero has no sign."""
    text = f"{round(100 * share, 9):.{digits(found)}f}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")
