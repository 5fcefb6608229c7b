"""A table of texts in three forms with equal cells: CSV for programs, Markdown for documents, HTML for the page."""

import csv
import dataclasses
import io
import re

from markupsafe import Markup

from imagenet_repro.report.templating import render

MISSING = "–"  # stands for a value that was not recorded
LONG_TEXT = 24  # characters; a column of words with a longer cell is set wider on the page
# A number with its unit, an interval, or a range. Columns of only such cells are aligned to the right.
INTERVAL = r"\[[+−-]?[\d,.]+, [+−-]?[\d,.]+\]"
NUMBER = re.compile(rf"{INTERVAL}|<?[+−-]?\d[\d,.]*( {INTERVAL}| to −?[\d,.]+| [kMGTPE]?B?)?( \((device|process)\))?")


@dataclasses.dataclass(frozen=True)
class Table:
    """Headings and rows of texts.

    Attributes:
      name: stem of the table's files; unique on a page.
      headings: one for each column; the first column names the row.
      rows: one cell for each heading.
      caption: what the table shows and what its numbers mean.
      heading: above the table on a page; empty: one that follows from the name.
      excerpt: indices of the rows that a page shows where it does not show all; the files have all rows.
      chosen: which rows those are, as a clause.

    Raises:
      ValueError: a row has more or fewer cells than there are headings.
    """

    name: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    heading: str = ""
    excerpt: tuple[int, ...] | None = None
    chosen: str = ""

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.headings):
                raise ValueError(f"table {self.name}: {len(row)} cells under {len(self.headings)} headings: {row}")

    def on_page(self, directory: str) -> "Table":
        """Return the table as a page shows it: the rows of the excerpt, and a note on where the others are.

        Args:
          directory: where the table's files are, relative to the page.
        """
        if self.excerpt is None:
            return self
        rows = tuple(self.rows[index] for index in self.excerpt)
        note = (
            f"Shown are {len(rows):,} of {len(self.rows):,} rows: {self.chosen}. All rows are in"
            f" {directory}/{self.name}.csv."
        )
        return dataclasses.replace(self, rows=rows, caption=f"{self.caption} {note}".strip(), excerpt=None)

    def csv(self) -> str:
        """Return headings and rows as CSV (RFC 4180, but with line feeds alone), without the caption."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.headings, *self.rows])
        return text.getvalue()

    def markdown(self) -> str:
        """Return the table in Markdown with the caption below it and a final newline; all markup is escaped."""
        rule = ["---:" if is_numeric else "---" for is_numeric in self._numeric_columns()]
        lines = [map(_markdown_cell, self.headings), rule, *(map(_markdown_cell, row) for row in self.rows)]
        table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
        return f"{table}\n{_markdown_text(self.caption)}\n" if self.caption else table

    def html(self, *, with_rows: bool = True) -> Markup:
        """Return a `table` element with scopes and a caption, and with rows unless a script adds them.

        Columns of numbers have the class `n`, columns of long words the class `w`.
        """
        classes = [self._css_class(i, is_numeric) for i, is_numeric in enumerate(self._numeric_columns())]
        return render("table.html", table=self, classes=classes, rows=self.rows if with_rows else ())

    def _css_class(self, column: int, is_numeric: bool) -> str:
        if is_numeric:
            return "n"
        return "w" if column and any(len(row[column]) > LONG_TEXT for row in self.rows) else ""

    def _numeric_columns(self) -> list[bool]:
        """Return for each column whether it holds only numbers."""
        known_cells = [
            [row[i] for row in self.rows if row[i] not in ("", MISSING)] if i else []
            for i in range(len(self.headings))
        ]
        return [bool(cells) and all(map(NUMBER.fullmatch, cells)) for cells in known_cells]


def _markdown_text(text: str) -> str:
    """Return the text as one line in which angle brackets are not read as HTML."""
    return " ".join(text.split("\n")).replace("&", "&amp;").replace("<", "&lt;")


def _markdown_cell(text: str) -> str:
    return _markdown_text(text).replace("\\", "\\\\").replace("|", "\\|")
