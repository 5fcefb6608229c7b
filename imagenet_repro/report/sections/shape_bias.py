"""Shape or texture: the shape bias of runs whose answers to the cue-conflict set are stored, beside that of people."""

from collections.abc import Sequence
from pathlib import Path

from imagenet_repro.config import Data
from imagenet_repro.report.records import Comparison, FinishedRun
from imagenet_repro.report.tables import MISSING, Table
from imagenet_repro.scoring import cue_conflict, predictions, sets
from imagenet_repro.scoring.cue_conflict import ShapeBias
from imagenet_repro.statistics.populations import NEW_IMAGES, interval_heading
from imagenet_repro.storage.workdir import Workdir

TITLE = "Shape or texture"
HEADINGS = (
    "observer",
    "seed",
    "shape bias %",
    interval_heading(NEW_IMAGES),
    "shape",
    "texture",
    "neither",
    "error by shape %",
)


def results(comparison: Comparison) -> list[tuple[str, ShapeBias]]:
    """Return the seed and the shape bias of each run with stored answers of the checkpoint that ended it.

    Raises:
      UserError: stored answers are damaged, or are to other images.
    """
    found = []
    for system in comparison.systems:
        for run in system.runs:
            path = stored_answers(run)
            if path and path.exists():
                predicted = sets.with_imagenet_classes(predictions.load(path), str(path), lambda note: None)
                found.append((str(run.seed), cue_conflict.score_predictions(system.name, predicted)))
    return found


def stored_answers(run: FinishedRun) -> Path | None:
    """Return the file that `evaluate --set=cue_conflict` writes for the checkpoint that ended a run.

    None for a run without steps, such as a classifier on frozen features.
    """
    chosen = sets.find_set("cue_conflict")
    steps = run.result["spent"].get("steps")
    if steps is None:
        return None
    return Workdir(run.path).predictions(Data(name=chosen.data), chosen.split, steps)


def table(found: Sequence[tuple[str, ShapeBias]]) -> Table | None:
    """Return a row for each run, each published network and each person; None without stored answers."""
    if not found:
        return None
    rows = [_row(seed, one) for seed, one in found]
    rows += [_row(MISSING, one) for one in cue_conflict.observers()]
    caption = (
        "Images with the shape of one object and the texture of another: of the answers that name either, the share of"
        f" the shape. Published networks and people are of {cue_conflict.SOURCE}. Intervals allow for objects and"
        " textures that repeat."
    )
    return Table("shape_bias", HEADINGS, tuple(rows), caption)


def _row(seed: str, one: ShapeBias) -> tuple[str, ...]:
    interval = MISSING
    if one.interval:
        low, high = one.interval
        interval = f"[{100 * low:.1f}, {100 * high:.1f}]"
    bias = f"{100 * one.bias:.1f}" if one.shape + one.texture else MISSING
    counts = (f"{count:,}" for count in (one.shape, one.texture, one.neither))
    return (one.observer, seed, bias, interval, *counts, f"{100 * one.error:.1f}")
