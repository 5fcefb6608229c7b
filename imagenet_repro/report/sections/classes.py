"""Class by class: the hardest classes, and the gains of each step from one year's system to the next.

As in `class_gains`, errors are top-5 if there are more than 20 classes, otherwise top-1.
"""

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun
from imagenet_repro.report.sections.class_gains import (
    FEW,
    ClassGain,
    Gains,
    GuessCount,
    gains,
    noise_note,
    short_names,
    signed,
)
from imagenet_repro.report.tables import Table
from imagenet_repro.scoring.metrics import GUESSES
from imagenet_repro.zoo.published import year

HARDEST = 20  # classes in the short table
MAX_NAMED = 3  # classes in one cell


def hardest(comparison: Comparison) -> Table:
    """Return the 20 classes with the highest error, a mean over systems and their seeds."""
    table = errors_of_classes(comparison)
    caption = f"The {min(HARDEST, len(table.rows))} hardest of {len(table.rows)} classes. {table.caption}"
    return Table("hardest_classes", table.headings, table.rows[:HARDEST], caption)


def errors_of_classes(comparison: Comparison) -> Table:
    """Return the error of every system within each class that has images, with the hardest class first."""
    guesses = _guess_count(comparison)
    images = _images_per_class(comparison)
    errors = np.stack([_class_errors(system, guesses, images) for system in comparison.systems])
    mean = errors.mean(axis=0)
    order = sorted(np.flatnonzero(images).tolist(), key=lambda c: (-round(mean[c], 9), c))
    rows = [
        (comparison.class_names[c], f"{images[c]:,}", f"{mean[c]:.1f}", *(f"{x:.1f}" for x in errors[:, c]))
        for c in order
    ]
    headings = ("class", "images", "mean of systems", *(system.name for system in comparison.systems))
    caption = f"Top-{guesses} error within each class in percent, means over each system's seeds."
    return Table("classes", headings, tuple(rows), caption)


def steps(comparison: Comparison) -> list[tuple[ComparedSystem, ComparedSystem]]:
    """Return each system with its successor in the order of years; systems of one year stay in the order given.

    Systems whose year is not known are left out.
    """
    years = [(year(system.network), system) for system in comparison.systems]
    dated = sorted(((when, system) for when, system in years if when is not None), key=lambda pair: pair[0])
    return list(itertools.pairwise(system for _, system in dated))


def same_seed(*systems: ComparedSystem) -> tuple[FinishedRun, ...]:
    """Return one run of each system: that of the lowest shared seed, otherwise that of each system's lowest seed."""
    common = set.intersection(*(set(system.seeds) for system in systems))
    return tuple(
        next((run for run in system.runs if run.seed == min(common, default=None)), system.runs[0])
        for system in systems
    )


def gains_of_steps(comparison: Comparison) -> Table | None:
    """Return for each step the gain over all images, the numbers of classes that gained and lost, and the extremes.

    Returns:
      The table, or None if fewer than two systems have a known year.

    Raises:
      UserError: an error of `class_gains.gains`.
    """
    rows = [_step_row(*step, _gains(comparison, *step)) for step in steps(comparison)]
    if not rows:
        return None
    guesses = _guess_count(comparison)
    caption = (
        f"From each year's system to the next: the points by which top-{guesses} error fell, over all images and"
        " within classes, for one run of each system (the lowest seed that both have). Differences within a class are"
        " partly chance."
    )
    headings = (
        "step",
        "years",
        "gain, points",
        "classes that gained",
        "classes that lost",
        "gained most",
        "lost most",
    )
    return Table("gains_by_year", headings, tuple(rows), caption)


def gains_of_classes(comparison: Comparison) -> Table | None:
    """Return for each class that has images its gain in every step, with the largest total gain first.

    Returns:
      The table, or None if fewer than two systems have a known year.

    Raises:
      UserError: an error of `class_gains.gains`.
    """
    step_gains = [_gains(comparison, *step) for step in steps(comparison)]
    if not step_gains:
        return None
    guesses = step_gains[0].guesses
    points = [{one.name: one.gain(guesses) for one in step.classes} for step in step_gains]
    totals = {one.name: sum(step[one.name] for step in points) for one in step_gains[0].classes}
    order = sorted(totals, key=lambda name: -round(totals[name], 9))
    rows = tuple((name, *(signed(step[name]) for step in points), signed(totals[name])) for name in order)
    headings = ("class", *(f"{before.name} to {after.name}" for before, after in steps(comparison)), "all steps")
    caption = f"Points by which top-{guesses} error fell within each class. {noise_note(step_gains[0])}"
    return Table("gains_by_class", headings, rows, caption)


# --- counting ---------------------------------------------------------------------------------------------------


def _guess_count(comparison: Comparison) -> GuessCount:
    return GUESSES if len(comparison.class_names) > FEW else 1


def _images_per_class(comparison: Comparison) -> Int[np.ndarray, " c"]:
    return np.bincount(comparison.systems[0].runs[0].guesses.label, minlength=len(comparison.class_names))


def _class_errors(system: ComparedSystem, guesses: int, images: Int[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
    """Return the error within each class in percent, the mean over seeds; 0 for a class without images."""
    labels = [run.guesses.label[run.guesses.wrong(guesses)] for run in system.runs]
    wrong = np.mean([np.bincount(one, minlength=len(images)) for one in labels], axis=0)
    return 100 * wrong / np.maximum(images, 1)


def _gains(comparison: Comparison, before: ComparedSystem, after: ComparedSystem) -> Gains:
    runs = same_seed(before, after)
    return gains(runs[0].guesses, runs[1].guesses, _unique(comparison.class_names))


def _unique(names: Sequence[str]) -> list[str]:
    """Return the names, with the short form, which holds the class's number, if two classes share a name."""
    counts = Counter(names)
    return [name if counts[name] == 1 else short for name, short in zip(names, short_names(names), strict=True)]


# --- cells ------------------------------------------------------------------------------------------------------


def _step_row(before: ComparedSystem, after: ComparedSystem, step_gains: Gains) -> tuple[str, ...]:
    points = [one.gain(step_gains.guesses) for one in step_gains.classes]
    n_gained, n_lost = (sum(sign * x > 0 for x in points) for sign in (1, -1))
    years = [str(year(system.network)) for system in (before, after)]
    return (
        f"{before.name} to {after.name}",
        years[0] if years[0] == years[1] else " to ".join(years),
        signed(step_gains.overall.gain(step_gains.guesses)),
        f"{n_gained:,}",
        f"{n_lost:,}",
        _named(step_gains.classes[: min(MAX_NAMED, n_gained)], step_gains.guesses),
        _named(step_gains.classes[::-1][: min(MAX_NAMED, n_lost)], step_gains.guesses),
    )


def _named(classes: Sequence[ClassGain], guesses: GuessCount) -> str:
    return "; ".join(f"{one.short} {signed(one.gain(guesses))}" for one in classes)
