"""Tests of charts: valid against the schema of Vega-Lite, and files that are not empty and always the same."""

import dataclasses
import json

import numpy as np
import pytest
import vl_convert
from altair.utils import schemapi
from altair.vegalite.v6.schema import core
from PIL import Image

from imagenet_repro.errors import SaveError
from imagenet_repro.report.plots import charts, curves, history, matrix, pareto
from imagenet_repro.storage import user
from tests.report import plot_helpers

HOSTILE = 'a\x07b\udce7 猫 <b> & "$x$" \\'


@pytest.fixture(scope="module")
def drawn():
    """Return charts of two systems, one of them with a name of difficult characters."""
    (first, second) = plot_helpers.plausible(2, 2).systems
    comparison = plot_helpers.comparison(
        plot_helpers.system(HOSTILE, *first.runs, network=first.network), second, data="silhouettes"
    )
    names = [system.name for system in comparison.systems]
    return [
        curves.draw_systems(comparison),
        pareto.draw_pareto(comparison),
        matrix.draw_matrix(names, np.array([[0, 2.0], [-2, 0]]), np.eye(2) == 0, stem="matrix", title="Pairs"),
        history.draw_history(comparison),
    ]


def test_specifications_are_valid_vega_lite(drawn):
    for chart in drawn:
        specification = chart.complete(chart.views[-1])
        schemapi.validate_jsonschema(specification, core.load_schema())
        assert all(specification["datasets"].values())


def test_files_have_pictures_and_well_formed_text(drawn, tmp_path):
    for chart in drawn:
        one = dataclasses.replace(chart, views=chart.views[-1:])
        png, svg = charts.write(one, tmp_path / "new", "the figure")
        assert [png.name, svg.name] == [f"{chart.views[-1].name}.png", f"{chart.views[-1].name}.svg"]
        assert len(Image.open(png).convert("RGB").getcolors(1 << 24) or ()) > 5
        plot_helpers.check_svg(svg)
        words = " ".join(filter(None, plot_helpers.words(svg)))
        assert "猫" in words
        assert r"a\x07b\udce7" in words


def test_the_same_chart_gives_the_same_files(drawn, tmp_path):
    first, second = (charts.write(drawn[2], tmp_path / folder, "the figure") for folder in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_folder_that_cannot_be_created_is_an_error(drawn, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="the matrix of differences"):
        charts.write(drawn[2], tmp_path / "file", "the matrix of differences")


def test_views_carry_only_the_data_that_they_read(drawn):
    chart = drawn[1]
    names = [set(chart.complete(view)["datasets"]) for view in chart.views]
    assert all("systems" in of_view for of_view in names)
    assert not any(name.startswith("front_seconds") for name in names[0])
    assert set().union(*names) == set(chart.datasets)


@pytest.mark.parametrize(
    ("ends", "ticks"),
    [
        ((1.5, 70), [2, 5, 10, 20, 50]),
        ((3e9, 4e12), [1e10, 1e11, 1e12]),
    ],
)
def test_ticks_of_logarithmic_axes(ends, ticks):
    assert charts.log_ticks(*ends) == ticks


def test_the_libraries_need_no_network_and_are_bundled_once(tmp_path, monkeypatch):
    monkeypatch.setattr(user, "cache_directory", lambda: tmp_path)
    script = charts.javascript.__wrapped__()
    (path,) = tmp_path.iterdir()
    assert path.read_text(encoding="utf-8") == script
    assert "window.vegaEmbed" in script
    assert "</script" not in script
    path.write_text("kept")
    assert charts.javascript.__wrapped__() == "kept"
    monkeypatch.setattr(user, "cache_directory", lambda: path / "below")
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda snippet: f"made anew; {snippet}")
    assert charts.javascript.__wrapped__().startswith("made anew")  # a cache that cannot be written costs time alone


def test_numbers_that_are_not_finite_are_missing():
    rows = [{"kind": "eval", "step": 1, "images": 8, "top1_error": float("nan"), "top5_error": 0.5, "progress": 1.0}]
    run = plot_helpers.run(logged=rows)
    chart = curves.draw_systems(plot_helpers.comparison(plot_helpers.system("a", run)))
    json.dumps(chart.datasets, allow_nan=False)
