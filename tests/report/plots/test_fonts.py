"""Tests of characters in figures that matplotlib's own font lacks."""

import warnings

import matplotlib
import pytest
from matplotlib import font_manager

from imagenet_repro.report.plots import canvas, fonts

NAMES = ("猫 (cat)", "כלב", "🐟 fish", "Äpfel ★", "a\x07b", "\udce7", "plain")


@pytest.fixture
def few_fonts(monkeypatch):
    """Leave the fonts that come with matplotlib, as on a machine without others."""
    shipped = [entry for entry in font_manager.fontManager.ttflist if "mpl-data" in entry.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", shipped)
    for function in (fonts._family, fonts._fonts):
        function.cache_clear()
    yield
    for function in (fonts._family, fonts._fonts):
        function.cache_clear()


def draw(directory, names, kind):
    """Draw names as the labels of an axis, as a title and in a legend; return the SVG and the figure."""
    with matplotlib.rc_context(canvas.STYLE | kind):
        figure = canvas.new_figure((5, 3))
        panel = figure.subplots()
        panel.barh(range(len(names)), 1)
        panel.set_yticks(range(len(names)), names)
        panel.set_title(names[0])
        panel.legend([names[0]])
        paths = canvas.write(figure, directory / "names.png", "the figure")
    return paths[1].read_text(encoding="utf-8"), figure


def test_missing_characters_are_escaped(few_fonts):
    shown = [fonts.escape(name) for name in NAMES]
    assert shown == [r"\u732b (cat)", "כלב", r"\U0001f41f fish", "Äpfel ★", r"a\x07b", r"\udce7", "plain"]
    assert fonts.escape("猫" * 30) == r"\u732b" * 9 + "…"
    assert fonts.escape("猫" + 200 * " word") == r"\u732b" + 200 * " word"


def test_outlines_have_a_stated_substitute(few_fonts, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg, _ = draw(tmp_path, NAMES, canvas.NO_FORMULAS)
        plain, _ = draw(tmp_path, NAMES[-1:], canvas.NO_FORMULAS)
    assert fonts.NOTE in svg  # matplotlib writes each text as a comment beside its outlines
    assert r"\u732b (cat)" in svg
    assert fonts.NOTE not in plain


def test_another_installed_font_is_used(few_fonts, tmp_path):
    stix = next(path for name, path in fonts._fonts() if name == "STIXGeneral")
    base = fonts._fonts()[0][1]
    character = chr(min(code for code in fonts._characters(stix) - fonts._characters(base) if code > 0x100))
    assert fonts.escape(character) == character
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, figure = draw(tmp_path, [f"{character} name"], canvas.NO_FORMULAS)
    assert figure.axes[0].title.get_fontfamily() == [fonts.BASE, fonts._family(character)]
