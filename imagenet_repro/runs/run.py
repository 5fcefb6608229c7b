"""The abstract run: the code that networks and systems of features share, from the first step to the result."""

import abc
import dataclasses
import time
from typing import Any, Generic, TypeVar

import jax

from imagenet_repro.config import config_to_dict
from imagenet_repro.config.run import TrainedT
from imagenet_repro.data.sources import Splits
from imagenet_repro.errors import InterruptedRunError
from imagenet_repro.inference.evaluator import Evaluator, metrics_row
from imagenet_repro.scoring import predictions
from imagenet_repro.scoring.metrics import ErrorRates
from imagenet_repro.storage import provenance
from imagenet_repro.storage.json_files import write_json
from imagenet_repro.storage.workdir import RESULT, Workdir
from imagenet_repro.training import best_evaluation, checkpoint, hosts, log, loop, memory
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.systems import System

SystemT = TypeVar("SystemT", bound=System)


class Run(abc.ABC, Generic[TrainedT, SystemT]):
    """One call of `train`.

    Args:
      config: the configuration of the run.
      workdir: the run's directory, locked by this process.
      splits: the images for training, evaluation and the result.
    """

    config: TrainedT
    evaluator: Evaluator  # set by `_job`
    system: SystemT  # set by a subclass before `Run.__init__`

    def __init__(self, config: TrainedT, workdir: Workdir, splits: Splits):
        self.config, self.workdir = config, workdir
        self.train_split, self.eval_split, self.scored_split = splits.train, splits.evaluated, splits.scored
        self.compilation_seconds = 0.0
        self.left_out = 0  # training records that were drawn and could not be decoded, over all processes
        self.predicted: tuple[ErrorRates, predictions.Predictions] | None = None  # at the end of the run
        self.checkpoints = checkpoint.Checkpoints(workdir.checkpoints, config.checkpoint.keep)

    def go(self) -> None:
        """Train, and write the result. The log and the checkpoints are closed in any case.

        Raises:
          InterruptedRunError: a signal stopped the run.
        """
        try:
            job = self._job()
            try:
                outcome = self._train(job)
            finally:
                job.log.close()
        finally:
            self.checkpoints.close()
        if outcome.stopped_by:
            raise InterruptedRunError(
                f"stopped by {outcome.stopped_by} at step {outcome.spent.steps:,}, saved; the same command continues"
            )

    @abc.abstractmethod
    def _job(self) -> loop.TrainingJob:
        """Restore or create the state, compile the steps, and print a summary of the run."""

    def _summary(self) -> dict[str, Any]:
        """Return the entries of the result that describe the system."""
        return self.system.summary()

    def _train(self, job: loop.TrainingJob) -> loop.Outcome:
        outcome = loop.run(job)
        undecodable = hosts.gather(job.bad_records.indices)
        self.left_out = len(set().union(*undecodable))
        if outcome.stopped_by is None:
            self._finish(outcome)
            if jax.process_index() == 0:
                job.log.finish(self.workdir.result())
        return outcome

    def _evaluate(self, train_state: TrainState, last: bool) -> dict[str, Any]:
        """Return a row of the log; keep the predictions of the last evaluation."""
        train_state = self.system.scoring_state(train_state)
        if not last or self.config.data.test_split:
            return self.evaluator.rates(train_state)
        began = time.perf_counter()
        self.predicted = self.evaluator.predict(train_state, {})
        return metrics_row(self.predicted[0], time.perf_counter() - began, self.eval_split)

    def _finish(self, outcome: loop.Outcome) -> None:
        """Write the result; score the last state again if an earlier process ended before it could write."""
        source = provenance.collect() | {"config": config_to_dict(self.config), "step": outcome.spent.steps}
        source |= self.workdir.weights()
        if precision := self.workdir.precision():
            source["precision"] = precision
        rates, stored = self.predicted or self._scorer().predict(self.system.scoring_state(outcome.state), {})
        if jax.process_index() != 0:
            return
        # Before anything is saved: if that fails, the scores are on the screen.
        print(
            f"{self.scored_split.name} {self.scored_split.split}: top-1 error {100 * rates.top1_error:.2f} %, top-5"
            f" error {100 * rates.top5_error:.2f} % of {rates.images:,} images"
        )
        path = self.workdir.predictions(self.config.data, self.config.data.scored_split)
        predictions.save(path, dataclasses.replace(stored, provenance=stored.provenance | source))
        write_json(
            self.workdir.path / RESULT,
            self._summary()
            | {
                "budget": self.config.budget,
                "extended": self.workdir.extensions(),
                "spent": dataclasses.asdict(outcome.spent),
                "energy": outcome.energy,
                "compilation_seconds": self.compilation_seconds,
                "rates": dataclasses.asdict(rates) | {"top1_error": rates.top1_error, "top5_error": rates.top5_error},
                "peak_memory": memory.peak(),
                "left_out": {"training": self.left_out, "scored": self.scored_split.num_examples - rates.images},
                "best_checkpoint": self._best_checkpoint(),
                "classes": list(self.train_split.class_names),
                "predictions": str(path.relative_to(self.workdir.path)),
                "provenance": source,
            },
        )

    def _best_checkpoint(self) -> dict[str, Any] | None:
        """Return the evaluation that selected the best checkpoint, with its optimism; None if none was selected.

        The result is of the last state, which no evaluation selected.
        """
        best = best_evaluation.from_rows(log.read_rows(self.workdir.metrics), self.config.data.eval_split)
        return best and best.to_json()

    def _scorer(self) -> Evaluator:
        """Return the evaluator on the split of the result, which is not read before the budget is spent."""
        if not self.config.data.test_split:
            return self.evaluator
        say = self.evaluator.say
        return Evaluator(self.config, self.evaluator.score, self.evaluator.spread, self.scored_split, say)

    def _image_names(self, index: Any) -> list[str]:
        """Return the data set's ids of training images, for a message."""
        return [self.train_split.records[int(i)].id for i in index]
