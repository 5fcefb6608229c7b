"""Attempts at the runs of a sweep, read from Optuna's tables, and only those that changed since they were last read.

Optuna itself reads every trial that has not ended each time, with all its settings, through objects of SQLAlchemy: a
second for a sweep of 2,000 trials. Here a row of three small values says whether a trial changed.
"""

import dataclasses
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import TrialState

IDS_OF_A_QUERY = 500  # older versions of SQLite allow 999 values in one query

TRIALS = sqlalchemy.table(
    "trials",
    *map(sqlalchemy.column, ("trial_id", "number", "study_id", "state")),
    *(sqlalchemy.column(name, sqlalchemy.DateTime()) for name in ("datetime_start", "datetime_complete")),
)
ATTRIBUTES = [
    sqlalchemy.table(name, *map(sqlalchemy.column, ("trial_id", "key", "value_json")))
    for name in ("trial_user_attributes", "trial_system_attributes")
]
PARAMETERS = sqlalchemy.table(
    "trial_params", *map(sqlalchemy.column, ("param_id", "trial_id", "param_name", "param_value", "distribution_json"))
)
VALUES = sqlalchemy.table("trial_values", *map(sqlalchemy.column, ("trial_id", "value", "value_type")))
INFINITE = {"FINITE": 0.0, "INF_POS": float("inf"), "INF_NEG": float("-inf")}  # added to the stored value


def state_of(column: Any = TRIALS.c.state) -> sqlalchemy.Cast[str]:
    """Return an enumeration of the tables as text; a driver may know it as a type of its own."""
    return sqlalchemy.cast(column, sqlalchemy.String)


@dataclasses.dataclass(frozen=True)
class Loss:
    """The end of a worker, or of its process, before its run had ended, and who went on with the run.

    Attributes:
      worker: the worker whose run it was.
      reason: what happened to it, after its name, such as "did not answer for 34 s".
      successor: the worker that continues the run; empty as long as none does.
      step: the step of the checkpoint from which it continues; 0: it starts anew.
    """

    worker: str
    reason: str
    successor: str = ""
    step: int = 0


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One trial of Optuna: a run that waits, runs or has ended.

    Attributes:
      trial_id: the number of the trial in the storage.
      study_id: the number of its study.
      number: its number within the study.
      state: whether it waits, runs or has ended.
      name: the name of the run; empty for a trial that no sweep has enqueued.
      settings: the searched values by dotted key; None if there are none yet.
      worker: the worker that claimed it.
      reason: why it failed; None if it did not, or ended without a reason.
      value: the result of a complete one.
      seconds: time from its last start to its end.
      losses: the workers that the run has lost so far, in earlier attempts too.
    """

    trial_id: int
    study_id: int
    number: int
    state: TrialState
    name: str
    settings: dict[str, Any] | None
    worker: str
    reason: str | None
    value: float | None
    seconds: float | None
    losses: tuple[Loss, ...] = ()


class AttemptReader:
    """Reads the attempts of some studies; what has not changed is read once.

    Only a trial that runs can change without a new state or time, so those are read each time.

    Args:
      engine: the engine of the storage.
      study_ids: the numbers of the studies.
    """

    def __init__(self, engine: sqlalchemy.Engine, study_ids: Collection[int]):
        self._engine, self._study_ids = engine, list(study_ids)
        self._seen: dict[int, tuple] = {}  # by trial: its row
        self._attempts: dict[int, Attempt] = {}

    def read(self) -> Iterable[Attempt]:
        """Return every attempt as it is now, in the order in which they were made.

        Raises:
          ValueError, LookupError, TypeError: a table has an entry that Optuna does not write.
        """
        query = (
            sqlalchemy.select(
                TRIALS.c.trial_id,
                TRIALS.c.study_id,
                TRIALS.c.number,
                state_of(),
                TRIALS.c.datetime_start,
                TRIALS.c.datetime_complete,
            )
            .where(TRIALS.c.study_id.in_(self._study_ids))
            .order_by(TRIALS.c.trial_id)
        )
        with self._engine.begin() as connection:
            rows: list[tuple[Any, ...]] = [tuple(row) for row in connection.execute(query)]
            changed = [row for row in rows if row[3] == TrialState.RUNNING.name or self._seen.get(row[0]) != row]
            for start in range(0, len(changed), IDS_OF_A_QUERY):
                block = changed[start : start + IDS_OF_A_QUERY]
                for attempt in _read_attempts(connection, block):
                    self._attempts[attempt.trial_id] = attempt
        self._seen = {row[0]: row for row in rows}
        return [self._attempts[row[0]] for row in rows]


def _read_attempts(connection: sqlalchemy.Connection, rows: Sequence[tuple]) -> Iterator[Attempt]:
    ids = [row[0] for row in rows]
    attributes: dict[int, dict[str, Any]] = {trial_id: {} for trial_id in ids}
    for table in ATTRIBUTES:
        for trial_id, key, text in connection.execute(sqlalchemy.select(table).where(table.c.trial_id.in_(ids))):
            attributes[trial_id][key] = json.loads(text)
    suggested = _read_parameters(connection, ids)
    query = sqlalchemy.select(VALUES.c.trial_id, VALUES.c.value, state_of(VALUES.c.value_type))
    values = {
        trial_id: (value or 0.0) + INFINITE[value_type]
        for trial_id, value, value_type in connection.execute(query.where(VALUES.c.trial_id.in_(ids)))
    }
    for trial_id, study_id, number, state, start, end in rows:
        known = attributes[trial_id]
        is_complete = state == TrialState.COMPLETE.name
        yield Attempt(
            trial_id,
            study_id,
            number,
            TrialState[state],
            known.get("name", ""),
            known.get("fixed_params") or suggested.get(trial_id),
            known.get("worker", ""),
            known.get("why") if state == TrialState.FAIL.name else None,
            values[trial_id] if is_complete else None,
            (end - start).total_seconds() if is_complete and start and end else None,
            tuple(Loss(**loss) for loss in known.get("losses", ())),
        )


def _read_parameters(connection: sqlalchemy.Connection, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return the suggested values of trials by dotted key, in the order in which they were suggested."""
    query = sqlalchemy.select(PARAMETERS).where(PARAMETERS.c.trial_id.in_(ids)).order_by(PARAMETERS.c.param_id)
    suggested: dict[int, dict[str, Any]] = {}
    for _, trial_id, name, value, distribution_text in connection.execute(query):
        distribution = optuna.distributions.json_to_distribution(distribution_text)
        suggested.setdefault(trial_id, {})[name] = distribution.to_external_repr(value)
    return suggested
