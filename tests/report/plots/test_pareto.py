import dataclasses
import math

import numpy as np
import pytest

from imagenet_repro.report.plots import charts, pareto
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


def panels(chart, key="flops"):
    (view,) = [view for view in chart.views if view.name == f"pareto_{key}"]
    return view.specification["concat"]


def three():
    small = plot_helpers.system("small", plot_helpers.run(top1=500, top5=300, flops=2e15))
    large = plot_helpers.system("large", *(plot_helpers.run(s, 390 + 10 * s, 200, flops=4e15) for s in range(3)))
    worse = plot_helpers.system("worse", plot_helpers.run(top1=600, top5=100, flops=8e15))
    return plot_helpers.comparison(small, large, worse)


def test_points_bars_and_front_are_where_the_numbers_say():
    chart = pareto.draw_pareto(three())
    rows = chart.datasets["systems"]
    assert [(row["flops"], row["top1"], row["top5"]) for row in rows] == [
        (2e15, 50, 30),
        (4e15, 40, 20),
        (8e15, 60, 10),
    ]
    np.testing.assert_allclose(
        [rows[0]["top1_low"], rows[0]["top1_high"]], 100 * np.array(binomial_interval(500, 1000)), rtol=1e-5
    )
    assert (rows[1]["top1_low"], rows[1]["top1_high"], rows[1]["seeds"]) == (39, 41, 3)
    assert [row["front_flops_1"] for row in rows] == [True, True, False]
    assert all(row["front_flops_5"] for row in rows)
    (low, high), right = (panels(chart)[0]["layer"][0]["encoding"][axis]["scale"]["domain"] for axis in "yx")
    corners = [(row["cost"], row["error"]) for row in chart.datasets["front_flops_1"]]
    expected = [(2e15, high), (2e15, 50), (4e15, 50), (4e15, 40), (right[1], 40)]
    np.testing.assert_allclose(corners, expected, rtol=1e-5)
    assert low < 39


def test_names_on_the_front_are_bold():
    chart = pareto.draw_pareto(three())
    assert {row["system"] for row in chart.datasets["names_flops_1"] if row["front"]} == {"small", "large"}
    assert {row["label"] for row in chart.datasets["names_flops_5"]} == {"small", "large", "worse"}


def test_costs_that_are_not_known_of_all_systems_are_no_choice():
    a, b = (plot_helpers.system(n, plot_helpers.run(multiply_adds=10**9)) for n in "ab")
    a.runs[0].result.update(parameters=5, energy={"joules": 7.0, "parts": {"cpu": {"joules": 7.0}}})
    b.runs[0].result.update(parameters=6)
    chart = pareto.draw_pareto(plot_helpers.comparison(a, b))
    assert [view.name for view in chart.views] == [
        f"pareto_{k}" for k in ("flops", "seconds", "parameters", "multiply_adds")
    ]
    assert [row["parameters"] for row in chart.datasets["systems"]] == [5, 6]
    b.runs[0].result.update(energy={"joules": 9.0, "parts": {"cpu": {"joules": 9.0}}})
    chart = pareto.draw_pareto(plot_helpers.comparison(a, b))
    assert [row["joules"] for row in chart.datasets["systems"]] == [7, 9]


def test_many_systems_have_a_legend_and_no_names_beside_their_points():
    few, many = (
        plot_helpers.comparison(*(plot_helpers.system(f"s{i}", plot_helpers.run(top1=i)) for i in range(n)))
        for n in (3, pareto.MOST_NAMES + 1)
    )
    drawn = pareto.draw_pareto(few), pareto.draw_pareto(many)
    assert ["names_flops_1" in chart.datasets for chart in drawn] == [True, False]


def test_equal_costs_and_errors_of_zero_and_one_are_drawn(tmp_path):
    systems = [
        plot_helpers.system(f"s{wrong}", plot_helpers.run(top1=wrong, top5=wrong, images=50)) for wrong in (0, 1, 50)
    ]
    chart = pareto.draw_pareto(plot_helpers.comparison(*systems))
    one = dataclasses.replace(chart, views=chart.views[:1])
    plot_helpers.check_svg(charts.write(one, tmp_path, "the figure")[1])
