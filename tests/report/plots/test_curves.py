import itertools
import math
import re

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.image import imread
from scipy.optimize import minimize

from imagenet_repro.errors import SaveError
from imagenet_repro.report.plots import curves, style
from tests.report import plot_helpers


def train(step, loss):
    return {"kind": "train", "step": step, "images": 8 * step, "progress": step / 100, "loss": loss}


def evaluated(step, top1, top5):
    return {"kind": "eval", "step": step, "images": 8 * step, "evaluated": 50, "top1_error": top1, "top5_error": top5}


def a_run(evaluations=3):
    rows = [train(step, 5 - step / 30) for step in range(0, 100, 5)]
    return rows + [evaluated(30 * (n + 1), 0.9 - 0.2 * n, 0.5 - 0.1 * n) for n in range(evaluations)]


def text_in(svg):
    """Return the texts of an SVG whose text became outlines; matplotlib keeps each text as a comment."""
    return re.findall(r"<!-- (.*?) -->", svg.read_text())


def pixels_of(png, colour):
    picture = imread(png)[..., :3]
    return int(np.sum(np.all(np.abs(picture - matplotlib.colors.to_rgb(colour)) < 2 / 255, axis=-1)))


def test_both_files_name_every_run_in_every_panel(tmp_path):
    png, svg = curves.plot_curves({"AlexNet": a_run(), "ResNet-18": a_run()}, tmp_path / "new/curves.png")
    assert (png, svg) == (tmp_path / "new/curves.png", tmp_path / "new/curves.svg")
    words = text_in(svg)
    assert words.count("AlexNet") == words.count("ResNet-18") == 3
    assert {"Training loss", "Top-1 error, %", "Top-5 error, %"} <= set(words)
    assert "chance" not in words
    assert pixels_of(png, style.COLOURS[1]) > 500


def test_chance_is_drawn_where_the_classes_are_known(tmp_path):
    _, svg = curves.plot_curves({"a": a_run()}, tmp_path / "c.png", num_classes=10)
    assert text_in(svg).count("chance") == 2


@pytest.mark.parametrize(
    ("rows", "named", "empty"),
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
def test_runs_with_few_rows_are_drawn(tmp_path, rows, named, empty):
    _, svg = curves.plot_curves({"network": rows}, tmp_path / "c.png", num_classes=3)
    assert text_in(svg).count("network") == named
    assert text_in(svg).count("none recorded") == empty


def test_names_with_special_characters_are_drawn_as_text(tmp_path):
    names = ["_hidden", "a$b$c", "a & b"]
    _, svg = curves.plot_curves({name: a_run() for name in names}, tmp_path / "c.png")
    words = text_in(svg)
    assert words.count("_hidden") == words.count("a$b$c") == 3


def test_the_same_runs_give_the_same_file(tmp_path):
    runs = {"a": a_run(), "b": a_run(1)}
    first, second = (curves.plot_curves(runs, tmp_path / f"{n}.png") for n in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_more_runs_than_colours_differ_in_style(tmp_path):
    styles = [(s["color"], s["linestyle"]) for s in itertools.islice(style.styles(), 15)]
    assert len(set(styles)) == 15
    _, svg = curves.plot_curves({f"run{n}": a_run() for n in range(15)}, tmp_path / "c.png")
    assert all(text_in(svg).count(f"run{n}") == 3 for n in range(15))


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


@pytest.mark.parametrize("seed", range(5))
def test_names_move_as_little_as_possible_without_overlap(seed):
    rng = np.random.default_rng(seed)
    heights, gap = rng.uniform(0, 0.5, 6), 0.1
    places = curves.spread(heights, gap)
    order = np.argsort(heights)
    bounds = [{"type": "ineq", "fun": lambda p: np.diff(p[order]) - gap}, {"type": "ineq", "fun": lambda p: p}]
    start = np.linspace(0, 1, 6)[np.argsort(order)]
    best = minimize(lambda p: np.sum((p - heights) ** 2), start, constraints=bounds, options={"ftol": 1e-14})
    np.testing.assert_allclose(places, best.x, atol=1e-5)


def test_names_stay_inside_the_panel_even_when_there_are_too_many():
    places = curves.spread(np.linspace(0.9, 1.0, 40), 0.1)
    np.testing.assert_allclose(places, np.linspace(0, 1, 40), atol=1e-9)


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


@pytest.fixture
def figures(monkeypatch):
    drawn_figures = []
    monkeypatch.setattr(curves, "write", lambda figure, *_: drawn_figures.append(figure) or [])
    return drawn_figures


def systems_of(**runs):
    compared = [
        plot_helpers.system(
            name, *(plot_helpers.run(seed, logged=rows) for seed, rows in enumerate(seeds)), network=name
        )
        for name, seeds in runs.items()
    ]
    return plot_helpers.comparison(*compared)


@pytest.mark.parametrize(
    ("against", "seconds", "label", "axis"),
    [
        ("images", (60, 90), "images seen in training", ("linear", 0, 1e4)),
        ("flops", (60, 90), "floating-point operations (× 10¹²)", ("linear", 0, 90)),
        ("flops", (60, 900), "floating-point operations (× 10¹²)", ("log", 30, 900)),
        ("seconds", (60, 90), "seconds of training", ("linear", 0, 90)),
        ("seconds", (1200, 900), "minutes of training", ("linear", 0, 20)),
        ("seconds", (3600, 36000), "hours of training", ("log", 0.5, 10)),
    ],
)
def test_the_axis_has_its_label_and_scale(figures, against, seconds, label, axis):
    a, b = (seeds_of([(0.5, 0.2)], [end]) for end in seconds)
    curves.plot_systems(systems_of(alexnet=a, resnet50=b), "c.png", against=against)
    for panel in figures[0].axes:
        assert panel.get_xlabel() == label
        assert panel.get_xscale() == axis[0]
        np.testing.assert_allclose(panel.get_xlim(), axis[1:])


def test_bands_are_drawn_for_several_seeds_only_and_explained(tmp_path, figures):
    several = seeds_of([(0.5, 0.2), (0.6, 0.3)], [100, 100])
    curves.plot_systems(systems_of(alexnet=several, resnet50=several[:1]), tmp_path / "c.png")
    assert [len(panel.collections) for panel in figures[0].axes] == [1, 1, 1]
    assert "means over 1 or 2 seeds" in figures[0].get_supxlabel()
    band = figures[0].axes[1].collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([band[:, 1].min(), band[:, 1].max()], [20, 60])
    curves.plot_systems(systems_of(alexnet=several[:1]), tmp_path / "c.png")
    assert not any(panel.collections for panel in figures[1].axes)
    assert figures[1].get_supxlabel() == ""


def test_hinge_losses_do_not_stand_beside_cross_entropies(tmp_path, figures):
    runs = seeds_of([(0.5, 0.2)], [100])
    for names, drawn_losses in ((("alexnet", "xrce_2011"), 1), (("nec_uiuc_2010", "xrce_2011"), 2)):
        curves.plot_systems(systems_of(**dict.fromkeys(names, runs)), tmp_path / "c.png")
        named = [line for line in figures[-1].axes[0].lines if line.get_label().startswith(curves.RUN)]
        assert len(named) == drawn_losses
    assert "Not shown: the training loss of xrce_2011" in figures[0].get_supxlabel()
    assert figures[1].get_supxlabel() == ""


@pytest.mark.parametrize(
    ("against", "systems", "seeds", "evaluations"),
    [("images", 1, 3, 1), ("flops", 12, 3, 100), ("seconds", 2, 1, 0)],
)
def test_files_of_systems_are_sound_and_small(tmp_path, against, systems, seeds, evaluations):
    systems_compared = plot_helpers.plausible(systems, seeds, ", <a> & $b$", evaluations)
    png, svg = curves.plot_systems(systems_compared, tmp_path / "new/c.png", against=against)
    assert (png, svg) == (tmp_path / "new/c.png", tmp_path / "new/c.svg")
    plot_helpers.check_svg(svg)
    words = plot_helpers.words(svg)
    for system in systems_compared.systems:
        assert words.count(system.name) == (0 if not evaluations else 2 + ("20" not in system.network))


def test_long_logs_make_no_large_files(tmp_path):
    progress = (np.arange(1, 3001) / 3000).tolist()
    logged = [
        row for row in plot_helpers.rows(progress, progress, progress, (1e6, 1e15, 1e3)) if row["kind"] == "train"
    ]
    for row in logged:
        row["loss"] = math.nan if row["step"] % 7 == 0 else row["loss"] + math.sin(row["step"])
    systems_compared = systems_of(alexnet=[logged, logged], resnet50=[logged, logged])
    plot_helpers.check_svg(curves.plot_systems(systems_compared, tmp_path / "c.png")[1])
