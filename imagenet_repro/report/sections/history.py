"""The tables of the challenge's entries, year by year, and of what followed."""

import re

from imagenet_repro.report.records import Comparison
from imagenet_repro.report.tables import Table
from imagenet_repro.scoring.sets import IMAGENET
from imagenet_repro.zoo.entries import ENTRIES
from imagenet_repro.zoo.systems import SYSTEMS

DEMO = re.compile(r"silhouettes([/:].*)?")  # the data set of the demo, which shows the decade in miniature


def belongs_to(comparison: Comparison) -> bool:
    """Return whether the challenge's history belongs beside a comparison: its data are ImageNet's or the demo's."""
    return any(pattern.fullmatch(comparison.data) for pattern in (IMAGENET, DEMO))


def entries() -> Table:
    """Return the published entries of the challenge as a table, one row an entry, in the order of years."""
    rows = tuple(
        (f"{entry.who}: {entry.what}", str(entry.year), f"{entry.top5:g}", f"{entry.protocol}; {entry.source}")
        for entry in ENTRIES
    )
    caption = "Top-5 error as published, on the challenge's test set of that year unless the protocol says otherwise."
    return Table("history", ("entry", "year", "top-5 error %", "protocol; source"), rows, caption)


def later_systems() -> Table:
    """Return published results of the years after the challenge as a table, one row a result, by year."""
    rows = tuple((one.title, str(one.year), f"{one.top1:g}", one.protocol, one.weights, one.source) for one in SYSTEMS)
    caption = (
        "Top-1 error as published. A zero-shot classifier has seen no label of ImageNet, a fine-tuned one all of them;"
        " each system was trained on more images before, most of them not public."
    )
    headings = ("system", "year", "top-1 error %", "protocol", "weights", "source")
    return Table("history_later", headings, rows, caption, heading="What followed")
