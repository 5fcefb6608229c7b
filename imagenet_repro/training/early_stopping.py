"""The end of a run whose evaluations have stopped getting better, before its budget is spent (Akata et al. 2014)."""

import math
from typing import Any

from flax.training import early_stopping


class EarlyStopping:
    """Counts the evaluations in a row without a lower top-1 error; a record of `flax.training.early_stopping`.

    Args:
      evaluations: how many of them end the run; 0: the run never ends early.
      best: lowest top-1 error so far, in [0, 1]; None before the first evaluation.
      stalled: evaluations since then.
    """

    def __init__(self, evaluations: int, best: float | None = None, stalled: int = 0):
        self.evaluations = evaluations
        self._counter = early_stopping.EarlyStopping(
            patience=evaluations - 1,  # Flax stops at the evaluation after `patience` others
            best_metric=math.inf if best is None else best,
            patience_count=stalled,
            should_stop=stalled >= evaluations,
        )

    @property
    def is_due(self) -> bool:
        """Whether the run ends now."""
        return self.evaluations > 0 and self._counter.should_stop

    @property
    def best(self) -> float | None:
        """The lowest top-1 error so far; None before the first evaluation."""
        return None if math.isinf(self._counter.best_metric) else self._counter.best_metric

    @property
    def record(self) -> dict[str, Any]:
        """The state for a checkpoint, as JSON values; empty where the run never ends early."""
        return {"best": self.best, "stalled": self._counter.patience_count} if self.evaluations else {}

    def observe(self, error: float) -> None:
        """Take in the top-1 error of an evaluation."""
        self._counter = self._counter.update(error)
