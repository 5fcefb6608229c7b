"""Queue of a sweep's runs, kept as Optuna trials: the worker and the outcome of each run, and lost runs.

The search of each system has a separate Optuna study, so that a sampler learns from that system alone; the final
runs of all systems share one more study. Every planned run is enqueued under its name before work starts. A worker
claims a run, sends heartbeats while it works on it, and completes it. A run whose heartbeats stop returns to the queue
with the settings that it had.
"""

import contextlib
import dataclasses
import logging
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import optuna
import sqlalchemy
import sqlalchemy.event
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

from imagenet_repro.config.sweep import Axis, SweepConfig
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.sweeps.plan import RUNS, SEARCH, PlannedRun, plan_runs

HEARTBEAT = 5  # seconds between two heartbeats
GRACE = 30  # seconds without a heartbeat after which a run counts as lost
CRASHES = 3  # crashes of a run's process after which the run is marked as failed
SQLITE_TIMEOUT = 60  # seconds that a process waits for another process's write
DISK_FULL = ("database or disk is full", "No space left on device")  # messages of SQLite and PostgreSQL

LIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)


class UnreachableError(UserError):
    """The storage does not answer, for example because a server restarts or the network is down."""


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """A planned run and its latest state in the queue.

    Attributes:
      planned: the run.
      state: "waiting", "running", "complete" or "failed".
      settings: the searched values by dotted key, if they are known.
      value: the selection metric of a trial, or the top-1 error of a final run; None until the run is complete.
      worker: the worker that runs or ran it.
      reason: why the run failed or cannot start.
      seconds: time from the last start of a complete run to its end.
    """

    planned: PlannedRun
    state: str
    settings: dict[str, Any] | None
    value: float | None
    worker: str
    reason: str
    seconds: float | None


@dataclasses.dataclass(frozen=True)
class ClaimedRun:
    """A run that this process has claimed."""

    planned: PlannedRun
    settings: dict[str, Any]
    trial_id: int


class SweepQueue:
    """The runs of one sweep in a storage.

    Args:
      url: an SQLAlchemy URL, such as `sqlite:////path/trials.db` or `postgresql+psycopg://host/name`.
      sweep: the configuration of the sweep.
      identity: a text that is unique to this sweep among all sweeps in the storage.

    Raises:
      UserError: the storage cannot be reached.
    """

    def __init__(self, url: str, sweep: SweepConfig, identity: str):
        self.url, self.sweep = url, sweep
        self.planned = {run.name: run for run in plan_runs(sweep)}
        self.storage = _open_storage(url)
        with storage_errors(url):
            self._studies = {
                name: optuna.create_study(storage=self.storage, study_name=f"{identity}/{name}", load_if_exists=True)
                for name in dict.fromkeys(map(_study_name, self.planned.values()))
            }

    def _study(self, planned: PlannedRun) -> optuna.Study:
        return self._studies[_study_name(planned)]

    def fill(self) -> None:
        """Enqueue every planned run that is neither waiting, running nor complete.

        These are all runs when a sweep starts, and the failed ones when it is started again.
        """
        with storage_errors(self.url):
            attempts = self._latest_attempts()
            for name, planned in self.planned.items():
                attempt = attempts.get(name)
                if attempt is not None and attempt.state in LIVE:
                    continue
                settings = planned.settings or (_recorded_settings(attempt) if attempt else None)
                self._study(planned).enqueue_trial(settings or {}, user_attrs={"name": name})

    def requeue_lost(self) -> None:
        """Return the runs of processes that no longer send heartbeats to the queue."""
        with storage_errors(self.url), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            for study in self._studies.values():
                optuna.storages.fail_stale_trials(study)

    def claim(self, worker: str) -> ClaimedRun | None:
        """Claim the first run of the plan that waits and may start; return None if there is none.

        A final run may start once the search of its system is complete.
        """
        with storage_errors(self.url):
            attempts = self._latest_attempts()
            selected = _select_trials(self._statuses(attempts))
            for name, planned in self.planned.items():
                if name not in attempts or attempts[name].state is not TrialState.WAITING:
                    continue
                trial_id = attempts[name]._trial_id
                if self._may_start(planned, selected) and self._try_claim(trial_id, worker):
                    return ClaimedRun(planned, self._settings(planned, trial_id, selected), trial_id)
        return None

    def _may_start(self, planned: PlannedRun, selected: Mapping[str, RunStatus]) -> bool:
        return planned.is_trial or not self.sweep.search.trials or planned.system in selected

    def _try_claim(self, trial_id: int, worker: str) -> bool:
        # The heartbeat comes first: a claimed run without any heartbeat would never count as lost.
        self.storage.record_heartbeat(trial_id)
        try:
            is_claimed = self.storage.set_trial_state_values(trial_id, state=TrialState.RUNNING)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        if is_claimed:
            self.storage.set_trial_user_attr(trial_id, "worker", worker)
        return is_claimed

    def _settings(self, planned: PlannedRun, trial_id: int, selected: Mapping[str, RunStatus]) -> dict[str, Any]:
        """Return a run's settings: enqueued or suggested values for a trial, selected values for a final run."""
        if not planned.is_trial:
            return dict(selected[planned.system].settings or {}) if planned.system in selected else {}
        study = self._study(planned)
        if self.sweep.search.sampler == "tpe":  # reloaded, since a sampler never sees changes of a study object
            study = optuna.load_study(
                study_name=study.study_name, storage=self.storage, sampler=self._sampler(planned)
            )
            study.get_trials(deepcopy=False)
        trial = optuna.Trial(study, trial_id)
        return {axis.key: _suggest(trial, axis) for axis in self.sweep.systems[planned.system].search}

    def _sampler(self, planned: PlannedRun) -> optuna.samplers.TPESampler:
        """Return a sampler with a separate seed; with one seed, every process would begin with the same values."""
        number = int(planned.name.rpartition("/")[2])
        seed = int(np.random.SeedSequence([self.sweep.search.seed, number]).generate_state(1)[0])
        # Trials that are still running count as bad ones, so that parallel workers try different regions.
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def selected_trials(self) -> dict[str, RunStatus]:
        """Return the best trial of each system whose search is complete.

        The best trial has the lowest value; the first one wins a tie.
        """
        return _select_trials(self.statuses())

    def complete(self, claim: ClaimedRun, value: float) -> None:
        """Mark a run as complete; do nothing if another process has already ended it."""
        self._set_state(claim, TrialState.COMPLETE, [value])

    def fail(self, claim: ClaimedRun, reason: str) -> None:
        """Mark a run as failed; it is enqueued again when the sweep is started again."""
        with self._unless_ended():
            self.storage.set_trial_user_attr(claim.trial_id, "why", reason)
        self._set_state(claim, TrialState.FAIL)

    def requeue(self, claim: ClaimedRun) -> None:
        """Return a run to the queue, so that any worker can resume it."""
        self._set_state(claim, TrialState.WAITING)

    def requeue_after_crash(self, claim: ClaimedRun, reason: str) -> None:
        """Return a run to the queue after a crash, or mark it as failed after CRASHES crashes."""
        with storage_errors(self.url):
            n_crashes = 1 + self.storage.get_trial(claim.trial_id).user_attrs.get("crashes", 0)
        with self._unless_ended():
            self.storage.set_trial_user_attr(claim.trial_id, "crashes", n_crashes)
        if n_crashes < CRASHES:
            self.requeue(claim)
        else:
            self.fail(claim, f"crashed {n_crashes} times; the last time: {reason}")

    def _set_state(self, claim: ClaimedRun, state: TrialState, values: list[float] | None = None) -> None:
        with self._unless_ended():
            self.storage.set_trial_state_values(claim.trial_id, state=state, values=values)

    @contextlib.contextmanager
    def _unless_ended(self) -> Iterator[None]:
        """Ignore an update of a run that another process has meanwhile ended, or requeued because it seemed lost."""
        with storage_errors(self.url), contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            yield

    @contextlib.contextmanager
    def send_heartbeats(self, claim: ClaimedRun) -> Iterator[None]:
        """Send heartbeats for a claimed run within the block; a storage that does not answer is ignored."""
        is_ended = threading.Event()

        def send() -> None:
            while not is_ended.wait(HEARTBEAT):
                with contextlib.suppress(SQLAlchemyError, optuna.exceptions.StorageInternalError):
                    self.storage.record_heartbeat(claim.trial_id)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_ended.set()
            thread.join()

    def statuses(self) -> list[RunStatus]:
        """Return the status of every planned run in the order of the plan.

        A final run counts as failed if a trial of its system failed, since nothing is selected then.
        """
        with storage_errors(self.url):
            statuses = self._statuses(self._latest_attempts())
        failed = {
            status.planned.system: status.planned.name
            for status in statuses
            if status.planned.is_trial and status.state == "failed"
        }
        return [_fail_without_search(status, failed) for status in statuses]

    def _statuses(self, attempts: Mapping[str, FrozenTrial]) -> list[RunStatus]:
        return [self._status(planned, attempts.get(name)) for name, planned in self.planned.items()]

    def _status(self, planned: PlannedRun, attempt: FrozenTrial | None) -> RunStatus:
        if attempt is None:
            return RunStatus(planned, "waiting", planned.settings, None, "", "", None)
        is_complete = attempt.state is TrialState.COMPLETE
        return RunStatus(
            planned,
            "failed" if attempt.state is TrialState.FAIL else attempt.state.name.lower(),
            planned.settings if planned.settings is not None else _recorded_settings(attempt),
            attempt.value if is_complete else None,
            attempt.user_attrs.get("worker", ""),
            attempt.user_attrs.get("why", "its worker was lost") if attempt.state is TrialState.FAIL else "",
            attempt.duration.total_seconds() if is_complete and attempt.duration else None,
        )

    def _latest_attempts(self) -> dict[str, FrozenTrial]:
        """Return the attempt that counts for each run by name.

        Another process may have added seeds, so the names can include runs that this process has not planned.
        """
        attempts: dict[str, list[FrozenTrial]] = {}
        for study in self._studies.values():
            for trial in study.get_trials(deepcopy=False):
                if "name" in trial.user_attrs:
                    attempts.setdefault(trial.user_attrs["name"], []).append(trial)
        return {name: _latest(trials) for name, trials in attempts.items()}


def _study_name(planned: PlannedRun) -> str:
    return f"{SEARCH}/{planned.system}" if planned.is_trial else RUNS


def _select_trials(statuses: Iterable[RunStatus]) -> dict[str, RunStatus]:
    """Return the trial with the lowest value for each system whose trials are all complete."""
    trials: dict[str, list[tuple[float | None, RunStatus]]] = {}
    for status in statuses:
        if status.planned.is_trial:
            trials.setdefault(status.planned.system, []).append((status.value, status))
    selected = {}
    for system, candidates in trials.items():
        complete = [(value, status) for value, status in candidates if value is not None]
        if len(complete) == len(candidates):
            selected[system] = min(complete, key=lambda candidate: candidate[0])[1]
    return selected


def _fail_without_search(status: RunStatus, failed: Mapping[str, str]) -> RunStatus:
    """Return a failed status for a final run that would wait forever, because a trial of its search failed."""
    if status.planned.is_trial or status.state != "waiting" or status.planned.system not in failed:
        return status
    reason = f"no settings were selected, because {failed[status.planned.system]} failed"
    return dataclasses.replace(status, state="failed", reason=reason)


def _latest(trials: Iterable[FrozenTrial]) -> FrozenTrial:
    """Return the attempt that counts: a complete one, else a running one, else a waiting one, else the last."""
    order = (TrialState.FAIL, TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
    return max(trials, key=lambda trial: (order.index(trial.state), trial.number))


def _recorded_settings(trial: FrozenTrial) -> dict[str, Any] | None:
    return dict(trial.system_attrs.get("fixed_params") or trial.params) or None


def _suggest(trial: optuna.Trial, axis: Axis) -> Any:
    if axis.choices:
        return trial.suggest_categorical(axis.key, axis.choices)
    return trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log)


def _open_storage(url: str) -> optuna.storages.RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    is_sqlite = _parse_url(url).get_backend_name() == "sqlite"
    options: dict[str, Any] = {"connect_args": {"timeout": SQLITE_TIMEOUT}} if is_sqlite else {"pool_pre_ping": True}
    with storage_errors(url), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.RDBStorage(
            url.replace("{", "{{").replace("}", "}}"),  # Optuna formats the URL with str.format
            engine_kwargs=options,
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
        )
    if is_sqlite:
        _begin_immediate(storage.engine)
    return storage


def _begin_immediate(engine: sqlalchemy.Engine) -> None:
    """Start every SQLite transaction with its write lock.

    SQLite ignores SELECT ... FOR UPDATE, so without this two workers could both read that a trial waits and claim it.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver itself begins no transaction

    @sqlalchemy.event.listens_for(engine, "begin")
    def _(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextlib.contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn the errors of a storage within the block into messages for the user.

    Raises:
      SaveError: the disk of the storage is full.
      UnreachableError: the storage cannot be reached.
      UserError: the database has no driver, or the URL is not valid.
    """
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
        shown_url = mask_password(url)
        if any(words in reason for words in DISK_FULL):
            raise SaveError(
                f"--storage={shown_url}: {reason}; free some disk space and run the same command again"
            ) from error
        message = f"--storage={shown_url} cannot be reached: {reason}; {_advice(url, cause)}"
        is_permanent = isinstance(cause, ImportError | NoSuchModuleError)
        raise (UserError if is_permanent else UnreachableError)(message) from error


def _advice(url: str, cause: BaseException) -> str:
    if isinstance(cause, NoSuchModuleError):
        return "the URL of a supported database begins with sqlite:/// or postgresql+psycopg://"
    if isinstance(cause, ImportError):
        return "install PostgreSQL's driver from requirements/postgresql.txt"
    check = (
        "check that its directory exists and that the file is a sweep's database"
        if url.startswith("sqlite")
        else "check that the server is running"
    )
    return f"{check}; nothing is lost, the same command resumes the sweep"


def mask_password(url: str) -> str:
    """Return a storage's URL with its password replaced by asterisks."""
    masked = _parse_url(url).render_as_string(hide_password=True)
    return re.sub(r"(?<=[?&]password=)[^&]*", "***", masked)


def _parse_url(url: str) -> sqlalchemy.URL:
    try:
        return sqlalchemy.make_url(url)
    except (SQLAlchemyError, ValueError) as error:
        masked = re.sub(r":.*@", ":***@", url)  # the invalid part may be the password
        raise UserError(f"--storage: {masked!r} is not a database URL, such as sqlite:////path/trials.db") from error
