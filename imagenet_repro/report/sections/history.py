"""The table of the challenge's entries, year by year."""

import re

from imagenet_repro.report.records import Comparison
from imagenet_repro.report.tables import Table
from imagenet_repro.scoring.sets import IMAGENET
from imagenet_repro.zoo.entries import ENTRIES

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
