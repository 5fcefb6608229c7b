import math

import numpy as np
import pytest

from imagenet_repro.errors import SaveError
from imagenet_repro.report.plots import matrix
from tests.report import plot_helpers


def plot(errors, different, path, names=None):
    errors = np.asarray(errors, np.float64)
    names = names or [f"system {n}" for n in range(len(errors))]
    return matrix.plot_matrix(names, errors[:, None] - errors, np.asarray(different), path, title="Top-1 error")


def apart(names, *pairs):
    result = np.zeros((names, names), bool)
    for i, j in pairs:
        result[i, j] = result[j, i] = True
    return result


def cells(panel):
    return {(int(text.get_position()[1]), int(text.get_position()[0])): text for text in panel.texts}


def colour_of_cells(panel):
    """Return the colour of each cell by row and column."""
    mesh = panel.collections[0]
    return mesh.to_rgba(mesh.get_array()).reshape(*mesh.get_array().shape, 4)


@pytest.fixture
def figures(monkeypatch):
    drawn_figures = []
    monkeypatch.setattr(matrix, "write", lambda figure, *_: drawn_figures.append(figure) or [])
    return drawn_figures


def test_rows_and_columns_rise_in_error_and_cells_are_row_less_column(tmp_path, figures):
    plot([30.0, 10.0, 10.5], apart(3, (0, 1), (0, 2)), tmp_path / "m.png")
    panel = figures[0].axes[0]
    order = ["system 1", "system 2", "system 0"]
    assert [label.get_text() for label in panel.get_yticklabels()] == order
    assert [label.get_text() for label in panel.get_xticklabels()] == order
    result = {cell: text.get_text() for cell, text in cells(panel).items()}
    assert result == {
        (0, 1): "(−0.5)",
        (0, 2): "−20.0",
        (1, 0): "(+0.5)",
        (1, 2): "−19.5",
        (2, 0): "+20.0",
        (2, 1): "+19.5",
    }
    bold = {cell for cell, text in cells(panel).items() if text.get_fontweight() == "bold"}
    assert bold == {(0, 2), (1, 2), (2, 0), (2, 1)}


def test_signs_have_opposite_colours_and_nothing_is_white(tmp_path, figures):
    plot([10.0, 20.0, 20.0], apart(3), tmp_path / "m.png")
    colours = colour_of_cells(figures[0].axes[0])
    red, blue = (colours[0, 1][[0, 2]], colours[1, 0][[0, 2]])
    assert red[1] > red[0]  # purple: more blue than red
    assert blue[0] > blue[1]  # orange
    assert np.ptp(colours[1, 2][:3]) < 0.02


def test_small_differences_stay_pale(tmp_path, figures):
    plot([10.0, 10.2], apart(2), tmp_path / "m.png")
    assert min(colour_of_cells(figures[0].axes[0])[0, 1, :3]) > 0.9


def test_black_text_can_be_read_on_every_colour():
    """Check the contrast of the Web Content Accessibility Guidelines 2.1: at least 4.5 for text of this size."""
    rgb = matrix.COLOURS(np.linspace(0, 1, 256))[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    assert np.min((linear @ [0.2126, 0.7152, 0.0722] + 0.05) / 0.05) > 4.5


def test_unknown_differences_are_blank(tmp_path, figures):
    points = np.array([[0, 1, math.nan], [-1, 0, -3], [math.nan, 3, 0]])
    matrix.plot_matrix(["a", "b", "c"], points, np.ones((3, 3), bool), tmp_path / "m.png", title="t")
    assert len(figures[0].axes[0].texts) == 4


def test_many_systems_have_dots_instead_of_numbers(tmp_path, figures):
    n_systems = matrix.MOST_NUMBERS + 1
    plot(np.arange(n_systems), ~apart(n_systems, (3, 5)), tmp_path / "m.png")
    panel = figures[0].axes[0]
    assert not panel.texts
    assert sorted(map(tuple, panel.collections[1].get_offsets())) == [(3.5, 5.5), (5.5, 3.5)]
    assert "Dot: the difference is not significant" in figures[0].get_supxlabel().replace("\n", " ")
    assert max(figures[0].get_size_inches()) < 15


@pytest.mark.parametrize("systems", [1, 12])
def test_files_are_sound_and_have_every_name_twice(tmp_path, systems):
    names = [f"se_resnext50_32x4d, <modern> {n}" for n in range(systems)]
    files = plot(np.linspace(20, 60, systems), apart(systems), tmp_path / "new/m.png", names)
    assert files == [tmp_path / "new/m.png", tmp_path / "new/m.svg"]
    plot_helpers.check_svg(files[1])
    words = plot_helpers.words(files[1])
    assert all(words.count(name) == 2 for name in names)


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="matrix of differences"):
        plot([1.0, 2.0], apart(2), tmp_path / "file/m.png")
