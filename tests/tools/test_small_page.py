"""Tests of the small copy of a comparison page."""

from imagenet_repro.report import html_page
from imagenet_repro.report.html_page import PageFigure, PageSection
from imagenet_repro.report.plots.charts import Chart, ChartView
from tools import small_page

FIGURE = "<figure>\n{}\n</figure>\n"
PAGE = (
    "<header>\n</header>\n"
    f'<section id="curves">\n{FIGURE.format("first")}{FIGURE.format("second")}</section>\n'
    f'<section id="history">\n{FIGURE.format("third")}<table>history</table></section>\n'
    '<section id="disagreements">\n<img src="data:image/jpeg;base64,AAAA" alt="dog">'
    '<img data-picture="0" alt="dog"><b>dog</b></section>\n'
    f'<section id="target_digits">\n{FIGURE.format("fourth")}{FIGURE.format("fifth")}'
    '<p><a href="digits/report.html">The complete comparison</a></p></section>\n'
    "<dd>/somewhere/else/runs/demo/runs/alexnet</dd>\n"
)


def test_thumbnails_and_minor_figures_are_left_out(tmp_path):
    (tmp_path / "page.html").write_text(PAGE)
    assert small_page.main([str(tmp_path / "page.html"), str(tmp_path / "small.html")]) == 0
    text = (tmp_path / "small.html").read_text()
    assert "first" in text
    assert "second" not in text
    assert "third" not in text
    assert "fourth" in text
    assert "fifth" not in text
    assert "complete comparison" not in text
    assert "<table>history</table>" in text
    assert "<b>dog</b>" in text
    assert "jpeg" not in text
    assert "data-picture" not in text
    assert "<dd>runs/demo/runs/alexnet</dd>" in text
    assert text.count(small_page.NOTE) == 1


def test_charts_become_pictures_and_their_libraries_are_left_out(tmp_path):
    marks = {"data": {"name": "rows"}, "mark": "point"}
    chart = Chart((ChartView("", "curves_images", {"concat": [marks]}),), {"rows": [{"x": 1}]})
    body = html_page.render_figures([PageFigure("Curves", chart, "A caption.", "Rising lines.")])
    page = html_page.render_page("Title", "Verdict", "Setting", [PageSection("curves", "Curves", body)])
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/curves_images.svg").write_text("<svg/>")
    text = small_page.shrink(page, tmp_path / "figures")
    assert 'src="data:image/svg+xml;base64,PHN2Zy8+" alt="Rising lines."' in text
    assert "A caption." in text
    assert "vegaEmbed" not in text
    assert text.count("<script") == text.count("</script>") == 1
    assert text.endswith("</body>\n</html>\n")


def test_a_page_that_stays_large_is_refused(tmp_path, capsys):
    (tmp_path / "page.html").write_text(PAGE + "x" * small_page.LARGEST)
    assert small_page.main([str(tmp_path / "page.html"), str(tmp_path / "small.html")]) == 1
    assert "more than 300,000" in capsys.readouterr().err
    assert not (tmp_path / "small.html").exists()
