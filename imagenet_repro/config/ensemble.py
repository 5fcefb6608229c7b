"""What a published ensemble was made of, what was published of it, and what its sources leave open.

A file such as `configs/ensembles/googlenet.py` defines `get_config(argument=None)` and returns a dictionary with the
keys of `EnsembleConfig`.
"""

import dataclasses
import typing
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from imagenet_repro import models
from imagenet_repro.config import bounded, build_section, read_settings
from imagenet_repro.errors import UserError
from imagenet_repro.inference import protocols
from imagenet_repro.scoring.ensembling import Average, Found

HELD_OUT = "train[99%:]"  # where weights are found, and what training must then leave out
NEED_HELD_OUT = typing.get_args(Found)


@dataclasses.dataclass(frozen=True)
class Kind:
    """Members of one kind."""

    network: str = ""  # a name of `main.py models`
    count: int = bounded(1, 1)
    recipe: str = ""  # FILE.py[:ARGUMENT] that trains it
    protocol: str = protocols.OWN  # of `main.py evaluate`, which scored the entry's members
    stands_for: str = ""  # what the entry had in its place, where that is not here


@dataclasses.dataclass(frozen=True)
class Figure:
    """Error rates of the entry as a source prints them, in percent."""

    what: str = ""  # which members and views
    top1: float = bounded(0.0, 0.0, 100.0)  # 0: not stated
    top5: float = bounded(0.0, 0.0, 100.0)
    images: str = ""  # the set of images
    source: str = ""

    def __str__(self) -> str:
        top1 = f"top-1 {self.top1:g} %, " if self.top1 else ""
        return f"{top1}top-5 {self.top5:g} %: {self.what}, {self.images} ({self.source})"


@dataclasses.dataclass(frozen=True)
class Unknown:
    """What no source says, and what is done here instead."""

    what: str = ""
    here: str = ""


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
    """One published ensemble."""

    entry: str = ""
    members: tuple[Kind, ...] = ()
    average: Average = "probabilities"
    weights: str = "uniform"  # as --weights of `main.py ensemble`
    published: tuple[Figure, ...] = ()  # the first is of all members under this protocol
    unknown: tuple[Unknown, ...] = ()

    @property
    def networks(self) -> list[str]:
        """The network of each member."""
        return [kind.network for kind in self.members for _ in range(kind.count)]


def load_ensemble(spec: str) -> EnsembleConfig:
    """The ensemble of `FILE.py[:ARGUMENT]`.

    Raises:
      UserError: the file cannot be read, a key or value is not valid, or no network or protocol is called so.
    """
    settings = read_settings(spec)
    if "members" not in settings:
        raise UserError(f"--config={spec}: an ensemble needs `members`; configs/ensembles/ has examples")
    config = build_section(EnsembleConfig, settings)
    for kind in config.members:
        if models.spec(kind.network) is not models.SPECS.get(kind.network):
            raise UserError(f"--config={spec}: {kind.network} is called {models.canonical(kind.network)}")
        protocols.parse(kind.protocol)
    return config


def check_members(config: EnsembleConfig, networks: Sequence[str]) -> None:
    """Raises UserError where members are not as many of each network as the entry had.

    Args:
      config: of the entry.
      networks: of the members given; empty where a file does not say.
    """
    needed, given = Counter(config.networks), Counter(networks)
    if needed != given:
        raise UserError(
            f"{config.entry} has {_counted(needed)}; the members given are {_counted(given)}."
            " Without --config any members are averaged"
        )


def _counted(networks: Counter[str]) -> str:
    return ", ".join(
        f"{count} x {name or 'a network that its file does not name'}" for name, count in networks.items()
    )


def plan(config: EnsembleConfig, spec: str) -> str:
    """The commands that train the members, score them and average them; lines with a final newline."""
    held_out = config.weights in NEED_HELD_OUT
    place = Path("runs") / Path(spec.partition(":")[0]).stem
    lines, members, held = [], [], []
    for kind, seed in _seeded(config):
        workdir = place / f"{kind.network}_{seed}"
        lines.append(_train(kind, workdir, seed, held_out))
        members.append(workdir / f"{kind.protocol}.npz")
        lines.append(_evaluate(kind, workdir, members[-1]))
        if held_out:
            held.append(workdir / f"{kind.protocol}_held_out.npz")
            lines.append(_evaluate(kind, workdir, held[-1], f" --data.eval_split='{HELD_OUT}'"))
    last = f"python main.py ensemble --config={spec} \\\n    --members {_joined(members)}"
    if held_out:
        last += f" \\\n    --select {_joined(held)}"
    return "\n".join([*lines, f"{last} \\\n    --out={place / 'ensemble.npz'}"]) + "\n"


def _seeded(config: EnsembleConfig) -> Iterator[tuple[Kind, int]]:
    """Every member with its seed, unlike that of every other member of its network."""
    seeds: Counter[str] = Counter()
    for kind in config.members:
        for _ in range(kind.count):
            yield kind, seeds[kind.network]
            seeds[kind.network] += 1


def _train(kind: Kind, workdir: Path, seed: int, held_out: bool) -> str:
    split = f" --config.data.train_split='{HELD_OUT.replace('99%:', ':99%')}'" if held_out else ""
    return f"python main.py train --config={kind.recipe} --config.seed={seed}{split} --workdir={workdir}"


def _evaluate(kind: Kind, workdir: Path, out: Path, split: str = "") -> str:
    return f"python main.py evaluate --workdir={workdir} --protocol={kind.protocol}{split} --out={out}"


def _joined(paths: Sequence[Path]) -> str:
    return " \\\n    ".join(map(str, paths))
