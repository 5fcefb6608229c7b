"""Gather finished runs for a comparison, and refuse numbers that must not stand in one table.

A stored prediction becomes a cell of the page in three steps: `collect` reads the file into `records.TopGuesses`, the
sections count errors from it, and `comparison_page` puts their tables on the page.
"""

import dataclasses
import hashlib
import itertools
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from imagenet_repro.config import Data, config_to_dict, flatten_settings
from imagenet_repro.errors import UserError
from imagenet_repro.inference import protocols
from imagenet_repro.report import run_settings, system_names
from imagenet_repro.report import running as running_runs
from imagenet_repro.report.records import ComparedSystem, Comparison, FailedRun, FinishedRun, RunningRun, TopGuesses
from imagenet_repro.report.sections import differences
from imagenet_repro.scoring import class_names, predictions, sets
from imagenet_repro.scoring.class_names import ClassMatch
from imagenet_repro.scoring.sets import EvaluationSet
from imagenet_repro.storage.json_files import require_keys
from imagenet_repro.storage.workdir import FREE_KEYS, PREDICTIONS, RESULT, Workdir, system_name
from imagenet_repro.training import log

# The entries of a result that a comparison needs in addition to those that every reader needs, by dotted path.
KEYS = {
    "predictions": str,
    "spent.steps": int,
    "spent.flops": int | float,
    "provenance.config.seed": int,
}
MAX_NAMED = 3  # classes or settings in one message
NO_GUESS = -1  # stands for the guess on an image whose scores held NaN
NO_SPLIT = "none of its own"
TAPS_BEFORE_THE_KEY = "real"  # the convention of results from before `config.flops` existed
# Settings in which an evaluation may differ from the training run: its images, and its speed.
EVALUATION_KEYS = ("data.name", "data.eval_split", "data.test_split", "data.eval_batch_size")


@dataclasses.dataclass(frozen=True)
class Scoring:
    """The choice of stored predictions that the errors of a comparison are counted from.

    Attributes:
      protocol: an evaluation protocol, a name of `evaluate --protocol`; empty: each run's own.
      set_name: an evaluation set, a name of `evaluate --set`; empty: the split of each run's result.

    Raises:
      UserError: there is no such set, its rule is not one label an image, or several protocols are named.
    """

    protocol: str = ""
    set_name: str = ""

    def __post_init__(self):
        if "," in self.protocol:
            raise UserError(f"--protocol={self.protocol}: a page has the numbers of one protocol; name one")
        chosen = self.evaluation_set
        if chosen and chosen.rule != "label":
            reasons = {
                "several": "its images have several right labels, or none",
                "per class": "its images have several right labels, and its error is a mean over classes",
                "corruptions": f"it is a collection of data sets below {chosen.data}",
                "cues": "its images have two labels, and the page has a section on runs that were evaluated on it",
            }
            raise UserError(
                f"--set={self.set_name}: {reasons[chosen.rule]}, and compare counts one label for each image. Score"
                f" each run by the set's own rule: main.py score --set={self.set_name} --predictions=PATH"
            )

    @property
    def evaluation_set(self) -> EvaluationSet | None:
        """Return the evaluation set, or None if each run's own split is scored."""
        return sets.find_set(self.set_name) if self.set_name else None

    @property
    def is_own_result(self) -> bool:
        """Whether the predictions are those that each run's result was counted from."""
        return not (self.protocol or self.set_name)

    def path(self, workdir: Workdir, result: dict[str, Any]) -> Path:
        """Return the file of a run's predictions; those of `evaluate` are of the checkpoint that ended the run."""
        if self.is_own_result:
            return workdir.path / result["predictions"]
        data, split = result["provenance"]["config"]["data"]["name"], _scored_split(result)
        if self.evaluation_set:
            data, split = self.evaluation_set.data, self.evaluation_set.split
        return workdir.predictions(Data(name=data), split, result["spent"]["steps"], self.protocol)

    def command(self, workdir: Workdir, result: dict[str, Any]) -> str:
        """Return the command that stores these predictions."""
        split = f" --data.eval_split='{_scored_split(result)}'"
        if self.is_own_result:
            return f"main.py evaluate --workdir={workdir.path}{split} --out={self.path(workdir, result)}"
        scored = f" --set={self.set_name}" if self.set_name else split
        by = f" --protocol={self.protocol}" if self.protocol else ""
        return f"main.py evaluate --workdir={workdir.path} --checkpoint={result['spent']['steps']}{scored}{by}"


OWN_RESULT = Scoring()


@dataclasses.dataclass(frozen=True)
class RunGroup:
    """The workdirs of one system, one for each seed.

    Attributes:
      name: the system's name; groups with the same name are told apart by their settings.
      workdirs: workdirs of finished runs.
      recipe: the recipe's name, if networks are crossed with recipes.
      running: workdirs of runs that have not ended.
    """

    name: str
    workdirs: tuple[Workdir, ...]
    recipe: str = ""
    running: tuple[Workdir, ...] = ()


def group_runs(paths: Sequence[str | Path]) -> list[RunGroup]:
    """Group runs whose names and configurations differ only in the seed, in the order given.

    Raises:
      UserError: a workdir holds no run, a result is damaged, or the same run is named twice.
    """
    if len({Path(path).resolve() for path in paths}) != len(paths):
        raise UserError(f"a workdir is named twice: {', '.join(map(str, paths))}")
    groups: dict[str, list[Workdir]] = {}
    names: dict[str, str] = {}
    for workdir in map(Workdir, paths):
        name, settings = _name_and_settings(workdir)
        key = json.dumps([name, run_settings.identity(settings)])
        groups.setdefault(key, []).append(workdir)
        names[key] = name
    return [
        RunGroup(
            names[key],
            tuple(workdir for workdir in workdirs if not has_not_ended(workdir)),
            running=tuple(filter(has_not_ended, workdirs)),
        )
        for key, workdirs in groups.items()
    ]


def has_not_ended(workdir: Workdir) -> bool:
    """Return whether a directory holds a run whose budget is not spent."""
    return workdir.has_config and not workdir.is_finished


def _name_and_settings(workdir: Workdir) -> tuple[str, dict[str, Any]]:
    if has_not_ended(workdir):
        config = workdir.config()
        return config.name or config.system_name, run_settings.of_run(config_to_dict(config), workdir.weights())
    result = _read_result(workdir)
    source = result["provenance"]
    return system_name(result), run_settings.of_run(source["config"], source)


def collect(
    groups: Sequence[RunGroup],
    *,
    allow_mixed: bool = False,
    selection: str = "",
    failures: Sequence[FailedRun] = (),
    scoring: Scoring = OWN_RESULT,
    say: Callable[[str], None] = print,
    known: "KnownRuns | None" = None,
) -> Comparison:
    """Read everything that tables, figures and the page need of finished runs, and the logs of those that run.

    Args:
      groups: at least one.
      allow_mixed: whether runs with different budgets, data sets, splits or label sets may be compared.
      selection: how settings were chosen, as a sentence.
      failures: planned runs without a result.
      scoring: which stored predictions the errors are counted from.
      say: called with a sentence if the classes of a run were brought into the order of the others.
      known: finished runs that were read before, and need not be read again unless their files have changed.

    Raises:
      UserError: a result or its predictions are missing or damaged, or runs differ in what must be equal.
    """
    _check_stored(groups, scoring)
    known = known or KnownRuns()
    systems, running = _read_groups(groups, scoring, known)
    if not systems and not running:
        raise UserError("there is no finished run to compare")
    if not systems:
        return Comparison((), (), "", "", "", "", selection, failures=tuple(failures), running=running)
    systems = known.in_one_order(systems, say)
    mixed = _describe_differences(systems, scoring)
    if mixed and not allow_mixed:
        lines = "".join(f"\n  {sentence}" for sentence in mixed)
        raise UserError(f"these runs cannot be compared (--allow_mixed compares them anyway), they differ in{lines}")
    conditions = _conditions(systems[0].runs[0].result, scoring)
    chosen = scoring.evaluation_set
    return Comparison(
        systems=systems,
        class_names=_class_names(systems),
        budget=conditions["budget"],
        data=conditions["data set"],
        train_split=conditions["training split"],
        scored_split=chosen.split if chosen else conditions["scored split"],
        selection=selection,
        mixed=tuple(mixed),
        failures=tuple(failures),
        protocol=scoring.protocol,
        evaluation_set=chosen.title if chosen else "",
        evaluation_data=chosen.data if chosen else "",
        running=running,
    )


# --- reading ----------------------------------------------------------------------------------------------------


def _check_stored(groups: Sequence[RunGroup], scoring: Scoring) -> None:
    """Raise UserError if runs lack the predictions of a protocol or a set, with the commands that store them."""
    if scoring.is_own_result:
        return
    workdirs = [workdir for group in groups for workdir in group.workdirs]
    commands = []
    for workdir in workdirs:
        result = _read_result(workdir)
        if not scoring.path(workdir, result).exists():
            commands.append(f"\n  {scoring.command(workdir, result)}")
    if scoring.protocol and len(commands) == len(workdirs):
        protocols.parse(scoring.protocol)  # raises UserError, with the nearest name, if there is no such protocol
    if commands:
        by = f" by the protocol {scoring.protocol}" if scoring.protocol else ""
        of = f" of {scoring.evaluation_set.title}" if scoring.evaluation_set else ""
        lacking = "1 run has" if len(commands) == 1 else f"{len(commands)} runs have"
        raise UserError(f"{lacking} no stored predictions{of}{by}. To store them:{''.join(commands)}")


class _SharedArrays:
    """Arrays, with equal ones kept once: the ids of images take most of the memory of a comparison."""

    def __init__(self):
        self._arrays: dict[tuple[Any, ...], np.ndarray] = {}

    def share(self, array: np.ndarray) -> np.ndarray:
        """Return an equal array that was given before, otherwise this one."""
        key = (array.dtype, array.shape, zlib.crc32(array.tobytes()))
        known = self._arrays.setdefault(key, array)
        return known if np.array_equal(known, array) else array


class KnownRuns:
    """Runs that were read: finished ones until a file of theirs changes, and the logs of others as far as they go."""

    def __init__(self):
        self._images = _SharedArrays()
        self._runs: dict[tuple[Path, Scoring], tuple[Any, FinishedRun]] = {}
        self._logs: dict[Path, log.LogReader] = {}
        self._ordered: tuple[tuple[ComparedSystem, ...], tuple[ComparedSystem, ...]] | None = None

    def read(self, workdir: Workdir, scoring: Scoring) -> FinishedRun:
        """Return a run; it is read from its files unless they are as they were when it was read before."""
        key = workdir.path, scoring
        now = version(workdir)
        if key not in self._runs or self._runs[key][0] != now:
            self._runs[key] = now, _read_run(workdir, scoring, self._images)
        return self._runs[key][1]

    def log_rows(self, workdir: Workdir) -> list[dict[str, Any]]:
        """Return the rows of the log of a run that has not ended; only what was added is read."""
        return self._logs.setdefault(workdir.path, log.LogReader(workdir.metrics)).rows()

    def in_one_order(
        self, systems: tuple[ComparedSystem, ...], say: Callable[[str], None]
    ) -> tuple[ComparedSystem, ...]:
        """Return the systems with the classes of all runs in one order; the same objects if they are as before."""
        if self._ordered is None or not are_same(self._ordered[0], systems):
            self._ordered = systems, _in_one_order(systems, say)
        return self._ordered[1]


def are_same(one: Sequence[ComparedSystem], other: Sequence[ComparedSystem]) -> bool:
    """Return whether systems have the same names and the same runs in memory."""
    kinds = ([(system.name, [*map(id, system.runs)]) for system in systems] for systems in (one, other))
    return next(kinds) == next(kinds)


def _read_groups(
    groups: Sequence[RunGroup], scoring: Scoring, known: KnownRuns
) -> tuple[tuple[ComparedSystem, ...], tuple[RunningRun, ...]]:
    """Return the systems of finished runs, and the runs that have not ended, with names that tell systems apart."""
    systems = [_read_system(group, scoring, known) if group.workdirs else None for group in groups]
    runs = [[_read_running(group, workdir, known) for workdir in group.running] for group in groups]
    names = [group.name for group in groups]
    if len(set(names)) < len(names):
        settings = [
            system.settings if system else of_group[0].settings for system, of_group in zip(systems, runs, strict=True)
        ]
        places = [str((*group.workdirs, *group.running)[0].path) for group in groups]
        names = system_names.tell_apart(names, settings, places)
    named = [dataclasses.replace(system, name=name) for system, name in zip(systems, names, strict=True) if system]
    of_runs = [
        dataclasses.replace(run, name=name) for of_group, name in zip(runs, names, strict=True) for run in of_group
    ]
    return tuple(named), tuple(of_runs)


def _read_running(group: RunGroup, workdir: Workdir, known: KnownRuns) -> RunningRun:
    config = workdir.config()
    settings = run_settings.of_run(config_to_dict(config), workdir.weights())
    return running_runs.describe(workdir, group.name, config, settings, known.log_rows(workdir))


def version(workdir: Workdir) -> tuple[tuple[int, int] | None, ...]:
    """Return what changes when a run writes its log, a result or predictions: times and sizes of its files."""
    paths = (workdir.path / RESULT, workdir.metrics, workdir.path / PREDICTIONS)
    return tuple(map(_version_of_file, paths))


def _version_of_file(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _read_system(group: RunGroup, scoring: Scoring, known: KnownRuns) -> ComparedSystem:
    runs = sorted((known.read(workdir, scoring) for workdir in group.workdirs), key=lambda run: run.seed)
    seeds = [run.seed for run in runs]
    if len(set(seeds)) != len(seeds):
        paths = ", ".join(str(run.path) for run in runs)
        raise UserError(f"{group.name}: two runs have the same seed, among {paths}; name only one run for each seed")
    return ComparedSystem(group.name, runs[0].result["system"], group.recipe, tuple(runs))


def _read_run(workdir: Workdir, scoring: Scoring, images: _SharedArrays) -> FinishedRun:
    result = _read_result(workdir)
    path = scoring.path(workdir, result)
    try:
        source, arrays = predictions.load_provenance(path), predictions.load_guesses(path)
        guesses = TopGuesses(images.share(arrays["id"]), images.share(arrays["label"]), _narrow(arrays["top5"]))
        seed, rows = result["provenance"]["config"]["seed"], log.read_rows(workdir.metrics)
        guesses = _in_order_of_run(guesses, path, source, workdir, result)
        name = str(path.relative_to(workdir.path))
        run = FinishedRun(workdir.path, seed, result, rows, guesses, name, _optimism(source))
        _check_result(run, path) if scoring.is_own_result else _check_source(run, path, source, scoring)
        _check_classes(run, path)
    except UserError as error:
        raise UserError(f"{error}\nTo store them again: {scoring.command(workdir, result)}") from error
    return run


def _optimism(source: dict[str, Any]) -> float:
    """Return by how much an error is too low because the scored images selected the checkpoint."""
    selected = source.get("selection")
    optimism = selected.get("optimism") if isinstance(selected, dict) else None
    return float(optimism) if isinstance(optimism, int | float) else 0.0


def _in_order_of_run(
    guesses: TopGuesses, path: Path, source: dict[str, Any], workdir: Workdir, result: dict[str, Any]
) -> TopGuesses:
    """Return guesses that count the classes of the run's result, which both files may name."""
    names = class_names.of_provenance(source)
    if not names or not result.get("classes"):
        return guesses
    return _renumbered(guesses, class_names.match(names, str(path), _named(result), f"the run in {workdir.path}"))


def _renumbered(guesses: TopGuesses, found: ClassMatch) -> TopGuesses:
    if found.is_same_order or _highest_class(guesses) >= len(found.index):  # the latter is refused later
        return guesses
    label, top5 = (predictions.renumber(array, found.index) for array in (guesses.label, guesses.top5))
    return TopGuesses(guesses.id, label, _narrow(top5))


def _narrow(classes: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
    """Return class indices as int16 if they all fit, which takes half of the memory."""
    fits = bool(classes.size) and np.iinfo(np.int16).min <= classes.min() and classes.max() <= np.iinfo(np.int16).max
    return classes.astype(np.int16) if fits else classes


def _in_one_order(systems: Sequence[ComparedSystem], say: Callable[[str], None]) -> tuple[ComparedSystem, ...]:
    """Return the systems with the classes of all runs in one order, where they have the same names."""
    names = _class_names(systems)
    return tuple(
        dataclasses.replace(system, runs=tuple(_with_classes(run, names, say) for run in system.runs))
        for system in systems
    )


def _with_classes(run: FinishedRun, names: tuple[str, ...], say: Callable[[str], None]) -> FinishedRun:
    """Return a run with these classes, or as it is if it has others, which is reported with the other differences."""
    own = _classes(run)
    if tuple(own) == names:
        return run
    try:
        matching = class_names.match(own, f"the run in {run.path}", names, "the others")
    except UserError:
        return run
    if not matching.is_checked:
        return run
    say(matching.note)
    result = run.result | {"classes": list(names)}
    return dataclasses.replace(run, guesses=_renumbered(run.guesses, matching), result=result)


def _read_result(workdir: Workdir) -> dict[str, Any]:
    result = workdir.result()
    require_keys(workdir.path / RESULT, result, KEYS | ({"classes": list} if "classes" in result else {}))
    return result


def _check_result(run: FinishedRun, path: Path) -> None:
    """Raise UserError if the predictions cannot be those that the result was counted from."""
    n_counted, n_stored = run.result["rates"]["images"], len(run.guesses.id)
    if n_counted != n_stored:
        raise UserError(f"{path} has predictions for {n_stored:,} images, but the run scored {n_counted:,}")
    if [run.rates.top1_wrong, run.rates.top5_wrong] != [run.result["rates"][k] for k in ("top1_wrong", "top5_wrong")]:
        raise UserError(f"{path} does not belong to the run in {run.path}: its error rates are different")


def _check_source(run: FinishedRun, path: Path, source: dict[str, Any], scoring: Scoring) -> None:
    """Raise UserError if the file states that its predictions come from another run or from other settings."""
    protocol = source.get("protocol", {}).get("name", protocols.OWN_PROTOCOL)
    if source.get("step") != run.result["spent"]["steps"] or protocol != (scoring.protocol or protocols.OWN_PROTOCOL):
        raise UserError(f"{path} has predictions by the protocol {protocol} at step {source.get('step')}")
    own, stored = (flatten_settings(one) for one in (run.result["provenance"]["config"], source.get("config", {})))
    free = (*FREE_KEYS, *EVALUATION_KEYS)
    changed = [k for k in sorted(own.keys() & stored.keys()) if own[k] != stored[k] and k not in free]
    if changed:
        settings = ", ".join(f"{key} {stored[key]} instead of {own[key]}" for key in changed[:MAX_NAMED])
        raise UserError(f"{path} was made with other settings than the run in {run.path}: {settings}")


def _check_classes(run: FinishedRun, path: Path) -> None:
    n_classes = len(_classes(run))
    if _highest_class(run.guesses) >= n_classes or run.guesses.top5.min() < NO_GUESS:
        raise UserError(f"{path} has classes outside the {n_classes:,} of the run in {run.path}")


def _highest_class(guesses: TopGuesses) -> int:
    return int(max(guesses.label.max(), guesses.top5.max()))


def _classes(run: FinishedRun) -> list[str]:
    """Return the names of a run's classes; their numbers if the result, of an older version, has no names."""
    return _named(run.result) or [str(number) for number in range(1 + _highest_class(run.guesses))]


def _named(result: dict[str, Any]) -> list[str]:
    return [str(name) for name in result.get("classes", [])]


def _class_names(systems: Sequence[ComparedSystem]) -> tuple[str, ...]:
    """Return a name for every class that any run knows: the longest list, preferably one from a result."""
    runs = [run for system in systems for run in system.runs]
    return tuple(_classes(max(runs, key=lambda run: (len(_classes(run)), bool(run.result.get("classes"))))))


# --- what must be equal -----------------------------------------------------------------------------------------


def _scored_split(result: dict[str, Any]) -> str:
    data = result["provenance"]["config"]["data"]
    return data.get("test_split") or data["eval_split"]


def _conditions(result: dict[str, Any], scoring: Scoring) -> dict[str, str]:
    """Return the conditions that all runs of a comparison must share, by name."""
    config = result["provenance"]["config"]
    data, scored = config["data"], _scored_split(result)
    watched = {"split evaluated while training": data["eval_split"]} if scored != data["eval_split"] else {}
    return {
        "budget": config["budget"],
        "data set": data["name"],
        "training split": data["train_split"],
        **watched,
        "taps that count as operations": config.get("flops", TAPS_BEFORE_THE_KEY),
        "scored split": scoring.evaluation_set.title if scoring.evaluation_set else scored,
    }


def _describe_differences(systems: Sequence[ComparedSystem], scoring: Scoring) -> list[str]:
    """Return a sentence for each condition in which the runs differ."""
    runs = [run for system in systems for run in system.runs]
    conditions = [_conditions(run.result, scoring) | {"label set": _label_set(_classes(run))} for run in runs]
    keys = dict.fromkeys(itertools.chain.from_iterable(conditions))
    paths = {key: _paths_by_value([one.get(key, NO_SPLIT) for one in conditions], runs) for key in keys}
    sentences = [_difference(key, by_value) for key, by_value in paths.items() if len(by_value) > 1]
    if len(paths["scored split"]) == 1 and (scoring.evaluation_set or len(paths["data set"]) == 1):
        sentences += _differing_images(systems)
    return sentences


def _paths_by_value(values: Sequence[str], runs: Sequence[FinishedRun]) -> dict[str, list[str]]:
    paths: dict[str, list[str]] = {}
    for value, run in zip(values, runs, strict=True):
        paths.setdefault(value, []).append(str(run.path))
    return paths


def _label_set(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else "")
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]  # names may differ beyond the first ones
    return f"{len(names):,} classes, {shown}, SHA-256 {digest}"


def _difference(key: str, paths: dict[str, list[str]]) -> str:
    parts = [f"{value} ({runs[0]}{' and others' * (len(runs) > 1)})" for value, runs in paths.items()]
    return f"{key}: {'; '.join(parts)}."


def _differing_images(systems: Sequence[ComparedSystem]) -> list[str]:
    try:
        differences.check_same(systems)
    except UserError as error:
        return [f"images: {error}."]
    return []
