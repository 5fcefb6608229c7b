"""Published ensembles: names checked against the registry and the protocols, and the commands that produce them."""

import typing
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from imagenet_repro import models
from imagenet_repro.config.ensemble import EnsembleConfig, EnsembleMember, SearchedWeights, read_ensemble
from imagenet_repro.errors import UserError
from imagenet_repro.inference import protocols

HELD_OUT = "train[99%:]"  # images on which the weights are chosen, and which training must then leave out
NEED_HELD_OUT = typing.get_args(SearchedWeights)


def load_ensemble(spec: str) -> EnsembleConfig:
    """Return the ensemble of `FILE.py[:ARGUMENT]`, every name in it checked.

    Raises:
      UserError: the file cannot be read, a key or value is not valid, or no network or protocol has such a name.
    """
    config = read_ensemble(spec)
    for member in config.members:
        if models.spec(member.network) is not models.SPECS.get(member.network):
            raise UserError(f"--config={spec}: {member.network} is called {models.canonical(member.network)}")
        protocols.parse(member.protocol)
    return config


def check_members(config: EnsembleConfig, networks: Sequence[str]) -> None:
    """Raise UserError unless the members include each network as often as the entry did.

    Args:
      config: the configuration of the entry.
      networks: the network of each given member; an empty string if its file names none.
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


def plan_commands(config: EnsembleConfig, spec: str) -> str:
    """Return the commands that train the members, score them and average them; lines with a final newline."""
    holds_out = config.weights in NEED_HELD_OUT
    workdir_root = Path("runs") / Path(spec.partition(":")[0]).stem
    lines: list[str] = []
    member_files: list[Path] = []
    held_out_files: list[Path] = []
    for member, seed in _seeded(config):
        workdir = workdir_root / f"{member.network}_{seed}"
        lines.append(_train(member, workdir, seed, holds_out))
        member_files.append(workdir / f"{member.protocol}.npz")
        lines.append(_evaluate(member, workdir, member_files[-1]))
        if holds_out:
            held_out_files.append(workdir / f"{member.protocol}_held_out.npz")
            lines.append(_evaluate(member, workdir, held_out_files[-1], f" --data.eval_split='{HELD_OUT}'"))
    last = f"python main.py ensemble --config={spec} \\\n    --members {_joined(member_files)}"
    if holds_out:
        last += f" \\\n    --select {_joined(held_out_files)}"
    return "\n".join([*lines, f"{last} \\\n    --out={workdir_root / 'ensemble.npz'}"]) + "\n"


def _seeded(config: EnsembleConfig) -> Iterator[tuple[EnsembleMember, int]]:
    """Yield every member with a seed that no other member of the same network has."""
    seeds: Counter[str] = Counter()
    for member in config.members:
        for _ in range(member.count):
            yield member, seeds[member.network]
            seeds[member.network] += 1


def _train(member: EnsembleMember, workdir: Path, seed: int, holds_out: bool) -> str:
    split = f" --config.data.train_split='{HELD_OUT.replace('99%:', ':99%')}'" if holds_out else ""
    return f"python main.py train --config={member.recipe} --config.seed={seed}{split} --workdir={workdir}"


def _evaluate(member: EnsembleMember, workdir: Path, out: Path, split: str = "") -> str:
    return f"python main.py evaluate --workdir={workdir} --protocol={member.protocol}{split} --out={out}"


def _joined(paths: Sequence[Path]) -> str:
    return " \\\n    ".join(map(str, paths))
