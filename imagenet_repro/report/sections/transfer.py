"""The worth of pretraining: error by source, adaptation and budget, and whether training from scratch catches up.

Every budget has runs of its own, whose schedules end with it, so that no error is that of a run on its way. Intervals
are those of the leaderboard: for new images and new seeds where systems have several, otherwise Wilson's.

Scratch catches up with another system at the smallest budget from which on its mean error is not the higher one. With
several systems from scratch, the one of the lowest error under the whole budget is meant.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from imagenet_repro.config import Amount
from imagenet_repro.report.records import ComparedSystem, Comparison, TransferStudy, TransferTarget
from imagenet_repro.report.sections import leaderboard
from imagenet_repro.report.tables import MISSING, Table
from imagenet_repro.report.text import quantity, seconds, signed
from imagenet_repro.statistics import crossed_effects
from imagenet_repro.statistics.populations import NEW_IMAGES_AND_SEEDS, interval_heading

UNITS = {
    "img": "images",
    "ep": "epochs",
    "st": "steps",
    "flop": "floating-point operations",
    "s": "seconds of training",
}
BUDGETS = "Error by source, adaptation and budget"
DIFFERENCES = "Differences from training from scratch"
LEVEL = 0.05  # of the differences between two systems, adjusted for the number of pairs


@dataclasses.dataclass(frozen=True)
class Excess:
    """The error of one system minus that of another, in points, for new images and new seeds.

    Attributes:
      points: the difference.
      low, high: its 95 % interval, simultaneous over all pairs of the target.
      p: adjusted for the number of pairs.
    """

    points: float
    low: float
    high: float
    p: float


@dataclasses.dataclass(frozen=True)
class BudgetPoint:
    """The mean error of a system under one budget, in [0, 1], with its 95 % interval for `leaderboard.population`."""

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
    """Return the source and the adaptation of a system in one phrase, such as "lite0 (linear)"."""
    source, adaptation = target.labels[name]
    return f"{source} ({adaptation})"


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
    budget = None
    for ours, theirs in reversed(pairs):
        if ours.error > theirs.error:
            break
        budget = ours.budget
    return budget


def budgets(study: TransferStudy, target: TransferTarget) -> Table:
    """Return a row for each system with its error under every budget, what it spent, and when scratch catches up."""
    errors, scratch = points(target), scratch_system(study, target)
    texts = list(target.by_budget)
    headings = ["system", "source", "adaptation"]
    for text in texts:
        headings += [f"error at {describe_budget(text)}, %", f"95 % interval at {describe_budget(text)}"]
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
        f" {describe_populations((describe_budget(text), one) for text, one in target.by_budget.items())} Every budget"
        " has runs of its own. Images, operations and seconds are those under the whole budget; a method that reads"
        " each training image once may spend less than the budget. Scratch catches up at the smallest of these budgets"
        " from which on its mean error is not the higher one."
    )
    return Table(_table_name("transfer", study, target), tuple(headings), tuple(rows), caption, heading=BUDGETS)


def differences_from_scratch(study: TransferStudy, target: TransferTarget) -> Table | None:
    """Return scratch's error minus each other system's under the whole budget; None without two seeds or scratch.

    The intervals are simultaneous over all pairs of the target's systems, for new images and new seeds.
    """
    scratch, comparison = scratch_system(study, target), target.whole
    excesses = excess_errors(target, scratch) if scratch else {}
    if scratch is None or not excesses:
        return None
    others = [one for one in leaderboard.ranked(comparison) if target.labels[one.name][0] != study.scratch]
    rows = []
    for system in others:
        one = excesses[system.name]
        rows.append((system.name, *target.labels[system.name], signed(one.points), _interval(one), _p(one.p)))
    budget = describe_budget(comparison.budget)
    caption = (
        f"Top-1 error of {scratch.name} minus that of each system, in points, under {budget} for both."
        " Crossed effects; the intervals of all pairs cover at once, and p is adjusted for their number."
    )
    headings = ("system", "source", "adaptation", "scratch minus it, points")
    heading = interval_heading(leaderboard.population(comparison))
    name = _table_name("transfer_differences", study, target)
    table = Table(name, (*headings, heading, "adjusted p"), tuple(rows), caption, heading=DIFFERENCES)
    return table if rows else None


def excess_errors(target: TransferTarget, reference: ComparedSystem) -> dict[str, Excess]:
    """Return the error of a system minus that of each other one, under the whole budget, by the other's name.

    It is empty without two seeds of a system, or where systems were scored on different images.
    """
    comparison = target.whole
    systems = comparison.systems
    if len(systems) < 2 or not comparison.has_several_seeds or not comparison.same_images:
        return {}
    pairs = crossed_effects.compare(crossed_effects.summarize(system.wrong(1) for system in systems))
    number, p_values = systems.index(reference), pairs.p_values()
    excesses = {}
    for pair, (first, second) in enumerate(zip(pairs.first, pairs.second, strict=True)):
        if number not in (first, second):
            continue
        sign, other = (1, second) if number == first else (-1, first)
        low, high = sorted((sign * float(pairs.low[pair]), sign * float(pairs.high[pair])))
        points = 100 * sign * float(pairs.difference[pair])
        excesses[systems[other].name] = Excess(points, 100 * low, 100 * high, float(p_values[pair]))
    return excesses


def describe_populations(comparisons: Iterable[tuple[str, Comparison]]) -> str:
    """Return a sentence on what the intervals of comparisons are for; those that differ are named.

    Args:
      comparisons: pairs of a name and a comparison.
    """
    names: dict[str, list[str]] = {}
    for name, comparison in comparisons:
        names.setdefault(leaderboard.population(comparison), []).append(name)
    if len(names) == 1:
        return f"Intervals are for {next(iter(names))}."
    return " ".join(f"Intervals of {', '.join(of)} are for {population}." for population, of in names.items())


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
    caption = (
        f"Top-1 error in percent under {describe_budget(study.targets[0].whole.budget)}, with its 95 % interval."
        f" {describe_populations((target.name, target.whole) for target in study.targets)} Targets are different data"
        " sets, so that errors are comparable within a column only."
    )
    return Table("sources_by_targets", ("source", "adaptation", *names), tuple(rows), caption)


def headline(study: TransferStudy) -> str:
    """Return one sentence on all targets: on how many of them a pretrained network beats training from scratch."""
    better = [target for target in study.targets if _is_pretraining_better(study, target)]
    budget = describe_budget(study.targets[0].whole.budget)
    count = f"on {len(better)} of {len(study.targets)} targets"
    if all(target.whole.has_several_seeds for target in study.targets):
        return f"With {budget}, pretraining gives a significantly lower error than training from scratch {count}."
    return f"With {budget}, a pretrained network has a lower error than training from scratch {count} (few seeds)."


def _is_pretraining_better(study: TransferStudy, target: TransferTarget) -> bool:
    best, scratch = leaderboard.ranked(target.whole)[0], scratch_system(study, target)
    if scratch is None or scratch is best:
        return False
    excess = excess_errors(target, scratch).get(best.name)
    return excess is None or (excess.points > 0 and excess.p < LEVEL)


def verdict(study: TransferStudy, target: TransferTarget) -> str:
    """Return the best system, those not significantly worse, and whether training from scratch catches up with it."""
    best, scratch = leaderboard.ranked(target.whole)[0], scratch_system(study, target)
    budget = describe_budget(target.whole.budget)
    sentences = [
        f"{target.name}: {label(target, best.name)} has the lowest top-1 error with a budget of {budget},"
        f" {_percent(best)} %",
        _significance(target, best),
    ]
    if scratch is best:
        sentences.append(" No pretrained system has a lower error.")
    elif scratch is not None:
        sentences.append(f" {_describe_scratch(target, scratch, best)}")
    return "".join(sentences)


def _significance(target: TransferTarget, best: ComparedSystem) -> str:
    """Return the end of the sentence on the best system, and a sentence on those that do not differ from it."""
    if len(target.whole.systems) == 1:
        return "."
    excesses = excess_errors(target, best)
    if not target.whole.has_several_seeds:
        return " (one seed). Several seeds are needed to say which recipe is better."
    if not excesses:
        return "."
    near = [label(target, name) for name, one in excesses.items() if one.p >= LEVEL]
    if not near:
        return ", significantly lower than every other."
    names = near[0] if len(near) == 1 else f"{', '.join(near[:-1])} and {near[-1]}"
    return f". {names} {'does' if len(near) == 1 else 'do'} not differ significantly from it."


def _describe_scratch(target: TransferTarget, scratch: ComparedSystem, best: ComparedSystem) -> str:
    errors = points(target)
    excess = excess_errors(target, scratch).get(best.name)
    interval = _interval(excess).replace("+", "") if excess else ""
    heading = interval_heading(NEW_IMAGES_AND_SEEDS)
    higher = f", {excess.points:.1f} points higher ({heading}: {interval})," if excess else ""
    caught_up = caught_up_at(errors[scratch.name], errors[best.name])
    catches_up = (
        f"catches up at {describe_budget(str(caught_up))}" if caught_up else "does not catch up within this budget"
    )
    return f"Training from scratch ends at {_percent(scratch)} %{higher} and {catches_up}."


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


def _interval(excess: Excess) -> str:
    return f"[{signed(excess.low)}, {signed(excess.high)}]"


def _percent(system: ComparedSystem) -> str:
    return f"{100 * system.mean_error(1):.1f}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _table_name(stem: str, study: TransferStudy, target: TransferTarget) -> str:
    return stem if len(study.targets) == 1 else f"{stem}_{target.name}"


def note(comparison: Comparison) -> str:
    """Return what the figure's bars are."""
    return f"Bars are 95 % intervals for {leaderboard.population(comparison)}."
