"""Compare finished runs, or those of a sweep, on one page with tables and figures."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imagenet_repro.config import Data, build_section
from imagenet_repro.data import sources, thumbnails
from imagenet_repro.errors import EXIT_FINISHED, SaveError, UserError
from imagenet_repro.report.collect import RunGroup, collect, group_runs
from imagenet_repro.report.comparison_page import Thumbnails
from imagenet_repro.report.comparison_report import present
from imagenet_repro.report.records import Comparison, FailedRun, HumanPlayer, TopGuesses
from imagenet_repro.scoring import predictions
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.sweeps.controller import open_queue
from imagenet_repro.sweeps.directory import SweepDirectory
from imagenet_repro.sweeps.queue import RunStatus, SweepQueue
from imagenet_repro.sweeps.status import format_settings


def gather(workdirs: Sequence[str], *, allow_mixed: bool, storage: str = "") -> Comparison:
    """The runs of workdirs, or of one sweep.

    Raises:
      UserError: there is no finished run, runs cannot be compared, or predictions are missing or damaged.
    """
    places = [SweepDirectory(workdir) for workdir in workdirs]
    if not any(place.exists for place in places):
        _refuse_empty(workdirs)
        return collect(group_runs(workdirs), allow_mixed=allow_mixed)
    if len(places) > 1:
        raise UserError("a sweep is compared alone; its runs are in runs/SYSTEM/seedN below it, name those")
    return _of_sweep(places[0], open_queue(places[0], storage), allow_mixed)


def _refuse_empty(workdirs: Sequence[str]) -> None:
    for workdir in workdirs:
        path = Path(workdir)
        if not path.is_dir() or not any(path.iterdir()):
            what = "is empty" if path.is_dir() else "is not a directory" if path.exists() else "does not exist"
            raise UserError(f"{path} {what}; the workdir of a finished run (train) or of a sweep is needed")


def _of_sweep(place: SweepDirectory, queue: SweepQueue, allow_mixed: bool) -> Comparison:
    entries = [one for one in queue.statuses() if not one.planned.is_trial]
    why_not = _unsearched(queue)
    ended = [one for one in entries if Workdir(place.path / one.planned.name).is_finished]
    if not ended:
        raise UserError(f"{place.path}: no run of this sweep has ended; `main.py sweep --status` shows how far it is")
    groups = []
    for name, system in queue.sweep.systems.items():
        runs = tuple(Workdir(place.path / one.planned.name) for one in ended if one.planned.system == name)
        if runs:
            groups.append(RunGroup(name, runs, system.recipe))
    missing = [one for one in entries if one not in ended]
    failures = [_failure(one, why_not.get(one.planned.system, "")) for one in missing]
    return collect(groups, allow_mixed=allow_mixed, selection=_selection(queue), failures=failures)


def _unsearched(queue: SweepQueue) -> dict[str, str]:
    """By system, why its search has not ended, of those whose has not."""
    trials: dict[str, list[str]] = {}
    for one in queue.statuses():
        if one.planned.is_trial and one.value is None:
            why = f", {one.reason}" if one.reason else ""
            trials.setdefault(one.planned.system, []).append(f"{one.planned.name} {one.state}{why}")
    return {name: f"its search has not ended: {'; '.join(states)}" for name, states in trials.items()}


def _failure(entry: RunStatus, why_not: str) -> FailedRun:
    return FailedRun(entry.planned.system, entry.planned.seed, why_not or entry.reason or entry.state)


def _selection(queue: SweepQueue) -> str:
    """How settings were chosen, for a person."""
    sweep, search = queue.sweep, queue.sweep.search
    scored = f"{sweep.test_split} was scored once by each run, when its budget was spent"
    if not search.trials:
        return f"Nothing was searched. While training, runs were evaluated on {sweep.select_split}; {scored}."
    kind = {"quasi_random": "points of one quasi-random sequence", "grid": "points of a grid", "tpe": "trials of TPE"}
    metric = search.metric.replace("_", " ").replace("top", "top-")
    chosen = "; ".join(f"{name}: {format_settings(entry.settings)}" for name, entry in queue.selected_trials().items())
    return (
        f"Every system had {search.trials} {kind[search.sampler]} over its own ranges, each of"
        f" {search.budget or sweep.budget}, and kept the one with the lowest {metric} on"
        f" {sweep.select_split}, which no training saw; {scored}. Selected: {chosen}."
    )


def compare(
    workdirs: Sequence[str],
    out: str | None = None,
    *,
    allow_mixed: bool = False,
    storage: str = "",
    people: Sequence[str] = (),
) -> int:
    """Writes the page of a comparison with its tables and pictures, and prints the verdict; returns the exit code.

    Args:
      workdirs: of finished runs, or of one sweep.
      out: where it goes; None: the sweep's workdir, the run's if it is one, or here.
      allow_mixed: whether runs may differ in budget, data set, split or label set; every table then says so.
      storage: of the sweep's trials, where its URL has a password.
      people: predictions of the game of `main.py human`, on images that all runs were scored on.

    Raises:
      UserError: as `gather`, or a person's predictions are of other images or labels.
      SaveError: something cannot be written.
    """
    place = Path(out) if out else Path(workdirs[0]) if len(workdirs) == 1 else Path()
    if out and place.exists() and not place.is_dir():
        raise SaveError(f"--out={place} is a file; a directory is needed")
    found = gather(workdirs, allow_mixed=allow_mixed, storage=storage)
    found = dataclasses.replace(found, people=tuple(_player(path, found) for path in people))
    present(found, place, _thumbnails(found))
    return EXIT_FINISHED


def _player(path: str, found: Comparison) -> HumanPlayer:
    said = predictions.load_provenance(Path(path))
    if said.get("system") != "human":
        raise UserError(f"--people: {path} is not of a game of `main.py human`")
    if not found.same_images:
        raise UserError("--people: these runs were not all scored on the same images, so nobody can stand beside them")
    guesses = TopGuesses(**predictions.load_guesses(path))
    run = found.systems[0].runs[0].guesses
    known = np.isin(guesses.id, run.id)
    if not known.all():
        other = guesses.id[~known][0]
        raise UserError(f"--people: {path} has images that the runs were not scored on, such as {other}")
    if not np.array_equal(run.label[np.searchsorted(run.id, guesses.id)], guesses.label):
        raise UserError(f"--people: {path} and the runs have different labels for the same images")
    return HumanPlayer(str(said.get("name", "a person")), guesses)


def _thumbnails(found: Comparison) -> Thumbnails | None:
    """Small images of the scored split, where its data set is still there."""
    config = found.systems[0].runs[0].result["provenance"]["config"]
    try:
        split = sources.open_split(build_section(Data, config["data"]), found.scored_split)
    except UserError as error:
        print(f"the page has no images: {error}")
        return None
    return functools.partial(thumbnails.thumbnails_by_id, split)
