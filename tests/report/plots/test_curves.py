import json
import math

import numpy as np
import pytest
from PIL import Image

from imagenet_repro.errors import SaveError
from imagenet_repro.report.plots import charts, curves, style
from tests.report import plot_helpers


def train(step, loss):
    return {"kind": "train", "step": step, "images": 8 * step, "progress": step / 100, "loss": loss}


def evaluated(step, top1, top5):
    return {"kind": "eval", "step": step, "images": 8 * step, "evaluated": 50, "top1_error": top1, "top5_error": top5}


def a_run(evaluations=3):
    rows = [train(step, 5 - step / 30) for step in range(0, 100, 5)]
    return rows + [evaluated(30 * (n + 1), 0.9 - 0.2 * n, 0.5 - 0.1 * n) for n in range(evaluations)]


def written(monkeypatch, tmp_path, runs, **options):
    """Return the chart that `plot_curves` writes."""
    drawn = []
    monkeypatch.setattr(charts, "write", lambda chart, *_: drawn.append(chart) or [])
    curves.plot_curves(runs, tmp_path / "c.png", **options)
    return drawn[0]


def test_both_files_name_every_run(tmp_path):
    paths = curves.plot_curves({"AlexNet": a_run(), "ResNet-18": a_run()}, tmp_path / "new/curves.png")
    assert paths == [tmp_path / "new/curves.png", tmp_path / "new/curves.svg"]
    words = plot_helpers.words(paths[1])
    assert {"AlexNet", "ResNet-18", "Training loss", "Top-1 error, %", "Top-5 error, %"} <= set(words)
    assert "chance" not in words
    assert Image.open(paths[0]).width > 1500


def test_chance_is_drawn_where_the_classes_are_known(tmp_path, monkeypatch):
    chart = written(monkeypatch, tmp_path, {"a": a_run()}, num_classes=10)
    assert chart.datasets["chance_top1_error"] == [{"chance": 90.0}]
    assert chart.datasets["chance_top5_error"] == [{"chance": 50.0}]
    assert json.dumps(chart.views[0].specification).count('"text": "chance"') == 2


@pytest.mark.parametrize(
    ("rows", "drawn", "empty"),
    [
        (a_run(1), 3, 0),
        (a_run(0), 1, 2),
        ([evaluated(10, 0.5, 0.2)], 2, 1),
        ([train(0, math.nan), train(1, None), evaluated(1, math.nan, 0.1)], 1, 2),
        ([train(0, math.inf), train(1, 2.0)], 1, 2),
        ([train(0, 5.0)], 1, 2),
        ([], 0, 3),
    ],
)
def test_runs_with_few_rows_are_drawn(tmp_path, monkeypatch, rows, drawn, empty):
    chart = written(monkeypatch, tmp_path, {"network": rows}, num_classes=3)
    names = ("loss_images", "top1_error_images", "top5_error_images")
    assert sum(any(row["value"] is not None for row in chart.datasets[name]) for name in names) == drawn
    assert json.dumps(chart.views[0].specification).count("none recorded") == empty


def test_more_runs_than_colours_differ_in_style():
    looks = [(one.colour, one.dash) for one in style.entries([(f"run {n}", "") for n in range(15)])]
    assert len(set(looks)) == 15


def test_a_repeated_step_counts_once_by_its_last_row():
    rows = [train(0, 5.0), train(5, 4.0), train(10, 9.0), train(5, 3.0), train(10, 2.0), evaluated(10, 0.5, 0.1)]
    images, loss = curves.series(rows, "train", "loss")
    np.testing.assert_array_equal(images, [0, 40, 80])
    np.testing.assert_array_equal(loss, [5, 3, 2])


@pytest.mark.parametrize("width", [0, 1, 2, 3, 8, 50])
def test_smoothing_is_the_mean_of_the_known_values_around(width):
    values = np.random.default_rng(0).normal(size=40)
    values[[0, 7, 8, 39]] = np.nan
    width_used = max(1, width)
    after = (width_used - 1) // 2
    for index, smoothed in enumerate(curves.smooth(values, width)):
        window = values[max(0, index - (width_used - 1 - after)) : index + after + 1]
        expected = np.nan if np.isnan(values[index]) else np.nanmean(window)
        np.testing.assert_allclose(smoothed, expected, atol=1e-12)


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="learning curves"):
        curves.plot_curves({"a": a_run()}, tmp_path / "file/c.png")


# --- several seeds of several systems ---------------------------------------------------------------------------


def seeds_of(errors, amounts, progress=(0.5, 1.0)):
    """Return the rows of one run for each seed, from errors and amounts spent."""
    total = [(1e4, 1e12 * amount, amount) for amount in amounts]
    return [plot_helpers.rows(progress, one, one, spent) for one, spent in zip(errors, total, strict=True)]


def test_seeds_are_one_line_with_their_range():
    runs = seeds_of([(0.5, 0.2), (0.7, 0.1), (0.6, 0.6)], [100, 200, 300])
    result = curves.curve(runs, "eval", "top1_error", "seconds")
    np.testing.assert_allclose(result.x, [100, 200])  # means of 50, 100, 150 and of 100, 200, 300
    np.testing.assert_allclose(result.y, [0.6, 0.3])
    np.testing.assert_allclose(result.low, [0.5, 0.1])
    np.testing.assert_allclose(result.high, [0.7, 0.6])
    assert result.seeds == 3


def test_seeds_that_were_evaluated_elsewhere_meet_at_equal_progress():
    runs = seeds_of([(0.8, 0.4)], [100], (0.5, 1.0)) + seeds_of([(0.8, 0.6, 0.2)], [300], (0.4, 0.6, 1.0))
    result = curves.curve(runs, "eval", "top1_error", "seconds")
    np.testing.assert_allclose(result.x, [(50 + 150) / 2, (100 + 300) / 2])
    np.testing.assert_allclose(result.y, [(0.8 + 0.7) / 2, (0.4 + 0.2) / 2])


def test_one_seed_is_its_own_line():
    runs = seeds_of([(0.5, 0.2)], [100])
    result = curves.curve(runs, "eval", "top1_error", "flops")
    spent, error = curves.series(runs[0], "eval", "top1_error", "flops")
    np.testing.assert_array_equal([result.x, result.y, result.low, result.high], [spent, error, error, error])


def test_a_seed_without_values_does_not_count_and_one_that_lacks_some_leaves_a_gap():
    runs = seeds_of([(0.5, 0.2), (math.nan, math.nan), (math.nan, 0.4)], [100] * 3)
    result = curves.curve(runs, "eval", "top1_error")
    np.testing.assert_allclose(result.y, [np.nan, 0.3])
    assert result.seeds == 2
    assert curves.curve([[], []], "eval", "top1_error").seeds == 0


def systems_of(**runs):
    compared = [
        plot_helpers.system(
            name, *(plot_helpers.run(seed, logged=rows) for seed, rows in enumerate(seeds)), network=name
        )
        for name, seeds in runs.items()
    ]
    return plot_helpers.comparison(*compared)


def axis_of(chart, against):
    """Return the horizontal axis of the first line of a view."""
    (view,) = [view for view in chart.views if view.name == f"curves_{against}"]
    return view.specification["concat"][1]["layer"][-1 - 2]["encoding"]["x"]


@pytest.mark.parametrize(
    ("against", "seconds", "axis"),
    [
        ("images", (60, 90), ("linear", 0, 1e4)),
        ("flops", (60, 90), ("linear", 0, 90e12)),
        ("flops", (60, 900), ("log", 30e12, 900e12)),
        ("seconds", (60, 90), ("linear", 0, 90)),
        ("seconds", (3600, 36000), ("log", 1800, 36000)),
    ],
)
def test_each_choice_of_the_axis_has_its_scale(against, seconds, axis):
    a, b = (seeds_of([(0.5, 0.2)], [end]) for end in seconds)
    chart = curves.draw_systems(systems_of(alexnet=a, resnet50=b))
    assert [view.name for view in chart.views] == ["curves_images", "curves_flops", "curves_seconds"]
    x = axis_of(chart, against)
    assert x["title"] == curves.AMOUNTS[against]
    assert x["scale"]["type"] == axis[0]
    np.testing.assert_allclose(x["scale"]["domain"], axis[1:])


def test_energy_is_a_choice_where_every_run_logged_it():
    with_energy = seeds_of([(0.5, 0.2)], [100])
    for number, row in enumerate(with_energy[0]):
        row["joules"] = 10.0 * (number + 1)
    without = seeds_of([(0.5, 0.2)], [100])
    names = [
        [view.name for view in curves.draw_systems(systems_of(alexnet=with_energy, resnet50=other)).views]
        for other in (with_energy, without)
    ]
    assert [set(of_both) - set(names[1]) for of_both in names] == [{"curves_joules"}, set()]


def test_the_points_are_those_of_the_logs():
    runs = seeds_of([(0.5, 0.2)], [100])
    rows = curves.draw_systems(systems_of(alexnet=runs)).datasets["top1_error_seconds"]
    logged = [row for row in runs[0] if row["kind"] == "eval"]
    assert [(row["x"], row["value"]) for row in rows] == [(one["seconds"], 100 * one["top1_error"]) for one in logged]
    assert {row["system"] for row in rows} == {"alexnet"}


def test_bands_are_drawn_for_several_seeds_only_and_explained():
    several = seeds_of([(0.5, 0.2), (0.6, 0.3)], [100, 100])
    chart = curves.draw_systems(systems_of(alexnet=several, resnet50=several[:1]))
    marks = [layer["mark"]["type"] for layer in chart.views[0].specification["concat"][1]["layer"]]
    assert marks.count("area") == 1
    assert "means over 1 or 2 seeds" in json.dumps(chart.views[0].specification["title"])
    ends = [(row["low"], row["high"]) for row in chart.datasets["top1_error_images"] if "low" in row]
    np.testing.assert_allclose(ends, [(50, 60), (20, 30)])
    alone = curves.draw_systems(systems_of(alexnet=several[:1]))
    assert '"area"' not in json.dumps(alone.views[0].specification)
    assert "title" not in alone.views[0].specification


def test_hinge_losses_do_not_stand_beside_cross_entropies():
    runs = seeds_of([(0.5, 0.2)], [100])
    both, features = (
        curves.draw_systems(systems_of(**dict.fromkeys(names, runs)))
        for names in (("alexnet", "xrce_2011"), ("nec_uiuc_2010", "xrce_2011"))
    )
    assert {row["system"] for row in both.datasets["loss_images"]} == {"alexnet"}
    assert len({row["system"] for row in features.datasets["loss_images"]}) == 2
    assert "Not shown: the training loss of xrce_2011" in json.dumps(both.views[0].specification["title"])


def test_long_logs_make_no_large_charts():
    progress = (np.arange(1, 3001) / 3000).tolist()
    logged = [
        row for row in plot_helpers.rows(progress, progress, progress, (1e6, 1e15, 1e3)) if row["kind"] == "train"
    ]
    for row in logged:
        row["loss"] = math.nan if row["step"] % 7 == 0 else row["loss"] + math.sin(row["step"])
    chart = curves.draw_systems(systems_of(alexnet=[logged, logged], resnet50=[logged, logged]))
    assert len(json.dumps(chart.datasets)) < 150_000


def test_the_lines_of_many_systems_have_no_marks_beyond_the_axis():
    a, b = (seeds_of([(0.5, 0.2)], [end], (0.1, 1.0)) for end in (10, 1000))
    chart = curves.draw_systems(systems_of(alexnet=a, resnet50=b))
    start = axis_of(chart, "flops")["scale"]["domain"][0]
    assert all(row["x"] >= 0.999 * start for row in chart.datasets["loss_flops"])
