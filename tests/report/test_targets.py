"""Budgets needed to reach an error: logs by hand, and the tables of targets, profiles and spending."""

import dataclasses
import math

import numpy as np
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.report import energy, targets
from imagenet_repro.report.sections import leaderboard, spending
from imagenet_repro.report.sections import targets as section
from imagenet_repro.report.targets import Target, parse_targets, reach
from tests import finished_runs
from tests.report import comparisons

TOP1 = Target("top1", 35.0)


def logged(*errors, every=100, **extra):
    """Return rows of training, and evaluations with these top-1 errors in percent."""
    rows = []
    for number, error in enumerate(errors, 1):
        spent = {"images": number * every, "flops": 1e9 * number * every, "seconds": 2.0 * number}
        rows += [{"kind": "train", "step": number, "loss": 1.0, **spent}]
        value = error if error is None else error / 100
        joules = {"joules": 7.0 * number} if extra.get("joules") else {}
        rows += [{"kind": "eval", "step": number, "top1_error": value, "top5_error": 0.5, **spent, **joules}]
    return rows


def run(*errors, seed=0, name="alexnet_2012", spent=None, record=None, **options):
    one = finished_runs.one(seed=seed, name=name)
    result = one.result | {"spent": one.result["spent"] | (spent or {})} | ({"energy": record} if record else {})
    return dataclasses.replace(one, rows=logged(*errors, **options), result=result)


def compared(**systems):
    """Return a comparison of systems with lists of runs."""
    base = comparisons.comparison(1)
    made = [dataclasses.replace(base.systems[0], name=k, network=k, runs=tuple(v)) for k, v in systems.items()]
    return dataclasses.replace(base, systems=tuple(made))


def record(joules, idle, parts=("cpu",)):
    share = {"joules": joules / len(parts), "idle_joules": idle / len(parts)}
    return {"joules": joules, "idle_joules": idle, "parts": dict.fromkeys(parts, share), "unknown": {}}


def test_targets_are_read_from_text():
    assert parse_targets("top1:35, top5:2.5") == (TOP1, Target("top5", 2.5))
    assert parse_targets("") == ()
    for text in ("35", "top2:35", "top1:", "top1:100", "top1:-1", "top1:nan", "top1:35,top1:35"):
        with pytest.raises(UserError, match="--target"):
            parse_targets(text)


def test_the_first_evaluation_at_or_below_the_target_counts():
    one = reach(run(80, 50, 35.0, 20, 36, 30), TOP1)
    assert (one.amounts["images"], one.amounts["flops"], one.amounts["seconds"]) == (300, 3e11, 6.0)
    assert math.isnan(one.amounts["joules"])
    assert (one.before, one.error, one.back_above, one.evaluations) == (200, 35.0, 1, 6)
    assert reach(run(10), TOP1).before == 0


def test_a_run_that_never_reaches_the_target_is_shown_with_its_lowest_error():
    one = reach(run(80, 40, 41), TOP1)
    assert not one.is_reached
    assert set(one.amounts.values()) == {math.inf}
    assert one.error == pytest.approx(40)
    assert math.isnan(reach(dataclasses.replace(run(80), rows=[]), TOP1).error)


def test_repeated_steps_of_a_resumed_run_and_missing_errors():
    rows = logged(80, 30, None, 20)
    rows.append({**rows[3], "top1_error": 0.6})  # step 2 again, after a resume
    one = reach(dataclasses.replace(run(1), rows=rows), TOP1)
    assert one.amounts["images"] == 400
    assert one.before == 200


def test_a_log_without_its_beginning_is_named():
    whole = run(80, 50, 30)
    assert reach(whole, TOP1).is_complete
    rows = [row for row in logged(*[80] * 30, 20) if row["step"] > 20]
    lost = reach(dataclasses.replace(whole, rows=rows), TOP1)
    assert not lost.is_complete
    comparison = compared(a=[lost.run])
    assert "may have been reached before" in section.runs(comparison, targets.workloads(comparison, [TOP1])).caption


def test_medians_over_seeds_keep_runs_that_never_got_there():
    comparison = compared(
        fast=[run(80, 30, 20, seed=0), run(80, 60, 20, seed=1), run(80, 60, 50, seed=2)],
        slow=[run(80, 70, 35, seed=0), run(80, 70, 60, seed=1), run(80, 70, 60, seed=2)],
    )
    workloads = targets.workloads(comparison, [TOP1])
    table = section.systems(comparison, workloads)
    rows = [dict(zip(table.headings, row, strict=True)) for row in table.rows]
    assert [(row["system"], row["reached by"], row["images"]) for row in rows] == [
        ("fast", "2 of 3", "300"),
        ("slow", "1 of 3", "never"),
    ]
    assert rows[0]["95 % interval of images, these images, new seeds"] == "[200, never] (75 %)"
    assert rows[0]["energy"] == "unknown"
    assert rows[0]["at the evaluation before"] == "100 to 200"
    assert len(section.runs(comparison, workloads).rows) == 6


def test_profiles_are_those_of_medians_computed_apart():
    errors = {"a": (60, 40, 30, 20), "b": (70, 34, 33, 32), "c": (90, 80, 70, 34)}
    comparison = compared(**{name: [run(*row)] for name, row in errors.items()})
    wanted = [Target("top1", percent) for percent in (60, 35, 30, 1)]
    workloads = targets.workloads(comparison, wanted)
    needed = {
        name: [next((i for i, e in enumerate(row, 1) if e <= t.percent), math.inf) for t in wanted]
        for name, row in errors.items()
    }
    best = [min(column) for column in zip(*needed.values(), strict=True)]
    expected = [
        [n / b if b < math.inf else math.inf for n, b in zip(row, best, strict=True)] for row in needed.values()
    ]
    assert section.ratios(workloads, "images").tolist() == expected
    shown = {(name, tau): share for _, name, tau, share in section.curves(workloads).rows[:20]}
    assert shown["b", "1.0000"] == "0.2500"
    assert shown["a", "1.5000"] == "0.7500"
    by_system = {row[0]: row[1:3] for row in section.scores(workloads).rows}
    # a: best twice, then 1.5 times the best; the fourth target is reached by none.
    assert by_system["a"] == ("3 of 4", f"{(1 + 1 + (4 - 1.5) / 3) / 4:.3f}")


def test_a_network_on_two_data_sets_is_one_line_with_two_workloads():
    def on(data, *errors):
        one = run(*errors)
        config = one.result["provenance"]["config"]
        changed = config | {"data": config["data"] | {"name": data}}
        return dataclasses.replace(
            one, result=one.result | {"provenance": one.result["provenance"] | {"config": changed}}
        )

    comparison = compared(**{"a (1)": [on("x", 30)], "a (2)": [on("y", 80, 30)], "b": [on("x", 80, 20)]})
    systems = [
        dataclasses.replace(system, network=network)
        for system, network in zip(comparison.systems, ("a", "a", "b"), strict=True)
    ]
    workloads = targets.workloads(dataclasses.replace(comparison, systems=tuple(systems)), [TOP1])
    assert [(one.data, sorted(one.runs)) for one in workloads] == [("x", ["a", "b"]), ("y", ["a"])]
    assert section.ratios(workloads, "images").tolist() == [[1.0, 1.0], [2.0, math.inf]]
    assert {row[0] for row in section.systems(comparison, workloads).rows} == {
        "x validation, top-1 35 %",
        "y validation, top-1 35 %",
    }


def test_different_rhythms_of_evaluation_and_their_noise_are_stated():
    def every(text, *errors):
        one = run(*errors)
        one.result["provenance"]["config"]["evaluate_every"] = text
        return dataclasses.replace(one, rows=[row | {"evaluated": 1000} for row in one.rows])

    comparison = compared(a=[every("1ep", 30)], b=[every("5ep", 30)])
    caption = section.systems(comparison, targets.workloads(comparison, [TOP1])).caption
    assert "a: every 1ep; b: every 5ep" in caption
    assert "of 1,000 images at top-1 error 35 % has a 95 % interval for new images, these checkpoints, of" in caption
    assert "[32.1, 38.0]" in caption


def test_energies_of_different_parts_are_not_added_up():
    records = [record(1_000.0, 0.0), record(500.0, 0.0), record(7.0, 0.0, ("gpu",))]
    assert energy.describe_sum([*({"energy": one} for one in records), {}]) == (
        "energy of training: 1.50 kJ in 2 runs (cpu); 7 J in 1 run (gpu); unknown in 1 run"
    )


def test_energy_is_a_measure_where_all_have_that_of_the_same_parts():
    with_energy = [run(80, 30, joules=True, record=record(100.0, 40.0))]
    comparison = compared(a=with_energy, b=[run(30, joules=True, record=record(50.0, 10.0))])
    workloads = targets.workloads(comparison, [TOP1])
    assert "joules" in targets.known_measures(workloads)
    assert [row[6] for row in section.systems(comparison, workloads).rows] == ["7 J", "14 J"]
    other = compared(a=with_energy, b=[run(30, joules=True, record=record(50.0, 10.0, ("cpu", "gpu")))])
    assert "joules" not in targets.known_measures(targets.workloads(other, [TOP1]))
    costs = {row[0]: row[-3:] for row in leaderboard.costs(other).rows}
    assert costs == {"a": ("100 J", "cpu", "40 %"), "b": ("50 J", "cpu, gpu", "20 %")}
    assert leaderboard.costs(compared(a=[run(30)])).rows[0][-3] == "unknown"


def test_the_line_at_the_end_of_a_run():
    assert energy.describe({"energy": record(12_340.0, 3_085.0)}) == (
        "energy: 12.3 kJ (cpu 12.3 kJ), 25 % of it idle power"
    )
    unknown = {"joules": None, "parts": {}, "unknown": {"cpu": "no counters"}}
    assert energy.describe({"energy": unknown}) == "energy: unknown; no counters"
    assert energy.describe({}) == "energy: unknown; it was not recorded"


def test_unequal_spending_under_one_budget_is_a_warning():
    spent = [{"epochs": 5.0, "images": 32_000, "flops": 1e12}, {"epochs": 5.3, "images": 33_920, "flops": 9e12}]
    comparison = compared(a=[run(30, spent=spent[0])], b=[run(30, spent=spent[1])])
    rows = {row[0]: row for row in spending.table(comparison).rows}
    assert rows["epochs"] == ("epochs", "yes", "5.00", "a, seed 0", "5.30", "b, seed 0", "6.00")
    assert rows["operations"][1] == "no"
    assert float(rows["operations"][-1]) == 800.0
    assert "b, seed 0 used 6.0 % more epochs than a, seed 0" in spending.warning(comparison)
    assert spending.summary(comparison).endswith("epochs 6.0 %, images 6.0 %, operations 800 %, seconds 0.0 %")
    near = compared(a=[run(30)], b=[run(30, spent={"epochs": 5.04})])
    assert spending.warning(near) == ""
    assert spending.table(compared(a=[run(30)])) is None


def test_the_warning_explains_a_frozen_classifier_that_read_each_image_once():
    frozen = run(30, spent={"epochs": 1.0})
    provenance = frozen.result["provenance"]
    config = provenance["config"] | {"classifier": "knn"}
    frozen = dataclasses.replace(frozen, result=frozen.result | {"provenance": provenance | {"config": config}})
    text = spending.warning(compared(a=[frozen], b=[run(30)]))
    assert text.endswith(spending.READS_ONCE)
    assert "smaller batches" not in text


def test_ratios_take_the_median_of_seeds_by_another_computation():
    rng = np.random.default_rng(0)
    curves = {name: [np.sort(rng.uniform(10, 90, 6))[::-1] for _ in range(5)] for name in "abcd"}
    comparison = compared(
        **{name: [run(*row.tolist(), seed=i) for i, row in enumerate(rows)] for name, rows in curves.items()}
    )
    wanted = [Target("top1", percent) for percent in (50, 30)]
    amounts = np.array(
        [
            [
                np.median([100 * (np.argmax(row <= t.percent) + 1) if row[-1] <= t.percent else 1e300 for row in rows])
                for t in wanted
            ]
            for rows in curves.values()
        ]
    )
    expected = np.where(amounts < 1e299, amounts / amounts.min(0), np.inf)
    assert section.ratios(targets.workloads(comparison, wanted), "images") == pytest.approx(expected)
