"""The trainings of a sweep as Optuna's trials: who does which, what came of it, and what was lost.

Each searched system has a study of its own, so that a sampler learns from that system alone; the runs have one more.
Every planned training is enqueued beforehand under its name. A worker claims it, tells by heartbeats that it lives,
and finishes it; one whose heartbeats have stopped goes back to the queue with the values that it had.
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
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from imagenet_repro.config.sweep import Axis, SweepConfig
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.sweeps.plan import RUNS, SEARCH, PlannedRun, plan_runs

HEARTBEAT = 5  # seconds between two signs of life
GRACE = 30  # seconds without one, after which a training is lost
CRASHES = 3  # of a process that was training, after which it is not begun again
SQLITE_PATIENCE = 60  # seconds that a process waits for another one's write
FULL = ("database or disk is full", "No space left on device")  # as SQLite and PostgreSQL say it

LIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)


class UnreachableError(UserError):
    """The storage does not answer: a server is being started again, a network is down."""


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """A planned training and the last that is known of it.

    Attributes:
      state: "waiting", "running", "complete" or "failed".
      settings: the searched values by dotted key, where they are known.
      value: what is selected by, of a trial; the top-1 error of a run; None: it has not ended.
      worker: who has or had it.
      reason: it failed, or cannot begin.
      seconds: from its last begin to its end, of a complete one.
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
    """A training that this process has taken."""

    planned: PlannedRun
    settings: dict[str, Any]
    trial_id: int


class SweepQueue:
    """The trainings of one sweep in a storage.

    Args:
      url: as SQLAlchemy has it, such as `sqlite:////path/trials.db` or `postgresql+psycopg://host/name`.
      sweep: what is planned.
      identity: of the sweep, unlike that of any other in the storage.

    Raises:
      UserError: the storage cannot be reached.
    """

    def __init__(self, url: str, sweep: SweepConfig, identity: str):
        self.url, self.sweep = url, sweep
        self.planned = {one.name: one for one in plan_runs(sweep)}
        self.storage = _open(url)
        with storage_errors(url):
            self._studies = {
                name: optuna.create_study(storage=self.storage, study_name=f"{identity}/{name}", load_if_exists=True)
                for name in dict.fromkeys(map(_study_name, self.planned.values()))
            }

    def _study(self, planned: PlannedRun) -> optuna.Study:
        return self._studies[_study_name(planned)]

    def fill(self) -> None:
        """Enqueues what was planned and neither waits, runs nor is complete: all at first, later what failed."""
        with storage_errors(self.url):
            last = self._last()
            for name, planned in self.planned.items():
                known = last.get(name)
                if known is not None and known.state in LIVE:
                    continue
                settings = planned.settings or (_settings(known) if known else None)
                self._study(planned).enqueue_trial(settings or {}, user_attrs={"name": name})

    def requeue_lost(self) -> None:
        """Puts back what a process had that lives no longer."""
        with storage_errors(self.url), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            for study in self._studies.values():
                optuna.storages.fail_stale_trials(study)

    def claim(self, worker: str) -> ClaimedRun | None:
        """Takes the first training of the plan that waits and may begin; None where there is none.

        A run begins when its system's search is complete.
        """
        with storage_errors(self.url):
            last = self._last()
            selected = _selected(self._entries(last))
            for name, planned in self.planned.items():
                if name not in last or last[name].state is not TrialState.WAITING:
                    continue
                trial_id = last[name]._trial_id
                if self._may_begin(planned, selected) and self._take(trial_id, worker):
                    return ClaimedRun(planned, self._values(planned, trial_id, selected), trial_id)
        return None

    def _may_begin(self, planned: PlannedRun, selected: Mapping[str, RunStatus]) -> bool:
        return planned.is_trial or not self.sweep.search.trials or planned.system in selected

    def _take(self, number: int, worker: str) -> bool:
        self.storage.record_heartbeat(number)  # first: what is claimed without one would never count as lost
        try:
            taken = self.storage.set_trial_state_values(number, state=TrialState.RUNNING)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        if taken:
            self.storage.set_trial_user_attr(number, "worker", worker)
        return taken

    def _values(self, planned: PlannedRun, trial_id: int, selected: Mapping[str, RunStatus]) -> dict[str, Any]:
        """Of a trial those that were enqueued, else what the sampler suggests; of a run the selected ones."""
        if not planned.is_trial:
            return dict(selected[planned.system].settings) if planned.system in selected else {}
        study = self._study(planned)
        if self.sweep.search.sampler == "tpe":  # read anew: to a sampler, a study is for ever what it first was
            study = optuna.load_study(
                study_name=study.study_name, storage=self.storage, sampler=self._sampler(planned)
            )
            study.get_trials(deepcopy=False)
        trial = optuna.Trial(study, trial_id)
        return {axis.key: _suggest(trial, axis) for axis in self.sweep.systems[planned.system].search}

    def _sampler(self, planned: PlannedRun) -> optuna.samplers.TPESampler:
        """Seeded for each trial: with one seed for all, every process would begin with the same values."""
        number = int(planned.name.rpartition("/")[2])
        seed = int(np.random.SeedSequence([self.sweep.search.seed, number]).generate_state(1)[0])
        # Trials that run elsewhere count as bad ones, so that workers do not all try the same place.
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def selected_trials(self) -> dict[str, RunStatus]:
        """By system, the trial of the lowest value, of equal ones the first; of systems whose trials are all done."""
        return _selected(self.statuses())

    def complete(self, claim: ClaimedRun, value: float) -> None:
        """Completes a training; does nothing where another process was faster."""
        self._end(claim, TrialState.COMPLETE, [value])

    def fail(self, claim: ClaimedRun, why: str) -> None:
        """Gives a training up, until the sweep is started again."""
        with self._unless_ended():
            self.storage.set_trial_user_attr(claim.trial_id, "why", why)
        self._end(claim, TrialState.FAIL)

    def requeue(self, claim: ClaimedRun) -> None:
        """Lets somebody else go on with a training."""
        self._end(claim, TrialState.WAITING)

    def requeue_after_crash(self, claim: ClaimedRun, why: str) -> None:
        """As `put_back`, but not for ever: what has crashed CRASHES times is given up."""
        with storage_errors(self.url):
            crashes = 1 + self.storage.get_trial(claim.trial_id).user_attrs.get("crashes", 0)
        with self._unless_ended():
            self.storage.set_trial_user_attr(claim.trial_id, "crashes", crashes)
        if crashes < CRASHES:
            self.requeue(claim)
        else:
            self.fail(claim, f"{crashes} times, the last time {why}")

    def _end(self, claim: ClaimedRun, state: TrialState, values: list[float] | None = None) -> None:
        with self._unless_ended():
            self.storage.set_trial_state_values(claim.trial_id, state=state, values=values)

    @contextlib.contextmanager
    def _unless_ended(self) -> Iterator[None]:
        """What another process ended meanwhile, or took for lost and put back, stays as it is."""
        with storage_errors(self.url), contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            yield

    @contextlib.contextmanager
    def send_heartbeats(self, claim: ClaimedRun) -> Iterator[None]:
        """Tells the storage every few seconds that the training is being worked on, whether it answers or not."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT):
                with contextlib.suppress(SQLAlchemyError, optuna.exceptions.StorageInternalError):
                    self.storage.record_heartbeat(claim.trial_id)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def statuses(self) -> list[RunStatus]:
        """What is known of every planned training, in the order of the plan."""
        with storage_errors(self.url):
            last = self._last()
        found = self._entries(last)
        failed = {
            one.planned.system: one.planned.name for one in found if one.planned.is_trial and one.state == "failed"
        }
        return [_without_search(one, failed) for one in found]

    def _entries(self, last: Mapping[str, FrozenTrial]) -> list[RunStatus]:
        return [self._entry(planned, last.get(name)) for name, planned in self.planned.items()]

    def _entry(self, planned: PlannedRun, last: FrozenTrial | None) -> RunStatus:
        if last is None:
            return RunStatus(planned, "waiting", planned.settings, None, "", "", None)
        complete = last.state is TrialState.COMPLETE
        return RunStatus(
            planned,
            "failed" if last.state is TrialState.FAIL else last.state.name.lower(),
            planned.settings if planned.settings is not None else _settings(last),
            last.value if complete else None,
            last.user_attrs.get("worker", ""),
            last.user_attrs.get("why", "lost") if last.state is TrialState.FAIL else "",
            last.duration.total_seconds() if complete and last.duration else None,
        )

    def _last(self) -> dict[str, FrozenTrial]:
        """The attempt that counts of each training; of some that this process does not know, if seeds were added."""
        attempts: dict[str, list[FrozenTrial]] = {}
        for study in self._studies.values():
            for trial in study.get_trials(deepcopy=False):
                if "name" in trial.user_attrs:
                    attempts.setdefault(trial.user_attrs["name"], []).append(trial)
        return {name: _newest(trials) for name, trials in attempts.items()}


def _study_name(planned: PlannedRun) -> str:
    return f"{SEARCH}/{planned.system}" if planned.is_trial else RUNS


def _selected(entries: Iterable[RunStatus]) -> dict[str, RunStatus]:
    trials: dict[str, list[RunStatus]] = {}
    for one in entries:
        if one.planned.is_trial:
            trials.setdefault(one.planned.system, []).append(one)
    done = {name: each for name, each in trials.items() if all(one.value is not None for one in each)}
    return {name: min(each, key=lambda one: one.value) for name, each in done.items()}


def _without_search(one: RunStatus, failed: Mapping[str, str]) -> RunStatus:
    """A run that waits for a search of which a trial failed has failed with it, or it would wait for ever."""
    if one.planned.is_trial or one.state != "waiting" or one.planned.system not in failed:
        return one
    return dataclasses.replace(
        one, state="failed", reason=f"nothing was selected, {failed[one.planned.system]} failed"
    )


def _newest(trials: Iterable[FrozenTrial]) -> FrozenTrial:
    """The attempt that counts: a complete one, else one that is under way, else the last."""
    order = (TrialState.FAIL, TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
    return max(trials, key=lambda trial: (order.index(trial.state), trial.number))


def _settings(trial: FrozenTrial) -> dict[str, Any] | None:
    return dict(trial.system_attrs.get("fixed_params") or trial.params) or None


def _suggest(trial: optuna.Trial, axis: Axis) -> Any:
    if axis.choices:
        return trial.suggest_categorical(axis.key, axis.choices)
    return trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log)


def _open(url: str) -> optuna.storages.RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    sqlite = _parsed(url).get_backend_name() == "sqlite"
    options: Mapping[str, Any] = {"connect_args": {"timeout": SQLITE_PATIENCE}} if sqlite else {"pool_pre_ping": True}
    with storage_errors(url), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.RDBStorage(
            url.replace("{", "{{").replace("}", "}}"),  # which Optuna formats
            engine_kwargs=dict(options),
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
        )
    if sqlite:
        _lock_at_once(storage.engine)
    return storage


def _lock_at_once(engine: sqlalchemy.Engine) -> None:
    """SQLite ignores SELECT … FOR UPDATE: without this, two workers could both read that a trial waits and take it."""

    @sqlalchemy.event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself

    @sqlalchemy.event.listens_for(engine, "begin")
    def _(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextlib.contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turns a storage's failures into a message for the user.

    Raises:
      SaveError: the disk of the storage is full.
      UnreachableError: it cannot be reached.
      UserError: there is no driver for it, or the URL is none.
    """
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
        shown = mask_password(url)
        if any(words in reason for words in FULL):
            raise SaveError(f"--storage={shown}: {reason}; make room, the same command goes on") from error
        said = f"--storage={shown} cannot be reached: {reason}; {_hint(url, cause)}"
        lasting = isinstance(cause, ImportError | sqlalchemy.exc.NoSuchModuleError)
        raise (UserError if lasting else UnreachableError)(said) from error


def _hint(url: str, cause: BaseException) -> str:
    if isinstance(cause, sqlalchemy.exc.NoSuchModuleError):
        return "URLs of such databases begin with sqlite:/// or postgresql+psycopg://"
    if isinstance(cause, ImportError):
        return "requirements/postgresql.txt has PostgreSQL's driver"
    there = "its directory there, and the file a sweep's" if url.startswith("sqlite") else "the server there"
    return f"is {there}? the same command goes on, nothing is lost"


def mask_password(url: str) -> str:
    """A storage's URL without its password."""
    shown = _parsed(url).render_as_string(hide_password=True)
    return re.sub(r"(?<=[?&]password=)[^&]*", "***", shown)


def _parsed(url: str) -> sqlalchemy.URL:
    try:
        return sqlalchemy.make_url(url)
    except (SQLAlchemyError, ValueError) as error:
        shown = re.sub(r":.*@", ":***@", url)  # a password may be what makes it none
        raise UserError(f"--storage: {shown!r} is not a database's URL, such as sqlite:////path/trials.db") from error
