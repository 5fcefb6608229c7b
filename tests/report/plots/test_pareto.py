import itertools
import math

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

from imagenet_repro.errors import SaveError
from imagenet_repro.report.plots import pareto
from imagenet_repro.statistics.intervals import binomial_interval
from tests.report import plot_helpers


def by_definition(cost, error):
    def dominates(a, b):
        return cost[a] <= cost[b] and error[a] <= error[b] and (cost[a] < cost[b] or error[a] < error[b])

    return [not any(dominates(a, b) for a in range(len(cost))) for b in range(len(cost))]


@pytest.mark.parametrize("levels", [2, 4, 1000])  # fewer values give more ties
@pytest.mark.parametrize("points", [1, 2, 7, 30])
def test_the_front_has_the_points_that_none_dominates(points, levels):
    rng = np.random.default_rng(points * levels)
    for _ in range(20):
        cost, error = rng.integers(0, levels, (2, points)).astype(float)
        assert pareto.pareto_front(cost, error).tolist() == by_definition(cost, error)


def test_equal_points_share_the_front_and_nan_is_not_on_it():
    cost, error = np.array([1.0, 1.0, 2.0, math.nan, 0.5]), np.array([3.0, 3.0, 3.0, 1.0, math.nan])
    assert pareto.pareto_front(cost, error).tolist() == [True, True, False, False, False]


@pytest.fixture
def figures(monkeypatch):
    drawn_figures = []
    monkeypatch.setattr(pareto, "write", lambda figure, *_: drawn_figures.append(figure) or [])
    return drawn_figures


def marks(panel):
    return [line for line in panel.lines if line.get_marker() in ("o", "s", "^")]


def test_marks_bars_and_names_are_where_the_numbers_say(tmp_path, figures):
    small = plot_helpers.system("small", plot_helpers.run(top1=500, top5=300, flops=2e15))
    large = plot_helpers.system("large", *(plot_helpers.run(s, 390 + 10 * s, 200, flops=4e15) for s in range(3)))
    worse = plot_helpers.system("worse", plot_helpers.run(top1=600, top5=100, flops=8e15))
    pareto.plot_pareto(plot_helpers.comparison(small, large, worse), tmp_path / "p.png")
    top1, top5 = figures[0].axes
    result = [(mark.get_xdata()[0], mark.get_ydata()[0]) for mark in marks(top1)]
    np.testing.assert_allclose(result, [(2, 50), (4, 40), (8, 60)])
    assert top1.get_xlabel().endswith("(× 10¹⁵)")
    bars = [line.get_ydata() for line in top1.lines if len(line.get_xdata()) == 2]
    np.testing.assert_allclose(bars[0], 100 * np.array(binomial_interval(500, 1000)))
    np.testing.assert_allclose(bars[1], [39, 41])
    bold = [{text.get_text() for text in panel.texts if text.get_fontweight() == "bold"} for panel in (top1, top5)]
    assert bold == [{"small", "large"}, {"small", "large", "worse"}]
    hollow = [mark.get_markerfacecolor() == "white" for mark in marks(top1)]
    assert hollow == [False, False, True]
    steps = top1.lines[0]
    corners = [top1.get_ylim()[1], 50, 50, 40, 40]
    np.testing.assert_allclose(steps.get_ydata(), corners)
    np.testing.assert_allclose(steps.get_xdata(), [2, 2, 4, 4, top1.get_xlim()[1]])


def test_multiply_adds_are_those_of_one_image(tmp_path, figures):
    systems = [
        plot_helpers.system(name, plot_helpers.run(multiply_adds=n))
        for name, n in (("a", 2 * 10**8), ("b", 5 * 10**9))
    ]
    pareto.plot_pareto(plot_helpers.comparison(*systems), tmp_path / "p.png", against="multiply_adds")
    np.testing.assert_allclose([mark.get_xdata()[0] for mark in marks(figures[0].axes[0])], [0.2, 5])
    assert figures[0].axes[0].get_xlabel() == "multiply-adds of one image (× 10⁹)"


def test_twelve_long_names_overlap_nothing_as_drawn(tmp_path, figures):
    pareto.plot_pareto(plot_helpers.plausible(12, 1, ", modern"), tmp_path / "p.png")
    figures[0].draw_without_rendering()
    for panel in figures[0].axes:
        boxes = [Text.get_window_extent(text) for text in panel.texts]  # the box of an annotation without its line
        places = panel.transData.transform([(mark.get_xdata()[0], mark.get_ydata()[0]) for mark in marks(panel)])
        assert len(boxes) == len(places) == 12
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        assert not any(box.contains(*point) for box in boxes for point in places)
        assert all(panel.bbox.contains(*corner) for box in boxes for corner in box.corners())


@pytest.mark.parametrize(("systems", "seeds"), [(1, 3), (12, 1)])
def test_files_are_sound_and_name_every_system_in_both_panels(tmp_path, systems, seeds):
    comparison = plot_helpers.plausible(systems, seeds, ", <a> & $b$")
    png, svg = pareto.plot_pareto(comparison, tmp_path / "new/p.png")
    assert (png, svg) == (tmp_path / "new/p.png", tmp_path / "new/p.svg")
    assert imread(png).shape[1] == 1760
    plot_helpers.check_svg(svg)
    words = plot_helpers.words(svg)
    assert all(words.count(system.name) == 2 for system in comparison.systems)


def test_equal_costs_and_errors_of_zero_and_one_are_drawn(tmp_path):
    systems = [
        plot_helpers.system(f"s{wrong}", plot_helpers.run(top1=wrong, top5=wrong, images=50)) for wrong in (0, 1, 50)
    ]
    plot_helpers.check_svg(pareto.plot_pareto(plot_helpers.comparison(*systems), tmp_path / "p.png")[1])


def test_the_same_systems_give_the_same_files(tmp_path):
    first, second = (pareto.plot_pareto(plot_helpers.plausible(3, 1), tmp_path / f"{n}.png") for n in "ab")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="errors against costs"):
        pareto.plot_pareto(plot_helpers.plausible(1, 1), tmp_path / "file/p.png")
