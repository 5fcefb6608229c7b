"""All trackers of a run: opened before training, written row by row, closed at the end."""

import contextlib
import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from imagenet_repro.config.log import TrackerName
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.training.trackers import tracked_run
from imagenet_repro.training.trackers.background import Adapter, Background, describe, within_limit
from imagenet_repro.training.trackers.mlflow_store import MlflowStore
from imagenet_repro.training.trackers.tensorboard import TENSORBOARD, TensorBoard
from imagenet_repro.training.trackers.tracked_run import TrackedRun, finite_numbers
from imagenet_repro.training.trackers.trackio_store import TrackioStore
from imagenet_repro.training.trackers.weights_and_biases import WeightsAndBiases

ADAPTERS: dict[str, Callable[[TrackedRun], Adapter]] = {
    "wandb": WeightsAndBiases,
    "mlflow": MlflowStore,
    "trackio": TrackioStore,
}


def require_installed(names: Sequence[TrackerName]) -> None:
    """Check that the libraries of trackers are installed; importing them would take seconds.

    Raises:
      UserError: one is not; the message has the command that installs it.
    """
    for name in names:
        spec = importlib.util.find_spec(name) if name in ADAPTERS else None
        # A directory such as `wandb` in the current one, where an earlier run may have left it, is no library.
        if name in ADAPTERS and (spec is None or spec.origin is None):
            raise UserError(
                f"config.log.to: {name} is not installed; pip install 'imagenet_repro[{name}]', or in a clone"
                f" pip install -r requirements/{name}.txt"
            )


class Sink(NamedTuple):
    """A tracker as the log sees it."""

    write: Callable[[str, int, dict[str, float]], None]
    close: Callable[[Mapping[str, float] | None], None]


class Trackers:
    """The trackers of a run that `log.to` names.

    Args:
      run: the run, without its id.
      rows: of the log, before those beyond the step from which the run continues are dropped.
      say: called with a line for each tracker, and for each one that fails.
      stage: a context that shows what the run does.
    """

    def __init__(
        self,
        run: TrackedRun,
        rows: Sequence[Mapping[str, Any]],
        say: Callable[[str], None],
        stage: Callable[[str], AbstractContextManager[None]],
    ):
        self._say = say
        self._result: Mapping[str, float] | None = None
        names = list(dict.fromkeys(run.config.log.to))
        self._sinks: list[Sink] = []
        if TENSORBOARD in names:
            tensorboard = TensorBoard(run, say)
            self._sinks.append(Sink(tensorboard.write, tensorboard.close))
        others = [name for name in names if name in ADAPTERS]
        if others:
            self._open(others, run, rows, stage)

    def _open(
        self,
        names: Sequence[str],
        run: TrackedRun,
        rows: Sequence[Mapping[str, Any]],
        stage: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        """Open trackers; each gets the earlier rows of the log that it does not have."""
        logged = tracked_run.last_steps(rows)
        try:
            record = tracked_run.update_record(run.workdir, logged)
        except SaveError as error:
            self._say(f"{error}; the run goes on without {', '.join(names)}")
            return
        run = dataclasses.replace(run, id=record.id)
        earlier = [row for row in rows if row["step"] <= run.start_step and row["kind"] in tracked_run.KINDS]
        begun = []
        for name in names:
            try:
                with stage(f"starting {name}"):
                    start = functools.partial(self._start, name, run, record.sent_to(name), earlier)
                    adapter, sent = within_limit(start)
            except Exception as error:  # of any library, about a disk, a network or a server
                self._say(f"{name}: {describe(error)}; the run goes on without it")
                continue
            self._say(f"{adapter.title}: {adapter.place}")
            background = Background(adapter, sent, self._say)
            self._sinks.append(Sink(background.write, background.close))
            begun.append(name)
        with contextlib.suppress(SaveError):  # the next write of the run says so
            tracked_run.update_record(run.workdir, logged, begun)

    @staticmethod
    def _start(
        name: str, run: TrackedRun, logged: Mapping[str, int], earlier: Sequence[Mapping[str, Any]]
    ) -> tuple[Adapter, Mapping[str, int]]:
        """Return a tracker with the earlier rows of the log, and the last step of each kind that it has.

        Args:
          name: of the tracker.
          run: the run, with its id.
          logged: what the tracker has received as far as the log shows, for one that cannot be asked.
          earlier: the rows up to the step from which the run continues.
        """
        adapter = ADAPTERS[name](run)
        stored = adapter.sent()
        sent = logged if stored is None else stored
        if missing := [_row(row) for row in earlier if row["step"] > sent[row["kind"]]]:
            adapter.write(missing)
        steps = tracked_run.last_steps(earlier)
        return adapter, {kind: max(sent[kind], steps[kind]) for kind in tracked_run.KINDS}

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Pass the finite numbers of a row of the log to every tracker."""
        numbers = finite_numbers(kind, values)
        for sink in self._sinks:
            sink.write(kind, step, numbers)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Keep the numbers of the result, which `close` writes."""
        self._result = tracked_run.result_numbers(result)

    def close(self) -> None:
        """Write the result of a finished run, and close every tracker."""
        for sink in self._sinks:
            sink.close(self._result)


def _row(row: Mapping[str, Any]) -> tracked_run.Row:
    values = {key: value for key, value in row.items() if key not in ("kind", "step")}
    return tracked_run.Row(row["step"], finite_numbers(row["kind"], values))
