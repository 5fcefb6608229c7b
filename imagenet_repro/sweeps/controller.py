"""`main.py sweep`: plans, starts workers, watches, and says what came of it."""

import dataclasses
import time
from typing import Any

from rich.console import Console
from rich.live import Live

from imagenet_repro import models
from imagenet_repro.config import AnyConfig, Config, config_to_dict, flatten_settings
from imagenet_repro.config.amount import Amount
from imagenet_repro.config.sweep import SweepConfig
from imagenet_repro.data import sources
from imagenet_repro.errors import EXIT_FINISHED, EXIT_SAVE_FAILED, EXIT_STOPPED, EXIT_USER_ERROR, UserError
from imagenet_repro.sweeps import cost, status
from imagenet_repro.sweeps.directory import SweepDirectory
from imagenet_repro.sweeps.launch import Launcher, LocalLauncher, SlurmLauncher
from imagenet_repro.sweeps.plan import build_run_config, check_splits, plan_runs
from imagenet_repro.sweeps.queue import RunStatus, SweepQueue, UnreachableError, mask_password
from imagenet_repro.sweeps.retry import retry_unreachable
from imagenet_repro.training.clock import StopSignal

POLL = 3.0  # seconds between two looks at the storage, which take from the cores that train
LINE_EVERY = 60.0  # seconds between two lines where the output is a file
RESTARTS = 3  # of a worker that ended though something was to be done, from the end of one training to the next


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """Where and how a sweep runs; nothing of it changes a result.

    Attributes:
      launcher: starts workers on "local", this machine, or on "slurm".
      workers: how many; 0: one for each accelerator of this machine.
      storage: the URL of the trials; empty: SQLite in the sweep's directory.
      slurm: options of its jobs.
    """

    launcher: str = "local"
    workers: int = 0
    storage: str = ""
    slurm: dict[str, Any] = dataclasses.field(default_factory=dict)


def run_sweep(sweep: SweepConfig, workdir: str, options: SweepOptions) -> int:
    """Runs a sweep, or goes on where one stopped; returns the exit code.

    Ctrl-C or SIGTERM has the workers of this machine save and end; those of SLURM go on.

    Raises:
      UserError: the sweep cannot be, another one or another process is in the directory, or the storage or SLURM
        cannot be reached.
      SaveError: the directory cannot be written to.
    """
    check_sweep(sweep)
    place = SweepDirectory(workdir)
    url = options.storage or place.default_storage
    shown = mask_password(url)
    with place.lock():
        place.record(sweep, shown)
        queue = SweepQueue(url, sweep, place.identity())
        queue.fill()
        launcher = _launcher(place, url, options)
        workers = options.workers or launcher.default_workers
        print(f"{len(queue.planned)} trainings in {place.path}, {workers} workers on {launcher.description}; {shown}")
        return _Watch(place, queue, launcher, workers).go()


def dry_run(sweep: SweepConfig, workdir: str, options: SweepOptions) -> int:
    """Prints what `run` would do and what it would cost; nothing is written. Raises as `run`."""
    configs = check_sweep(sweep)
    place = SweepDirectory(workdir)
    launcher = _launcher(place, options.storage or place.default_storage, options)
    return cost.show(sweep, configs, launcher, options.workers or launcher.default_workers)


def _launcher(place: SweepDirectory, url: str, options: SweepOptions) -> Launcher:
    if options.launcher == "slurm":
        return SlurmLauncher(place, url, options.slurm)
    if options.slurm:
        raise UserError(f"--slurm.{next(iter(options.slurm))} belongs to --launcher=slurm")
    return LocalLauncher(place, url)


def check_sweep(sweep: SweepConfig) -> dict[str, AnyConfig]:
    """The configuration of each system's first training, after whatever can be checked before anything runs.

    Raises:
      UserError: a configuration is not valid, systems are of different data sets, or splits overlap.
    """
    found: dict[str, AnyConfig] = {}
    for planned in plan_runs(sweep):
        if planned.settings is not None:
            found.setdefault(planned.system, build_run_config(sweep, planned, planned.settings))
        elif planned.system not in found:
            found[planned.system] = build_run_config(sweep, planned, _somewhere(sweep, planned.system))
    data = {name: (config.data.name, config.data.data_dir) for name, config in found.items()}
    if len(set(data.values())) > 1:
        each = "\n".join(f"  {name}: {one[0]} in {one[1] or 'the usual place'}" for name, one in data.items())
        raise UserError(f"these systems cannot be compared, they differ in data.name or data.data_dir:\n{each}")
    first = next(iter(found.values()))
    sources.open_splits(first.data)
    check_splits(sweep, first.data)
    for name, config in found.items():
        if isinstance(config, Config):
            _check_network(name, config)
        for key in ("evaluate_every", "checkpoint.every"):
            Amount.parse(flatten_settings(config_to_dict(config))[key], f"systems.{name}.{key}")
    return found


def _check_network(name: str, config: Config) -> None:
    try:
        models.spec(config.model.name)
    except UserError as error:
        raise UserError(f"config.systems.{name}.config.model.name: {error}") from error


def _somewhere(sweep: SweepConfig, system: str) -> dict[str, Any]:
    """Values of the searched keys that are valid if any are."""
    return {axis.key: axis.choices[0] if axis.choices else axis.low for axis in sweep.systems[system].search}


def show_status(workdir: str, storage: str) -> int:
    """Prints how far a sweep is, whoever runs it.

    Raises:
      UserError: there is no sweep, or its storage cannot be reached.
    """
    place = SweepDirectory(workdir)
    queue = open_queue(place, storage)
    workers = max(1, len(place.worker_pids()))
    status.show(status.SweepStatus(queue.statuses(), place.path), workers)
    return EXIT_FINISHED


def open_queue(place: SweepDirectory, storage: str = "") -> SweepQueue:
    """The queue of a sweep that was begun; its storage must be named where its URL has a password.

    Raises:
      UserError: there is none, its trials are elsewhere, or the storage cannot be reached.
    """
    if not place.exists:
        raise UserError(f"--workdir={place.path}: no sweep was begun there")
    url = storage or place.storage()
    if mask_password(url) != place.storage() or (not storage and "***" in url):
        raise UserError(f"the trials of the sweep in {place.path} are in --storage={place.storage()}")
    return SweepQueue(url, place.sweep(), place.identity())


class _Watch:
    """Shows how far a sweep is until nothing is left to do, and starts workers again that were lost."""

    def __init__(self, place: SweepDirectory, queue: SweepQueue, launcher: Launcher, workers: int):
        self._place, self._queue, self._launcher, self._workers = place, queue, launcher, workers
        self._console = Console(highlight=False, emoji=False)
        self._starts = dict.fromkeys(range(workers), 0)
        self._said: set[str] = set()
        self._last_line = 0.0
        self._live: Live | None = None

    def go(self) -> int:
        """Returns the exit code."""
        with StopSignal() as stop:
            first = self._look()
            self._said = {one.planned.name for one in first.entries if one.state == "complete"}
            if self._console.is_terminal:
                self._live = Live(console=self._console, refresh_per_second=2)
                self._live.start()
            try:
                now = self._until_done(stop, first)
            finally:
                if self._live is not None:
                    self._live.stop()
            if stop.received:
                self._console.print(f"{stop.received}: the workers save and end", markup=False)
                self._launcher.stop()
                now = status.SweepStatus(self._queue.statuses(), self._place.path)
        status.show(now, self._workers, self._console)
        if stop.received:
            self._console.print("the same command goes on")
            return EXIT_STOPPED
        return self._verdict(now)

    def _until_done(self, stop: StopSignal, now: status.SweepStatus) -> status.SweepStatus:
        """The last look that was possible, where the storage cannot be reached and somebody stops this process."""
        while not stop.received:
            try:
                now = retry_unreachable(self._look, lambda: stop.received is not None)
            except UnreachableError:
                if stop.received:
                    return now
                raise
            self._show(now)
            if now.done or stop.received or not self._keep_workers(now):
                return now
            time.sleep(POLL)
        return now

    def _look(self) -> status.SweepStatus:
        self._queue.requeue_lost()
        return status.SweepStatus(self._queue.statuses(), self._place.path)

    def _keep_workers(self, now: status.SweepStatus) -> bool:
        """Starts what is missing; false where workers end again and again with work left."""
        idle = [slot for slot in self._starts if not self._launcher.is_alive(slot)]
        if not now.count("waiting"):
            return len(idle) < self._workers or now.count("running") > 0
        missing = [slot for slot in idle if self._starts[slot] <= RESTARTS][: now.count("waiting")]
        if missing:
            self._launcher.start(missing)
            for slot in missing:
                self._starts[slot] += 1
        return bool(missing) or len(idle) < self._workers

    def _show(self, now: status.SweepStatus) -> None:
        for one in now.entries:
            if one.state in ("complete", "failed") and one.planned.name not in self._said:
                self._said.add(one.planned.name)
                self._say(_ended(one))
                self._starts = dict.fromkeys(self._starts, 0)
        if self._live is not None:
            self._live.update(status.screen(now, self._workers))
        elif time.monotonic() - self._last_line > LINE_EVERY:
            self._last_line = time.monotonic()
            for line in (*now.lines(), now.sentence(self._workers)):
                self._say(line)

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)

    def _verdict(self, now: status.SweepStatus) -> int:
        if now.done and not now.count("failed"):
            return EXIT_FINISHED
        if now.count("failed"):
            self._say(f"{now.count('failed')} failed; their output.log has more, the same command tries them again")
            return EXIT_USER_ERROR
        self._say(f"the workers ended early, see {self._place.workers}; {self._why()}the same command goes on")
        return EXIT_SAVE_FAILED

    def _why(self) -> str:
        """The last line that a worker left."""
        logs = sorted(self._place.workers.glob("*/*_log.err"), key=lambda path: path.stat().st_mtime)
        words = logs[-1].read_text(errors="replace").strip().splitlines() if logs else []
        return f"the last said: {words[-1]}; " if words else ""


def _ended(one: RunStatus) -> str:
    if one.state == "failed":
        return f"{one.planned.name} failed: {one.reason}"
    what = "selected by" if one.planned.is_trial else "top-1 error"
    return f"{one.planned.name}: {what} {100 * one.value:.2f} %"
