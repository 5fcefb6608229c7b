import csv
import dataclasses
import html
import io
import re
from xml.etree import ElementTree

import pytest

from imagenet_repro.report import html_page
from imagenet_repro.report.tables import Table

HOSTILE = '<script>alert("x")</script> | & \\ , "quoted"\n-- '
TABLE = Table(
    "sizes",
    ("system", "errors", "interval", "range", "amount", "negative", "memory", "gain", "words"),
    (
        ("a", "12.5", "[11.0, 14.0]", "11.0 to 14.0", "61.1 M", "[−2.0, −0.4]", "2.05 GB (device)", "−1.5", "of it"),
        (HOSTILE, "1,234", "[0.0, 0.4]", "1 to 2", "999", "−0.1 to 0.4", "1.00 GB (process)", "+0.1", HOSTILE),
        ("c", "–", "", "", "–", "–", "–", "0.0", "3"),
    ),
    "What it says: <b> & more.",
)


def of_markdown(text):
    """Return the cells of a table in Markdown, unescaped."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1] for line in lines]
    return [[html.unescape(re.sub(r"\\(.)", r"\1", cell.strip())) for cell in row] for row in (rows[0], *rows[2:])]


def of_html(text):
    """Return the cells of a table in HTML, which must be well-formed XML too."""
    return [["".join(cell.itertext()) for cell in row] for row in ElementTree.fromstring(text).iter("tr")]


def flat(rows):
    """Return the rows without line breaks, which a cell in Markdown cannot have, and with trimmed cells."""
    return [[cell.replace("\n", " ").strip() for cell in row] for row in rows]


def test_three_forms_have_equal_cells():
    every = [list(TABLE.headings), *map(list, TABLE.rows)]
    assert list(csv.reader(io.StringIO(TABLE.csv()))) == every
    assert of_html(TABLE.html()) == every
    assert of_markdown(TABLE.markdown()) == flat(every)


def test_a_page_shows_an_excerpt_and_the_files_all_rows():
    table = dataclasses.replace(TABLE, excerpt=(2, 0), chosen="c, and a")
    shown = table.on_page("tables")
    assert shown.rows == (TABLE.rows[2], TABLE.rows[0])
    assert shown.caption == f"{TABLE.caption} Shown are 2 of 3 rows: c, and a. All rows are in tables/sizes.csv."
    assert (table.csv(), table.markdown()) == (TABLE.csv(), TABLE.markdown())
    card = html_page.render_table(table, is_folded=False)
    assert card.count("<tr>") == 3
    assert HOSTILE.strip() not in html.unescape(card)


def test_cells_and_captions_are_escaped():
    assert "<script" not in TABLE.html() + TABLE.markdown()
    assert "<b>" not in TABLE.html() + TABLE.markdown()
    assert TABLE.markdown().endswith("\nWhat it says: &lt;b> &amp; more.\n")


def test_numbers_stand_at_the_right_and_words_at_the_left():
    head = ElementTree.fromstring(TABLE.html()).find("thead/tr")
    right = {cell.text: cell.get("class") == "n" for cell in head}
    assert right == {name: name not in ("system", "words") for name in TABLE.headings}
    assert TABLE.markdown().splitlines()[1] == "| --- |" + " ---: |" * 7 + " --- |"


def test_headings_have_scopes():
    table = ElementTree.fromstring(TABLE.html())
    assert {cell.get("scope") for cell in table.iterfind("thead/tr/th")} == {"col"}
    assert [cell.get("scope") for cell in table.iterfind("tbody/tr/th")] == ["row"] * 3
    assert table.find("caption/span").text == TABLE.caption


def test_a_row_of_the_wrong_length_is_an_error():
    with pytest.raises(ValueError, match="table t: 1 cells under 2 headings"):
        Table("t", ("a", "b"), (("x",),))


def test_tables_with_bytes_that_are_no_text_are_written(tmp_path):
    path = b"/runs/\xff".decode(errors="surrogateescape")  # as Python reads the name of such a file
    html_page.save_tables([Table("paths", ("path",), ((path,), ("猫",)))], tmp_path)
    assert (tmp_path / "paths.csv").read_bytes() == "path\n/runs/\\udcff\n猫\n".encode()
    assert html_page.render_table(Table("paths", ("path",), ((path,),)), is_folded=False)
