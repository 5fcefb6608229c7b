import dataclasses

import numpy as np
import pytest
from scipy import stats

from imagenet_repro.report.sections import leaderboard
from imagenet_repro.scoring.metrics import format_rate
from imagenet_repro.statistics import crossed_effects
from tests.report import comparisons

ONE_SEED = "95 % interval, new images, these checkpoints"
SEVERAL_SEEDS = "95 % interval, new images and new seeds"


def cells(table):
    """Return the rows as dictionaries, by their first cells."""
    return {row[0]: dict(zip(table.headings, row, strict=True)) for row in table.rows}


def errors(system, guesses):
    """Return the error of each run in percent, counted from its guesses."""
    actual = []
    for run in system.runs:
        wrong = [label not in row[:guesses] for label, row in zip(run.guesses.label, run.guesses.top5, strict=True)]
        actual.append(100 * sum(wrong) / len(wrong))
    return actual


def changed(comparison, change):
    """Return the comparison with a change applied to every run."""
    systems = [
        dataclasses.replace(system, runs=tuple(change(run) for run in system.runs)) for system in comparison.systems
    ]
    return dataclasses.replace(comparison, systems=tuple(systems))


def without(run):
    """Return the run as an older version stored it."""
    result = {k: v for k, v in run.result.items() if k not in ("peak_memory", "compilation_seconds")}
    rows = [{k: v for k, v in row.items() if k != "waiting_seconds"} for row in run.rows if row["kind"] == "train"]
    return dataclasses.replace(run, result=result, rows=rows)


def test_one_seed_has_wilsons_interval():
    comparison = comparisons.comparison(systems=4, images=500)
    actual = cells(leaderboard.leaderboard(comparison))
    for system in comparison.systems:
        row = actual[system.name]
        for guesses, heading in ((1, ONE_SEED), (5, "95 % interval of top-5, new images, these checkpoints")):
            (error,) = errors(system, guesses)
            wrong = round(error / 100 * 500)
            low, high = stats.binomtest(wrong, 500).proportion_ci(method="wilson")
            assert row[f"top-{guesses} error %"] == f"{error:.1f}"
            assert row[heading] == f"[{100 * low:.1f}, {100 * high:.1f}]"


def test_one_seed_is_formatted_as_in_the_table_of_runs():
    comparison = comparisons.comparison(
        systems=12, images=800
    )  # one image is 1/8 of a point, so many values tie in rounding
    actual = cells(leaderboard.leaderboard(comparison))
    for system in comparison.systems:
        wrong = system.runs[0].rates.top1_wrong
        assert (actual[system.name]["top-1 error %"], actual[system.name][ONE_SEED]) == format_rate(wrong, 800)


def test_several_seeds_have_an_interval_for_new_images_and_new_seeds():
    comparison = comparisons.comparison(systems=3, seeds=3)
    actual = cells(leaderboard.leaderboard(comparison))
    for guesses, heading in ((1, SEVERAL_SEEDS), (5, "95 % interval of top-5, new images and new seeds")):
        wrong = [np.stack([run.guesses.wrong(guesses) for run in system.runs]) for system in comparison.systems]
        expected = crossed_effects.error_intervals(crossed_effects.summarize(wrong))
        for system, (low, high) in zip(comparison.systems, 100 * expected, strict=True):
            row = actual[system.name]
            assert row[f"top-{guesses} error %"] == f"{np.mean(errors(system, guesses)):.1f}"
            assert row[heading] == f"[{low:.1f}, {high:.1f}]"
            assert row["seeds"] == "3"


def test_one_system_alone_has_the_interval_of_its_own_seeds():
    comparison = comparisons.comparison(systems=1, seeds=2)
    (row,) = cells(leaderboard.leaderboard(comparison)).values()
    wrong = crossed_effects.summarize([comparison.systems[0].wrong(1)])
    ((low, high),) = 100 * crossed_effects.error_intervals(wrong)
    assert row[SEVERAL_SEEDS] == f"[{low:.1f}, {high:.1f}]"


def with_one_seed(comparison, number):
    """Return the comparison with the first run alone of one system."""
    systems = list(comparison.systems)
    systems[number] = dataclasses.replace(systems[number], runs=systems[number].runs[:1])
    return dataclasses.replace(comparison, systems=tuple(systems))


def test_a_system_of_one_seed_takes_the_variance_of_the_others_and_the_caption_says_so():
    comparison = with_one_seed(comparisons.comparison(systems=3, seeds=3), 1)
    table = leaderboard.leaderboard(comparison)
    low, high = map(float, cells(table)["xrce_2011"][SEVERAL_SEEDS].strip("[]").split(", "))
    alone = comparison.systems[1].runs[0].rates.top1_wrong
    wilson = stats.binomtest(alone, 400).proportion_ci(method="wilson")
    assert high - low > 100 * (wilson.high - wilson.low)
    assert "A system of one seed takes the variance of the others' seeds." in table.caption
    assert "Wilson" not in table.caption
    assert "one seed" not in leaderboard.leaderboard(comparisons.comparison(systems=3, seeds=3)).caption


def test_systems_scored_on_different_images_have_intervals_too():
    comparison = comparisons.comparison(systems=2, seeds=2)
    *others, last = comparison.systems
    fewer = changed(dataclasses.replace(comparison, systems=(last,)), all_but_seven).systems
    table = leaderboard.leaderboard(dataclasses.replace(comparison, systems=(*others, *fewer)))
    assert all(row[SEVERAL_SEEDS].startswith("[") for row in cells(table).values())


def all_but_seven(run):
    guesses = {key: getattr(run.guesses, key)[:-7] for key in ("id", "label", "top5")}
    return dataclasses.replace(run, guesses=dataclasses.replace(run.guesses, **guesses))


@pytest.mark.parametrize(
    ("seeds", "question"),
    [(1, "as checkpoints on these images, by McNemar's test"),
     (2, "as recipes over new images and new seeds, by crossed effects")],
)  # fmt: skip
def test_the_note_on_letters_names_their_question(seeds, question):
    table = leaderboard.leaderboard(comparisons.comparison(systems=2, seeds=seeds), {"xrce_2011": "a"})
    assert f"Systems that share a letter do not differ significantly {question}." in table.caption


def test_the_caption_counts_the_records_that_were_left_out():
    comparison = comparisons.comparison(systems=2)
    assert "Left out" not in leaderboard.leaderboard(comparison).caption
    comparison.systems[1].runs[0].result["left_out"] = {"training": 5, "scored": 3}
    assert "Left out because they cannot be decoded: 3 records." in leaderboard.leaderboard(comparison).caption


def test_the_lowest_error_comes_first():
    comparison = comparisons.comparison(systems=6)
    given = dataclasses.replace(comparison, systems=comparison.systems[::-1])
    first = [float(row[1]) for row in leaderboard.leaderboard(given).rows]
    assert first == sorted(first)


def on_imagenet(comparison):
    """Return the comparison, whose runs were trained on ImageNet."""
    for system in comparison.systems:
        for run in system.runs:
            run.result["provenance"]["config"]["data"]["name"] = "imagenet2012"
    return dataclasses.replace(comparison, data="imagenet2012")


def test_sizes_published_numbers_and_letters():
    comparison = on_imagenet(comparisons.comparison(systems=4, seeds=2))
    actual = cells(leaderboard.leaderboard(comparison, {"zfnet": "ab"}))
    row = actual["xrce_2011"]
    assert (row["parameters"], row["multiply-adds"]) == ("11.0 M", "600 M")
    assert (row["images seen"], row["training FLOPs"], row["training seconds"]) == ("32.0 k", "5.00 P", "110")
    assert (row["published top-1 %"], row["published top-5 %"]) == ("–", "25.8")
    assert row["protocol; source"] == "test; image-net.org, results of 2011"
    assert (actual["zfnet"]["group"], row["group"]) == ("ab", "")


def test_a_system_without_a_published_error_has_dashes():
    comparison = on_imagenet(comparisons.comparison(systems=2))
    renamed = dataclasses.replace(comparison.systems[0], network="mine")
    table = leaderboard.leaderboard(dataclasses.replace(comparison, systems=(renamed, comparison.systems[1])))
    row = cells(table)["nec_uiuc_2010"]
    assert [row[heading] for heading in leaderboard.PUBLISHED if heading in row] == ["–", "–"]


def test_other_data_have_no_published_errors():
    table = leaderboard.leaderboard(comparisons.comparison(systems=4))
    assert not set(leaderboard.PUBLISHED) & set(table.headings)
    assert "published" not in table.caption.lower()


def test_people_are_listed_below_the_systems_on_imagenet_only():
    comparison = comparisons.comparison(systems=2, data="imagenet2012_side400_q90")
    table = leaderboard.leaderboard(comparison, {"xrce_2011": "a"})
    assert [row[0] for row in table.rows[2:]] == ["a person", "a second person"]
    first, second = (cells(table)[name] for name in ("a person", "a second person"))
    assert (first["top-1 error %"], first["top-5 error %"]) == ("–", "5.1")
    low, high = stats.binomtest(76, 1_500).proportion_ci(method="wilson")
    assert first["95 % interval of top-5, new images, these checkpoints"] == f"[{100 * low:.1f}, {100 * high:.1f}]"
    assert first["protocol; source"] == "1,500 test images; Karpathy 2014"
    assert (second["top-5 error %"], second["parameters"], second["group"]) == ("12.0", "–", "")
    assert "People had five guesses" in table.caption
    elsewhere = leaderboard.leaderboard(comparisons.comparison(systems=2))
    assert len(elsewhere.rows) == 2
    assert "People" not in elsewhere.caption


def test_the_split_of_time_and_the_memory():
    comparison = comparisons.comparison(systems=2, seeds=3)
    row = cells(leaderboard.costs(comparison))["xrce_2011"]
    assert row["training seconds"] == "111"  # the mean of 110, 111 and 112
    assert row["waiting for data (included)"] == "5.0"  # 40 rows of 1/8
    assert row["compilation"] == "13.5"
    assert row["evaluation"] == "10.0"
    assert row["saving"] == "1.0"
    assert row["peak memory"] == "2.10 GB (process)"


def test_values_missing_from_older_runs_are_dashes():
    row = leaderboard.costs(changed(comparisons.comparison(systems=1), without)).rows[0]
    assert row == ("nec_uiuc_2010", "100", "–", "–", "–", "–", "–", "unknown", "–", "–")


def test_seeds_one_by_one():
    assert leaderboard.seeds(comparisons.comparison(systems=2)) is None
    comparison = comparisons.comparison(systems=2, seeds=2)
    table = leaderboard.seeds(comparison)
    by_name = {system.name: system for system in comparison.systems}
    assert len(table.rows) == 4
    for name, seed, error, *_ in table.rows:
        assert error == f"{errors(by_name[name], 1)[int(seed)]:.1f}"


@pytest.mark.parametrize("images", [400, 12_000])
def test_decimals_follow_the_number_of_images(images):
    row = leaderboard.leaderboard(comparisons.comparison(systems=1, images=images)).rows[0]
    assert len(row[1].split(".")[1]) == (2 if images >= 10_000 else 1)
