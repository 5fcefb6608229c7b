"""The evaluation of a run with the lowest error, and by how much that error is too low because it was selected."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from imagenet_repro.statistics import selection


@dataclasses.dataclass(frozen=True)
class BestEvaluation:
    """The evaluation with the lowest top-1 error, of several on the same images; its checkpoint is the best one.

    Attributes:
      split: the images that all evaluations scored.
      step: of the evaluation.
      top1_error: the lowest, in [0, 1].
      evaluations: the number of evaluations among which it was selected.
      images: the number of images.
      optimism: the estimate, in [0, 1], of by how much `top1_error` is too low (`statistics.selection`).
    """

    split: str
    step: int
    top1_error: float
    evaluations: int
    images: int
    optimism: float

    def to_json(self) -> dict[str, Any]:
        """Return the entry of a result or of the provenance of predictions."""
        return dataclasses.asdict(self)


def best_step(errors: Mapping[int, float]) -> int | None:
    """Return the step with the lowest top-1 error, of equal ones the latest; None without an error."""
    return min(errors, key=lambda step: (errors[step], -step)) if errors else None


def from_rows(rows: Sequence[Mapping[str, Any]], split: str) -> BestEvaluation | None:
    """Return the best evaluation in the log of a run; None if fewer than two were logged, so that none was selected.

    Args:
      rows: the rows of `metrics.jsonl`.
      split: the split that they were evaluated on.
    """
    rows = [row for row in rows if row.get("kind") == "eval" and "top1_error" in row]
    images = min((int(row.get("evaluated", 0)) for row in rows), default=0)
    if len(rows) < 2 or images < 1:
        return None
    errors = [row["top1_error"] for row in rows]
    step = best_step({row["step"]: row["top1_error"] for row in rows})
    assert step is not None, "there are rows"
    return BestEvaluation(split, step, min(errors), len(rows), images, selection.estimate_optimism(errors, images))


def describe(split: str, evaluations: int, optimism: float) -> str:
    """Return a sentence that calls the error of a selected checkpoint optimistic."""
    return (
        f"optimistic: {split} also chose this checkpoint among {evaluations:,} evaluations; on new images expect about"
        f" {100 * optimism:.2f} points more top-1 error (an estimate that supposes errors of late checkpoints"
        f" correlated by {selection.CORRELATION:g})"
    )
