"""The leaderboard: the errors, sizes and costs of each system beside published errors, and its seeds one by one.

One convention for intervals holds in a table, and the heading of their column states it. Where a system has two seeds
or more, all of them are for new images and new seeds, and a system of one seed takes the variance of the others' seeds
(`statistics.crossed_effects.error_intervals`). Where all systems have one seed, they are Wilson's, for new images and
these checkpoints.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from imagenet_repro.report import energy
from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun, HumanPlayer
from imagenet_repro.report.result_table import quantity, seconds
from imagenet_repro.report.tables import MISSING, Table
from imagenet_repro.scoring.metrics import FINE_DIGITS_FROM, GUESSES, format_rate
from imagenet_repro.scoring.people import PEOPLE, Person
from imagenet_repro.scoring.sets import IMAGENET
from imagenet_repro.statistics import crossed_effects
from imagenet_repro.statistics.intervals import binomial_interval
from imagenet_repro.statistics.populations import NEW_IMAGES, NEW_IMAGES_AND_SEEDS, interval_heading
from imagenet_repro.zoo.published import Measured, PublishedErrors, published_for

OPTIMISTIC = "optimistic by, points"  # the heading of an estimate for errors on the images that chose a checkpoint
SIZES = ("parameters", "multiply-adds", "images seen", "training FLOPs", "training seconds")
PUBLISHED = ("published top-1 %", "published top-5 %", "protocol; source")
OPTIONS = "model.options."
ALL_PAIRS = 24  # a page shows all pairs of up to this many systems, and `telling_pairs` of more
TELLING = "systems next to each other in the order of errors, and the best system with each other one"
COSTS = (
    "training seconds",
    "waiting for data (included)",
    "compilation",
    "evaluation",
    "saving",
    "peak memory",
    "energy",
    "energy of",
    "idle power's share",
)


def leaderboard(comparison: Comparison, groups: Mapping[str, str] | None = None) -> Table:
    """Return a row for each system, by rising mean top-1 error, then top-5 error, then in the order given.

    Args:
      comparison: the systems.
      groups: letters by the system's name; systems that share one do not differ significantly. None or empty: the
        table has no such column.
    """
    errors = error_headings(population(comparison))
    headings = ["system", *errors, *SIZES, "seeds", *PUBLISHED]
    intervals = {system.name: ends for system, *ends in _intervals(comparison)}
    rows = [
        [
            system.name,
            *_error_cells(system, intervals[system.name]),
            *_size_cells(system),
            *_published_cells(_published(comparison, system)),
        ]
        for system in ranked(comparison)
    ]
    rows += [_player_cells(player) for player in comparison.people]
    rows += [_person_cells(person) for person in _people(comparison)]
    if any(run.optimism for system in comparison.systems for run in system.runs):
        headings.insert(3, OPTIMISTIC)
        optimism = {system.name: f"{100 * _mean_optimism(system):.2f}" for system in comparison.systems}
        for row in rows:
            row.insert(3, optimism.get(row[0], MISSING))
    if groups:
        headings.insert(1, "group")
        for row in rows:
            row.insert(1, groups.get(row[0], ""))
    shown = [
        at for at in range(len(headings)) if headings[at] not in PUBLISHED or {row[at] for row in rows} != {MISSING}
    ]
    has_published = any(headings[at] in PUBLISHED[:2] for at in shown)
    return Table(
        "leaderboard",
        tuple(headings[at] for at in shown),
        tuple(tuple(row[at] for at in shown) for row in rows),
        _caption(comparison, bool(groups), has_published),
    )


def _mean_optimism(system: ComparedSystem) -> float:
    return float(np.mean([run.optimism for run in system.runs]))


def costs(comparison: Comparison) -> Table:
    """Return the cost of training each system: seconds by purpose, and memory; ordered as the leaderboard."""
    rows = [
        (system.name, *_second_cells(system), _memory_cell(system.runs), *_energy_cells(system))
        for system in ranked(comparison)
    ]
    caption = (
        "Seconds, means over seeds. Training seconds are what a budget counts, and include the time spent waiting for"
        " data; compilation, evaluation and saving checkpoints are not part of them. Peak memory is the highest of"
        " all seeds, of a device or of the process. Energy is that of the training seconds, as a mean over seeds, of"
        " the parts beside it; energies of different parts must not be compared. Idle power, measured before the first"
        f" step, would have taken its share of it in the same time. {MISSING}: not recorded."
    )
    return Table("costs", ("system", *COSTS), tuple(rows), caption)


def seeds(comparison: Comparison) -> Table | None:
    """Return the errors of each run, or None if no system has several runs."""
    if all(len(system.runs) == 1 for system in comparison.systems):
        return None
    rows = [
        (system.name, str(run.seed), *_error_cells(ComparedSystem("", "", "", (run,)), _wilson(run)))
        for system in ranked(comparison)
        for run in system.runs
    ]
    images = f"the {comparison.n_images:,} images" if comparison.same_images else "the images of that run"
    caption = f"Each run by itself, with Wilson's 95 % interval over {images}: {NEW_IMAGES}."
    return Table("seeds", ("system", "seed", *error_headings(NEW_IMAGES)), tuple(rows), caption)


def population(comparison: Comparison) -> str:
    """Return the population that the leaderboard's intervals are about."""
    return NEW_IMAGES_AND_SEEDS if comparison.has_several_seeds else NEW_IMAGES


def error_headings(population: str) -> tuple[str, str, str, str]:
    """Return the headings of both error rates and their intervals."""
    return (
        "top-1 error %",
        interval_heading(population),
        f"top-{GUESSES} error %",
        interval_heading(population, of=f"top-{GUESSES}"),
    )


def interval_note(comparison: Comparison) -> str:
    """Return the convention for intervals on the page, as a paragraph of the kinds that occur on it."""
    sentences = ["Numbers in brackets, [low, high], are 95 % intervals; a column's heading names what they cover."]
    if comparison.has_several_seeds:
        sentences.append(
            "Leaderboard: the mean error over other seeds, on other images of the same kind. The variances of seeds"
            " are pooled over systems, unless a system's own is larger."
        )
        if any(len(system.runs) == 1 for system in comparison.systems):
            sentences.append("A system of one seed takes the variance of the others' seeds.")
        sentences.append("Bars and bands in figures span the lowest to the highest seed.")
    else:
        sentences.append(f"Leaderboard: Wilson's interval of one checkpoint's error: {NEW_IMAGES}.")
    if len(comparison.systems) > 1 and comparison.same_images:
        if comparison.has_several_seeds:
            sentences.append(f"Differences of recipes, {NEW_IMAGES_AND_SEEDS}: intervals cover all pairs at once.")
        sentences.append(f"Differences of checkpoints, {NEW_IMAGES}: a bootstrap interval for each pair by itself.")
    return " ".join(sentences)


def ranked(comparison: Comparison) -> list[ComparedSystem]:
    """Return the systems by rising mean top-1 error, then by top-5 error, then in the order given."""
    return sorted(comparison.systems, key=lambda system: (system.mean_error(1), system.mean_error(GUESSES)))


def telling_pairs(order: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return the neighbours in an order of systems, and the first with each other one, as pairs of places in it.

    Their number grows as that of the systems, where that of all pairs grows as its square.
    """
    places = itertools.combinations(range(len(order)), 2)
    return tuple((i, j) for i, j in places if i == 0 or j == i + 1)


def error_intervals(comparison: Comparison, guesses: int) -> list[tuple[float, float]]:
    """Return the 95 % interval of each system's mean error with 1 or 5 guesses, in [0, 1], for `population`."""
    systems = comparison.systems
    if not comparison.has_several_seeds:
        return [_wilson(system.runs[0])[guesses == GUESSES] for system in systems]
    if comparison.same_images:
        groups = [crossed_effects.summarize(system.wrong(guesses) for system in systems)]
    else:
        groups = [crossed_effects.summarize([system.wrong(guesses)]) for system in systems]
    return [(float(low), float(high)) for low, high in crossed_effects.error_intervals(*groups)]


def sum_of_rows(run: FinishedRun, kind: str, key: str) -> float | None:
    """Return the sum of one key over the logged rows of a kind; None if no such row has it (older versions)."""
    values = [row[key] for row in run.rows if row.get("kind") == kind and row.get(key) is not None]
    return float(sum(values)) if values else None


# --- cells ------------------------------------------------------------------------------------------------------


def _intervals(comparison: Comparison) -> list[tuple[ComparedSystem, tuple[float, float], tuple[float, float]]]:
    """Return each system with the intervals of its top-1 and top-5 errors."""
    by_rate = (error_intervals(comparison, guesses) for guesses in (1, GUESSES))
    return list(zip(comparison.systems, *by_rate, strict=True))


def _wilson(run: FinishedRun) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return Wilson's intervals of a run's top-1 and top-5 errors, for new images and this checkpoint."""
    rates = run.rates
    return binomial_interval(rates.top1_wrong, rates.images), binomial_interval(rates.top5_wrong, rates.images)


def _error_cells(system: ComparedSystem, intervals: Sequence[tuple[float, float]]) -> list[str]:
    first, cells = system.runs[0], []
    for guesses, (low, high) in zip((1, GUESSES), intervals, strict=True):
        interval = f"[{_percent(low, first)}, {_percent(high, first)}]"
        cells += [_percent(system.mean_error(guesses), first), interval]
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


def _energy_cells(system: ComparedSystem) -> list[str]:
    """Return the mean energy, its parts, and the idle share; unknown unless that of all seeds is known."""
    results = [run.result for run in system.runs]
    known = [value for result in results if (value := energy.joules(result)) is not None]
    if len(known) < len(results):
        return [energy.UNKNOWN, MISSING, MISSING]
    scopes = sorted({", ".join(energy.parts(result)) for result in results})
    shares = [energy.idle_share(result) for result in results]
    return [energy.joules_cell(float(np.mean(known))), " or ".join(scopes), energy.share_cell(shares)]


def _published(comparison: Comparison, system: ComparedSystem) -> PublishedErrors | None:
    """Return the published errors of a system, if it was trained and scored as in the publication."""
    settings = system.settings
    data = settings.get("data.name")
    size = settings.get("data.eval_image_size") or settings.get("data.image_size")
    options = {key.removeprefix(OPTIONS): value for key, value in settings.items() if key.startswith(OPTIONS)}
    scored = comparison.evaluation_data or data
    return published_for(
        Measured(system.network, frozenset({str(data), str(scored)}), size or 0, options, "classifier" in settings)
    )


def _published_cells(errors: PublishedErrors | None) -> list[str]:
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


def _caption(comparison: Comparison, has_groups: bool, has_published: bool) -> str:
    by = f", by the evaluation protocol {comparison.protocol}" if comparison.protocol else ""
    parts = [f"Errors on {comparison.n_images:,} images of {comparison.scored_data}, {comparison.scored_split}{by}."]
    if not comparison.same_images:
        parts = ["The systems were scored on different images; the provenance names those of each run."]
    if left_out := max(run.left_out for system in comparison.systems for run in system.runs):
        parts.append(f"Left out because they cannot be decoded: {left_out:,} records.")
    parts.append(_interval_caption(comparison))
    if any(run.optimism for system in comparison.systems for run in system.runs):
        parts.append(
            "The scored images also selected some of the checkpoints, whose top-1 errors are therefore optimistic by"
            " about as much as the column says."
        )
    if _people(comparison):
        parts.append(
            "People had five guesses for images of the challenge's test set; their interval is Wilson's, for new"
            " images."
        )
    if has_groups:
        question = (
            f"recipes over {NEW_IMAGES_AND_SEEDS}, by crossed effects"
            if comparison.has_several_seeds
            else "checkpoints on these images, by McNemar's test"
        )
        parts.append(f"Systems that share a letter do not differ significantly as {question}.")
    view = "view" if comparison.protocol else "image"
    parts.append(f"Multiply-adds are those of evaluating one {view}.")
    if has_published:
        parts.append(
            "Published errors stand beside systems of the same network, options, image size and data set; they are by"
            " the protocol beside them, from models trained under other budgets."
        )
    return " ".join(parts)


def _interval_caption(comparison: Comparison) -> str:
    if not comparison.has_several_seeds:
        return f"One seed of each system: Wilson's interval, for {NEW_IMAGES}."
    counts = {len(system.runs) for system in comparison.systems}
    text = f"Errors are means over seeds, and their intervals are for {NEW_IMAGES_AND_SEEDS}."
    return text + " A system of one seed takes the variance of the others' seeds." * (1 in counts)
