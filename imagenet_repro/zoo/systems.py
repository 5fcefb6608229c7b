"""Systems that followed the challenge: the lowest published errors from 2021 on, mostly of systems with texts.

Errors in `systems.csv` are top-1 error rates in percent on ImageNet's validation set. They cannot be compared with one
another before the protocol is read: a zero-shot classifier has seen no label of ImageNet, and a fine-tuned one has
seen all of them. Each system was trained on other images before, in most cases on images that are not public.
"""

import csv
import dataclasses
from pathlib import Path

STORED = Path(__file__).parent / "systems.csv"
NOT_PUBLISHED = "not published"


@dataclasses.dataclass(frozen=True)
class LaterSystem:
    """One published result of a system of the years after the challenge."""

    year: int
    title: str  # the name in its usual spelling, with the size of the images where there are several
    top1: float  # percent
    protocol: str  # the labels, and how the classifier came to be
    source: str  # the paper or the page that states the error
    weights: str  # who publishes the weights; NOT_PUBLISHED: nobody, so that the error cannot be checked
    network: str  # its name among `models.names()`; empty: it is not one of them


def _read() -> tuple[LaterSystem, ...]:
    with STORED.open(newline="", encoding="utf-8") as file:
        return tuple(
            LaterSystem(
                year=int(row["year"]),
                title=row["title"],
                top1=float(row["top1"]),
                protocol=row["protocol"],
                source=row["source"],
                weights=row["weights"],
                network=row["network"],
            )
            for row in csv.DictReader(file)
        )


SYSTEMS = _read()
