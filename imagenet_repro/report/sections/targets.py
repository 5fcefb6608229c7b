"""Budgets needed to reach an error: tables of systems, of runs, and of performance profiles."""

import math
from collections.abc import Sequence

import numpy as np

from imagenet_repro.report import energy
from imagenet_repro.report.records import Comparison
from imagenet_repro.report.result_table import quantity, seconds
from imagenet_repro.report.tables import MISSING, Table
from imagenet_repro.report.targets import MEASURES, Measure, Reached, Workload, known_measures
from imagenet_repro.statistics import performance_profiles
from imagenet_repro.statistics.intervals import wilson_interval
from imagenet_repro.statistics.populations import NEW_IMAGES, NEW_SEEDS, interval_heading

NEVER = "never"
SCALE = performance_profiles.LARGEST_RATIO


def tables(comparison: Comparison, workloads: Sequence[Workload]) -> list[Table]:
    """Return all tables of the section; without targets there are none."""
    if not workloads:
        return []
    return [systems(comparison, workloads), scores(workloads), curves(workloads), runs(comparison, workloads)]


def systems(comparison: Comparison, workloads: Sequence[Workload]) -> Table:
    """Return a row for each target and system, by rising median of images: what the median seed needed."""
    has_several = any(len(runs) > 1 for workload in workloads for runs in workload.runs.values())
    measures = list(MEASURES)
    headings = ["target", "system", "reached by", *(MEASURES[measure] for measure in measures)]
    headings += [interval_heading(NEW_SEEDS, of=amount) for amount in ("images", "seconds")] if has_several else []
    headings += ["at the evaluation before", "later above it"]
    rows = []
    for workload in workloads:
        for line in sorted(workload.runs, key=lambda name: workload.median(name, "images")):
            reached = workload.runs[line]
            count = f"{sum(one.is_reached for one in reached)} of {len(reached)}"
            medians = [amount_cell(measure, _median(workload, line, measure)) for measure in measures]
            intervals = (
                [_interval(workload, line, measure) for measure in ("images", "seconds")] if has_several else []
            )
            row = [title(workload, workloads), line, count, *medians, *intervals, _before(reached), _above(reached)]
            rows.append(tuple(row))
    return Table("targets", tuple(headings), tuple(rows), _caption(comparison, workloads, has_several))


def runs(comparison: Comparison, workloads: Sequence[Workload]) -> Table:
    """Return a row for each target and run."""
    headings = (
        "target",
        "system",
        "seed",
        "error %",
        *MEASURES.values(),
        "at the evaluation before",
        "later above it",
    )
    rows = []
    for workload in workloads:
        for line, reached in workload.runs.items():
            for one in reached:
                error = MISSING if math.isnan(one.error) else f"{one.error:.2f}"
                amounts = [amount_cell(measure, one.amounts[measure]) for measure in MEASURES]
                cells = (error, *amounts, _before([one]), _above([one]))
                rows.append((title(workload, workloads), line, str(one.run.seed), *cells))
    caption = (
        "Each run by itself at its first evaluation at or below the target; of a run that never reached it, its lowest"
        " error."
    )
    if unknown := [one.run.path for one in _all_runs(workloads) if not one.is_complete]:
        paths = ", ".join(map(str, dict.fromkeys(unknown)))
        caption += f" The beginning of these logs is lost, and the target may have been reached before: {paths}."
    return Table("target_runs", headings, tuple(rows), caption)


def scores(workloads: Sequence[Workload]) -> Table:
    """Return the score of each system's profile by each measure."""
    measures = known_measures(workloads) or ["images"]
    names = lines(workloads)
    by_measure = [[performance_profiles.score(row) for row in ratios(workloads, measure)] for measure in measures]
    reached = [sum(math.isfinite(workload.median(name, "images")) for workload in workloads) for name in names]
    order = sorted(range(len(names)), key=lambda i: -by_measure[0][i])
    rows = [
        (names[i], f"{reached[i]} of {len(workloads)}", *(f"{of_measure[i]:.3f}" for of_measure in by_measure))
        for i in order
    ]
    headings = ("system", "targets reached", *(f"score by {MEASURES[measure]}" for measure in measures))
    caption = (
        f"The mean height of a system's performance profile between 1 and {SCALE:g} times the best system's amount: 1"
        f" if it is the best for every target, 0 if it needs {SCALE:g} times as much for all of them or never reaches"
        " them. Median seeds; a target that a system never reached, or was not trained for, stays in its profile."
    )
    if len(workloads) == 1:
        caption += " With one target a profile has one step; several (--target=top1:40,top1:35) make it a curve."
    if any(not math.isfinite(min(workload.median(name, "images") for name in names)) for workload in workloads):
        caption += " A target that no system reached counts as not reached for all."
    return Table("profile_scores", headings, tuple(rows), caption)


def curves(workloads: Sequence[Workload]) -> Table:
    """Return the performance profiles as numbers: each tau at which one rises, with its share from there on."""
    rows = []
    for measure in known_measures(workloads):
        for name, row in zip(lines(workloads), ratios(workloads, measure), strict=True):
            for tau, share in zip(*performance_profiles.steps(row), strict=True):
                rows.append((MEASURES[measure], name, f"{tau:.4f}", f"{share:.4f}"))
    caption = (
        "The performance profiles of the figure: the share of targets for which a system needs at most tau times the"
        " least amount of any system. A profile keeps its share until its next row."
    )
    return Table("profiles", ("amount", "system", "tau", "share of targets"), tuple(rows), caption)


def lines(workloads: Sequence[Workload]) -> list[str]:
    """Return the names of all systems with a run for any workload."""
    return list(dict.fromkeys(name for workload in workloads for name in workload.runs))


def ratios(workloads: Sequence[Workload], measure: Measure) -> np.ndarray:
    """Return the ratio of each system (rows, in the order of `lines`) to the best one on each workload."""
    amounts = [[workload.median(name, measure) for workload in workloads] for name in lines(workloads)]
    return performance_profiles.ratios(np.array(amounts))


def title(workload: Workload, workloads: Sequence[Workload]) -> str:
    """Return the name of a workload, with its data set where there are several."""
    has_several = len({(one.data, one.split) for one in workloads}) > 1
    target = f"{workload.target.guesses.replace('top', 'top-')} {workload.target.percent:g} %"
    return f"{workload.data} {workload.split}, {target}" if has_several else target


def amount_cell(measure: Measure, value: float) -> str:
    """Return an amount with its unit; `never` if it is infinite, and unknown or missing if it is NaN."""
    if math.isinf(value):
        return NEVER
    if math.isnan(value):
        return energy.UNKNOWN if measure == "joules" else MISSING
    if measure == "joules":
        return energy.joules_cell(value)
    return seconds(value) if measure == "seconds" else quantity(round(value))


# --- cells ------------------------------------------------------------------------------------------------------


def _median(workload: Workload, line: str, measure: Measure) -> float:
    values = workload.values(line, measure)
    return math.nan if np.isnan(values).any() else performance_profiles.median(values)


def _interval(workload: Workload, line: str, measure: Measure) -> str:
    values = workload.values(line, measure)
    if len(values) < 2:
        return MISSING
    low, high, coverage = performance_profiles.median_interval(values)
    text = f"[{amount_cell(measure, low)}, {amount_cell(measure, high)}]"
    return text if coverage >= 0.95 else f"{text} ({100 * coverage:.0f} %)"


def _before(reached: Sequence[Reached]) -> str:
    """Return the images at the evaluation before, from the lowest to the highest of the runs that reached it."""
    known = [one.before for one in reached if one.is_reached]
    if not known:
        return MISSING
    low, high = quantity(round(min(known))), quantity(round(max(known)))
    return low if low == high else f"{low} to {high}"


def _above(reached: Sequence[Reached]) -> str:
    """Return how many evaluations after the first one at the target are above it again, over all runs."""
    known = [one.back_above for one in reached if one.is_reached]
    return str(sum(known)) if known else MISSING


def _all_runs(workloads: Sequence[Workload]) -> list[Reached]:
    return [one for workload in workloads for reached in workload.runs.values() for one in reached]


def _caption(comparison: Comparison, workloads: Sequence[Workload], has_several: bool) -> str:
    splits = sorted({f"{one.data} {one.split}" for one in workloads})
    parts = [
        f"Amounts at the first evaluation at or below the target, on {' and '.join(splits)} during training; nothing"
        " is interpolated. So the true amount lies between that of the evaluation before, whose images have a column,"
        " and this one.",
        _rhythms(workloads),
        _noise(workloads),
    ]
    if has_several:
        parts.append(
            "Amounts are medians over seeds, in which a run that never reached the target counts as infinite."
            " Intervals are for the median over new seeds, evaluated on these images, from order statistics of the"
            " runs; with fewer than six seeds they go from the lowest to the highest, and the coverage that they have"
            " stands beside them. Operations are a fixed number for each image of a system."
        )
    if not comparison.scores_own_result:
        parts.append("Errors are those of each run's own protocol, not those of the leaderboard.")
    if energies := sorted({energy.parts(one.run.result) for one in _all_runs(workloads)} - {()}):
        covered = " or ".join(", ".join(parts_of_run) for parts_of_run in energies)
        parts.append(f"Energy is that of {covered}; energies of different parts must not be compared.")
    return " ".join(filter(None, parts))


def _rhythms(workloads: Sequence[Workload]) -> str:
    """Return a sentence on the rhythm of evaluations, which is the resolution of the amounts."""
    rhythms: dict[str, list[str]] = {}
    for workload in workloads:
        for line, reached in workload.runs.items():
            rhythms.setdefault(_rhythm(reached[0]), []).append(line)
    if len(rhythms) == 1:
        return f"Runs are evaluated {next(iter(rhythms))}, which is the resolution of these amounts."
    shown = "; ".join(f"{', '.join(dict.fromkeys(names))}: {rhythm}" for rhythm, names in rhythms.items())
    return (
        f"Systems are evaluated at different intervals, so their amounts have different resolutions: {shown}. More"
        " evaluations are also more chances to be at the target once."
    )


def _rhythm(reached: Reached) -> str:
    config = reached.run.result["provenance"]["config"]
    every = config.get("evaluate_every")
    return f"every {every}" if every else f"{reached.evaluations} times"


def _noise(workloads: Sequence[Workload]) -> str:
    """Return a sentence on the noise of one evaluation, from its number of images."""
    images = [
        row.get("evaluated") for one in _all_runs(workloads) for row in one.run.rows if row.get("kind") == "eval"
    ]
    known = [number for number in images if number]
    if not known:
        return (
            "An evaluation that is low by chance counts; the last column has the later evaluations above the target."
        )
    share = workloads[0].target.percent / 100
    low, high = wilson_interval(share, float(min(known)))
    return (
        f"An evaluation of {min(known):,} images at {workloads[0].target} has a 95 % interval for {NEW_IMAGES}, of"
        f" [{100 * float(low):.1f}, {100 * float(high):.1f}], so a low one may be chance; the last column has the"
        " later evaluations above the target."
    )
