"""Run a sweep (`main.py sweep`): check and record it, start workers, show progress and report the outcome."""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.live import Live

from imagenet_repro.config import AnyConfig, Config, ContrastiveConfig, FrozenConfig
from imagenet_repro.config.sweep import SweepConfig
from imagenet_repro.data import sources
from imagenet_repro.data.prepare import fingerprint
from imagenet_repro.errors import EXIT_FINISHED, EXIT_SAVE_FAILED, EXIT_STOPPED, EXIT_USER_ERROR, UserError
from imagenet_repro.runs import initial_weights
from imagenet_repro.sweeps import cost, device_plans
from imagenet_repro.sweeps.attempts import Loss
from imagenet_repro.sweeps.directory import SweepDirectory
from imagenet_repro.sweeps.finished_checkpoints import FinishedCheckpoints
from imagenet_repro.sweeps.launch import Launcher, LocalLauncher, SlurmLauncher
from imagenet_repro.sweeps.plan import build_run_config, check_splits, plan_runs
from imagenet_repro.sweeps.queue import RunStatus, SweepQueue, UnreachableError, mask_password
from imagenet_repro.sweeps.retry import retry_unreachable
from imagenet_repro.sweeps.status import SweepStatus, count_workers, describe_loss, live_view, print_status
from imagenet_repro.sweeps.worker import worker_name
from imagenet_repro.training import systems
from imagenet_repro.training.clock import StopSignal

POLL = 3.0  # seconds between two looks at the storage, which take time from the cores that train
LINE_INTERVAL = 60.0  # seconds between two progress lines if the output is a file
RESTARTS = 3  # restarts of a worker that ended although runs remained, counted anew whenever a run ends


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """Options that determine where and how a sweep runs; none of them changes a result.

    Attributes:
      launcher: "local" starts workers on this machine, "slurm" as SLURM jobs.
      workers: number of workers; 0 for one on each accelerator of this machine.
      storage: URL of the trials; empty for SQLite in the sweep's directory.
      slurm: options of the SLURM jobs.
    """

    launcher: str = "local"
    workers: int = 0
    storage: str = ""
    slurm: dict[str, Any] = dataclasses.field(default_factory=dict)


def run_sweep(sweep: SweepConfig, workdir: str, options: SweepOptions) -> int:
    """Run a sweep, or resume a stopped one, and return the exit code.

    On Ctrl-C or SIGTERM the workers of this machine save and end; SLURM jobs continue.

    Raises:
      UserError: the sweep is not valid, the directory holds another sweep or belongs to another process, or the
        storage or SLURM cannot be reached.
      SaveError: the directory cannot be written to.
    """
    check_sweep(sweep)
    directory = SweepDirectory(workdir)
    url = options.storage or directory.default_storage
    shown_url = mask_password(url)
    with directory.lock():
        launcher = _create_launcher(directory, url, options)
        queue = SweepQueue(url, sweep, directory.check(sweep, shown_url))
        queue.fill(directory.read_settings)
        directory.record(sweep, shown_url)  # last, so that a storage that does not answer binds nothing
        directory.remove_leftovers(queue.planned)
        workers = options.workers or launcher.default_workers
        n_runs = len(queue.planned)
        print(f"{n_runs} runs in {directory.path}, {count_workers(workers)} on {launcher.description}")
        print(f"trials in {shown_url}")
        return _SweepMonitor(directory, queue, launcher, workers).watch()


def dry_run(sweep: SweepConfig, workdir: str, options: SweepOptions, topology: str = "") -> int:
    """Print the runs of `run_sweep` and their cost without writing anything; raise the same errors.

    Args:
      sweep: the sweep.
      workdir: its directory.
      options: where and how it would run.
      topology: devices that are not here, for which each network is compiled; empty: one or a few are measured on this
        machine. With a topology, the data set need not be prepared.
    """
    if topology:
        return device_plans.print_plans(sweep, system_configs(sweep), topology)
    configs = check_sweep(sweep)
    directory = SweepDirectory(workdir)
    launcher = _create_launcher(directory, options.storage or directory.default_storage, options)
    return cost.print_cost(sweep, configs, launcher, options.workers or launcher.default_workers)


def _create_launcher(directory: SweepDirectory, url: str, options: SweepOptions) -> Launcher:
    if options.launcher == "slurm":
        return SlurmLauncher(directory, url, options.slurm)
    if options.slurm:
        raise UserError(f"--slurm.{next(iter(options.slurm))} needs --launcher=slurm")
    return LocalLauncher(directory, url)


def system_configs(sweep: SweepConfig) -> dict[str, AnyConfig]:
    """Return one configuration of each system, of its first run.

    Raises:
      UserError: a configuration is not valid.
    """
    configs: dict[str, AnyConfig] = {}
    for planned in plan_runs(sweep):
        if planned.settings is not None:
            configs.setdefault(planned.system, build_run_config(sweep, planned, planned.settings))
        elif planned.system not in configs:
            configs[planned.system] = build_run_config(sweep, planned, _example_settings(sweep, planned.system))
    return configs


def check_sweep(sweep: SweepConfig) -> dict[str, AnyConfig]:
    """Check a sweep as far as possible before a run starts, and return one configuration of each system.

    Raises:
      UserError: a configuration is not valid, the systems use different data sets, splits overlap, or weights do not
        fit their network.
    """
    configs = system_configs(sweep)
    for target in dict.fromkeys(system.target for system in sweep.systems.values()):
        _check_data(sweep, target, {name: configs[name] for name in _systems_on(sweep, target) if name in configs})
    for name, config in configs.items():
        systems.check_config(config, f"config.systems.{name}.config")
    _check_sources(configs)
    return configs


def _systems_on(sweep: SweepConfig, target: str) -> list[str]:
    return [name for name, system in sweep.systems.items() if system.target == target]


def _check_data(sweep: SweepConfig, target: str, configs: Mapping[str, AnyConfig]) -> None:
    """Check the data set and the splits of the systems of one target, or of a sweep without targets."""
    data_sets = {name: (config.data.name, config.data.data_dir) for name, config in configs.items()}
    if len(set(data_sets.values())) > 1:
        lines = "\n".join(
            f"  {name}: {data_set} in {data_dir or 'the default directory'}"
            for name, (data_set, data_dir) in data_sets.items()
        )
        raise UserError(f"these systems cannot be compared, they differ in data.name or data.data_dir:\n{lines}")
    data = next(iter(configs.values())).data
    try:
        fingerprint.say_what_changed(sources.open_splits(data).train)
        check_splits(sweep, data, target)
    except UserError as error:
        raise UserError(f"config.targets.{target}: {error}" if target else str(error)) from error


def _check_sources(configs: Mapping[str, AnyConfig]) -> None:
    """Check once that each source of weights can be read and fits the network that starts from it."""
    checked = set()
    for name, config in configs.items():
        if not config.initial_weights or not isinstance(config, Config | FrozenConfig):
            continue
        if isinstance(config, ContrastiveConfig):  # which of two towers they are for is checked by the run
            continue
        key = (config.initial_weights, config.model.name, str(config.model.options))
        if key not in checked:
            checked.add(key)
            try:
                initial_weights.check_fits(config.initial_weights, config.model)
            except UserError as error:
                raise UserError(f"config.systems.{name}: the source does not fit: {error}") from error


def _example_settings(sweep: SweepConfig, system: str) -> dict[str, Any]:
    """Return one value of each searched key, for checking a configuration before the sampler suggests values."""
    return {axis.key: axis.choices[0] if axis.choices else axis.low for axis in sweep.systems[system].search}


def show_status(workdir: str, storage: str) -> int:
    """Print the progress of a sweep, which any process may be running, and return the exit code.

    Raises:
      UserError: there is no sweep in the directory, or its storage cannot be reached.
    """
    directory = SweepDirectory(workdir)
    queue = open_queue(directory, storage)
    workers = max(1, len(directory.worker_pids()))
    print_status(SweepStatus(queue.statuses(), directory.path), workers)
    return EXIT_FINISHED


def open_queue(directory: SweepDirectory, storage: str = "") -> SweepQueue:
    """Return the queue of a recorded sweep as it is now, for reading; nothing is written.

    Args:
      directory: the sweep's directory.
      storage: the URL of its trials; required if the URL contains a password, because passwords are not recorded.

    Raises:
      UserError: there is no sweep, its trials are in another storage, or the storage cannot be reached.
    """
    if not directory.exists:
        raise UserError(f"--workdir={directory.path}: no sweep was started there")
    url = storage or directory.storage()
    if mask_password(url) != directory.storage() or (not storage and "***" in url):
        raise UserError(f"the trials of the sweep in {directory.path} are in --storage={directory.storage()}")
    return SweepQueue(url, directory.sweep(), directory.identity(), is_read_only=True)


class _SweepMonitor:
    """Shows the progress of a sweep until no work remains, restarts lost workers and drops old checkpoints."""

    def __init__(self, directory: SweepDirectory, queue: SweepQueue, launcher: Launcher, workers: int):
        self._directory, self._queue, self._launcher, self._workers = directory, queue, launcher, workers
        self._console = Console(highlight=False, emoji=False)
        self._checkpoints = FinishedCheckpoints(directory.path, queue.sweep)
        self._n_starts = dict.fromkeys(range(workers), 0)
        self._idle: list[int] = []  # slots without a worker at the last look
        self._reported: set[str] = set()
        self._open_losses: set[tuple[str, int]] = set()  # by run and number: of workers that had no successor yet
        self._said_losses: dict[tuple[str, int], bool] = {}  # and whether they have one in the line about them
        self._last_line = 0.0
        self._live: Live | None = None

    def watch(self) -> int:
        """Watch until the sweep ends or is stopped, and return the exit code."""
        with StopSignal() as stop:
            status = self._update_status()
            self._reported = {run.planned.name for run in status.runs if run.state == "complete"}
            self._said_losses = {key: True for key, run, loss in _losses(status) if loss.successor}
            if self._console.is_terminal:
                self._live = Live(console=self._console, refresh_per_second=2)
                self._live.start()
            try:
                status = self._watch_until_ended(stop, status)
            finally:
                if self._live is not None:
                    self._live.stop()
            if stop.received:
                self._console.print(f"{stop.received}: the workers save and end", markup=False)
                self._launcher.stop()
                status = SweepStatus(self._queue.statuses(), self._directory.path)
        print_status(status, self._workers, self._console)
        for line in self._checkpoints.summary():
            self._print(line)
        if stop.received:
            self._console.print("run the same command again to resume")
            return EXIT_STOPPED
        return self._outcome(status)

    def _watch_until_ended(self, stop: StopSignal, status: SweepStatus) -> SweepStatus:
        """Return the last status; an old one if the storage is unreachable when this process is stopped."""
        while not stop.received:
            try:
                status = retry_unreachable(self._update_status, lambda: stop.received is not None)
            except UnreachableError:
                if stop.received:
                    return status
                raise
            self._show(status)
            self._checkpoints.update(status.runs)
            if status.is_finished or stop.received or not self._keep_workers(status):
                return status
            time.sleep(POLL)
        return status

    def _update_status(self) -> SweepStatus:
        self._idle = [slot for slot in self._n_starts if not self._launcher.is_alive(slot)]
        self._queue.requeue_lost([worker_name(slot) for slot in self._idle])
        return SweepStatus(self._queue.statuses(), self._directory.path)

    def _keep_workers(self, status: SweepStatus) -> bool:
        """Start missing workers; return False if all workers keep ending although runs remain."""
        if not status.count("waiting"):
            return len(self._idle) < self._workers or status.count("running") > 0
        missing = [slot for slot in self._idle if self._n_starts[slot] <= RESTARTS][: status.count("waiting")]
        if missing:
            self._launcher.start(missing)
            for slot in missing:
                self._n_starts[slot] += 1
        return bool(missing) or len(self._idle) < self._workers

    def _show(self, status: SweepStatus) -> None:
        for run in status.runs:
            if run.state in ("complete", "failed") and run.planned.name not in self._reported:
                self._reported.add(run.planned.name)
                self._print(_outcome_line(run, self._queue.sweep.search.metric))
                self._n_starts = dict.fromkeys(self._n_starts, 0)
        self._say_losses(status)
        if self._live is not None:
            self._live.update(live_view(status, self._workers))
        elif time.monotonic() - self._last_line > LINE_INTERVAL:
            self._last_line = time.monotonic()
            for line in (*status.active_lines(), status.summary(self._workers)):
                self._print(line)

    def _say_losses(self, status: SweepStatus) -> None:
        """Say once which workers were lost, and who continues their runs; of one without a successor, at two looks."""
        for key, run, loss in _losses(status):
            has_successor = bool(loss.successor)
            if self._said_losses.get(key) == has_successor:
                continue
            if has_successor or key in self._open_losses:
                self._said_losses[key] = has_successor
                self._print(describe_loss(run, loss))
            self._open_losses.add(key)

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)

    def _outcome(self, status: SweepStatus) -> int:
        """Print the remaining work at the end, and return the exit code."""
        if status.is_finished and not status.count("failed"):
            return EXIT_FINISHED
        if status.count("failed"):
            self._print(
                f"{status.count('failed')} failed; see output.log in their directories. Run the same command again to"
                " retry them"
            )
            return EXIT_USER_ERROR
        self._print(
            f"the workers ended early, see {self._directory.workers_path}; {self._last_worker_message()}run the same"
            " command again to resume"
        )
        return EXIT_SAVE_FAILED

    def _last_worker_message(self) -> str:
        """Return the last line of the newest error log of a worker, as part of a sentence."""
        logs = sorted(self._directory.workers_path.glob("*/*_log.err"), key=lambda path: path.stat().st_mtime)
        lines = logs[-1].read_text(encoding="utf-8", errors="replace").strip().splitlines() if logs else []
        return f"the last message was: {lines[-1]}; " if lines else ""


def _losses(status: SweepStatus) -> Iterator[tuple[tuple[str, int], RunStatus, Loss]]:
    """Yield each lost worker with the run's status, under the run's name and a number."""
    for run in status.runs:
        for number, loss in enumerate(run.losses):
            yield (run.planned.name, number), run, loss


def _outcome_line(run: RunStatus, selection_metric: str) -> str:
    """Return a line about a run that has ended; trials are scored by the metric of the search."""
    if run.value is None:
        return f"{run.planned.name} failed: {run.reason}"
    metric = "top-5 error" if run.planned.is_trial and selection_metric == "top5_error" else "top-1 error"
    return f"{run.planned.name}: {metric} {100 * run.value:.2f} %"
