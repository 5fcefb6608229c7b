"""Whether runs of one budget have spent the same: the largest differences between any two of them."""

import dataclasses
from collections.abc import Callable

from imagenet_repro.config.amount import UNITS, Amount
from imagenet_repro.report import energy
from imagenet_repro.report.records import Comparison, FinishedRun
from imagenet_repro.report.result_table import quantity, seconds
from imagenet_repro.report.tables import Table

TOLERANCE = 0.01  # the relative difference in the budget's own unit beyond which a page warns
LAST_STEP = (
    "A run ends with the step that reaches its budget, so smaller batches or a larger budget bring them together,"
    " unless a run stopped early."
)
READS_ONCE = "A classifier on frozen features reads each training image once, and spends no more than that."
KEYS = {"ep": "epochs", "img": "images", "st": "steps", "flop": "flops", "s": "seconds"}  # of `spent`, by unit


@dataclasses.dataclass(frozen=True)
class Spread:
    """The runs that spent least and most of something.

    Attributes:
      name: the thing.
      is_budgeted: whether the budget holds it equal.
      least, most: the amounts.
      least_run, most_run: the runs, as "SYSTEM, seed N".
      least_is_frozen: whether the first of them is a classifier on frozen features.
    """

    name: str
    is_budgeted: bool
    least: float
    most: float
    least_run: str
    most_run: str
    least_is_frozen: bool = False

    @property
    def difference(self) -> float:
        """The difference as a share of the smaller amount."""
        return (self.most - self.least) / self.least if self.least else 0.0


def spreads(comparison: Comparison) -> list[Spread]:
    """Return the differences in the budget's unit, images, operations, seconds and energy, where all are known.

    There are none if the runs had different budgets, or if there is one run.
    """
    runs = [(f"{system.name}, seed {run.seed}", run) for system in comparison.systems for run in system.runs]
    budgets = {run.result["provenance"]["config"].get("budget") for _, run in runs}
    if len(runs) < 2 or len(budgets) > 1 or None in budgets:
        return []
    unit = Amount.parse(budgets.pop()).unit
    readers: dict[str, Callable[[FinishedRun], float | None]] = {}
    for one in (unit, "img", "flop", "s"):
        readers[UNITS[one]] = lambda run, key=KEYS[one]: run.result["spent"].get(key)
    readers["energy"] = lambda run: energy.joules(run.result)
    found = [_spread(name, name == UNITS[unit], read, runs) for name, read in readers.items()]
    return [one for one in found if one is not None]


def table(comparison: Comparison) -> Table | None:
    """Return a row for each amount; None if there is nothing to compare."""
    rows = [
        (
            one.name,
            "yes" if one.is_budgeted else "no",
            _cell(one.name, one.least),
            one.least_run,
            _cell(one.name, one.most),
            one.most_run,
            f"{100 * one.difference:.2f}",
        )
        for one in spreads(comparison)
    ]
    if not rows:
        return None
    headings = ("amount", "held equal", "least", "by", "most", "by run", "difference %")
    caption = (
        f"What the runs spent under a budget of {comparison.budget}. The budget holds one amount equal, up to the last"
        " step, which is taken as a whole, and to runs that stopped early; a difference in it above"
        f" {100 * TOLERANCE:g} % is a warning. The others follow from the systems."
    )
    return Table("spending", headings, tuple(rows), caption)


def summary(comparison: Comparison) -> str:
    """Return one sentence with the largest differences; empty if there is nothing to compare."""
    by_system = spreads(comparison)
    if not by_system:
        return ""
    shown = ", ".join(f"{one.name} {_percent(one.difference)} %" for one in by_system)
    return f"largest differences in what was spent under {comparison.budget}: {shown}"


def warning(comparison: Comparison) -> str:
    """Return a sentence if the runs spent unequal amounts of what their budget holds equal; otherwise nothing."""
    for one in spreads(comparison):
        if one.is_budgeted and one.difference > TOLERANCE:
            reason = READS_ONCE if one.least_is_frozen else LAST_STEP
            return (
                f"The runs did not spend the same: {one.most_run} used {100 * one.difference:.1f} % more {one.name}"
                f" than {one.least_run}, under a budget of {comparison.budget} that holds {one.name} equal. {reason}"
            )
    return ""


def _percent(share: float) -> str:
    return f"{100 * share:,.{0 if share >= 0.1 else 1}f}"


def _spread(
    name: str, is_budgeted: bool, read: Callable[[FinishedRun], float | None], runs: list[tuple[str, FinishedRun]]
) -> Spread | None:
    amounts = [(read(run), label) for label, run in runs]
    known = [(amount, label) for amount, label in amounts if amount is not None]
    if len(known) < len(runs):
        return None
    (least, least_run), (most, most_run) = min(known, key=lambda one: one[0]), max(known, key=lambda one: one[0])
    is_frozen = "classifier" in dict(runs)[least_run].result["provenance"]["config"]
    return Spread(name, is_budgeted, float(least), float(most), least_run, most_run, is_frozen)


def _cell(name: str, value: float) -> str:
    if name == "energy":
        return energy.joules_cell(value)
    if name == "seconds":
        return seconds(value)
    return f"{value:,.2f}" if name == "epochs" else quantity(round(value))
