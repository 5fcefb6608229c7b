"""Published facts about systems: the year, the paper, and the error rates with their protocol and source.

`networks.csv` has a row for each network, `published_errors.csv` one for each published result of a network. Systems
from before 2012 are not networks; their facts are those of the challenge's entry (`entries.py`).
"""

import csv
import dataclasses
import functools
from pathlib import Path

from imagenet_repro import models
from imagenet_repro.zoo.entries import ENTRIES, ChallengeEntry

NETWORKS = Path(__file__).parent / "networks.csv"
ERRORS = Path(__file__).parent / "published_errors.csv"
# Words for protocols with a single view, like our own evaluation; their numbers compare best with ours.
ONE_VIEW = ("centre", "1 crop", "1 view")


@dataclasses.dataclass(frozen=True)
class PublishedErrors:
    """Error rates on ImageNet that a source states, with the protocol under which they were measured."""

    top1: float | None  # percent
    top5: float | None  # percent
    protocol: str  # set and views, such as "val, 10 crops"
    source: str  # the paper, table or page that states them


@dataclasses.dataclass(frozen=True)
class NetworkFacts:
    """Everything published about one network that is stored here."""

    year: int
    title: str  # the name in its usual spelling
    entry: str  # the challenge's entry that it belongs to, such as "SuperVision, winner"; empty: none
    paper: str  # the paper that describes it
    errors: tuple[PublishedErrors, ...]  # in the order of the file


def network_facts(name: str) -> NetworkFacts:
    """Return what is published about the network `name` (or an alias of it).

    Raises:
      UserError: no network has that name.
    """
    models.spec(name)  # an unknown name is an error that lists the nearest
    return _all_facts()[models.canonical(name)]


def year(system: str) -> int | None:
    """Return the year of a network, or of a system from before 2012; None for an unknown name."""
    if _is_network(system):
        return network_facts(system).year
    entry = _entry(system)
    return entry and entry.year


def published(system: str) -> PublishedErrors | None:
    """Return the published errors that compare best with ours: of one view, then with both error rates, then first.

    None where nothing is published, or where the name is unknown.
    """
    if _is_network(system):
        return max(network_facts(system).errors, key=_likeness, default=None)
    entry = _entry(system)
    return entry and PublishedErrors(None, entry.top5, entry.protocol, entry.source)


@functools.cache
def _all_facts() -> dict[str, NetworkFacts]:
    errors: dict[str, list[PublishedErrors]] = {}
    with ERRORS.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            top1, top5 = (float(row[key]) if row[key] else None for key in ("top1", "top5"))
            result = PublishedErrors(top1, top5, row["protocol"], row["source"])
            errors.setdefault(row["network"], []).append(result)
    with NETWORKS.open(newline="", encoding="utf-8") as file:
        return {
            row["network"]: NetworkFacts(
                int(row["year"]), row["title"], row["entry"], row["paper"], tuple(errors.get(row["network"], ()))
            )
            for row in csv.DictReader(file)
        }


def _is_network(name: str) -> bool:
    return models.canonical(name) in models.names()


def _entry(system: str) -> ChallengeEntry | None:
    """Return the entry that a system of that name trains; most entries have none."""
    return next((entry for entry in ENTRIES if system and entry.system == system), None)


def _likeness(errors: PublishedErrors) -> tuple[bool, int]:
    has_one_view = any(view in errors.protocol for view in ONE_VIEW)
    return has_one_view, sum(error is not None for error in (errors.top1, errors.top5))
