"""What training has in common, whatever is trained: restore, go, write the result."""

import abc
import dataclasses
import time
from typing import Any

import jax

from imagenet_repro.config import AnyConfig, config_to_dict
from imagenet_repro.data.sources import Splits
from imagenet_repro.errors import EXIT_FINISHED, EXIT_STOPPED
from imagenet_repro.inference import evaluator as evaluation
from imagenet_repro.scoring import predictions
from imagenet_repro.scoring.metrics import ErrorRates
from imagenet_repro.storage import provenance
from imagenet_repro.storage.json_files import write_json
from imagenet_repro.storage.workdir import RESULT, Workdir
from imagenet_repro.training import checkpoint, loop, memory
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.systems import System


class Run(abc.ABC):
    """One call of `train`.

    Args:
      config: of the run.
      place: its workdir, claimed.
      splits: the images.
    """

    system: System  # set by a subclass before `Run.__init__`

    def __init__(self, config: AnyConfig, place: Workdir, splits: Splits):
        self.config, self.place = config, place
        self.train_split, self.eval_split, self.scored_split = splits.train, splits.evaluated, splits.scored
        self.evaluator: evaluation.Evaluator | None = None  # of `_job`
        self.compilation_seconds = 0.0
        self.predicted: tuple[ErrorRates, predictions.Predictions] | None = None  # at the end of the run
        self.checkpoints = checkpoint.Checkpoints(place.checkpoints, config.checkpoint.keep)

    def go(self) -> int:
        """Trains, and writes what came of it; returns the exit code. The log and the checkpoints are always closed."""
        try:
            job = self._job()
            try:
                outcome = self._train(job)
            finally:
                job.log.close()
        finally:
            self.checkpoints.close()
        if outcome.stopped_by:
            print(f"stopped by {outcome.stopped_by} at step {outcome.spent.steps:,}, saved; the same command goes on")
            return EXIT_STOPPED
        return EXIT_FINISHED

    @abc.abstractmethod
    def _job(self) -> loop.Job:
        """Restores or starts, compiles, and says what is about to happen."""

    def _summary(self) -> dict[str, Any]:
        """Return what the result says about the system."""
        return self.system.summary()

    def _train(self, job: loop.Job) -> loop.Outcome:
        outcome = loop.run(job)
        if outcome.stopped_by is None:
            self._finish(outcome)
        return outcome

    def _evaluate(self, train_state: TrainState, last: bool) -> dict[str, Any]:
        """A row of the log; the last evaluation of a run keeps its predictions."""
        if not last or self.config.data.test_split:
            return self.evaluator.rates(train_state)
        began = time.perf_counter()
        self.predicted = self.evaluator.predict(train_state, {})
        return evaluation.metrics_row(self.predicted[0], time.perf_counter() - began)

    def _finish(self, outcome: loop.Outcome) -> None:
        """Writes what the run came to; scores its end where an earlier process was ended before it could write."""
        source = provenance.collect() | {"config": config_to_dict(self.config), "step": outcome.spent.steps}
        source |= self.place.weights()
        rates, kept = self.predicted or self._scorer().predict(outcome.state, {})
        if jax.process_index() != 0:
            return
        path = self.place.predictions(self.config.data, self.config.data.scored_split)
        predictions.save(path, dataclasses.replace(kept, provenance=kept.provenance | source))
        write_json(
            self.place.path / RESULT,
            self._summary()
            | {
                "budget": self.config.budget,
                "spent": dataclasses.asdict(outcome.spent),
                "compilation_seconds": self.compilation_seconds,
                "rates": dataclasses.asdict(rates) | {"top1_error": rates.top1_error, "top5_error": rates.top5_error},
                "peak_memory": memory.peak(),
                "classes": list(self.train_split.class_names),
                "predictions": str(path.relative_to(self.place.path)),
                "provenance": source,
            },
        )

    def _scorer(self) -> evaluation.Evaluator:
        """On the split of the result, which no image of is touched before a run's budget is spent."""
        if not self.config.data.test_split:
            return self.evaluator
        say = self.evaluator.say
        return evaluation.Evaluator(self.config, self.evaluator.score, self.evaluator.spread, self.scored_split, say)

    def _image_names(self, index: Any) -> list[str]:
        """The data set's ids of training images, for a message."""
        return [self.train_split.records[int(i)].id for i in index]
