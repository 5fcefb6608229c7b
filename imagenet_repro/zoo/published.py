"""What is known of a system beyond its runs: its year, and what was published of it."""

from imagenet_repro import models
from imagenet_repro.models.spec import Published
from imagenet_repro.zoo.entries import ENTRIES, Entry

# Protocols of one view, as our own evaluation has: of several published numbers these stand beside ours.
ONE_VIEW = ("centre", "1 crop", "1 view")


def year(network: str) -> int | None:
    """The year of a network, or of a system from before 2012; None for a name that nobody here knows."""
    if _is_network(network):
        return models.spec(network).year
    entry = _entry(network)
    return entry and entry.year


def published(network: str) -> Published | None:
    """The published errors that are most like ours: of one view, then with both error rates, then the first.

    None where nothing was published, or where nobody here knows the name.
    """
    if _is_network(network):
        return max(models.spec(network).published, key=_likeness, default=None)
    entry = _entry(network)
    return entry and Published(None, entry.top5, entry.protocol, entry.source)


def _is_network(name: str) -> bool:
    return models.canonical(name) in models.names()


def _entry(name: str) -> Entry | None:
    """The entry that a system of that name trains; most entries have none."""
    return next((entry for entry in ENTRIES if name and entry.system == name), None)


def _likeness(one: Published) -> tuple[bool, int]:
    return any(view in one.protocol for view in ONE_VIEW), sum(x is not None for x in (one.top1, one.top5))
