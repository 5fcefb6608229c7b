import json
import math

import numpy as np
import pytest

from imagenet_repro.report.plots import matrix


def draw(errors, different, names=None):
    errors = np.asarray(errors, np.float64)
    names = names or [f"system {n}" for n in range(len(errors))]
    return matrix.draw_matrix(names, errors[:, None] - errors, np.asarray(different), stem="m", title="Top-1 error")


def apart(names, *pairs):
    result = np.zeros((names, names), bool)
    for i, j in pairs:
        result[i, j] = result[j, i] = True
    return result


def layers(chart):
    return chart.views[0].specification["concat"][0]["layer"]


def test_rows_and_columns_rise_in_error_and_cells_are_row_less_column():
    chart = draw([30.0, 10.0, 10.5], apart(3, (0, 1), (0, 2)))
    order = ["system 1", "system 2", "system 0"]
    assert [layers(chart)[0]["encoding"][axis]["scale"]["domain"] for axis in "xy"] == [order, order]
    cells = {(row["row"][-1], row["column"][-1]): (row["points"], row["text"]) for row in chart.datasets["cells"]}
    assert cells == {
        ("1", "2"): (-0.5, "(−0.5)"),
        ("1", "0"): (-20, "−20.0"),
        ("2", "1"): (0.5, "(+0.5)"),
        ("2", "0"): (-19.5, "−19.5"),
        ("0", "1"): (20, "+20.0"),
        ("0", "2"): (19.5, "+19.5"),
    }
    significant = {
        (row["row"][-1], row["column"][-1]) for row in chart.datasets["cells"] if row["significant"] == "yes"
    }
    assert significant == {("1", "0"), ("0", "1"), ("2", "0"), ("0", "2")}


@pytest.mark.parametrize(("errors", "strongest"), [([10.0, 10.2], matrix.SATURATED), ([10.0, 40.0], 30.0)])
def test_small_differences_stay_pale(errors, strongest):
    domain = layers(draw(errors, apart(2)))[0]["encoding"]["color"]["scale"]["domain"]
    assert (domain[0], domain[-1], domain[len(domain) // 2]) == (-strongest, strongest, 0)


def test_signs_have_opposite_colours_and_nothing_is_white():
    rgb = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in matrix.COLOURS])
    assert rgb[0][2] > rgb[0][0]  # purple: more blue than red
    assert rgb[-1][0] > rgb[-1][2]  # orange
    assert np.ptp(rgb[len(rgb) // 2]) < 6
    assert (rgb < 250).any(axis=1).all()


def test_dark_text_can_be_read_on_every_colour():
    """Check the contrast of the Web Content Accessibility Guidelines 2.1: at least 4.5 for text of this size."""
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in (*matrix.COLOURS, matrix.INK)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (luminance[:-1].min() + 0.05) / (luminance[-1] + 0.05) > 4.5


def test_unknown_differences_are_blank():
    points = np.array([[0, 1, math.nan], [-1, 0, -3], [math.nan, 3, 0]])
    chart = matrix.draw_matrix(["a", "b", "c"], points, np.ones((3, 3), bool), stem="m", title="t")
    assert len(chart.datasets["cells"]) == 4


def test_many_systems_have_dots_instead_of_numbers():
    n_systems = matrix.MOST_NUMBERS + 1
    chart = draw(np.arange(n_systems), ~apart(n_systems, (3, 5)))
    assert [layer["mark"]["type"] for layer in layers(chart)] == ["rect", "circle"]
    dots = {(row["row"], row["column"]) for row in chart.datasets["cells"] if row["significant"] == "no"}
    assert dots == {("system 3", "system 5"), ("system 5", "system 3")}
    assert "Dot: the difference is not significant" in json.dumps(chart.views[0].specification["title"])
