"""Compare finished runs, or those of a sweep, on one page with tables and figures."""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagenet_repro.config import Data, build_section, crossing
from imagenet_repro.config.sweep import SCRATCH
from imagenet_repro.data import sources, thumbnails
from imagenet_repro.errors import UserError
from imagenet_repro.inference import protocols
from imagenet_repro.report import comparison_page, html_page, transfer_report
from imagenet_repro.report.collect import (
    OWN_RESULT,
    KnownRuns,
    RunGroup,
    Scoring,
    collect,
    group_runs,
    has_not_ended,
)
from imagenet_repro.report.comparison_page import Thumbnails
from imagenet_repro.report.comparison_report import Presenter
from imagenet_repro.report.comparison_result import ComparisonResult
from imagenet_repro.report.records import (
    Comparison,
    FailedRun,
    HumanPlayer,
    TopGuesses,
    TransferStudy,
    TransferTarget,
)
from imagenet_repro.report.targets import Target, parse_targets
from imagenet_repro.scoring import class_names, predictions
from imagenet_repro.storage import files
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.sweeps import watch as watching
from imagenet_repro.sweeps.controller import open_queue
from imagenet_repro.sweeps.directory import SweepDirectory
from imagenet_repro.sweeps.plan import target_splits
from imagenet_repro.sweeps.queue import RunStatus, SweepQueue
from imagenet_repro.sweeps.status import format_settings


def compare(
    workdirs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    allow_mixed: bool = False,
    storage: str = "",
    people: Sequence[str] = (),
    protocol: str = "",
    set_name: str = "",
    target: str = "",
    watch: bool = False,
) -> ComparisonResult:
    """Write the page of a comparison with its tables and figures, print the verdict, and return the result.

    Args:
      workdirs: workdirs of runs, or that of one sweep. Those that have not ended are shown apart.
      out: the directory for the page; None: the workdir if there is one, otherwise the current directory. A page by
        another protocol or of an evaluation set goes into a subdirectory.
      allow_mixed: whether runs may differ in budget, data set, split or label set; every table is then marked.
      storage: URL of the sweep's trials, if it has a password.
      people: predictions of games of `main.py human`, on images that all runs were scored on.
      protocol: evaluation protocol of the errors, as `evaluate --protocol` stored them; empty: each run's own.
      set_name: evaluation set of the errors, as `evaluate --set` stored them; empty: the split of each run's result.
      target: errors such as "top1:35,top5:15", for which the page shows what it took to reach them.
      watch: whether to write everything again whenever a run has changed, until all have ended.

    Raises:
      UserError: an error of `gather`, or a person's predictions are of other images or labels.
      SaveError: a file cannot be written.
    """
    places, out = [str(workdir) for workdir in workdirs], None if out is None else str(out)
    targets = parse_targets(target)
    scoring = Scoring("" if protocol == protocols.OWN_PROTOCOL else protocol, set_name)
    directory = Path(out) if out else _default_directory(places, scoring)
    html_page.require_place(directory, out, comparison_page.PAGE, (html_page.TABLES, html_page.FIGURES))
    pages = _Pages(directory, allow_mixed, people, targets, watching.SECONDS if watch else 0)
    results: list[ComparisonResult] = []

    def write() -> None:
        queue = _sweep_of_sources(places, storage)
        if queue is not None and scoring.is_own_result:
            result = _compare_sources(SweepDirectory(places[0]), queue, pages)
        else:
            one = gather(places, allow_mixed=allow_mixed, storage=storage, scoring=scoring, known=pages.known)
            result = pages.present(one, directory)
        results[:] = [result]

    if watch:
        watching.watch(places, storage, write)
    else:
        write()
    return results[0]


class _Pages:
    """The pages of one command, which are written again from what is known where nothing has changed."""

    def __init__(
        self, directory: Path, allow_mixed: bool, people: Sequence[str], targets: Sequence[Target], refresh: float
    ):
        self.directory, self.allow_mixed, self.people = directory, allow_mixed, people
        self.known = KnownRuns()
        self._targets, self._refresh = targets, refresh
        self._presenters: dict[Path, Presenter] = {}
        self._thumbnails: dict[tuple[str, str], tuple[Thumbnails | None, Collection[str]]] = {}

    def present(self, comparison: Comparison, place: Path, study: TransferStudy | None = None) -> ComparisonResult:
        """Write the page of a comparison into a directory, print its main result, and return it."""
        players = tuple(_read_player(path, comparison) for path in self.people)
        presenter = self._presenters.setdefault(place, Presenter(place, refresh=self._refresh))
        thumbnails = self._thumbnails_of(comparison) if comparison.systems else (None, ())
        comparison = dataclasses.replace(comparison, people=players)
        presenter.present(comparison, *thumbnails, study, targets=self._targets)
        assert presenter.result is not None, "it was presented"
        return presenter.result

    def _thumbnails_of(self, comparison: Comparison) -> tuple[Thumbnails | None, Collection[str]]:
        key = comparison.scored_data, comparison.scored_split
        if key not in self._thumbnails:
            self._thumbnails[key] = _thumbnails(comparison)
        return self._thumbnails[key]


def gather(
    workdirs: Sequence[str],
    *,
    allow_mixed: bool,
    storage: str = "",
    scoring: Scoring = OWN_RESULT,
    known: KnownRuns | None = None,
) -> Comparison:
    """Return the comparison of the runs in workdirs, or of one sweep's runs.

    Args:
      workdirs: workdirs of runs, or that of one sweep.
      allow_mixed: as in `compare`.
      storage: as in `compare`.
      scoring: which stored predictions the errors are counted from.
      known: finished runs that were read before.

    Raises:
      UserError: there is no finished run, runs cannot be compared, or predictions are missing or damaged.
    """
    directories = [SweepDirectory(workdir) for workdir in workdirs]
    if not any(directory.exists for directory in directories):
        _refuse_empty(workdirs)
        return collect(group_runs(workdirs), allow_mixed=allow_mixed, scoring=scoring, known=known)
    if len(directories) > 1:
        raise UserError(
            "a sweep is compared alone; to compare its runs with others, name their directories runs/SYSTEM/seedN"
        )
    return _gather_sweep(directories[0], open_queue(directories[0], storage), allow_mixed, scoring, known)


def _default_directory(workdirs: Sequence[str], scoring: Scoring) -> Path:
    directory = Path(workdirs[0]) if len(workdirs) == 1 else Path()
    if scoring.is_own_result:
        return directory
    return directory / files.bounded_name("_".join(filter(None, ("compare", scoring.set_name, scoring.protocol))))


def _refuse_empty(workdirs: Sequence[str]) -> None:
    for workdir in workdirs:
        path = Path(workdir)
        if not path.is_dir() or not any(path.iterdir()):
            reason = "is empty" if path.is_dir() else "is not a directory" if path.exists() else "does not exist"
            raise UserError(f"{path} {reason}; the workdir of a finished run (train) or of a sweep is needed")


def _sweep_of_sources(workdirs: Sequence[str], storage: str) -> SweepQueue | None:
    """Return the queue of a sweep that has targets, or compares sources of weights; None for anything else."""
    directory = SweepDirectory(workdirs[0])
    if len(workdirs) > 1 or not directory.exists:
        return None
    queue = open_queue(directory, storage)
    systems = queue.sweep.systems.values()
    return queue if queue.sweep.targets or any(system.source for system in systems) else None


def _compare_sources(directory: SweepDirectory, queue: SweepQueue, pages: _Pages) -> ComparisonResult:
    """Write a page for each target, and above them one of all targets where there are several."""
    out = pages.directory
    if pages.people and len(queue.sweep.targets) > 1:
        raise UserError("--people: this sweep has several targets, and people have guessed the images of one")
    names = list(queue.sweep.targets) or [""]
    waiting = [name for name in names if name and not _finished(directory, queue, name, "")]
    ready = [name for name in names if name not in waiting] or names[:1]  # with none ready, gathering says why
    targets = [_gather_target(directory, queue, name, pages) for name in ready]
    is_study = all(system.source for system in queue.sweep.systems.values())
    results: dict[str, ComparisonResult] = {}
    for name, target in zip(ready, targets, strict=True):
        comparison = target.whole
        study = TransferStudy((target,), SCRATCH) if is_study and comparison.systems else None
        if len(names) > 1 and comparison.systems:
            print(f"\ntarget {name}: {comparison.n_images:,} images of {comparison.scored_data}")
        results[name] = pages.present(comparison, out / name if len(names) > 1 else out, study)
    if is_study and len(names) > 1 and all(target.whole.systems for target in targets):
        print()
        study = TransferStudy(tuple(targets), SCRATCH)
        page = transfer_report.write(study, out, waiting)
        return ComparisonResult(out, page, "\n".join(transfer_report.verdict_lines(study, waiting)), targets=results)
    for name in waiting:
        print(transfer_report.describe_waiting(name))
    if len(names) == 1:
        return results[names[0]]
    verdicts = (f"{name}: {one.verdict}" for name, one in results.items())
    return ComparisonResult(out, None, "\n".join(verdicts), targets=results)


def _gather_target(directory: SweepDirectory, queue: SweepQueue, name: str, pages: _Pages) -> TransferTarget:
    """Return the comparisons of one target under each budget that has finished runs; the whole budget is needed."""
    sweep, by_budget = queue.sweep, {}
    for budget in (*sweep.smaller_budgets, sweep.budget):
        smaller = budget if budget != sweep.budget else ""
        if not smaller or _finished(directory, queue, name, smaller):
            by_budget[budget] = _gather_sweep(
                directory, queue, pages.allow_mixed, OWN_RESULT, pages.known, target=name, budget=smaller
            )
    labels = {
        crossing.title(key): (system.source, system.adaptation)
        for key, system in sweep.systems.items()
        if system.target == name
    }
    return TransferTarget(name or by_budget[sweep.budget].data, labels, by_budget)


def _finished(directory: SweepDirectory, queue: SweepQueue, target: str, budget: str) -> list[RunStatus]:
    return [
        status
        for status in _final_statuses(queue, target, budget)
        if Workdir(directory.path / status.planned.name).is_finished
    ]


def _final_statuses(queue: SweepQueue, target: str, budget: str) -> list[RunStatus]:
    """Return the status of the final runs of a target and a smaller budget, of "" the whole one."""
    systems = queue.sweep.systems
    return [
        status
        for status in queue.statuses()
        if not status.planned.is_trial
        and status.planned.budget == budget
        and systems[status.planned.system].target == target
    ]


def _gather_sweep(
    directory: SweepDirectory,
    queue: SweepQueue,
    allow_mixed: bool,
    scoring: Scoring,
    known: KnownRuns | None,
    *,
    target: str = "",
    budget: str = "",
) -> Comparison:
    """Return the comparison of the systems of a target under a budget; of "", the only target, the whole budget."""
    if queue.sweep.targets and not target:
        raise UserError(
            f"{directory.path}: this sweep has several targets, whose runs cannot be compared with each other; name"
            f" the runs of one: {directory.path}/runs/SYSTEM/seed*"
        )
    statuses = _final_statuses(queue, target, budget)
    open_searches = _describe_open_searches(queue)
    finished = _finished(directory, queue, target, budget)
    running = [
        one for one in statuses if one.state == "running" and has_not_ended(Workdir(directory.path / one.planned.name))
    ]
    if not finished and not running:
        of = f" on target {target}" if target else ""
        raise UserError(
            f"{directory.path}: no run of this sweep{of} has finished; `main.py sweep --status` shows its progress"
        )
    groups = []
    for name, system in queue.sweep.systems.items():
        of_system = [
            tuple(Workdir(directory.path / one.planned.name) for one in some if one.planned.system == name)
            for some in (finished, running)
        ]
        if any(of_system):
            groups.append(RunGroup(crossing.title(name), of_system[0], system.recipe, of_system[1]))
    failures = [
        _failed_run(status, open_searches.get(status.planned.system, ""))
        for status in statuses
        if status not in finished and status not in running
    ]
    selection = _describe_selection(queue, target)
    return collect(
        groups, allow_mixed=allow_mixed, selection=selection, failures=failures, scoring=scoring, known=known
    )


def _describe_open_searches(queue: SweepQueue) -> dict[str, str]:
    """Return the missing trials by system, for the systems whose search has not ended."""
    trials: dict[str, list[str]] = {}
    for status in queue.statuses():
        if status.planned.is_trial and status.value is None:
            reason = f", {status.reason}" if status.reason else ""
            trials.setdefault(status.planned.system, []).append(f"{status.planned.name} {status.state}{reason}")
    return {name: f"its search has not ended: {'; '.join(states)}" for name, states in trials.items()}


def _failed_run(status: RunStatus, open_search: str) -> FailedRun:
    return FailedRun(
        crossing.title(status.planned.system), status.planned.seed, open_search or status.reason or status.state
    )


def _describe_selection(queue: SweepQueue, target: str = "") -> str:
    """Return a paragraph on how settings were chosen for the systems of a target."""
    sweep, search, splits = queue.sweep, queue.sweep.search, target_splits(queue.sweep, target)
    scored = f"{splits['test_split']} was scored once by each run, at the end of its budget"
    if not search.trials:
        return (
            f"No settings were searched. During training, runs were evaluated on {splits['select_split']}; {scored}."
        )
    kind = {"quasi_random": "points of one quasi-random sequence", "grid": "points of a grid", "tpe": "trials of TPE"}
    metric = search.metric.replace("_", " ").replace("top", "top-")
    selected = queue.selected_trials()
    chosen = "; ".join(
        f"{crossing.title(name)}: {format_settings(trial.settings or {})}"
        for name, trial in selected.items()
        if sweep.systems[name].target == target
    )
    return (
        f"The search gave every system {search.trials} {kind[search.sampler]} over its own ranges, with a budget of"
        f" {search.budget or sweep.budget} each, and selected the one with the lowest {metric} on"
        f" {splits['select_split']}, which was not used for training; {scored}. Selected: {chosen}."
    )


def _read_player(path: str, comparison: Comparison) -> HumanPlayer:
    if not comparison.systems:
        raise UserError("--people: no run has ended yet, so there is nothing to compare people with")
    source = predictions.load_provenance(Path(path))
    if source.get("system") != "human":
        raise UserError(f"--people: {path} does not come from a game of `main.py human`")
    if not comparison.same_images:
        raise UserError("--people: these runs were scored on different images, so people cannot be compared with them")
    guesses = _in_order_of_runs(TopGuesses(**predictions.load_guesses(path)), path, source, comparison)
    first_run = comparison.systems[0].runs[0]
    run = first_run.guesses
    scored = {"data": {"name": comparison.evaluation_data}} if comparison.evaluation_data else None
    if predictions.are_of_other_data(guesses.id, source, scored or first_run.result["provenance"]):
        raise UserError(f"--people: {path} is of {predictions.data_name(source)}, and the runs are not")
    is_known = np.isin(guesses.id, run.id)
    if not is_known.all():
        other = guesses.id[~is_known][0]
        raise UserError(f"--people: {path} has images that the runs were not scored on, such as {other}")
    if not np.array_equal(run.label[np.searchsorted(run.id, guesses.id)], guesses.label):
        raise UserError(f"--people: {path} and the runs have different labels for the same images")
    return HumanPlayer(str(source.get("name", "a person")), guesses)


def _in_order_of_runs(guesses: TopGuesses, path: str, source: Mapping[str, Any], comparison: Comparison) -> TopGuesses:
    """Return a person's guesses with the class indices of the runs."""
    names = class_names.of_provenance(source) or class_names.numbered(len(comparison.class_names))
    matching = class_names.match(names, path, comparison.class_names, "the runs")
    if matching.note:
        print(matching.note)
    label, top5 = (predictions.renumber(array, matching.index) for array in (guesses.label, guesses.top5))
    return TopGuesses(guesses.id, label, top5)


def _thumbnails(comparison: Comparison) -> tuple[Thumbnails | None, Collection[str]]:
    """Return a function for thumbnails of scored images, and the ids of the images that it knows.

    The function is None if the data set is not on this machine.
    """
    config = comparison.systems[0].runs[0].result["provenance"]["config"]
    data = config["data"] | {"name": comparison.scored_data}
    try:
        split = sources.open_split(build_section(Data, data), comparison.scored_split)
    except UserError as error:
        print(f"the page has no images: {error}")
        return None, ()
    positions = thumbnails.sample_positions(split)
    return functools.partial(thumbnails.thumbnails_at, split, positions), positions.keys()
