import itertools
import math
import re

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.image import imread
from scipy.optimize import minimize

from imagenet_repro.comparison import curves
from imagenet_repro.errors import SaveError


def train(step, loss):
    return {"kind": "train", "step": step, "images": 8 * step, "progress": step / 100, "loss": loss}


def evaluated(step, top1, top5):
    return {"kind": "eval", "step": step, "images": 8 * step, "evaluated": 50, "top1_error": top1, "top5_error": top5}


def a_run(evaluations=3):
    rows = [train(step, 5 - step / 30) for step in range(0, 100, 5)]
    return rows + [evaluated(30 * (n + 1), 0.9 - 0.2 * n, 0.5 - 0.1 * n) for n in range(evaluations)]


def text_in(svg):
    """The words of an SVG whose text matplotlib has turned into shapes: it keeps each as a comment."""
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
    assert pixels_of(png, curves.COLOURS[1]) > 500


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
def test_runs_with_little_in_them(tmp_path, rows, named, empty):
    _, svg = curves.plot_curves({"network": rows}, tmp_path / "c.png", num_classes=3)
    assert text_in(svg).count("network") == named
    assert text_in(svg).count("none recorded") == empty


def test_names_that_a_drawing_library_could_misread(tmp_path):
    names = ["_hidden", "a$b$c", "a & b"]
    _, svg = curves.plot_curves({name: a_run() for name in names}, tmp_path / "c.png")
    words = text_in(svg)
    assert words.count("_hidden") == words.count("a$b$c") == 3


def test_the_same_runs_give_the_same_file(tmp_path):
    runs = {"a": a_run(), "b": a_run(1)}
    first, second = (curves.plot_curves(runs, tmp_path / f"{n}.png") for n in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_more_runs_than_colours_stay_apart(tmp_path):
    styles = [(s["color"], s["linestyle"]) for s in itertools.islice(curves._styles(), 15)]
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
def test_names_move_as_little_as_keeps_them_apart(seed):
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


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="learning curves"):
        curves.plot_curves({"a": a_run()}, tmp_path / "file/c.png")
