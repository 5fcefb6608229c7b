"""The leaderboard: each system's errors and sizes beside what was published of it, what it cost, and its seeds.

Where a system has several seeds, its numbers are their means, and its interval says how far they lie apart: Student's
t interval of the mean from three seeds on. Of two seeds that interval is 12.7 standard errors to either side and
says nothing; the two errors themselves stand in its place. One seed has Wilson's interval, over images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun, HumanPlayer
from imagenet_repro.report.result_table import quantity, seconds
from imagenet_repro.report.tables import MISSING, Table
from imagenet_repro.scoring.metrics import FINE_DIGITS_FROM, GUESSES, format_rate
from imagenet_repro.scoring.people import PEOPLE, Person
from imagenet_repro.scoring.sets import IMAGENET
from imagenet_repro.statistics.intervals import binomial_interval, student_interval
from imagenet_repro.zoo.published import published

ENOUGH_SEEDS = 3  # for an interval over seeds
LEVEL = 0.95

ERRORS = ("top-1 error %", "95 % interval", "top-5 error %", "95 % interval of top-5")
SIZES = ("parameters", "multiply-adds", "images seen", "training FLOPs", "training seconds")
COSTS = ("training seconds", "of it waiting for data", "compiling", "evaluating", "saving", "peak memory")


def leaderboard(comparison: Comparison, groups: Mapping[str, str] | None = None) -> Table:
    """A row for each system, the lowest mean top-1 error first; equal ones by top-5 error, then as they were given.

    Args:
      comparison: the systems.
      groups: letters by the system's name; systems that share one cannot be told apart. Without it no such column.
    """
    headings = ["system", *ERRORS, *SIZES, "seeds", "published top-1 %", "published top-5 %", "protocol; source"]
    rows = [[system.name, *_errors(system), *_sizes(system), *_published(system)] for system in ranked(comparison)]
    rows += [_player(player) for player in comparison.people]
    rows += [_person(person) for person in _people(comparison)]
    if groups:
        headings.insert(1, "group")
        for row in rows:
            row.insert(1, groups.get(row[0], ""))
    return Table("leaderboard", tuple(headings), tuple(map(tuple, rows)), _caption(comparison, bool(groups)))


def costs(comparison: Comparison) -> Table:
    """What each system's training took: seconds and their split, and memory; systems as in the leaderboard."""
    rows = [(system.name, *_split(system), _memory(system.runs)) for system in ranked(comparison)]
    caption = (
        "Seconds, means over seeds. Training seconds are the budget's clock and hold the waiting for data;"
        " compiling, evaluating and saving stand outside of it. Peak memory is the highest of all seeds', of a"
        f" device or of the process. {MISSING}: not recorded."
    )
    return Table("costs", ("system", *COSTS), tuple(rows), caption)


def seeds(comparison: Comparison) -> Table | None:
    """Each run's errors, where some system has several; None otherwise."""
    if all(len(system.runs) == 1 for system in comparison.systems):
        return None
    rows = [(system.name, str(run.seed), *_run_errors(run)) for system in ranked(comparison) for run in system.runs]
    over = f"the {comparison.images:,} images" if comparison.same_images else "the images of each"
    caption = f"Each run alone; intervals are Wilson's, over {over}."
    return Table("seeds", ("system", "seed", *ERRORS), tuple(rows), caption)


def ranked(comparison: Comparison) -> list[ComparedSystem]:
    """The systems by rising mean top-1 error, equal ones by top-5 error, then as they were given."""
    return sorted(comparison.systems, key=lambda system: (system.mean_error(1), system.mean_error(GUESSES)))


def spread(system: ComparedSystem, guesses: int) -> tuple[float, float]:
    """The interval that belongs to a system's mean error with 1 or 5 guesses, as shares in [0, 1].

    Wilson's for one seed, lowest and highest for two, Student's t for the mean of three and more, cut at 0 and 1.
    """
    errors = system.errors(guesses)
    if len(errors) == 1:
        return binomial_interval(_wrong(system.runs[0], guesses), system.runs[0].rates.images)
    if len(errors) < ENOUGH_SEEDS:
        return min(errors), max(errors)
    low, high = student_interval(np.array(errors), LEVEL)
    return max(0.0, low), min(1.0, high)


# --- cells ------------------------------------------------------------------------------------------------------


def _errors(system: ComparedSystem) -> list[str]:
    return [
        text
        for guesses in (1, GUESSES)
        for text in (
            _percent(system.mean_error(guesses), system.runs[0]),
            _interval(spread(system, guesses), system.runs),
        )
    ]


def _run_errors(run: FinishedRun) -> list[str]:
    return _errors(ComparedSystem("", "", "", (run,)))


def _percent(share: float, run: FinishedRun) -> str:
    """With as many decimals as `metrics.describe`; a share's last bits do not decide how a tie is rounded."""
    return f"{round(100 * share, 9):.{2 if run.rates.images >= FINE_DIGITS_FROM else 1}f}"


def _interval(ends: tuple[float, float], runs: Sequence[FinishedRun]) -> str:
    low, high = (_percent(end, runs[0]) for end in ends)
    return f"{low} to {high}" if 1 < len(runs) < ENOUGH_SEEDS else f"[{low}, {high}]"


def _wrong(run: FinishedRun, guesses: int) -> int:
    return run.rates.top1_wrong if guesses == 1 else run.rates.top5_wrong


def _sizes(system: ComparedSystem) -> list[str]:
    result = system.runs[0].result
    images, flops, time = (
        _mean([run.result["spent"].get(key) for run in system.runs]) for key in ("images", "flops", "seconds")
    )
    amounts = (result.get("parameters"), result.get("multiply_adds"), images, flops)
    return [*map(_quantity, amounts), _seconds(time), str(len(system.runs))]


def _split(system: ComparedSystem) -> list[str]:
    results = [run.result for run in system.runs]
    parts = [
        [result["spent"].get("seconds") for result in results],
        [total(run, "train", "waiting_seconds") for run in system.runs],
        [result.get("compilation_seconds") for result in results],
        [total(run, "eval", "evaluation_seconds") for run in system.runs],
        [total(run, "save", "saving_seconds") for run in system.runs],
    ]
    return [_seconds(_mean(values)) for values in parts]


def total(run: FinishedRun, kind: str, key: str) -> float | None:
    """The sum of one key over the rows of a kind; None where no such row has it, as in runs of older versions."""
    values = [row[key] for row in run.rows if row.get("kind") == kind and row.get(key) is not None]
    return float(sum(values)) if values else None


def _memory(runs: Sequence[FinishedRun]) -> str:
    known = [run.result["peak_memory"] for run in runs if run.result.get("peak_memory")]
    if not known:
        return MISSING
    highest = max(known, key=lambda memory: memory["bytes"])
    return f"{quantity(highest['bytes'])}B ({highest['of']})"


def _published(system: ComparedSystem) -> list[str]:
    found = published(system.network)
    if found is None:
        return [MISSING] * 3
    errors = [MISSING if error is None else f"{error:g}" for error in (found.top1, found.top5)]
    return [*errors, f"{found.protocol}; {found.source}"]


def _people(comparison: Comparison) -> Sequence[Person]:
    """Those who took the challenge's test, where errors are on images of ImageNet."""
    return PEOPLE if IMAGENET.fullmatch(comparison.data) else ()


UNKNOWN = [MISSING] * (len(SIZES) + 1)  # of people, also how many seeds they have


def _player(player: HumanPlayer) -> list[str]:
    wrong = (int(player.guesses.wrong(guesses).sum()) for guesses in (1, GUESSES))
    errors = [text for count in wrong for text in format_rate(count, len(player.guesses.id))]
    return [player.name, *errors, *UNKNOWN, MISSING, MISSING, f"a person, {len(player.guesses.id):,} of the images"]


def _person(person: Person) -> list[str]:
    error, low_to_high = format_rate(person.wrong, person.images)
    return [
        person.who,
        MISSING,
        MISSING,
        error,
        low_to_high,
        *UNKNOWN,
        MISSING,
        error,
        f"{person.protocol}; {person.source}",
    ]


def _mean(values: Sequence[Any]) -> float | None:
    """Of those that were recorded."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _quantity(value: int | float | None) -> str:
    return MISSING if value is None else quantity(value)


def _seconds(value: float | None) -> str:
    return MISSING if value is None else seconds(value)


# --- words ------------------------------------------------------------------------------------------------------


def _caption(comparison: Comparison, grouped: bool) -> str:
    counts = {len(system.runs) for system in comparison.systems}
    parts = [f"Errors on {comparison.images:,} images of {comparison.data}, {comparison.scored_split}."]
    if not comparison.same_images:
        parts = ["Errors on images that are not the same for all; the provenance has each run's."]
    if 1 in counts:
        parts.append("Of one seed the interval is Wilson's, over images.")
    if 2 in counts:
        parts.append("Of two seeds: the mean, and both errors in place of an interval (a to b), which is no 95 %.")
    if max(counts) >= ENOUGH_SEEDS:
        parts.append("Of three seeds and more: the mean, and Student's t interval over seeds.")
    if _people(comparison):
        parts.append("People had five guesses for images of the challenge's test set; their interval is Wilson's.")
    if grouped:
        parts.append("Systems that share a letter cannot be told apart.")
    parts.append(
        "Multiply-adds are of one image in evaluation. Published errors are of ImageNet itself, with the protocol"
        " beside them, and were trained under budgets of their own."
    )
    return " ".join(parts)
