import base64
import csv
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import pytest

from imagenet_repro.errors import SaveError
from imagenet_repro.report import comparison_page
from imagenet_repro.report.comparison_page import ComparisonPage, PageFigure
from imagenet_repro.report.plots import charts
from imagenet_repro.report.plots.charts import Chart, ChartView
from imagenet_repro.report.plots.style import LegendEntry
from imagenet_repro.report.records import Comparison, FailedRun
from imagenet_repro.report.sections import leaderboard
from imagenet_repro.report.tables import Table
from tests.report import comparisons
from tests.report.test_tables import flat, of_markdown

HOSTILE = "<script>alert('x')</script>"
VOID = {"meta", "link", "img", "br"}


class Document(HTMLParser):
    """A parsed page; a tag that is not closed in order is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.tables, self.words = [], [], {}, []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows = self.tables[dict(attributes)["id"]] = []
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)

    def attributes(self, tag):
        return [actual for name, actual in self.tags if name == tag]


def chart(name, text="a title"):
    """Return a chart of one point."""
    mark = {"data": {"name": "rows"}, "mark": "point", "encoding": {"x": {"field": "x", "type": "quantitative"}}}
    specification = {"concat": [mark | {"title": text}], "columns": 1, "config": {}}
    entry = LegendEntry(text, "resnet", "#0072B2", (1, 0), "circle")
    return Chart((ChartView("", name, specification),), {"rows": [{"x": 1}]}, (entry,))


def written(page, out):
    return Document(comparison_page.write(page, out).read_text())


def sections(document):
    return [actual["id"] for actual in document.attributes("section")]


@pytest.fixture
def full(tmp_path):
    """Return a page with something in every section."""
    comparison = comparisons.comparison(
        systems=3,
        seeds=2,
        selection="Three rates each, on the last tenth of the training set.",
        mixed=("budget: 5ep, 6ep.",),
        failures=(FailedRun("vgg16", 1, "the loss was not finite"),),
    )
    parts = ("curves", "compute", "differences", "classes", "confusions", "history")
    return ComparisonPage(
        comparison,
        "zfnet has the lowest error.\nTwo seeds are too few.",
        figures={part: [PageFigure(f"Of {part}", chart(part), "Caption.", "Alternative.")] for part in parts},
        tables={part: [Table(f"of_{part}", ("a", "b"), (("x", "1"),), "Handed in.")] for part in parts},
        groups={"xrce_2011": "a", "alexnet_2012": "a"},
        thumbnails=lambda ids: {id: b"jpeg " + id.encode() for id in ids},
    )


def test_sections_stand_in_order_and_nav_leads_to_each(full, tmp_path):
    document = written(full, tmp_path)
    assert sections(document) == [
        "selection",
        "warnings",
        "leaderboard",
        "what_differs",
        "curves",
        "compute",
        "differences",
        "classes",
        "confusions",
        "disagreements",
        "history",
        "provenance",
    ]
    assert [actual["href"] for actual in document.attributes("a") if "download" not in actual] == [
        f"#{anchor}" for anchor in sections(document)
    ]
    assert {"header", "nav", "main", "figure", "figcaption", "h1"} <= {name for name, _ in document.tags}


def test_sections_without_content_are_left_out(tmp_path):
    document = written(ComparisonPage(comparisons.comparison(systems=1), "One system."), tmp_path)
    assert sections(document) == ["leaderboard", "classes", "disagreements", "provenance"]
    assert "table-seeds" not in document.tables


def test_every_table_is_shown_and_beside_the_page_with_equal_cells(full, tmp_path):
    document = written(full, tmp_path)
    names = {id.removeprefix("table-") for id in document.tables}
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {
        f"{name}.{suffix}" for name in names for suffix in ("csv", "md")
    }
    for name in names:
        shown = document.tables[f"table-{name}"]
        text = (tmp_path / f"tables/{name}.csv").read_text()
        assert list(csv.reader(io.StringIO(text))) == shown
        assert of_markdown((tmp_path / f"tables/{name}.md").read_text()) == flat(shown)
    saved = [actual["href"].split(",")[1] for actual in document.attributes("a") if "download" in actual]
    assert {base64.b64decode(one).decode() for one in saved} == {
        path.read_text() for path in (tmp_path / "tables").glob("*.csv")
    }


def test_the_page_shows_the_numbers_of_its_tables(full, tmp_path):
    document = written(dataclasses.replace(full, comparison=dataclasses.replace(full.comparison, mixed=())), tmp_path)
    table = leaderboard.leaderboard(full.comparison, full.groups)
    assert document.tables["table-leaderboard"] == [list(table.headings), *map(list, table.rows)]


def test_nothing_is_fetched_from_elsewhere(full, tmp_path):
    document = written(full, tmp_path)
    for name, attributes in document.tags:
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            assert attributes.get(key, "#").startswith(("data:", "#")), (name, attributes)
    text = (tmp_path / "report.html").read_text().replace(charts.javascript(), "")  # the browser's test runs that
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest", text)
    (policy,) = [one["content"] for one in document.attributes("meta") if "Policy" in one.get("http-equiv", "")]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "http" not in policy


def test_figures_and_thumbnails_are_in_the_file(full, tmp_path):
    document = written(full, tmp_path)
    text = (tmp_path / "report.html").read_text()
    images = document.attributes("img")
    assert all(image["alt"] for image in images)
    contents = [json.loads(one) for one in re.findall(r"<script [^>]*data-chart>(.*?)</script>", text, re.S)]
    assert [content["views"][0]["name"] for content in contents] == list(full.figures)
    assert all(content["datasets"] == {"rows": [{"x": 1}]} for content in contents)
    assert text.count("window.vegaEmbed") == 1
    assert "figures/curves.svg" in document.text
    photographs = [image for image in images if "data-picture" in image]
    embedded = {image["data-picture"]: image["src"] for image in photographs if "src" in image}
    assert sum("src" in image for image in photographs) == len(embedded) < len(photographs)
    assert len(set(embedded.values())) == len(embedded)
    for image in photographs:
        content = base64.b64decode(embedded[image["data-picture"]].split(",")[1]).decode()
        assert content.removeprefix("jpeg ") in image["alt"]


def test_the_page_grows_as_the_systems_do_not_as_their_pairs(tmp_path):
    counts = []
    for systems in (12, 24):
        made = comparisons.comparison(systems=12, images=60)
        more = (dataclasses.replace(one, name=f"{one.name} again") for one in made.systems)
        every = dataclasses.replace(made, systems=(*made.systems, *more)[:systems])
        page = ComparisonPage(every, "Many.", thumbnails=lambda ids: {id: b"jpeg " + id.encode() for id in ids})
        document = written(page, tmp_path / str(systems))
        counts.append(sum(name in ("img", "li", "tr") for name, _ in document.tags))
        pictures = [image["src"] for image in document.attributes("img") if "src" in image]
        assert len(set(pictures)) == len(pictures)
        rows = (tmp_path / f"{systems}/tables/disagreements.csv").read_text().count("\n") - 1
        assert rows == systems * (systems - 1) // 2  # every pair is counted
    assert counts[1] < 2.2 * counts[0]


def test_the_rows_of_long_tables_are_in_the_page_once(tmp_path):
    table = Table("long", ("name", "value"), tuple((f"row {i}", f"{i}") for i in range(300)))
    tables = {"differences": [table, dataclasses.replace(table, name="short", rows=table.rows[:200])]}
    document = written(ComparisonPage(comparisons.comparison(), "Three.", tables=tables), tmp_path)
    assert len(document.tables["table-short"]) == 201
    assert document.tables["table-long"] == [["name", "value"]]
    (href,) = [one["href"] for one in document.attributes("a") if one.get("download") == "long.csv"]
    assert base64.b64decode(href.split(",")[1]).decode() == table.csv() == (tmp_path / "tables/long.csv").read_text()
    assert "They are also in tables/long.csv." in document.text


def test_only_ids_are_shown_without_thumbnails(full, tmp_path):
    document = written(dataclasses.replace(full, thumbnails=None, figures={}), tmp_path)
    assert document.attributes("img") == []
    assert re.search(r"validation/class\d+/\d+\.jpg", document.text)


def test_a_missing_thumbnail_leaves_the_id(full, tmp_path):
    document = written(dataclasses.replace(full, thumbnails=lambda _: {}, figures={}), tmp_path)
    assert document.attributes("img") == []


def test_many_pairs_are_folded_together(tmp_path):
    titles = [
        written(ComparisonPage(comparisons.comparison(systems=systems), "Some."), tmp_path).text.count(
            "and another does not ("
        )
        for systems in (4, 5)
    ]
    assert titles == [0, 1]


def test_every_table_of_mixed_runs_says_so(full, tmp_path):
    document = written(full, tmp_path)
    files = sorted((tmp_path / "tables").iterdir())
    assert len(files) > 20
    assert all(path.stem.endswith("_mixed") for path in files)
    assert all("Mixed: budget: 5ep, 6ep." in path.read_text() for path in files if path.suffix == ".md")
    text = (tmp_path / "report.html").read_text()
    captions = re.findall(r"<caption><span>(.*?)</span></caption>", text)
    assert len(captions) == len(document.tables)
    assert all(caption.startswith("Mixed: budget: 5ep, 6ep.") for caption in captions)


def test_warnings_name_what_differs_and_what_failed(full, tmp_path):
    text = written(full, tmp_path).text
    assert "vgg16, seed 1: the loss was not finite" in text
    assert "These runs differ in conditions that should be equal" in text
    assert "Three rates each, on the last tenth of the training set." in text


def test_verdict_and_setting_stand_first(full, tmp_path):
    text = written(full, tmp_path).text
    assert text.index("zfnet has the lowest error.") < text.index("3 systems, 6 runs under different conditions")
    alike = dataclasses.replace(full, comparison=dataclasses.replace(full.comparison, mixed=()))
    text = written(alike, tmp_path).text
    assert text.index("zfnet has the lowest error.") < text.index(
        "3 systems, 6 runs with a budget of 5ep each, trained on made/up train"
    )


def hostile(comparison):
    """Return the comparison with an attack in every text that a user can choose."""
    systems = [
        dataclasses.replace(one, name=f"{HOSTILE}{k}", runs=tuple(_hostile_run(run) for run in one.runs))
        for k, one in enumerate(comparison.systems)
    ]
    return Comparison(
        tuple(systems),
        tuple(f"{HOSTILE}{c}" for c in range(10)),
        *[HOSTILE] * 5,
        mixed=(HOSTILE,),
        failures=(FailedRun(HOSTILE, 0, HOSTILE),),
    )


def _hostile_run(run):
    config = {"data": {"name": HOSTILE}, "note": f"</pre>{HOSTILE}"}
    source = run.result["provenance"] | {"config": config, "commit": HOSTILE, "packages": {HOSTILE: "1"}}
    ids = run.guesses.id
    guesses = dataclasses.replace(run.guesses, id=ids.astype("U80"))
    guesses.id[:] = [f'"{HOSTILE}{i:05d}' for i in range(len(ids))]
    return dataclasses.replace(run, result=run.result | {"provenance": source}, guesses=guesses)


def test_hostile_names_stay_text(tmp_path):
    quoted = f'"{HOSTILE}'
    page = ComparisonPage(
        hostile(comparisons.comparison(systems=3)),
        HOSTILE,
        figures={"curves": [PageFigure(quoted, chart("curves", HOSTILE), quoted, quoted)]},
        groups={f"{HOSTILE}0": HOSTILE},
        thumbnails=lambda ids: dict.fromkeys(ids, b"x"),
    )
    document = written(page, tmp_path)
    assert [name for name, _ in document.tags].count("script") == 4  # the page's own, one of them a chart's data
    assert [one["aria-label"] for one in document.attributes("div") if one.get("class") == "chart card"] == [quoted]
    assert document.text.count(HOSTILE) > 50
    assert not any("<script" in path.read_text() for path in (tmp_path / "tables").glob("*.md"))


def test_runs_without_optional_keys(tmp_path):
    comparison = comparisons.comparison(systems=2)
    required_keys = ("system", "spent", "rates")
    systems = []
    for system in comparison.systems:
        result = {key: system.runs[0].result[key] for key in required_keys} | {"provenance": {"config": {}}}
        result["spent"] = {"images": 10}
        run = dataclasses.replace(system.runs[0], result=result, rows=[])
        systems.append(dataclasses.replace(system, runs=(run,), network=""))
    document = written(ComparisonPage(dataclasses.replace(comparison, systems=tuple(systems)), "Two."), tmp_path)
    row = document.tables["table-leaderboard"][1]
    assert row[5:] == ["–", "–", "10", "–", "–", "1"]
    assert document.tables["table-costs"][1][1:] == [*["–"] * 6, "unknown", "–", "–"]


def test_every_run_has_its_provenance(full, tmp_path):
    document = written(full, tmp_path)
    rows = document.tables["table-runs_mixed"][1:]
    assert [row[:3] for row in rows] == [
        [system.name, str(run.seed), str(run.path)] for system in full.comparison.systems for run in system.runs
    ]
    assert {row[3] for row in rows} == {"0123456789abcdef0123456789abcdef01234567"}
    assert document.text.count('"train_split": "train"') == 6
    assert document.text.count("jax 0.10.2, numpy 2.4.6") == 6


def test_the_same_page_twice_has_the_same_bytes(full, tmp_path):
    first = comparison_page.write(full, tmp_path / "a").read_bytes()
    assert comparison_page.write(full, tmp_path / "b").read_bytes() == first


def test_pages_without_charts_have_no_libraries(tmp_path):
    written(ComparisonPage(comparisons.comparison(systems=1), "One system."), tmp_path)
    assert "vegaEmbed" not in (tmp_path / "report.html").read_text()


def test_images_of_charts_have_their_thumbnails_once(full, tmp_path):
    shown = [f"validation/class{k % 10:03d}/{k:05d}.jpg" for k in range(0, 400, 5)]
    rows = [{"examples": [{"id": id, "label": "a", "guess": "b"}]} for id in shown]
    pictured = dataclasses.replace(chart("confusions"), datasets={"rows": rows})
    figures = {"confusions": [PageFigure("Of confusions", pictured, "Caption.", "Alternative.")]}
    images = written(dataclasses.replace(full, figures=figures), tmp_path).attributes("img")
    embedded = [image["data-id"] for image in images if "src" in image]
    assert len(set(embedded)) == len(embedded)
    assert set(shown) <= set(embedded)
    assert any("hidden" in image for image in images)


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="a table of the page"):
        comparison_page.write(ComparisonPage(comparisons.comparison(), "Three."), tmp_path / "file/out")


def test_two_tables_with_the_same_name_are_an_error(tmp_path):
    table = Table("leaderboard", ("a",), (("x",),))
    with pytest.raises(ValueError, match="two tables have the same name"):
        comparison_page.write(ComparisonPage(comparisons.comparison(), "Three.", tables={"curves": [table]}), tmp_path)


def test_an_unknown_part_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no part"):
        comparison_page.write(ComparisonPage(comparisons.comparison(), "Three.", tables={"leaderboard": []}), tmp_path)


def test_the_page_says_which_protocol_and_set_its_errors_are_of(tmp_path):
    comparison = comparisons.comparison(
        systems=2, protocol="10crop", evaluation_set="ImageNet-V2", evaluation_data="imagenet_v2/matched-frequency"
    )
    document = written(ComparisonPage(comparison, "Two."), tmp_path)
    assert "images of ImageNet-V2 (imagenet_v2/matched-frequency, validation), by the evaluation protocol 10crop" in (
        document.text
    )
    caption = leaderboard.leaderboard(comparison).caption
    assert caption.startswith(
        "Errors on 400 images of imagenet_v2/matched-frequency, validation, by the evaluation protocol 10crop."
    )
    assert "evaluating one view" in caption


@pytest.mark.parametrize(
    ("seeds", "expected", "absent"),
    [(1, "Leaderboard: Wilson's interval of one checkpoint's error", "seeds"),
     (2, "Leaderboard: the mean error over other seeds, on other images", "Wilson")],
)  # fmt: skip
def test_the_page_states_its_convention_for_intervals(tmp_path, seeds, expected, absent):
    document = written(ComparisonPage(comparisons.comparison(systems=2, seeds=seeds), "Two."), tmp_path)
    note = leaderboard.interval_note(comparisons.comparison(systems=2, seeds=seeds))
    assert note in document.text
    assert expected in note
    assert absent not in note
