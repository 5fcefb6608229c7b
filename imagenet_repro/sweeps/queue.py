"""Queue of a sweep's runs, kept as Optuna trials: the worker and the outcome of each run, and lost runs.

The search of each system has a separate Optuna study, so that a sampler learns from that system alone; the final
runs of all systems share one more study. Every planned run is enqueued under its name before work starts. A worker
claims a run, sends heartbeats while it works on it, and completes it. A run whose heartbeats stop returns to the queue
with the settings that it had.
"""

import contextlib
import copy
import dataclasses
import datetime
import glob
import json
import logging
import re
import shutil
import socket
import sqlite3
import tempfile
import threading
import time
import urllib.parse
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
import sqlalchemy.event
import sqlalchemy.orm
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError, NoSuchModuleError, ProgrammingError, SQLAlchemyError

from imagenet_repro.config.sweep import Axis, SweepConfig
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.scoring.terminal import duration
from imagenet_repro.sweeps.attempts import TRIALS, Attempt, AttemptReader, Loss, state_of
from imagenet_repro.sweeps.plan import RUNS, SEARCH, PlannedRun, plan_runs

HEARTBEAT = 5  # seconds between two heartbeats
GRACE = 30  # seconds without a heartbeat after which a run counts as lost
CRASHES = 3  # crashes of a run's process after which the run is marked as failed
LONGEST_REASON = 120  # characters of the reason of a crash in the line about it
PAUSES = (0.5, 1.0, 2.0)  # seconds before further attempts to create the tables of an empty database
SQLITE_TIMEOUT = 60  # seconds that a process waits for another process's write
DISK_FULL = ("database or disk is full", "No space left on device")  # messages of SQLite and PostgreSQL

# Optuna's private classes of tables, and the columns that enqueueing writes.
ENQUEUED = {
    "StudyModel": {"study_id"},
    "TrialModel": {"trial_id", "study_id", "number", "state"},
    "TrialUserAttributeModel": {"trial_id", "key", "value_json"},
    "TrialSystemAttributeModel": {"trial_id", "key", "value_json"},
}
OTHER_OPTUNA = (
    f"Optuna {optuna.__version__} keeps trials in other tables than the versions that sweeps are tested with; install"
    " the one in requirements.txt"
)
HEARTBEATS = sqlalchemy.table(
    "trial_heartbeats", sqlalchemy.column("trial_id"), sqlalchemy.column("heartbeat", sqlalchemy.DateTime())
)
# Messages of SQLite about a file that is not, or no longer, a database.
DAMAGED = ("file is not a database", "malformed", "file is encrypted")

LIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)


class DamagedError(UserError):
    """The storage answers, but its content is damaged, so that no later attempt can succeed."""


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
      losses: the workers that the run has lost so far, and which worker went on with it.
    """

    planned: PlannedRun
    state: str
    settings: dict[str, Any] | None
    value: float | None
    worker: str
    reason: str
    seconds: float | None
    losses: tuple[Loss, ...] = ()


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
      is_read_only: whether the queue shows the state of the sweep as it is now and writes nothing, not even to lock
        the storage, so that a reader without the right to write can open it.

    Raises:
      UserError: the storage cannot be reached.
    """

    def __init__(self, url: str, sweep: SweepConfig, identity: str, *, is_read_only: bool = False):
        self.url, self.sweep = url, sweep
        self.planned = {run.name: run for run in plan_runs(sweep)}
        self.storage = _open_for_reading(url) if is_read_only else _open_storage(url)
        self._observed: dict[int, tuple[Any, float]] = {}  # by trial: a value, and since when it has been the same
        names = {name: f"{identity}/{name}" for name in dict.fromkeys(map(_study_name, self.planned.values()))}
        with storage_errors(url):
            if is_read_only:  # seeds and systems that nobody has enqueued yet have no study
                existing = optuna.get_all_study_names(self.storage)
                names = {name: full_name for name, full_name in names.items() if full_name in existing}
            open_study = optuna.load_study if is_read_only else _create_study
            self._studies = {
                name: open_study(storage=self.storage, study_name=full_name) for name, full_name in names.items()
            }
        self._studies_by_id = {study._study_id: study for study in self._studies.values()}
        self._reader = AttemptReader(self.storage.engine, self._studies_by_id)

    def _study(self, planned: PlannedRun) -> optuna.Study:
        return self._studies[_study_name(planned)]

    def fill(self, read_settings: Callable[[str, list[str]], dict[str, Any] | None] = lambda name, keys: None) -> None:
        """Enqueue every planned run that is neither waiting, running nor complete.

        These are all runs when a sweep starts, and the failed ones when it is started again.

        Args:
          read_settings: returns the values of keys with which a run was started, by its name, as far as they are known
            elsewhere. A trial whose settings were suggested keeps them even if its storage was lost.
        """
        with storage_errors(self.url):
            attempts = self._latest_attempts()
            entries = []
            for name, planned in self.planned.items():
                attempt = attempts.get(name)
                if attempt is not None and attempt.state in LIVE:
                    continue
                settings = planned.settings or (attempt.settings if attempt else None)
                if planned.is_trial and not settings:
                    axes = self.sweep.systems[planned.system].search
                    settings = _valid_settings(axes, read_settings(name, [axis.key for axis in axes]))
                entries.append((self._study(planned)._study_id, name, settings or {}))
            _enqueue(self.storage.engine, entries)

    def requeue_lost(self, ended: Collection[str] = ()) -> None:
        """Return the runs of processes that no longer send heartbeats to the queue.

        A process that is killed here can leave an attempt that failed without a reason and was not enqueued again;
        another process does so a moment later.

        Args:
          ended: names of workers that are known to have ended, whose runs need not miss heartbeats first.
        """
        with storage_errors(self.url), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            enqueue_again = optuna.storages.RetryHeartbeatStaleTrialCallback()
            for study_id, trial_id, reason in self._lost_trials(ended):
                # False, or the error, if another process has done it.
                with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                    self._record_loss(trial_id, reason)
                    if self.storage.set_trial_state_values(trial_id, state=TrialState.FAIL):
                        enqueue_again(self._studies_by_id[study_id], copy.deepcopy(self.storage.get_trial(trial_id)))
            for name, attempt in self._latest_attempts().items():
                is_stranded = attempt.state is TrialState.FAIL and attempt.reason is None
                if is_stranded and name in self.planned and self._unchanged_for(attempt.trial_id, "FAIL") > HEARTBEAT:
                    trial = copy.deepcopy(self.storage.get_trial(attempt.trial_id))
                    enqueue_again(self._study(self.planned[name]), trial)

    def _record_loss(self, trial_id: int, reason: str) -> None:
        """Record that the worker of a trial that has not ended was lost; attempts that follow keep the record."""
        attributes = self.storage.get_trial(trial_id).user_attrs
        loss = Loss(attributes.get("worker", ""), reason)
        losses = [*attributes.get("losses", ()), dataclasses.asdict(loss)]
        self.storage.set_trial_user_attr(trial_id, "losses", losses)

    def record_successor(self, claim: ClaimedRun, worker: str, step: int) -> None:
        """Record which worker continues a run whose last worker was lost; do nothing for other runs.

        Args:
          claim: the run.
          worker: the worker that has claimed it.
          step: the step of the checkpoint from which it continues; 0: it starts anew.
        """
        with self._unless_ended():
            losses = self.storage.get_trial(claim.trial_id).user_attrs.get("losses", [])
            if losses and not losses[-1]["successor"]:
                losses = [*losses[:-1], losses[-1] | {"successor": worker, "step": step}]
                self.storage.set_trial_user_attr(claim.trial_id, "losses", losses)

    def _lost_trials(self, ended: Collection[str]) -> list[tuple[int, int, str]]:
        """Return the study, the number and the loss of each running trial whose worker has ended or does not answer.

        The storage's clock decides, and so does this process's own: a heartbeat that has not changed for GRACE seconds
        has stopped, even if its time is in the future. For a worker on another machine that writes to an SQLite file,
        only the latter counts, because its heartbeats carry the time of its own machine.
        """
        query = (
            sqlalchemy.select(TRIALS.c.study_id, TRIALS.c.trial_id, HEARTBEATS.c.heartbeat, sqlalchemy.func.now())
            .join_from(TRIALS, HEARTBEATS, TRIALS.c.trial_id == HEARTBEATS.c.trial_id)
            .where(TRIALS.c.study_id.in_(list(self._studies_by_id)), state_of() == TrialState.RUNNING.name)
        )
        with self.storage.engine.connect() as connection:
            rows = connection.execute(query).all()
        grace, lost = datetime.timedelta(seconds=GRACE), []
        for study_id, trial_id, heartbeat, now in rows:
            silence = now.replace(tzinfo=None) - heartbeat.replace(tzinfo=None)
            unchanged = self._unchanged_for(trial_id, heartbeat)
            is_late = silence > grace and self._shares_clock(trial_id)
            if ended and self._worker(trial_id) in ended:
                lost.append((study_id, trial_id, "has ended"))
            elif is_late or unchanged > GRACE:
                seconds = silence.total_seconds() if is_late else unchanged
                lost.append((study_id, trial_id, f"did not answer for {duration(seconds)}"))
        return lost

    def _shares_clock(self, trial_id: int) -> bool:
        """Whether the heartbeats of a trial carry the time of the clock that this process reads in the storage."""
        if self.storage.engine.dialect.name != "sqlite":
            return True
        host, _, _ = self._worker(trial_id).rpartition("/")
        return host in ("", socket.gethostname())

    def _worker(self, trial_id: int) -> str:
        return self.storage.get_trial(trial_id).user_attrs.get("worker", "")

    def _unchanged_for(self, trial_id: int, value: Any) -> float:
        """Return for how many seconds this process has seen the same value of a trial."""
        seen, since = self._observed.get(trial_id, (None, 0.0))
        if seen != value:
            since = time.monotonic()
            self._observed[trial_id] = (value, since)
        return time.monotonic() - since

    def claim(self, worker: str) -> ClaimedRun | None:
        """Claim the first run of the plan that waits and may start; return None if there is none.

        A final run may start once the search of its system is complete.
        """
        with storage_errors(self.url):
            attempts = self._latest_attempts()
            selected = select_trials(self._statuses(attempts))
            for name, planned in self.planned.items():
                if name not in attempts or attempts[name].state is not TrialState.WAITING:
                    continue
                trial_id = attempts[name].trial_id
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
        axes = self.sweep.systems[planned.system].search
        if planned.settings is not None:
            self._record_settings(trial_id, axes, planned.settings)
            return dict(planned.settings)
        # Loaded anew, since a sampler never sees changes of a study object.
        name = self._study(planned).study_name
        study = optuna.load_study(study_name=name, storage=self.storage, sampler=self._sampler(planned))
        study.get_trials(deepcopy=False)
        trial = optuna.Trial(study, trial_id)
        return {axis.key: trial._suggest(axis.key, _distribution(axis)) for axis in axes}

    def _record_settings(self, trial_id: int, axes: Iterable[Axis], settings: Mapping[str, Any]) -> None:
        """Record planned settings as the parameters of a trial, for the tools of Optuna that show them.

        `optuna.Trial` would first read the whole study.
        """
        known = self.storage.get_trial(trial_id).params
        for axis in axes:
            if axis.key not in known:
                distribution = _distribution(axis)
                value = distribution.to_internal_repr(settings[axis.key])
                self.storage.set_trial_param(trial_id, axis.key, value, distribution)

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
        return select_trials(self.statuses())

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
            self._record_loss(claim.trial_id, f"lost the process of this run ({_first_sentence(reason)})")
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

    def _statuses(self, attempts: Mapping[str, Attempt]) -> list[RunStatus]:
        return [self._status(planned, attempts.get(name)) for name, planned in self.planned.items()]

    def _status(self, planned: PlannedRun, attempt: Attempt | None) -> RunStatus:
        if attempt is None:
            return RunStatus(planned, "waiting", planned.settings, None, "", "", None)
        is_failed = attempt.state is TrialState.FAIL
        return RunStatus(
            planned,
            "failed" if is_failed else attempt.state.name.lower(),
            planned.settings if planned.settings is not None else attempt.settings,
            attempt.value,
            attempt.worker,
            ("its worker was lost" if attempt.reason is None else attempt.reason) if is_failed else "",
            attempt.seconds,
            attempt.losses,
        )

    def _latest_attempts(self) -> dict[str, Attempt]:
        """Return the attempt that counts for each run by name.

        Another process may have added seeds, so the names can include runs that this process has not planned.
        """
        attempts: dict[str, list[Attempt]] = {}
        try:
            for attempt in self._reader.read():
                if attempt.name:
                    attempts.setdefault(attempt.name, []).append(attempt)
        except (ValueError, LookupError, TypeError, AssertionError) as error:  # an entry that no Optuna has written
            raise DamagedError(_describe_damage(self.url, repr(error))) from error
        return {name: _latest(of_a_run) for name, of_a_run in attempts.items()}


def _first_sentence(reason: str) -> str:
    """Return the beginning of the reason of a crash, whose rest is the last line of an output."""
    return re.split(r"[;\n]", reason.strip())[0][:LONGEST_REASON]


def _study_name(planned: PlannedRun) -> str:
    return f"{SEARCH}/{planned.system}" if planned.is_trial else RUNS


def select_trials(statuses: Iterable[RunStatus]) -> dict[str, RunStatus]:
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


def _latest(attempts: Iterable[Attempt]) -> Attempt:
    """Return the attempt that counts: a complete one, else a running one, else a waiting one, else the last."""
    order = (TrialState.FAIL, TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
    return max(attempts, key=lambda attempt: (order.index(attempt.state), attempt.number))


def _enqueue(engine: sqlalchemy.Engine, entries: Sequence[tuple[int, str, dict[str, Any]]]) -> None:
    """Add waiting trials in one transaction: a study's number, the run's name and its settings for each.

    The rows are those of `optuna.Study.enqueue_trial`, which waits for the disk after each trial and leaves a part of
    them if it is killed. No public function of Optuna adds several trials at once.

    Raises:
      UserError: this version of Optuna has other tables.
    """
    models = _optuna_models()
    with sqlalchemy.orm.Session(engine) as session, session.begin():
        trials = []
        for study_id in sorted({study_id for study_id, _, _ in entries}):  # in one order, so that locks never cross
            session.get(models.StudyModel, study_id, with_for_update=True)  # as Optuna does, for the next number
            count = sqlalchemy.select(sqlalchemy.func.count()).where(models.TrialModel.study_id == study_id)
            first_number = session.execute(count).scalar_one()
            added = [entry for entry in entries if entry[0] == study_id]
            trials += [
                (models.TrialModel(study_id=study_id, number=number, state=TrialState.WAITING), name, settings)
                for number, (_, name, settings) in enumerate(added, first_number)
            ]
        session.add_all([trial for trial, _, _ in trials])
        session.flush()  # which numbers the trials
        for trial, name, settings in trials:
            own, of_optuna = json.dumps(name), json.dumps(settings)
            session.add(models.TrialUserAttributeModel(trial_id=trial.trial_id, key="name", value_json=own))
            session.add(
                models.TrialSystemAttributeModel(trial_id=trial.trial_id, key="fixed_params", value_json=of_optuna)
            )


def _optuna_models() -> Any:
    """Return Optuna's private classes of the tables that `_enqueue` writes; raise UserError if they have changed."""
    try:
        from optuna.storages._rdb import models

        columns = {name: set(getattr(models, name).__table__.columns.keys()) for name in ENQUEUED}
    except (ImportError, AttributeError) as error:
        raise UserError(f"{OTHER_OPTUNA} ({error})") from error
    for name, needed in ENQUEUED.items():
        if missing := sorted(needed - columns[name]):
            raise UserError(f"{OTHER_OPTUNA} ({name} has no {', '.join(missing)})")
    return models


def _create_study(*, storage: optuna.storages.RDBStorage, study_name: str) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name=study_name, load_if_exists=True)


def _valid_settings(axes: Iterable[Axis], settings: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return settings that lie on their axes; None if there are none or one of them does not."""
    if settings is None or not all(_is_on_axis(axis, settings[axis.key]) for axis in axes):
        return None
    return settings


def _is_on_axis(axis: Axis, value: Any) -> bool:
    if axis.choices:
        return value in axis.choices
    return isinstance(value, int | float) and axis.low <= value <= axis.high


def _distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    if axis.choices:
        return optuna.distributions.CategoricalDistribution(axis.choices)
    return optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def _open_storage(url: str) -> optuna.storages.RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    is_sqlite = _parse_url(url).get_backend_name() == "sqlite"
    options: dict[str, Any] = {"connect_args": {"timeout": SQLITE_TIMEOUT}} if is_sqlite else {"pool_pre_ping": True}
    with storage_errors(url):
        storage = _connect(url, options)
    if is_sqlite:
        _begin_immediate(storage.engine)
    return storage


def _connect(url: str, options: dict[str, Any], **keywords: Any) -> optuna.storages.RDBStorage:
    """Return Optuna's storage; raise UserError if another version of Optuna wrote it.

    Processes that open an empty database of a server at the same time can collide while they create its tables.
    """
    for pause in PAUSES:
        with contextlib.suppress(IntegrityError, ProgrammingError):
            return _connect_once(url, options, **keywords)
        time.sleep(pause)
    return _connect_once(url, options, **keywords)


def _connect_once(url: str, options: dict[str, Any], **keywords: Any) -> optuna.storages.RDBStorage:
    escaped = url.replace("{", "{{").replace("}", "}}")  # Optuna formats the URL with str.format
    try:
        return optuna.storages.RDBStorage(escaped, engine_kwargs=options, **keywords)
    except RuntimeError as error:  # the tables are those of another version
        raise UserError(f"--storage={mask_password(url)}: {str(error).splitlines()[0]}") from error


def _open_for_reading(url: str) -> optuna.storages.RDBStorage:
    """Return a storage to read from; of an SQLite file, a copy in memory.

    Optuna writes when it opens a storage, and SQLite when it finds the traces of a killed process.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    parsed = _parse_url(url)
    with storage_errors(url):
        if parsed.get_backend_name() != "sqlite" or not parsed.database:
            return _connect(url, {"pool_pre_ping": True}, skip_table_creation=True)
        if not Path(parsed.database).exists():
            raise UserError(
                f"--storage={mask_password(url)}: there is no such file. The command that started the sweep makes it"
                " anew: it takes finished runs from their directories"
            )
        snapshot = _read_sqlite(Path(parsed.database))
        options = {"creator": lambda: snapshot, "poolclass": sqlalchemy.pool.StaticPool}
        return _connect("sqlite://", options)


def _read_sqlite(path: Path) -> sqlite3.Connection:
    """Return a copy in memory of an SQLite file, which may be in use, or in a directory that cannot be written."""
    snapshot = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        _copy_sqlite(path, snapshot)
    except sqlite3.OperationalError:  # a killed process left a journal, which SQLite must write back first
        with tempfile.TemporaryDirectory() as directory:
            for part in (path, *path.parent.glob(f"{glob.escape(path.name)}-*")):
                shutil.copy(part, directory)
            _copy_sqlite(Path(directory) / path.name, snapshot, mode="rw")
    return snapshot


def _copy_sqlite(path: Path, target: sqlite3.Connection, mode: str = "ro") -> None:
    address = f"file:{urllib.parse.quote(str(path.absolute()))}?mode={mode}"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=SQLITE_TIMEOUT)) as source:
        source.backup(target)


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
      DamagedError: the storage is not a database, or a damaged one.
      UnreachableError: the storage cannot be reached.
      UserError: the database has no driver, or the URL is not valid.
    """
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, optuna.exceptions.StorageInternalError, ImportError) as error:
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
        shown_url = mask_password(url)
        if any(words in reason for words in DISK_FULL):
            raise SaveError(
                f"--storage={shown_url}: {reason}; free some disk space and run the same command again"
            ) from error
        if any(words in reason for words in DAMAGED):
            raise DamagedError(_describe_damage(url, reason)) from error
        message = f"--storage={shown_url} cannot be reached: {reason}; {_advice(url, cause)}"
        is_permanent = isinstance(cause, ImportError | NoSuchModuleError)
        raise (UserError if is_permanent else UnreachableError)(message) from error


def _describe_damage(url: str, reason: str) -> str:
    """Return a message about a damaged storage, and how its sweep goes on without it."""
    parsed = _parse_url(url)
    away = (
        f"Move it away (mv {parsed.database} {parsed.database}.damaged)"
        if parsed.get_backend_name() == "sqlite"
        else "Restore it from a backup, or empty it"
    )
    return (
        f"--storage={mask_password(url)} is damaged: {reason}. {away} and run the command that started the sweep:"
        " it plans every run anew, takes finished ones from their directories, and resumes started ones from their"
        " checkpoints"
    )


def _advice(url: str, cause: BaseException) -> str:
    if isinstance(cause, NoSuchModuleError):
        return "the URL of a supported database begins with sqlite:/// or postgresql+psycopg://"
    if isinstance(cause, ImportError):
        return "install PostgreSQL's driver from requirements/postgresql.txt"
    check = (
        "check that its directory exists and can be written"
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
