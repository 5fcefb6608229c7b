"""Published facts about systems: the year, the paper, and the error rates with their protocol and source.

`networks.csv` has a row for each network, `published_errors.csv` one for each published result of a network. Systems
from before 2012 are not networks; their facts are those of the challenge's entry (`entries.py`).
"""

import csv
import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagenet_repro import models
from imagenet_repro.scoring.sets import IMAGENET
from imagenet_repro.zoo.entries import ENTRIES, ChallengeEntry

NETWORKS = Path(__file__).parent / "networks.csv"
ERRORS = Path(__file__).parent / "published_errors.csv"
# Words for protocols with a single view, like our own evaluation; their numbers compare best with ours.
ONE_VIEW = ("centre", "1 crop", "1 view")
# Options of networks that change how they are trained or computed, and not what they are.
TRAINING_OPTIONS = (
    "auxiliary", "auxiliary_dropout", "drop_path", "dropout", "head_bias", "layer_scale", "mask_token",
    "norm_momentum", "remat", "scan", "zero_init_last",
)  # fmt: skip
CIFAR10 = re.compile(r"cifar10(:.*)?")
STATED_SIZE = re.compile(r"centre (\d+)|(\d+) px")  # of images, in a protocol; otherwise that of the network


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

    year: int | None  # None: an own network
    title: str  # the name in its usual spelling
    entry: str  # the challenge's entry that it belongs to, such as "SuperVision, winner"; empty: none
    paper: str  # the paper that describes it
    errors: tuple[PublishedErrors, ...]  # in the order of the file


def network_facts(name: str) -> NetworkFacts:
    """Return what is published about the network `name` (or an alias of it); of an own network, its name alone.

    Raises:
      UserError: no network has that name.
    """
    spec = models.spec(name)  # an unknown name is an error that lists the nearest
    name = models.canonical(name)
    if not spec.is_published and name not in _all_facts():
        return NetworkFacts(None, name, "", "", ())
    return _all_facts()[name]


def year(system: str) -> int | None:
    """Return the year of a network, or of a system from before 2012; None for an own network or an unknown name."""
    if _is_network(system):
        return network_facts(system).year
    entry = _entry(system)
    return entry and entry.year


@dataclasses.dataclass(frozen=True)
class Measured:
    """The facts about a measured error that decide which published ones may stand beside it.

    Attributes:
      system: the network, or a system from before 2012.
      data: the data sets that it was trained and scored on.
      image_size: the side of the scored images in pixels.
      options: the network's options in its configuration.
      is_probe: whether a classifier was fitted to frozen features.
    """

    system: str
    data: frozenset[str]
    image_size: int
    options: Mapping[str, Any]
    is_probe: bool = False


def published_for(measured: Measured) -> PublishedErrors | None:
    """Return the published errors of the same network, options, size and data that compare best with measured ones.

    Of several, those of one view come first, then those with both error rates, then the first of the file. None where
    nothing is published, or where the name is unknown.
    """
    if not _is_network(measured.system):
        entry = _entry(measured.system)
        is_same = entry is not None and all(map(IMAGENET.fullmatch, measured.data))
        return PublishedErrors(None, entry.top5, entry.protocol, entry.source) if entry and is_same else None
    if not _is_as_published(measured):
        return None
    errors = [one for one in network_facts(measured.system).errors if _is_same_test(one, measured)]
    return max(errors, key=_likeness, default=None)


def _is_as_published(measured: Measured) -> bool:
    """Return whether the options leave the network as it was published."""
    defaults = models.spec(measured.system).options
    return all(
        value == defaults.get(name) or name in TRAINING_OPTIONS or (name == "image_size" and value == _size(measured))
        for name, value in measured.options.items()
    )


def _is_same_test(errors: PublishedErrors, measured: Measured) -> bool:
    data = CIFAR10 if errors.protocol.startswith("CIFAR-10") else IMAGENET
    stated = STATED_SIZE.search(errors.protocol)
    size = int(stated[1] or stated[2]) if stated else _size(measured)
    is_probe = "linear probe" in errors.protocol
    return all(map(data.fullmatch, measured.data)) and size == measured.image_size and is_probe == measured.is_probe


def _size(measured: Measured) -> int:
    return models.spec(measured.system).preprocessing.image_size


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
