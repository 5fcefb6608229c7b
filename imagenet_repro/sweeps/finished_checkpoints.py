"""Drop the checkpoints of finished runs of a sweep that nothing needs any more (`checkpoint.keep_finished`).

Only the process that watches the sweep drops, and holds the sweep's lock, so no two processes do it at once. It needs
each run's own lock as well. A checkpoint is recorded as dropped, then renamed, then removed. A process that is killed
in between leaves whole checkpoints and renamed ones, never a checkpoint with some of its files, and the next process
continues.
"""

import dataclasses
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imagenet_repro.config import config_to_dict
from imagenet_repro.config.sweep import SweepConfig
from imagenet_repro.errors import UserError
from imagenet_repro.report.text import quantity
from imagenet_repro.storage import locks, user
from imagenet_repro.storage.workdir import LOCK, Workdir
from imagenet_repro.sweeps.queue import RunStatus, select_trials
from imagenet_repro.sweeps.worker import DIVERGED
from imagenet_repro.training import checkpoint, seals
from imagenet_repro.training.best_evaluation import best_step

DROPPED = ".dropped"  # the end of the name of a checkpoint that is being removed
KEEPS = "checkpoint.keep_finished='all' of a sweep keeps them"


@dataclasses.dataclass(frozen=True)
class _Drop:
    """A run whose checkpoints may be dropped: all of them, or all but the best and the last one."""

    name: str
    all_of_them: bool
    reason: str


class FinishedCheckpoints:
    """Drops checkpoints while a sweep is watched, and counts what was freed.

    Args:
      directory: the directory of the sweep, which this process has locked.
      sweep: its configuration.
    """

    def __init__(self, directory: Path, sweep: SweepConfig):
        self._directory, self._sweep = directory, sweep
        self._sources = [Path(os.path.realpath(user.expand(text))) for text in _texts(config_to_dict(sweep))]
        self._done: set[str] = set()
        self._n_trials = self._n_thinned = self._freed_bytes = 0
        self._failures: list[str] = []

    def update(self, runs: Sequence[RunStatus]) -> None:
        """Drop what is not needed any more, given the status of every run of the sweep.

        A run that another process uses, or that was not finished when this was called before, is tried again.
        """
        if self._sweep.checkpoint.keep_finished == "all":
            return
        for drop in self._drops(runs):
            if self._is_source(self._directory / drop.name):
                continue
            try:
                freed = drop_checkpoints(
                    Workdir(self._directory / drop.name), all_of_them=drop.all_of_them, reason=drop.reason
                )
            except (OSError, UserError) as error:
                self._failures.append(f"the checkpoints of {drop.name} cannot be dropped: {error}")
                freed = 0
            if freed is None:
                continue
            self._done.add(drop.name)
            self._freed_bytes += freed
            self._n_trials += bool(freed and drop.all_of_them)
            self._n_thinned += bool(freed and not drop.all_of_them)

    def summary(self) -> list[str]:
        """Return a line on what was freed, if anything was, and one on each run where that failed."""
        parts = []
        if self._n_trials:
            of = "1 trial that was" if self._n_trials == 1 else f"{self._n_trials} trials that were"
            parts.append(f"the checkpoints of {of} not selected")
        if self._n_thinned:
            of = "1 run" if self._n_thinned == 1 else f"{self._n_thinned} runs"
            parts.append(f"all but the best and the last checkpoint of {of}")
        freed = [f"{quantity(self._freed_bytes)}B freed: {' and '.join(parts)} ({KEEPS})"] if parts else []
        return freed + self._failures

    def _drops(self, runs: Sequence[RunStatus]) -> Iterator[_Drop]:
        """Yield finished runs: final ones, and trials of the systems whose search is complete.

        A trial that diverged is finished without a result.
        """
        selected = select_trials(runs)
        for run in runs:
            if run.state != "complete" or run.planned.name in self._done:
                continue
            if run.value != DIVERGED and not Workdir(self._directory / run.planned.name).is_finished:
                continue
            winner = selected.get(run.planned.system)
            if not run.planned.is_trial or (winner is not None and winner.planned.name == run.planned.name):
                yield _Drop(run.planned.name, False, f"because only the best and the last one are kept; {KEEPS}")
            elif winner is not None:
                reason = f"because the search of {run.planned.system} selected {winner.planned.name}; {KEEPS}"
                yield _Drop(run.planned.name, True, reason)

    def _is_source(self, workdir: Path) -> bool:
        """Whether a key of the sweep names a run's workdir or a file in it, such as a source of weights."""
        place = Path(os.path.realpath(workdir))
        return any(source.is_relative_to(place) for source in self._sources)


def drop_checkpoints(workdir: Workdir, *, all_of_them: bool, reason: str) -> int | None:
    """Drop checkpoints of a run, and return the bytes that were freed; None if a process uses the run now.

    All of them are dropped, or all but the best and the last one; the last one must then be undamaged.

    Args:
      workdir: of a run whose training has ended.
      all_of_them: whether no checkpoint is kept.
      reason: the end of a sentence about a dropped checkpoint, for whoever asks for it later.

    Raises:
      OSError, UserError: a checkpoint cannot be removed, or the last one is damaged.
    """
    if not workdir.checkpoints.is_dir():
        return 0
    lock = locks.acquire(workdir.path / LOCK)
    if lock is None:
        return None
    try:
        names = _all_names(workdir.checkpoints) if all_of_them else _old_names(workdir.checkpoints)
        if names:
            workdir.record_dropped((int(name) for name in names if name.isdecimal()), reason)
        for name in names:
            (workdir.checkpoints / name).rename(_free_name(workdir.checkpoints, name))
        return sum(_remove(path) for path in workdir.checkpoints.glob(f"*{DROPPED}*"))
    finally:
        lock.release()


def _all_names(checkpoints: Path) -> list[str]:
    return [path.name for path in checkpoints.iterdir() if DROPPED not in path.name]


def _old_names(checkpoints: Path) -> list[str]:
    """Return the names of the checkpoints that are neither the best nor the last; raise UserError if that is damaged.

    Where the error of one is damaged, the best is the lowest of the others, as it is for `evaluate`.
    """
    steps = checkpoint.list_steps(checkpoints)
    best = best_step(dict(_errors(checkpoints, steps)))
    old = [step for step in steps[:-1] if step != best]
    if old:
        seals.check(checkpoints / str(steps[-1]))
    return [str(step) for step in old]


def _errors(checkpoints: Path, steps: Iterable[int]) -> Iterator[tuple[int, float]]:
    for step in steps:
        try:
            error = seals.top1_error(checkpoints / str(step))
        except seals.DamagedError:
            continue
        if error is not None:
            yield step, error


def _free_name(checkpoints: Path, name: str) -> Path:
    """Return a path for a checkpoint that is removed, which differs from one that a killed process left."""
    path, number = checkpoints / f"{name}{DROPPED}", 1
    while os.path.lexists(path):
        number += 1
        path = checkpoints / f"{name}{DROPPED}{number}"
    return path


def _remove(path: Path) -> int:
    """Remove a directory or a file, and return its bytes."""
    if path.is_symlink() or not path.is_dir():
        size = path.lstat().st_size
        path.unlink()
        return size
    size = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
    shutil.rmtree(path)
    return size


def _texts(settings: Any) -> Iterator[str]:
    """Yield every text in nested settings that can be a path."""
    if isinstance(settings, Mapping):
        settings = settings.values()
    if isinstance(settings, str):
        if settings and "\0" not in settings:
            yield settings
    elif isinstance(settings, Iterable):
        for value in settings:
            yield from _texts(value)
