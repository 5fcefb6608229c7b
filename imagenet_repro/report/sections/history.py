"""The table of the challenge's entries, year by year."""

from imagenet_repro.report.tables import Table
from imagenet_repro.zoo.entries import ENTRIES


def entries() -> Table:
    """Return the published entries of the challenge as a table, one row an entry, in the order of years."""
    rows = tuple(
        (f"{entry.who}: {entry.what}", str(entry.year), f"{entry.top5:g}", f"{entry.protocol}; {entry.source}")
        for entry in ENTRIES
    )
    caption = "Top-5 error as published, on the challenge's test set of that year unless the protocol says otherwise."
    return Table("history", ("entry", "year", "top-5 error %", "protocol; source"), rows, caption)
