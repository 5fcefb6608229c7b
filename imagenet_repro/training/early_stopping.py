"""Early stopping: a run ends before its budget is spent if its evaluations stop improving (Akata et al. 2014)."""

import math
from typing import Any

from flax.training import early_stopping


class EarlyStopping:
    """Counts consecutive evaluations without a lower top-1 error, with `flax.training.early_stopping`.

    Args:
      evaluations: the number of such evaluations that ends the run; 0: the run never ends early.
      best: lowest top-1 error so far, in [0, 1]; None before the first evaluation.
      stalled: evaluations since the lowest error.
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
        """The state for a checkpoint, as JSON values; empty if the run never ends early."""
        return {"best": self.best, "stalled": self._counter.patience_count} if self.evaluations else {}

    def observe(self, error: float) -> None:
        """Record the top-1 error of an evaluation."""
        self._counter = self._counter.update(error)
