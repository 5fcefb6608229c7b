"""Whether a budget of seconds bought every run the same: the speeds of runs that do the same work."""

import dataclasses
from collections.abc import Mapping

from imagenet_repro.config import Amount
from imagenet_repro.report import run_settings
from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun
from imagenet_repro.report.result_table import quantity

UNEVEN = 0.10  # the relative difference in images per second beyond which a page warns
# The keys, with all keys below them, that decide how much work an image is.
WORK = (
    "system", "channels", "classifier", "model.name", "model.options", "data.image_size", "batch_size", "accumulate",
    "precision", "train", "distill", "progressive",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SpeedSpread:
    """Runs that do the same work for each image, and their speeds.

    Attributes:
      names: the systems of the runs.
      speeds: images per second of training by run, as "SYSTEM, seed N".
      images: images seen by run.
    """

    names: tuple[str, ...]
    speeds: Mapping[str, float]
    images: Mapping[str, int]

    @property
    def difference(self) -> float:
        """The difference of the fastest and the slowest run as a share of the slowest."""
        slowest, fastest = min(self.speeds.values()), max(self.speeds.values())
        return fastest / slowest - 1 if slowest else 0.0


def spreads(comparison: Comparison) -> list[SpeedSpread]:
    """Return the spread of speeds of each group of runs with equal work, where the budget is one of seconds."""
    groups: dict[str, list[tuple[ComparedSystem, FinishedRun]]] = {}
    for system in comparison.systems:
        for run in system.runs:
            if _is_budget_of_seconds(run) and run.result["spent"].get("seconds"):
                groups.setdefault(_work(system), []).append((system, run))
    return [_spread(runs) for runs in groups.values() if len(runs) > 1]


def warning(comparison: Comparison) -> str:
    """Return a sentence if equal work went at different speeds under a budget of seconds; otherwise nothing."""
    uneven = [one for one in spreads(comparison) if one.difference > UNEVEN]
    if not uneven:
        return ""
    worst = max(uneven, key=lambda one: one.difference)
    slow, fast = (choose(worst.speeds, key=worst.speeds.__getitem__) for choose in (min, max))
    few, many = min(worst.images.values()), max(worst.images.values())
    others = f" Also uneven: {len(uneven) - 1} more network{'s' * (len(uneven) > 2)}." if len(uneven) > 1 else ""
    return (
        f"The machine was not equally fast for all runs: {fast} trained at {_speed(worst.speeds[fast])} images/s, and"
        f" {slow} with equal work at {_speed(worst.speeds[slow])}, a spread of {100 * worst.difference:,.0f} %. So the"
        f" budget of {comparison.budget} bought {quantity(few)} to {quantity(many)} images.{others} Part of the"
        " differences may come from that; a quiet machine, or a budget of images, is fair."
    )


def _is_budget_of_seconds(run: FinishedRun) -> bool:
    budget = run.result["provenance"]["config"].get("budget")
    return bool(budget) and Amount.parse(budget).unit == "s"


def _work(system: ComparedSystem) -> str:
    return run_settings.identity(
        {
            key: value
            for key, value in system.settings.items()
            if any(key == one or key.startswith(f"{one}.") for one in WORK)
        }
    )


def _spread(runs: list[tuple[ComparedSystem, FinishedRun]]) -> SpeedSpread:
    spent = {f"{system.name}, seed {run.seed}": run.result["spent"] for system, run in runs}
    return SpeedSpread(
        tuple(dict.fromkeys(system.name for system, _ in runs)),
        {label: one["images"] / one["seconds"] for label, one in spent.items()},
        {label: one["images"] for label, one in spent.items()},
    )


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
