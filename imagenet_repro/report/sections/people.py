"""People beside systems: the guesses of each person, and the errors of the systems on the same images.

As in the study of 2014 (Russakovsky et al. 2015, sec. 6.4.2), a person sees only part of the images. The error of a
person is therefore compared with that of a system on the same part, by McNemar's mid-p test on five guesses.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from imagenet_repro.report.records import ComparedSystem, Comparison, TopGuesses
from imagenet_repro.report.sections.leaderboard import error_headings, ranked
from imagenet_repro.report.tables import MISSING, Table
from imagenet_repro.scoring.metrics import GUESSES, format_rate
from imagenet_repro.statistics.hypothesis_tests import holm, mcnemar
from imagenet_repro.statistics.populations import NEW_IMAGES

HEADINGS = ("person", "system", "images", *error_headings(NEW_IMAGES), "p adjusted (Holm)")


def table(comparison: Comparison) -> Table | None:
    """Return a row for each person, followed by one for each system on that person's images; None without people."""
    if not comparison.people:
        return None
    rows: list[tuple[str, ...]] = []
    for person in comparison.people:
        rows.append((person.name, MISSING, *_error_cells(person.guesses), MISSING))
        parts = [(system, part_of(system, person.guesses)) for system in ranked(comparison)]
        wrong = person.guesses.wrong(GUESSES)
        adjusted = holm(np.array([mcnemar(wrong, part.wrong(GUESSES)).p for _, part in parts]))
        for (system, part), p in zip(parts, adjusted, strict=True):
            rows.append((person.name, system.name, *_error_cells(part), f"{p:.3g}"))
    caption = (
        "Each person, and the first seed of each system on the same images. Intervals are Wilson's for new images, and"
        " the same person or checkpoint. The p value is of equal top-5 errors, by McNemar's mid-p test,"
        " adjusted for the number of systems by Holm."
    )
    return Table("people", HEADINGS, tuple(rows), caption)


def part_of(system: ComparedSystem, guesses: TopGuesses) -> TopGuesses:
    """Return the guesses of a system's first run on the images of other guesses, in their order."""
    run = system.runs[0].guesses
    rows = np.searchsorted(run.id, guesses.id)
    return dataclasses.replace(run, id=run.id[rows], label=run.label[rows], top5=run.top5[rows])


def _error_cells(guesses: TopGuesses) -> Sequence[str]:
    n_images = len(guesses.id)
    return f"{n_images:,}", *(
        text for k in (1, GUESSES) for text in format_rate(int(guesses.wrong(k).sum()), n_images)
    )
