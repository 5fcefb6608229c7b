"""A table of texts in three forms: CSV for programs, Markdown beside it, HTML for the page. Their cells are equal."""

import csv
import dataclasses
import html
import io
import re

MISSING = "–"  # what stands where nothing was recorded
WIDE = 24  # letters, from which a column of words gets more room
# A number with its unit, an interval or a range: what stands at the right of its column.
NUMBER = re.compile(r"\[?[+−-]?\d[\d,.]*(, −?[\d,.]+\]| to −?[\d,.]+| [kMGTPE]?B?)?( \((device|process)\))?")


@dataclasses.dataclass(frozen=True)
class Table:
    """Headings and rows of texts.

    Attributes:
      name: of its files, without suffix; unlike that of every other table of a page.
      headings: one for each column; the first column names the row.
      rows: a cell for each heading.
      caption: what the table says, and what its numbers mean.

    Raises ValueError where a row has more or fewer cells than there are headings.
    """

    name: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.headings):
                raise ValueError(f"table {self.name}: {len(row)} cells under {len(self.headings)} headings: {row}")

    def csv(self) -> str:
        """Headings and rows, without the caption (RFC 4180, but lines end with a line feed alone)."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.headings, *self.rows])
        return text.getvalue()

    def markdown(self) -> str:
        """The table and below it the caption, with a final newline; what is markup to Markdown is escaped."""
        rule = ["---:" if right else "---" for right in self._right()]
        lines = [map(_markdown_cell, self.headings), rule, *(map(_markdown_cell, row) for row in self.rows)]
        table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
        return f"{table}\n{_markdown_text(self.caption)}\n" if self.caption else table

    def html(self) -> str:
        """A `table` with scopes, the caption first; columns of numbers have the class `n`, of long words `w`."""
        marks = [self._mark(i, right) for i, right in enumerate(self._right())]
        head = "".join(
            f'<th scope="col"{mark}>{html.escape(heading)}</th>'
            for mark, heading in zip(marks, self.headings, strict=True)
        )
        body = "\n".join(f"<tr>{_html_row(row, marks)}</tr>" for row in self.rows)
        caption = f"<caption><span>{html.escape(self.caption)}</span></caption>\n" if self.caption else ""
        return (
            f'<table id="table-{html.escape(self.name)}">\n{caption}<thead><tr>{head}</tr></thead>\n'
            f"<tbody>\n{body}\n</tbody>\n</table>\n"
        )

    def _mark(self, column: int, right: bool) -> str:
        if right:
            return ' class="n"'
        return ' class="w"' if column and any(len(row[column]) > WIDE for row in self.rows) else ""

    def _right(self) -> list[bool]:
        """Of each column, whether it holds nothing but numbers."""
        known = [
            [row[i] for row in self.rows if row[i] not in ("", MISSING)] if i else []
            for i in range(len(self.headings))
        ]
        return [bool(cells) and all(map(NUMBER.fullmatch, cells)) for cells in known]


def _markdown_text(text: str) -> str:
    """As one line; a name with an angle bracket stays a name wherever the file is shown."""
    return " ".join(text.split("\n")).replace("&", "&amp;").replace("<", "&lt;")


def _markdown_cell(text: str) -> str:
    return _markdown_text(text).replace("\\", "\\\\").replace("|", "\\|")


def _html_row(row: tuple[str, ...], marks: list[str]) -> str:
    first, *others = (html.escape(cell) for cell in row)
    cells = "".join(f"<td{mark}>{cell}</td>" for mark, cell in zip(marks[1:], others, strict=True))
    return f'<th scope="row">{first}</th>{cells}'
