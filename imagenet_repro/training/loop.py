"""The training loop: steps until the budget is spent, evaluations, checkpoints, and a stop at any time."""

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_repro.config import TrainedConfig
from imagenet_repro.config.amount import Amount
from imagenet_repro.data.bad_records import BadRecords
from imagenet_repro.errors import DivergedError, LostProcessError
from imagenet_repro.scoring.terminal import duration
from imagenet_repro.training.budget import Budget, Every, Spent
from imagenet_repro.training.checkpoint import Checkpoints
from imagenet_repro.training.clock import HOSTS, Agreement, StopSignal, TrainingClock
from imagenet_repro.training.early_stopping import EarlyStopping
from imagenet_repro.training.energy import EnergyMeter, Record, joules_entry
from imagenet_repro.training.learning_rate import LearningRate
from imagenet_repro.training.log import LEFT_OUT, METRICS, RunLog
from imagenet_repro.training.parallel import NO_RATE
from imagenet_repro.training.state import TrainState

IN_FLIGHT = 2  # steps given to the devices before their results are read; few, so that a stop is prompt


@dataclasses.dataclass
class TrainingJob:
    """The parts of a run, which `run` trains from `spent` to the end of `budget`.

    Attributes:
      state: the train state, on the devices.
      steps: compiled steps, `(state, batch, learning_rate) -> (state, measures)`, one for each stage
        of `budget.meter`.
      batches: pairs of a host batch and a device batch, from the step after those already taken.
      evaluate: a function of a state, and of whether this evaluation is the last, that returns a row of
        `metrics.jsonl` with `top1_error`.
      name_images: a function from indices to the data set's ids of the images, for a message.
      known: the `info` of the checkpoint from which the run continues (`_Run._save`); empty for a new run.
      learning_rate: the learning rate of each step; None if the steps compute their lengths themselves.
      early_stopping: the number of consecutive evaluations without a lower error that ends the run; 0: the run never
        ends early.
      agreement: how the processes of the run agree on its seconds and on a stop.
      energy: the meter of the run's energy.
    """

    config: TrainedConfig
    state: TrainState
    steps: Sequence[Callable]
    batches: Iterator[tuple[Any, dict[str, jax.Array]]]
    evaluate: Callable[[TrainState, bool], dict[str, Any]]
    name_images: Callable[[np.ndarray], list[str]]
    budget: Budget
    spent: Spent
    checkpoints: Checkpoints
    bad_records: BadRecords
    log: RunLog
    known: dict[str, Any]
    learning_rate: LearningRate | None = None
    early_stopping: int = 0
    agreement: Agreement = dataclasses.field(default_factory=Agreement)
    energy: EnergyMeter = dataclasses.field(default_factory=EnergyMeter)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a run.

    Attributes:
      state: the train state.
      spent: the amounts that training has used.
      stopped_by: the name of a signal, or None if the budget is spent.
      energy: the record of the energy (training/energy.py).
    """

    state: TrainState
    spent: Spent
    stopped_by: str | None
    energy: Record = dataclasses.field(default_factory=dict)


def run(job: TrainingJob) -> Outcome:
    """Train until the budget is spent or a signal asks for a stop; in both cases the last state is saved.

    Raises:
      DivergedError: the loss, the gradient or a parameter is not finite; the last good checkpoint is kept.
      LostProcessError: a process that reads images was killed; the last state is saved.
      SaveError: a checkpoint could not be written.
      UserError: too many records cannot be decoded.
    """
    with StopSignal("stopping after this step, then saving") as stop:
        try:
            return _Run(job, stop).go()
        finally:
            job.energy.close()


class _Run:
    """The state of one call of `run`."""

    def __init__(self, job: TrainingJob, stop: StopSignal):
        self.job, self.stop, self.state, self.spent = job, stop, job.state, job.spent
        self.clock = TrainingClock(job.spent.seconds)
        self.agreement = job.agreement
        self.evaluation = Every(Amount.parse(job.config.evaluate_every, "evaluate_every"))
        self.saving = Every(Amount.parse(job.config.checkpoint.every, "checkpoint.every"))
        for event in (self.evaluation, self.saving):
            event.start(job.spent)
        self.pending: collections.deque = collections.deque()
        self.window = _Window(job.config.batch_size, job.spent)
        self.saved_step = job.spent.steps
        self.is_evaluating = False
        self.early_stopping = EarlyStopping(job.early_stopping, **job.known.get("early_stopping", {}))
        self.starting = contextlib.ExitStack()

    def go(self) -> Outcome:
        try:
            with self.starting:
                return self._go()
        except LostProcessError as error:
            saved = self._rescue()
            if self.stop.received and self.agreement.alone:  # the signal went to every process of the run
                return Outcome(self.state, self.spent, self.stop.received, self.job.energy.record())
            raise LostProcessError(f"{error}. {saved}") from error

    def _go(self) -> Outcome:
        budget = self.job.budget
        stopping = evaluating = False
        self._make_up()
        self.starting.enter_context(self.job.log.stage("reading images and taking the first step"))
        self.clock.start()
        self.job.energy.start()
        while not (budget.finished(self.spent) or stopping or self.early_stopping.is_due):
            self._take_step()
            stopping = self._agree()
            evaluating = self.evaluation.due(self.spent) or budget.finished(self.spent)
            if not stopping:
                self._events(evaluating)
        self._drain()
        self.job.energy.stop()
        if self.saved_step != self.spent.steps:
            self._save(None, evaluation_due=evaluating or budget.finished(self.spent))
        self.job.checkpoints.wait()
        stopped_by = (self.stop.received or "a signal elsewhere") if stopping else None
        return Outcome(self.state, self.spent, stopped_by, self.job.energy.record())

    def _rescue(self) -> str:
        """Save the last state although no batch follows it, and return a sentence about the last checkpoint.

        One process of several cannot save by itself, and the others wait for its next step.
        """
        if self.agreement.alone:
            self._drain()
            if self.saved_step != self.spent.steps:
                self._save(None, evaluation_due=self.is_evaluating)
            self.job.checkpoints.wait()
        kept = self.job.checkpoints.steps()
        return f"The state of step {kept[-1]:,} is saved" if kept else "No step was saved yet"

    def _make_up(self) -> None:
        """Run the evaluation that a stop postponed, and store its error with the restored checkpoint."""
        step = self.spent.steps
        if self.job.known.get("evaluation_due") and not self.job.checkpoints.rated(step):
            self.job.checkpoints.rate(step, self._evaluate())

    def _take_step(self) -> None:
        began = time.perf_counter()
        host, device = next(self.job.batches)
        self.window.waited += time.perf_counter() - began
        for index, name in self.job.bad_records.update(host):
            self.job.log.write("event", self.spent.steps, event=LEFT_OUT, index=index, image=name)
        self.job.bad_records.check()
        learning_rate = self._learning_rate()
        step = self.job.steps[self.job.budget.meter.stage(self.spent.steps)]
        entry = self.agreement.entry(self.clock.seconds, bool(self.stop.received))
        self.state, measures = step(self.state, device | entry, learning_rate)
        _start_copies(measures)
        steps = self.spent.steps + 1
        self.pending.append((steps, host["index"], measures))
        while len(self.pending) > (0 if self._near_the_end() else IN_FLIGHT):
            self._settle()
        self.spent = self.job.budget.meter.spent(steps, self.clock.seconds)

    def _learning_rate(self) -> np.float32:
        if self.job.learning_rate is None:
            return NO_RATE
        return self.job.learning_rate(self.job.budget.progress(self.spent))

    def _near_the_end(self) -> bool:
        """Return whether the steps in flight and the next one may use up a budget of seconds.

        Then each step must end before the next begins: otherwise a run of slow steps would overrun its budget by all
        steps in flight. So must the first step, which may use up the budget by itself, and whose time is the first
        estimate of a step's.
        """
        amount, before = self.job.budget.amount, self.job.spent
        given = self.spent.steps + 1 - before.steps  # steps given to the devices by this process
        if self.agreement.alone:
            seconds, settled = self.clock.seconds, given - len(self.pending)
        else:  # the first process read its clock when it gave the last step that is settled, with others in flight
            seconds, settled = self.spent.seconds, given - 2 * IN_FLIGHT - 2
        if amount.unit != "s":
            return False
        if settled < 1:
            return True
        return seconds + (given + 1 - settled) * (seconds - before.seconds) / settled >= amount.value

    def _settle(self) -> None:
        """Wait for the oldest step in flight and check its measures."""
        step, index, measures = self.pending.popleft()
        on_host = jax.device_get(measures)
        self.starting.close()
        if HOSTS in on_host:
            self.agreement.hear(on_host.pop(HOSTS))
        values = {name: float(value) for name, value in on_host.items()}
        minimised = values.get("objective", values["loss"])
        if not (math.isfinite(minimised) and math.isfinite(values["gradient_norm"])):
            self._diverged(step, index, values | {"loss": minimised})
        self.window.add(values)
        if step % self.job.config.log_every == 0:
            self._report(self.job.budget.meter.spent(step, self.clock.seconds))
        elif self.job.log.is_due:
            spent = self.job.budget.meter.spent(step, self.clock.seconds)
            self._show(spent, self.window.row(spent))

    def _agree(self) -> bool:
        """Read the clock, and return whether the run is to stop; the same in every process."""
        stop = bool(self.stop.received)
        seconds, stopping = self.agreement.meet(self.clock.seconds, stop, in_flight=len(self.pending))
        self.spent = dataclasses.replace(self.spent, seconds=seconds)
        return stopping

    def _drain(self) -> None:
        """Wait for all steps in flight, so that the clock includes them."""
        while self.pending:
            self._settle()
        self._agree()
        if self.job.budget.finished(self.spent) and len(self.window):
            self._report(self.spent)

    def _diverged(self, step: int, index: np.ndarray, values: dict[str, float]) -> None:
        names = self.job.name_images(index)
        self.job.log.write("event", step, event="diverged", images=names, **{k: str(v) for k, v in values.items()})
        self.job.checkpoints.wait()
        kept = self.job.checkpoints.steps()
        more = f" and {len(names) - 8} more ({METRICS} has all)" if len(names) > 8 else ""
        raise DivergedError(
            f"step {step}: the loss is {values['loss']:g} and the gradient's norm {values['gradient_norm']:g},"
            f" on images {', '.join(names[:8])}{more}."
            f" {f'The checkpoint of step {kept[-1]} is good' if kept else 'No checkpoint was saved yet'}."
            " A lower learning rate, a longer warm-up or config.clip_norm may help"
        )

    def _events(self, evaluating: bool) -> None:
        saving = self.saving.due(self.spent)
        self.job.checkpoints.check()
        if evaluating or saving:
            self._drain()
            evaluating |= self.job.budget.finished(
                self.spent
            )  # the steps in flight may have used up a budget of seconds
            with self.job.energy.paused(), self.clock.paused():
                self.is_evaluating = evaluating  # until it ends, so that a checkpoint says that it is due
                top1_error = self._evaluate() if evaluating else None
                self.is_evaluating = False
                self._save(top1_error)

    def _evaluate(self) -> float:
        with self.job.log.stage("evaluating", announce=False):
            row = self.job.evaluate(self.state, self.job.budget.finished(self.spent))
        spent = _spent_row(self.job.budget, self.spent) | joules_entry(self.job.energy.record())
        self.job.log.write("eval", self.spent.steps, **spent, **row)
        progress = 100 * self.job.budget.progress(self.spent)
        self.job.log.say(
            f"evaluated at {progress:.0f} %: top-1 error {100 * row['top1_error']:.2f} %,"
            f" top-5 error {100 * row['top5_error']:.2f} % of {row['evaluated']:,} images"
            + (f"; {row['left_out']:,} records cannot be decoded and are left out" if row.get("left_out") else "")
        )
        self.early_stopping.observe(row["top1_error"])
        if self.early_stopping.is_due:
            self.job.log.write("event", self.spent.steps, event="early_stopping", best=self.early_stopping.best)
            best = f"{100 * (self.early_stopping.best or 0.0):.2f} %"
            self.job.log.say(
                f"stopped early: {self.early_stopping.evaluations} evaluations in a row were no better than {best}"
            )
        learning_rate = self.job.learning_rate
        if learning_rate and learning_rate.observe(row["top1_error"]):
            self.job.log.write("event", self.spent.steps, event="plateau", scale=learning_rate.scale)
            self.job.log.say(
                f"the error has stopped falling: the learning rate is now {learning_rate.scale:g} of its peak"
            )
        return row["top1_error"]

    def _save(self, top1_error: float | None, *, evaluation_due: bool = False) -> None:
        """Save a checkpoint; with `evaluation_due`, a resumed run begins with the postponed evaluation."""
        if not all_finite(self.state.params):
            self._diverged(self.spent.steps, np.asarray([], np.int32), {"loss": math.nan, "gradient_norm": math.nan})
        info = {"steps": self.spent.steps, "seconds": self.spent.seconds}
        drops = self.job.learning_rate.drops_record if self.job.learning_rate else {}
        info |= {"evaluation_due": evaluation_due, "plateau": drops, "early_stopping": self.early_stopping.record}
        info["energy"] = self.job.energy.record()
        began = time.perf_counter()
        self.job.checkpoints.save(self.spent.steps, self.state.without_teacher(), info, top1_error)
        self.job.log.write("save", self.spent.steps, saving_seconds=time.perf_counter() - began)
        self.saved_step = self.spent.steps

    def _report(self, spent: Spent) -> None:
        budget, row = self.job.budget, self.window.close(spent)
        self.job.log.write("train", spent.steps, **_spent_row(budget, spent), **self.job.energy.row(), **row)
        self._show(spent, row)

    def _show(self, spent: Spent, row: dict[str, float]) -> None:
        """Show the progress on the screen, with the measures of a row."""
        budget = self.job.budget
        progress = budget.progress(spent)
        # Only from this process's steps: earlier processes, and stages before the first step, may have been slower.
        gained, took = progress - budget.progress(self.job.spent), spent.seconds - self.job.spent.seconds
        left = took * (1 - progress) / gained if gained > 0 else math.inf
        total = f"/{budget.total_steps:,}" if budget.total_steps else ""
        self.job.log.show(
            progress,
            f"{100 * progress:5.1f} %  step {spent.steps:,}{total}  epoch {spent.epochs:.2f}"
            f"  loss {row['loss']:.3f}  top-1 err {100 * row['top1_error']:.1f} %"
            f"  {row['images_per_second']:,.0f} img/s  {duration(left)} left",
        )


class _Window:
    """Measures since the last report."""

    def __init__(self, batch_size: int, spent: Spent):
        self._batch_size, self._since = batch_size, spent
        self._values: list[dict[str, float]] = []
        self.waited = 0.0  # seconds for batches

    def __len__(self) -> int:
        return len(self._values)

    def add(self, values: dict[str, float]) -> None:
        self._values.append(values)

    def close(self, spent: Spent) -> dict[str, float]:
        """Return the row of the window, and start a new window at `spent`."""
        row = self.row(spent)
        self._values, self._since, self.waited = [], spent, 0.0
        return row

    def row(self, spent: Spent) -> dict[str, float]:
        """Return the row of the window up to `spent`."""
        images = len(self._values) * self._batch_size
        seconds = spent.seconds - self._since.seconds
        row = {
            "loss": float(np.mean([v["loss"] for v in self._values])),
            "top1_error": 1 - sum(v["top1_correct"] for v in self._values) / images,
            "top5_error": 1 - sum(v["top5_correct"] for v in self._values) / images,
            "gradient_norm": float(np.mean([v["gradient_norm"] for v in self._values])),
            "learning_rate": self._values[-1]["learning_rate"],
            "images_per_second": (spent.images - self._since.images) / seconds if seconds > 0 else 0.0,
            "waiting_seconds": self.waited,
        }
        if "objective" in self._values[-1]:
            row["objective"] = float(np.mean([v["objective"] for v in self._values]))
        if "scale" in self._values[-1]:
            row["scale"] = self._values[-1]["scale"]
        return row


def _start_copies(measures: dict[str, jax.Array]) -> None:
    """Start the copies of a step's measures to the host, which run when the step is done."""
    for value in measures.values():
        value.copy_to_host_async()


def _spent_row(budget: Budget, spent: Spent) -> dict[str, float]:
    row = dataclasses.asdict(spent)
    del row["steps"]
    return row | {"progress": budget.progress(spent)}


@jax.jit
def _finite(tensors: dict[str, jax.Array]) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tensors)]))


def all_finite(tensors: dict[str, jax.Array]) -> bool:
    """Return whether every number of every array is finite."""
    return bool(_finite(tensors))
