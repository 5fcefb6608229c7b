"""Per class: which are hardest, and what each step from one year's system to the next gained.

As in `gains.py`, top-5 error tells classes apart where there are more than 20 of them, else top-1 error.
"""

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun
from imagenet_repro.report.sections.class_gains import FEW, ClassGain, Gains, gains, noise, short_names, signed
from imagenet_repro.report.tables import Table
from imagenet_repro.scoring.metrics import GUESSES
from imagenet_repro.zoo.published import year

HARDEST = 20  # classes in the short table
NAMED = 3  # classes in one cell


def hardest(comparison: Comparison) -> Table:
    """The 20 hardest classes: of the highest error, as a mean over systems and their seeds."""
    whole = errors_of_classes(comparison)
    caption = f"The {min(HARDEST, len(whole.rows))} hardest of {len(whole.rows)} classes. {whole.caption}"
    return Table("hardest_classes", whole.headings, whole.rows[:HARDEST], caption)


def errors_of_classes(comparison: Comparison) -> Table:
    """Every class that has images, the hardest first: images, the mean error over systems, and each system's."""
    guesses = _guesses(comparison)
    images = _images(comparison)
    errors = np.stack([_errors(system, guesses, images) for system in comparison.systems])
    mean = errors.mean(axis=0)
    order = sorted(np.flatnonzero(images).tolist(), key=lambda c: (-round(mean[c], 9), c))
    rows = [
        (comparison.class_names[c], f"{images[c]:,}", f"{mean[c]:.1f}", *(f"{x:.1f}" for x in errors[:, c]))
        for c in order
    ]
    headings = ("class", "images", "mean of systems", *(system.name for system in comparison.systems))
    caption = f"Top-{guesses} error within each class in percent, the mean over a system's seeds."
    return Table("classes", headings, tuple(rows), caption)


def steps(comparison: Comparison) -> list[tuple[ComparedSystem, ComparedSystem]]:
    """Each system with the next one in the order of years; systems of one year in the order that was given.

    A system whose year nobody here knows takes no part.
    """
    known = [(year(system.network), system) for system in comparison.systems]
    dated = sorted(((when, system) for when, system in known if when is not None), key=lambda pair: pair[0])
    return list(itertools.pairwise(system for _, system in dated))


def same_seed(*systems: ComparedSystem) -> tuple[FinishedRun, ...]:
    """A run of each system: of the lowest seed that all have, and where there is none of each one's lowest."""
    common = set.intersection(*(set(system.seeds) for system in systems))
    return tuple(
        next((run for run in system.runs if run.seed == min(common, default=None)), system.runs[0])
        for system in systems
    )


def gains_of_steps(comparison: Comparison) -> Table | None:
    """A row for each step: what the error fell by, how many classes gained and lost, and which most.

    None where fewer than two systems have a known year. Raises `UserError` as `gains.gains` does.
    """
    rows = [_step_row(*step, _gains(comparison, *step)) for step in steps(comparison)]
    if not rows:
        return None
    guesses = _guesses(comparison)
    caption = (
        f"From each year's system to the next: points by which top-{guesses} error fell, over all images and within"
        " classes. One run of each system, of the lowest seed that both have. Differences within a class are partly"
        " luck."
    )
    headings = ("step", "years", "gain, points", "classes that gained", "that lost", "gained most", "lost most")
    return Table("gains_by_year", headings, tuple(rows), caption)


def gains_of_classes(comparison: Comparison) -> Table | None:
    """Every class that has images, and the points that each step gained it; the largest gain over all steps first.

    None where fewer than two systems have a known year. Raises `UserError` as `gains.gains` does.
    """
    found = [_gains(comparison, *step) for step in steps(comparison)]
    if not found:
        return None
    guesses = found[0].guesses
    points = [{one.name: one.gain(guesses) for one in each.classes} for each in found]
    by_name = {one.name: sum(each[one.name] for each in points) for one in found[0].classes}
    order = sorted(by_name, key=lambda name: -round(by_name[name], 9))
    rows = tuple((name, *(signed(each[name]) for each in points), signed(by_name[name])) for name in order)
    headings = ("class", *(f"{before.name} to {after.name}" for before, after in steps(comparison)), "all steps")
    caption = f"Points by which top-{guesses} error fell within each class. {noise(found[0])}"
    return Table("gains_by_class", headings, rows, caption)


# --- counting ---------------------------------------------------------------------------------------------------


def _guesses(comparison: Comparison) -> int:
    return GUESSES if len(comparison.class_names) > FEW else 1


def _images(comparison: Comparison) -> np.ndarray:
    """How many each class has."""
    return np.bincount(comparison.systems[0].runs[0].guesses.label, minlength=len(comparison.class_names))


def _errors(system: ComparedSystem, guesses: int, images: np.ndarray) -> Float[np.ndarray, " c"]:
    """Percent of each class's images, the mean over seeds; 0 for a class without images."""
    labels = [run.guesses.label[run.guesses.wrong(guesses)] for run in system.runs]
    wrong = np.mean([np.bincount(one, minlength=len(images)) for one in labels], axis=0)
    return 100 * wrong / np.maximum(images, 1)


def _gains(comparison: Comparison, before: ComparedSystem, after: ComparedSystem) -> Gains:
    runs = same_seed(before, after)
    # Names of classes may repeat; the short ones do not.
    return gains(runs[0].guesses, runs[1].guesses, _unlike(comparison.class_names))


def _unlike(names: Sequence[str]) -> list[str]:
    """The names as they are, and where two classes share one its short form, which holds the class's number."""
    seen = Counter(names)
    return [name if seen[name] == 1 else short for name, short in zip(names, short_names(names), strict=True)]


# --- cells ------------------------------------------------------------------------------------------------------


def _step_row(before: ComparedSystem, after: ComparedSystem, found: Gains) -> tuple[str, ...]:
    points = [one.gain(found.guesses) for one in found.classes]
    gained, lost = (sum(sign * x > 0 for x in points) for sign in (1, -1))
    years = [str(year(system.network)) for system in (before, after)]
    return (
        f"{before.name} to {after.name}",
        years[0] if years[0] == years[1] else " to ".join(years),
        signed(found.overall.gain(found.guesses)),
        f"{gained:,}",
        f"{lost:,}",
        _named(found.classes[: min(NAMED, gained)], found.guesses),
        _named(found.classes[::-1][: min(NAMED, lost)], found.guesses),
    )


def _named(classes: Sequence[ClassGain], guesses: int) -> str:
    return "; ".join(f"{one.short} {signed(one.gain(guesses))}" for one in classes)
