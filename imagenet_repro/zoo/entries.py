"""The challenge year by year: the entries, and their errors on the hidden test set.

Errors in `entries.csv` are top-5 error rates in percent on the challenge's test set of the year. They are taken from
the papers named, or from the official result pages where only those state a figure. Clarifai never published its
network. The members of the entries of 2016 and 2017 are known only in part; the single-model errors of their networks
are in `published_errors.csv`. The people who took the test are listed with the entries of 2014.
"""

import csv
import dataclasses
from pathlib import Path

from imagenet_repro.scoring.people import PEOPLE

STORED = Path(__file__).parent / "entries.csv"
YEAR_OF_PEOPLE = 2014


@dataclasses.dataclass(frozen=True)
class ChallengeEntry:
    """One entry of the challenge, or one person who took its test."""

    year: int
    who: str  # the team and its rank, such as "XRCE, winner"
    what: str  # the system in a few words
    top5: float  # percent
    protocol: str
    source: str
    system: str = ""  # of a configuration that trains it here


def _read() -> tuple[ChallengeEntry, ...]:
    with STORED.open(newline="", encoding="utf-8") as file:
        entries = [
            ChallengeEntry(
                int(row["year"]),
                row["who"],
                row["what"],
                float(row["top5"]),
                row["protocol"],
                row["source"],
                row["system"],
            )
            for row in csv.DictReader(file)
        ]
    for person in PEOPLE:
        error = round(100 * person.error, 1)
        entries.append(
            ChallengeEntry(YEAR_OF_PEOPLE, person.who, person.practice, error, person.protocol, person.source)
        )
    return tuple(sorted(entries, key=lambda entry: entry.year))  # people after the teams of their year


ENTRIES = _read()
