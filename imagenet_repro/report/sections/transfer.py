"""The worth of pretraining: error by source, adaptation and budget, and whether training from scratch catches up.

Every budget has runs of its own, whose schedules end with it, so that no error is that of a run on its way. Intervals
are those of the leaderboard: for new images and new seeds where systems have several, otherwise Wilson's.

Scratch catches up with another system at the smallest budget from which on its mean error is not the higher one. With
several systems from scratch, the one of the lowest error under the whole budget is meant.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from imagenet_repro.config import Amount
from imagenet_repro.report.records import ComparedSystem, Comparison, TransferStudy, TransferTarget
from imagenet_repro.report.sections import leaderboard
from imagenet_repro.report.tables import MISSING, Table
from imagenet_repro.report.text import interval_heading, quantity, seconds, signed
from imagenet_repro.statistics import crossed_effects

UNITS = {
    "img": "images",
    "ep": "epochs",
    "st": "steps",
    "flop": "floating-point operations",
    "s": "seconds of training",
}


@dataclasses.dataclass(frozen=True)
class BudgetPoint:
    """The mean error of a system under one budget, in [0, 1], with its 95 % interval."""

    budget: Amount
    error: float
    low: float
    high: float


def describe_budget(text: str) -> str:
    """Return a budget in words, such as "8,000 images"."""
    amount = Amount.parse(text)
    value = f"{amount.value:,.0f}" if amount.unit != "flop" and amount.value >= 10 else quantity(amount.value)
    return f"{value} {UNITS[amount.unit]}"


def label(target: TransferTarget, name: str) -> str:
    """Return the source and the adaptation of a system in one phrase."""
    return ", ".join(target.labels[name])


def points(target: TransferTarget) -> dict[str, list[BudgetPoint]]:
    """Return the error of each system by rising budget, under the budgets with finished runs."""
    result: dict[str, list[BudgetPoint]] = {name: [] for name in target.labels}
    for budget, comparison in target.by_budget.items():
        intervals = leaderboard.error_intervals(comparison, 1)
        for system, (low, high) in zip(comparison.systems, intervals, strict=True):
            result[system.name].append(BudgetPoint(Amount.parse(budget), system.mean_error(1), low, high))
    return {name: of_system for name, of_system in result.items() if of_system}


def scratch_system(study: TransferStudy, target: TransferTarget) -> ComparedSystem | None:
    """Return the best system from scratch under the whole budget; None if no such run has finished."""
    candidates = [one for one in leaderboard.ranked(target.whole) if target.labels[one.name][0] == study.scratch]
    return candidates[0] if candidates else None


def caught_up_at(scratch: Sequence[BudgetPoint], other: Sequence[BudgetPoint]) -> Amount | None:
    """Return the smallest common budget from which on scratch has no higher error; None if the last one is higher."""
    errors = {point.budget.value: point for point in scratch}
    pairs = [(errors[point.budget.value], point) for point in other if point.budget.value in errors]
    found = None
    for ours, theirs in reversed(pairs):
        if ours.error > theirs.error:
            break
        found = ours.budget
    return found


def budgets(study: TransferStudy, target: TransferTarget) -> Table:
    """Return a row for each system with its error under every budget, what it spent, and when scratch catches up."""
    errors, scratch = points(target), scratch_system(study, target)
    population = leaderboard.population(target.whole)
    texts = list(target.by_budget)
    headings = ["system", "source", "adaptation"]
    for text in texts:
        headings += [f"error at {describe_budget(text)}, %", f"{interval_heading(population)} at {text}"]
    headings += ["images seen", "training FLOPs", "training seconds", "scratch catches up at"]
    rows = []
    for system in leaderboard.ranked(target.whole):
        known = {point.budget.value: point for point in errors[system.name]}
        cells = [system.name, *target.labels[system.name]]
        for text in texts:
            cells += _error_cells(known.get(Amount.parse(text).value))
        spent = [np.mean([run.result["spent"][key] for run in system.runs]) for key in ("images", "flops", "seconds")]
        cells += [quantity(float(spent[0])), quantity(float(spent[1])), seconds(float(spent[2]))]
        rows.append((*cells, _catching_up(study, target, system, scratch, errors)))
    caption = (
        f"Top-1 error on {target.whole.n_images:,} images of {target.whole.scored_data}, {target.whole.scored_split}."
        " Every budget has runs of its own. Images, operations and seconds are those under the whole budget; a method"
        " that reads each training image once may spend less than the budget. Scratch catches up at the smallest of"
        " these budgets from which on its mean error is not the higher one."
    )
    return Table(_table_name("transfer", study, target), tuple(headings), tuple(rows), caption)


def differences_from_scratch(study: TransferStudy, target: TransferTarget) -> Table | None:
    """Return scratch's error minus each other system's under the whole budget; None without two seeds or scratch.

    The intervals are simultaneous over all pairs of the target's systems, for new images and new seeds.
    """
    scratch, comparison = scratch_system(study, target), target.whole
    if scratch is None or not comparison.has_several_seeds or not comparison.same_images:
        return None
    systems = comparison.systems
    if len(systems) < 2:
        return None
    pairs = crossed_effects.compare(crossed_effects.summarize([system.wrong(1) for system in systems]))
    number, p_values = systems.index(scratch), pairs.p_values()
    rows = []
    for index, system in enumerate(systems):
        if target.labels[system.name][0] == study.scratch:
            continue
        pair = int(np.flatnonzero((pairs.first == min(number, index)) & (pairs.second == max(number, index)))[0])
        sign = 1 if number < index else -1
        ends = sorted((sign * pairs.low[pair], sign * pairs.high[pair]))
        low, high = (signed(100 * float(end)) for end in ends)
        difference = signed(100 * sign * float(pairs.difference[pair]))
        rows.append((system.name, *target.labels[system.name], difference, f"[{low}, {high}]", _p(p_values[pair])))
    budget = describe_budget(comparison.budget)
    caption = (
        f"Top-1 error of {scratch.name} minus that of each system, in points, under {budget} for both."
        " Crossed effects; the intervals of all pairs cover at once, and p is adjusted for their number."
    )
    headings = ("system", "source", "adaptation", "scratch minus it, points")
    heading = interval_heading(leaderboard.population(comparison))
    name = _table_name("transfer_differences", study, target)
    return Table(name, (*headings, heading, "adjusted p"), tuple(rows), caption) if rows else None


def sources_by_targets(study: TransferStudy) -> Table:
    """Return a row for each source and adaptation, and a column for each target, under the whole budget."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for target in study.targets:
        intervals = leaderboard.error_intervals(target.whole, 1)
        for system, (low, high) in zip(target.whole.systems, intervals, strict=True):
            text = f"{100 * system.mean_error(1):.1f} [{100 * low:.1f}, {100 * high:.1f}]"
            cells.setdefault(target.labels[system.name], {})[target.name] = text
    names = [target.name for target in study.targets]
    rows = [(*labels, *(by_target.get(name, MISSING) for name in names)) for labels, by_target in cells.items()]
    population = leaderboard.population(study.targets[0].whole)
    caption = (
        f"Top-1 error in percent under {describe_budget(study.targets[0].whole.budget)}, with its"
        f" {interval_heading(population)}."
    )
    return Table("sources_by_targets", ("source", "adaptation", *names), tuple(rows), caption)


def verdict(study: TransferStudy, target: TransferTarget) -> str:
    """Return two sentences: the best system, and whether training from scratch catches up with it."""
    best, scratch = leaderboard.ranked(target.whole)[0], scratch_system(study, target)
    budget = describe_budget(target.whole.budget)
    text = f"{target.name}: {label(target, best.name)} has the lowest top-1 error after {budget}, {_percent(best)} %."
    if scratch is None or scratch is best:
        return text + " No pretrained system is better." * (scratch is best)
    errors = points(target)
    budget_caught = caught_up_at(errors[scratch.name], errors[best.name])
    caught = f"at {describe_budget(str(budget_caught))}" if budget_caught else "not within this budget"
    return f"{text} Training from scratch ends at {_percent(scratch)} % and catches up {caught}."


def _catching_up(
    study: TransferStudy,
    target: TransferTarget,
    system: ComparedSystem,
    scratch: ComparedSystem | None,
    errors: dict[str, list[BudgetPoint]],
) -> str:
    if scratch is None or target.labels[system.name][0] == study.scratch:
        return MISSING
    budget = caught_up_at(errors[scratch.name], errors[system.name])
    return describe_budget(str(budget)) if budget else f"not within {describe_budget(target.whole.budget)}"


def _error_cells(point: BudgetPoint | None) -> list[str]:
    if point is None:
        return [MISSING, MISSING]
    return [f"{100 * point.error:.1f}", f"[{100 * point.low:.1f}, {100 * point.high:.1f}]"]


def _percent(system: ComparedSystem) -> str:
    return f"{100 * system.mean_error(1):.1f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _table_name(stem: str, study: TransferStudy, target: TransferTarget) -> str:
    return stem if len(study.targets) == 1 else f"{stem}_{target.name}"


def note(comparison: Comparison) -> str:
    """Return what the figure's bars are."""
    return f"Bars are {interval_heading(leaderboard.population(comparison))}s."
