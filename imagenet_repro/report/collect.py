"""Finished runs gathered for a comparison, and what keeps numbers from standing in one table."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagenet_repro.config import flatten_settings
from imagenet_repro.errors import UserError
from imagenet_repro.report.records import ComparedSystem, Comparison, FailedRun, FinishedRun, TopGuesses
from imagenet_repro.report.sections import differences
from imagenet_repro.scoring import predictions
from imagenet_repro.storage.json_files import require_keys
from imagenet_repro.storage.workdir import FREE_KEYS, RESULT, Workdir
from imagenet_repro.training import log

# What a comparison relies on beyond what every reader of a result does, by dotted path.
KEYS = {
    "predictions": str,
    "spent.steps": int,
    "spent.flops": int | float,
    "provenance.config.seed": int,
}
NAMED = 3  # classes in one message
NO_GUESS = -1  # of an image whose scores held NaN
NO_SPLIT = "none of its own"


@dataclasses.dataclass(frozen=True)
class RunGroup:
    """The workdirs of one system, one for each seed.

    Attributes:
      name: for a person; of several groups of one name, each gets a number.
      places: of finished runs.
      recipe: a label, where systems are crossed with recipes.
    """

    name: str
    places: tuple[Workdir, ...]
    recipe: str = ""


def group_runs(workdirs: Sequence[str | Path]) -> list[RunGroup]:
    """Runs whose configurations differ in nothing but the seed, together, in the order given.

    Raises:
      UserError: a run has not ended, its result is damaged, or two are the same run.
    """
    if len({Path(workdir).resolve() for workdir in workdirs}) != len(workdirs):
        raise UserError(f"a workdir is named twice: {', '.join(map(str, workdirs))}")
    found: dict[str, list[Workdir]] = {}
    names: dict[str, str] = {}
    for place in map(Workdir, workdirs):
        result = _result(place)
        settings = flatten_settings(result["provenance"]["config"])
        key = json.dumps({k: v for k, v in settings.items() if k != "seed" and k not in FREE_KEYS}, sort_keys=True)
        found.setdefault(key, []).append(place)
        names[key] = result["system"]
    return [RunGroup(names[key], tuple(places)) for key, places in found.items()]


def collect(
    groups: Sequence[RunGroup], *, allow_mixed: bool = False, selection: str = "", failures: Sequence[FailedRun] = ()
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
        differ = "".join(f"\n  {sentence}" for sentence in mixed)
        raise UserError(f"these runs cannot be compared (--allow_mixed does it all the same), they differ in{differ}")
    given = _given(systems[0].runs[0].result)
    return Comparison(
        systems=systems,
        class_names=_class_names(systems),
        budget=given["budget"],
        data=given["data set"],
        train_split=given["training split"],
        scored_split=given["scored split"],
        selection=selection,
        mixed=tuple(mixed),
        failures=tuple(failures),
    )


def _system(name: str, group: RunGroup) -> ComparedSystem:
    runs = sorted((_run(place) for place in group.places), key=lambda run: run.seed)
    seeds = [run.seed for run in runs]
    if len(set(seeds)) != len(seeds):
        same = ", ".join(str(run.path) for run in runs)
        raise UserError(f"{name}: two runs of one seed among {same}; which of them counts? Name one of each")
    return ComparedSystem(name, runs[0].result["system"], group.recipe, tuple(runs))


def _run(place: Workdir) -> FinishedRun:
    result = _result(place)
    path = place.path / result["predictions"]
    try:
        run = FinishedRun(place.path, _seed(result), result, log.read_rows(place.metrics), _guesses(path))
        _check(run, path)
    except UserError as error:
        split = _given(result)["scored split"]
        again = f"main.py evaluate --workdir={place.path} --data.eval_split='{split}' --out={path}"
        raise UserError(f"{error}\nTo make them again: {again}") from error
    return run


def _result(place: Workdir) -> dict[str, Any]:
    result = place.result()
    require_keys(place.path / RESULT, result, KEYS | ({"classes": list} if "classes" in result else {}))
    return result


def _seed(result: dict[str, Any]) -> int:
    return result["provenance"]["config"]["seed"]


def _guesses(path: Path) -> TopGuesses:
    return TopGuesses(**predictions.load_guesses(path))


def _check(run: FinishedRun, path: Path) -> None:
    """Raises UserError where the predictions cannot be those that the result was counted from."""
    counted, stored = run.result["rates"]["images"], len(run.guesses.id)
    if counted != stored:
        raise UserError(f"{path} has predictions for {stored:,} images, and the run scored {counted:,}")
    if [run.rates.top1_wrong, run.rates.top5_wrong] != [run.result["rates"][k] for k in ("top1_wrong", "top5_wrong")]:
        raise UserError(f"{path} is not of the run in {run.path}: its error rates are others")
    classes = len(_classes(run))
    if _highest(run.guesses) >= classes or run.guesses.top5.min() < NO_GUESS:
        raise UserError(f"{path} has classes outside the {classes:,} of the run in {run.path}")


def _highest(guesses: TopGuesses) -> int:
    return int(max(guesses.label.max(), guesses.top5.max()))


def _given(result: dict[str, Any]) -> dict[str, str]:
    config = result["provenance"]["config"]
    data = config["data"]
    scored = data.get("test_split") or data["eval_split"]
    watched = {"split evaluated while training": data["eval_split"]} if scored != data["eval_split"] else {}
    return {
        "budget": config["budget"],
        "data set": data["name"],
        "training split": data["train_split"],
        **watched,
        "scored split": scored,
    }


def _classes(run: FinishedRun) -> list[str]:
    """The classes' names; their numbers where the result does not say, as those of older versions do not."""
    named = [str(name) for name in run.result.get("classes", [])]
    return named or [str(number) for number in range(1 + _highest(run.guesses))]


def _class_names(systems: Sequence[ComparedSystem]) -> tuple[str, ...]:
    """Names for every class that any run knows: the longest list, of equal ones the first that a result has."""
    runs = [run for system in systems for run in system.runs]
    return tuple(_classes(max(runs, key=lambda run: (len(_classes(run)), bool(run.result.get("classes"))))))


def _differences(systems: Sequence[ComparedSystem]) -> list[str]:
    """A sentence for each thing that not all runs were given alike."""
    runs = [run for system in systems for run in system.runs]
    given = [_given(run.result) | {"label set": _label_set(_classes(run))} for run in runs]
    keys = dict.fromkeys(key for one in given for key in one)
    values = {key: _by_value([one.get(key, NO_SPLIT) for one in given], runs) for key in keys}
    found = [_sentence(key, paths) for key, paths in values.items() if len(paths) > 1]
    if len(values["data set"]) == len(values["scored split"]) == 1:
        found += _other_images(systems)
    return found


def _by_value(values: Sequence[str], runs: Sequence[FinishedRun]) -> dict[str, list[str]]:
    paths: dict[str, list[str]] = {}
    for value, run in zip(values, runs, strict=True):
        paths.setdefault(value, []).append(str(run.path))
    return paths


def _label_set(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]  # names may differ beyond the first
    return f"{len(names):,} classes, {shown}, SHA-256 {digest}"


def _sentence(key: str, values: dict[str, list[str]]) -> str:
    parts = [f"{value} ({paths[0]}{' and others' * (len(paths) > 1)})" for value, paths in values.items()]
    return f"{key}: {'; '.join(parts)}."


def _other_images(systems: Sequence[ComparedSystem]) -> list[str]:
    try:
        differences.check_same(systems)
    except UserError as error:
        return [f"images: {error}."]
    return []


def _distinct(names: list[str]) -> list[str]:
    """The names; those that are not unlike with numbers that make them so."""
    taken = {name for name in names if names.count(name) == 1}
    found = []
    for name in names:
        tried = (f"{name} ({number})" for number in itertools.count(1))
        found.append(name if names.count(name) == 1 else next(one for one in tried if one not in taken))
        taken.add(found[-1])
    return found
