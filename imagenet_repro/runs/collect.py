"""Finished runs gathered for a comparison, and what keeps numbers from standing in one table."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagenet_repro import config as cfg
from imagenet_repro.comparison.records import Comparison, Failure, Guesses, Run, System
from imagenet_repro.errors import UserError
from imagenet_repro.evaluation import predictions
from imagenet_repro.training import log
from imagenet_repro.workdir import FREE_KEYS, Workdir


@dataclasses.dataclass(frozen=True)
class Group:
    """The workdirs of one system, one for each seed.

    Attributes:
      name: for a person; of several groups of one name, each gets a number.
      places: of finished runs.
      recipe: a label, where systems are crossed with recipes.
    """

    name: str
    places: tuple[Workdir, ...]
    recipe: str = ""


def grouped(workdirs: Sequence[str | Path]) -> list[Group]:
    """Runs whose configurations differ in nothing but the seed, together, in the order given.

    Raises:
      UserError: a run has not ended, or two are the same run.
    """
    if len({Path(workdir).resolve() for workdir in workdirs}) != len(workdirs):
        raise UserError(f"a workdir is named twice: {', '.join(map(str, workdirs))}")
    found: dict[str, list[Workdir]] = {}
    names: dict[str, str] = {}
    for place in map(Workdir, workdirs):
        result = place.result()
        settings = cfg.flatten(result["provenance"]["config"])
        key = json.dumps({k: v for k, v in settings.items() if k != "seed" and k not in FREE_KEYS}, sort_keys=True)
        found.setdefault(key, []).append(place)
        names[key] = result["system"]
    return [Group(names[key], tuple(places)) for key, places in found.items()]


def collect(
    groups: Sequence[Group], *, allow_mixed: bool = False, selection: str = "", failures: Sequence[Failure] = ()
) -> Comparison:
    """Everything that tables, pictures and the page need of finished runs.

    Args:
      groups: at least one.
      allow_mixed: whether runs of different budgets, data sets, splits or label sets may stand beside each other.
      selection: how settings were chosen, for a person.
      failures: planned runs without a result.

    Raises:
      UserError: a result or its predictions are missing or damaged, or runs differ in what they were given.
    """
    names = _distinct([group.name for group in groups])
    systems = tuple(_system(name, group) for name, group in zip(names, groups, strict=True))
    if not systems:
        raise UserError("there is no finished run to compare")
    mixed = _differences(systems)
    if mixed and not allow_mixed:
        raise UserError("these runs cannot be compared (--allow_mixed does it all the same):\n" + "\n".join(mixed))
    first = systems[0].runs[0].result
    given = _given(first)
    return Comparison(
        systems=systems,
        class_names=tuple(_classes(first)),
        budget=given["budget"],
        data=given["data set"],
        train_split=given["training split"],
        scored_split=given["scored split"],
        selection=selection,
        mixed=tuple(mixed),
        failures=tuple(failures),
    )


def _system(name: str, group: Group) -> System:
    runs = sorted((_run(place) for place in group.places), key=lambda run: run.seed)
    seeds = [run.seed for run in runs]
    if len(set(seeds)) != len(seeds):
        same = ", ".join(str(run.path) for run in runs)
        raise UserError(f"{name}: two runs of one seed among {same}; which of them counts? Name one of each")
    return System(name, runs[0].result["system"], group.recipe, tuple(runs))


def _run(place: Workdir) -> Run:
    result = place.result()
    path = place.path / str(result.get("predictions", "predictions"))
    guesses = Guesses(**predictions.load_guesses(path))
    counted, stored = result["rates"]["images"], len(guesses.id)
    if counted != stored:
        raise UserError(
            f"{path} has predictions for {stored:,} images, and the run scored {counted:,}; `main.py evaluate"
            f" --workdir={place.path}` makes them again"
        )
    run = Run(place.path, result["provenance"]["config"]["seed"], result, log.read_rows(place.metrics), guesses)
    if [run.rates.top1_wrong, run.rates.top5_wrong] != [result["rates"][k] for k in ("top1_wrong", "top5_wrong")]:
        raise UserError(f"{path} is not of the run in {place.path}: its error rates are others")
    return run


def _given(result: dict[str, Any]) -> dict[str, str]:
    config = result["provenance"]["config"]
    data = config["data"]
    scored = data.get("test_split") or data["eval_split"]
    return {
        "budget": config["budget"],
        "data set": data["name"],
        "training split": data["train_split"],
        "scored split": scored,
    }


def _classes(result: dict[str, Any]) -> list[str]:
    return [str(name) for name in result.get("classes", [])]


def _differences(systems: Sequence[System]) -> list[str]:
    """A sentence for each thing that not all runs were given alike."""
    runs = [run for system in systems for run in system.runs]
    found = []
    for key in _given(runs[0].result):
        values: dict[str, list[str]] = {}
        for run in runs:
            values.setdefault(_given(run.result)[key], []).append(str(run.path))
        found += _sentence(key, values)
    labels: dict[str, list[str]] = {}
    for run in runs:
        names = _classes(run.result)
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]  # names may differ beyond the first
        labels.setdefault(f"{len(names):,} classes {digest}, {shown}", []).append(str(run.path))
    return found + _sentence("label set", labels)


def _sentence(key: str, values: dict[str, list[str]]) -> list[str]:
    if len(values) == 1:
        return []
    parts = [f"{value} ({paths[0]}{' and others' * (len(paths) > 1)})" for value, paths in values.items()]
    return [f"they differ in {key}: {'; '.join(parts)}"]


def _distinct(names: list[str]) -> list[str]:
    numbers = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return [name if names.count(name) == 1 else f"{name} ({n})" for name, n in zip(names, numbers, strict=True)]
