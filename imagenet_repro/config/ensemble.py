"""The schema of a published ensemble: its members, its published error rates, and what its sources leave open.

A file such as `configs/ensembles/googlenet.py` defines `get_config(argument=None)` and returns a dictionary with the
keys of `EnsembleConfig`.
"""

import dataclasses
from typing import Literal

from imagenet_repro.config.fields import bounded
from imagenet_repro.config.load import build_section, read_settings
from imagenet_repro.errors import UserError

Average = Literal["probabilities", "logits"]  # the quantity that is averaged over the members
SearchedWeights = Literal["validation", "greedy", "accuracy"]  # ways to choose the weights on held-out images


@dataclasses.dataclass(frozen=True)
class EnsembleMember:
    """One or more members that differ only in their seeds."""

    network: str = ""  # a name that `main.py models` lists
    count: int = bounded(1, 1)  # members of this kind, each with its own seed
    recipe: str = ""  # FILE.py[:ARGUMENT] that trains it
    protocol: str = "crop"  # the protocol of `main.py evaluate` that scored the entry's members
    stands_for: str = ""  # the entry's own network, where this project does not have it


@dataclasses.dataclass(frozen=True)
class EntryErrors:
    """Error rates of the entry as a source prints them, in percent."""

    what: str = ""  # the members and views
    top1: float = bounded(0.0, 0.0, 100.0)  # 0: not stated
    top5: float = bounded(0.0, 0.0, 100.0)  # percent
    images: str = ""  # the set of images
    source: str = ""  # where it is printed

    def __str__(self) -> str:
        top1 = f"top-1 {self.top1:g} %, " if self.top1 else ""
        return f"{top1}top-5 {self.top5:g} %: {self.what}, {self.images} ({self.source})"


@dataclasses.dataclass(frozen=True)
class OpenQuestion:
    """A detail that no source states, and the choice made here."""

    what: str = ""  # the detail
    here: str = ""  # the choice made here


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
    """One published ensemble."""

    entry: str = ""  # its name and year
    members: tuple[EnsembleMember, ...] = ()
    average: Average = "probabilities"  # the quantity that is averaged over the members
    weights: str = "uniform"  # as --weights of `main.py ensemble`
    published: tuple[EntryErrors, ...] = ()  # the first is of all members under this protocol
    unknown: tuple[OpenQuestion, ...] = ()

    @property
    def networks(self) -> list[str]:
        """The network of each member, in order."""
        return [member.network for member in self.members for _ in range(member.count)]


def read_ensemble(spec: str) -> EnsembleConfig:
    """Return the ensemble of `FILE.py[:ARGUMENT]`; names of networks and protocols are not checked.

    Raises:
      UserError: the file cannot be read, or a key or value is not valid.
    """
    settings = read_settings(spec)
    if "members" not in settings:
        raise UserError(f"--config={spec}: an ensemble needs `members`; configs/ensembles/ has examples")
    return build_section(EnsembleConfig, settings)
