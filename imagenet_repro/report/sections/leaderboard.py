"""The leaderboard: the errors, sizes and costs of each system beside published errors, and its seeds one by one.

One convention for intervals holds on the page of a comparison, and `interval_note` states it there. Brackets,
[low, high], are always a 95 % interval: Wilson's over images for one seed, Student's t over seeds for the mean of
three or more. For two seeds Student's t would reach 12.7 standard errors to either side, so the page shows both
errors as a range, "low to high", instead.
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
COSTS = ("training seconds", "waiting for data (included)", "compilation", "evaluation", "saving", "peak memory")


def leaderboard(comparison: Comparison, groups: Mapping[str, str] | None = None) -> Table:
    """Return a row for each system, by rising mean top-1 error, then top-5 error, then in the order given.

    Args:
      comparison: the systems.
      groups: letters by the system's name; systems that share one do not differ significantly. None or empty: the
        table has no such column.
    """
    headings = ["system", *ERRORS, *SIZES, "seeds", "published top-1 %", "published top-5 %", "protocol; source"]
    rows = [
        [system.name, *_error_cells(system), *_size_cells(system), *_published_cells(system)]
        for system in ranked(comparison)
    ]
    rows += [_player_cells(player) for player in comparison.people]
    rows += [_person_cells(person) for person in _people(comparison)]
    if groups:
        headings.insert(1, "group")
        for row in rows:
            row.insert(1, groups.get(row[0], ""))
    return Table("leaderboard", tuple(headings), tuple(map(tuple, rows)), _caption(comparison, bool(groups)))


def costs(comparison: Comparison) -> Table:
    """Return the cost of training each system: seconds by purpose, and memory; ordered as the leaderboard."""
    rows = [(system.name, *_second_cells(system), _memory_cell(system.runs)) for system in ranked(comparison)]
    caption = (
        "Seconds, means over seeds. Training seconds are what a budget counts, and include the time spent waiting for"
        " data; compilation, evaluation and saving checkpoints are not part of them. Peak memory is the highest of"
        f" all seeds, of a device or of the process. {MISSING}: not recorded."
    )
    return Table("costs", ("system", *COSTS), tuple(rows), caption)


def seeds(comparison: Comparison) -> Table | None:
    """Return the errors of each run, or None if no system has several runs."""
    if all(len(system.runs) == 1 for system in comparison.systems):
        return None
    rows = [
        (system.name, str(run.seed), *_error_cells(ComparedSystem("", "", "", (run,))))
        for system in ranked(comparison)
        for run in system.runs
    ]
    images = f"the {comparison.n_images:,} images" if comparison.same_images else "the images of that run"
    caption = f"Each run by itself, with Wilson's 95 % interval over {images}."
    return Table("seeds", ("system", "seed", *ERRORS), tuple(rows), caption)


def interval_note(comparison: Comparison) -> str:
    """Return the convention for intervals on the page, as a paragraph of the kinds that occur on it."""
    counts = {len(system.runs) for system in comparison.systems}
    sentences = ["Numbers in brackets, [low, high], are 95 % intervals."]
    if 1 in counts:
        sentences.append("One seed: Wilson's interval of one checkpoint's error, for other images of the same kind.")
    if 2 in counts:
        sentences.append("Two seeds: no interval; the page shows both errors as a range, low to high.")
    if max(counts) >= ENOUGH_SEEDS:
        sentences.append(
            "Three or more seeds: Student's t interval of the mean error, for other seeds on these images."
        )
    if max(counts) > 1:
        sentences.append("Bars and bands in figures span the lowest to the highest seed.")
    if len(comparison.systems) > 1 and comparison.same_images:
        sentences.append(
            "Differences: a bootstrap interval for two checkpoints (other images of the same kind), and Student's t"
            " interval for two recipes (other seeds), each for one pair by itself."
        )
    return " ".join(sentences)


def ranked(comparison: Comparison) -> list[ComparedSystem]:
    """Return the systems by rising mean top-1 error, then by top-5 error, then in the order given."""
    return sorted(comparison.systems, key=lambda system: (system.mean_error(1), system.mean_error(GUESSES)))


def error_interval(system: ComparedSystem, guesses: int) -> tuple[float, float]:
    """Return the interval of a system's mean error with 1 or 5 guesses, in [0, 1].

    One seed: Wilson's 95 % interval. Two seeds: the lower and the higher error. Three or more seeds: Student's t 95 %
    interval of the mean, clipped to [0, 1].
    """
    errors = system.errors(guesses)
    if len(errors) == 1:
        rates = system.runs[0].rates
        return binomial_interval(rates.top1_wrong if guesses == 1 else rates.top5_wrong, rates.images)
    if len(errors) < ENOUGH_SEEDS:
        return min(errors), max(errors)
    low, high = student_interval(np.array(errors), LEVEL)
    return max(0.0, low), min(1.0, high)


def sum_of_rows(run: FinishedRun, kind: str, key: str) -> float | None:
    """Return the sum of one key over the logged rows of a kind; None if no such row has it (older versions)."""
    values = [row[key] for row in run.rows if row.get("kind") == kind and row.get(key) is not None]
    return float(sum(values)) if values else None


# --- cells ------------------------------------------------------------------------------------------------------


def _error_cells(system: ComparedSystem) -> list[str]:
    first, cells = system.runs[0], []
    for guesses in (1, GUESSES):
        low, high = (_percent(end, first) for end in error_interval(system, guesses))
        is_range = 1 < len(system.runs) < ENOUGH_SEEDS
        cells += [_percent(system.mean_error(guesses), first), f"{low} to {high}" if is_range else f"[{low}, {high}]"]
    return cells


def _percent(share: float, run: FinishedRun) -> str:
    """Return a share in percent, with as many decimals as `metrics.format_rate` gives it."""
    digits = 2 if run.rates.images >= FINE_DIGITS_FROM else 1
    return f"{round(100 * share, 9):.{digits}f}"  # rounded first, so that float noise does not decide a tie


def _size_cells(system: ComparedSystem) -> list[str]:
    result = system.runs[0].result
    images, flops, time = (
        _mean([run.result["spent"].get(key) for run in system.runs]) for key in ("images", "flops", "seconds")
    )
    amounts = (result.get("parameters"), result.get("multiply_adds"), images, flops)
    return [*map(_quantity_cell, amounts), _seconds_cell(time), str(len(system.runs))]


def _second_cells(system: ComparedSystem) -> list[str]:
    results = [run.result for run in system.runs]
    values_of_runs = [
        [result["spent"].get("seconds") for result in results],
        [sum_of_rows(run, "train", "waiting_seconds") for run in system.runs],
        [result.get("compilation_seconds") for result in results],
        [sum_of_rows(run, "eval", "evaluation_seconds") for run in system.runs],
        [sum_of_rows(run, "save", "saving_seconds") for run in system.runs],
    ]
    return [_seconds_cell(_mean(values)) for values in values_of_runs]


def _memory_cell(runs: Sequence[FinishedRun]) -> str:
    known = [run.result["peak_memory"] for run in runs if run.result.get("peak_memory")]
    if not known:
        return MISSING
    highest = max(known, key=lambda memory: memory["bytes"])
    return f"{quantity(highest['bytes'])}B ({highest['of']})"


def _published_cells(system: ComparedSystem) -> list[str]:
    errors = published(system.network)
    if errors is None:
        return [MISSING] * 3
    cells = [MISSING if error is None else f"{error:g}" for error in (errors.top1, errors.top5)]
    return [*cells, f"{errors.protocol}; {errors.source}"]


def _people(comparison: Comparison) -> Sequence[Person]:
    """Return the people who took the challenge's test, if the errors are on images of ImageNet."""
    return PEOPLE if IMAGENET.fullmatch(comparison.scored_data) else ()


UNKNOWN_SIZES = [MISSING] * (len(SIZES) + 1)  # of a person; the last one is the number of seeds


def _player_cells(player: HumanPlayer) -> list[str]:
    n_images = len(player.guesses.id)
    n_wrong = (int(player.guesses.wrong(guesses).sum()) for guesses in (1, GUESSES))
    errors = [text for count in n_wrong for text in format_rate(count, n_images)]
    return [player.name, *errors, *UNKNOWN_SIZES, MISSING, MISSING, f"a person, {n_images:,} of the images"]


def _person_cells(person: Person) -> list[str]:
    error, interval = format_rate(person.wrong, person.images)
    source = f"{person.protocol}; {person.source}"
    return [person.who, MISSING, MISSING, error, interval, *UNKNOWN_SIZES, MISSING, error, source]


def _mean(values: Sequence[Any]) -> float | None:
    """Return the mean of the values that were recorded, or None if none was."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _quantity_cell(value: int | float | None) -> str:
    return MISSING if value is None else quantity(value)


def _seconds_cell(value: float | None) -> str:
    return MISSING if value is None else seconds(value)


# --- words ------------------------------------------------------------------------------------------------------


def _caption(comparison: Comparison, has_groups: bool) -> str:
    counts = {len(system.runs) for system in comparison.systems}
    by = f", by the evaluation protocol {comparison.protocol}" if comparison.protocol else ""
    parts = [f"Errors on {comparison.n_images:,} images of {comparison.scored_data}, {comparison.scored_split}{by}."]
    if not comparison.same_images:
        parts = ["The systems were scored on different images; the provenance names those of each run."]
    if left_out := max(run.left_out for system in comparison.systems for run in system.runs):
        parts.append(f"Left out because they cannot be decoded: {left_out:,} records.")
    if 1 in counts:
        parts.append("One seed: Wilson's interval over images.")
    if 2 in counts:
        parts.append("Two seeds: the mean and both errors (low to high), which are not a 95 % interval.")
    if max(counts) >= ENOUGH_SEEDS:
        parts.append("Three or more seeds: the mean and Student's t interval over seeds.")
    if _people(comparison):
        parts.append(
            "People had five guesses for images of the challenge's test set; their interval is Wilson's over images."
        )
    if has_groups:
        parts.append("Systems that share a letter do not differ significantly.")
    view = "view" if comparison.protocol else "image"
    parts.append(
        f"Multiply-adds are those of evaluating one {view}. Published errors are on ImageNet itself, by the protocol"
        " beside them, from models trained under other budgets."
    )
    return " ".join(parts)
