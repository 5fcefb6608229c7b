"""By how much the errors of best checkpoints are too low, because the scored images selected them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from imagenet_repro.report.records import ComparedSystem, Comparison
from imagenet_repro.report.sections.leaderboard import OPTIMISTIC, ranked
from imagenet_repro.report.tables import Table
from imagenet_repro.statistics import selection
from imagenet_repro.training import best_evaluation
from imagenet_repro.training.best_evaluation import BestEvaluation

NAME = "best_checkpoints"
HEADINGS = (
    "system",
    "seeds",
    "last evaluation, top-1 error %",
    "lowest of all, top-1 error %",
    "evaluations",
    OPTIMISTIC,
    "expected on new images %",
)


def table(comparison: Comparison) -> Table | None:
    """Return the lowest error of each system's evaluations during training, and by how much it is too low.

    Systems with fewer than two evaluations a run have no row. None if no system has one.
    """
    rows = [_row(system, best) for system in ranked(comparison) if (best := _best_of_runs(system))]
    if not rows:
        return None
    splits = sorted({best.split for system in comparison.systems for best in _best_of_runs(system)})
    caption = (
        f"Optimistic errors: each run's evaluations on {' or '.join(splits)} select its best checkpoint, so the lowest"
        " of them is low partly by luck; on new images of the kind expect the last column. The estimate supposes"
        f" errors of late checkpoints correlated by {selection.CORRELATION:g}. Means over seeds. The results of"
        " runs are of their last state, which no evaluation selected."
    )
    return Table(NAME, HEADINGS, tuple(rows), caption)


def summary(comparison: Comparison) -> str:
    """Return a line on the errors of best checkpoints; empty if no run has two evaluations."""
    points = [100 * best.optimism for system in comparison.systems for best in _best_of_runs(system)]
    if not points:
        return ""
    low, high = f"{min(points):.2f}", f"{max(points):.2f}"
    about = low if low == high else f"{low} to {high}"
    return (
        "these are errors of last checkpoints; those of the best ones, which the evaluated images selected, are"
        f" optimistic by about {about} points"
    )


def _best_of_runs(system: ComparedSystem) -> list[BestEvaluation]:
    found = [best_evaluation.from_rows(run.rows, _evaluated_split(run.result)) for run in system.runs]
    return [best for best in found if best is not None]


def _evaluated_split(result: Mapping[str, Any]) -> str:
    return result["provenance"].get("config", {}).get("data", {}).get("eval_split", "their split")


def _row(system: ComparedSystem, best: Sequence[BestEvaluation]) -> tuple[str, ...]:
    last = [_last_error(run.rows) for run in system.runs]
    lowest, optimism = (float(np.mean([getattr(one, key) for one in best])) for key in ("top1_error", "optimism"))
    counts = sorted({one.evaluations for one in best})
    return (
        system.name,
        str(len(best)),
        f"{100 * float(np.mean([error for error in last if error is not None])):.2f}",
        f"{100 * lowest:.2f}",
        " or ".join(f"{count:,}" for count in counts),
        f"{100 * optimism:.2f}",
        f"{100 * (lowest + optimism):.2f}",
    )


def _last_error(rows: Sequence[dict]) -> float | None:
    errors = [row["top1_error"] for row in rows if row.get("kind") == "eval" and "top1_error" in row]
    return errors[-1] if errors else None
