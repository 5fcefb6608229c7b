"""People beside systems: what each guessed of the images, and what the systems did on just those.

As in the study of 2014 (Russakovsky et al. 2015, sec. 6.4.2), a person sees a part of the images, so a system's error
on that part, and not on all, is what the person's is compared with: by McNemar's mid-p on five guesses.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from imagenet_repro.report.records import ComparedSystem, Comparison, TopGuesses
from imagenet_repro.report.sections.leaderboard import ranked
from imagenet_repro.report.tables import MISSING, Table
from imagenet_repro.scoring.metrics import GUESSES, format_rate
from imagenet_repro.statistics.hypothesis_tests import holm, mcnemar

HEADINGS = ("person", "system", "images", "top-1 error %", "95 %", "top-5 error %", "95 %", "p, Holm")


def table(comparison: Comparison) -> Table | None:
    """A row for each person, and below it one for each system on that person's images; None without people."""
    if not comparison.people:
        return None
    rows: list[tuple[str, ...]] = []
    for person in comparison.people:
        rows.append((person.name, MISSING, *_errors(person.guesses), MISSING))
        parts = [(system, part_of(system, person.guesses)) for system in ranked(comparison)]
        wrong = person.guesses.wrong(GUESSES)
        adjusted = holm(np.array([mcnemar(wrong, part.wrong(GUESSES)).p for _, part in parts]))
        for (system, part), p in zip(parts, adjusted, strict=True):
            rows.append((person.name, system.name, *_errors(part), f"{p:.3g}"))
    caption = (
        "People, and each system's first seed on the same images. Intervals are Wilson's; p is of equal top-5 errors"
        " (McNemar's mid-p, Holm over the systems)."
    )
    return Table("people", HEADINGS, tuple(rows), caption)


def part_of(system: ComparedSystem, guesses: TopGuesses) -> TopGuesses:
    """What a system's first run guessed of some of its images."""
    run = system.runs[0].guesses
    rows = np.searchsorted(run.id, guesses.id)
    return dataclasses.replace(run, id=run.id[rows], label=run.label[rows], top5=run.top5[rows])


def _errors(guesses: TopGuesses) -> Sequence[str]:
    images = len(guesses.id)
    return f"{images:,}", *(text for k in (1, GUESSES) for text in format_rate(int(guesses.wrong(k).sum()), images))
