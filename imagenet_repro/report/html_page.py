"""What the pages share: one HTML file that needs no network, its sections, and tables that can be sorted and saved.

`page.css` and `page.js` become part of the file; pictures are data: URIs. The script lets a reader sort tables and
changes nothing else: without it everything can be read.
"""

import base64
import dataclasses
import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from imagenet_repro.errors import UserError
from imagenet_repro.report.tables import Table
from imagenet_repro.storage import files

HERE = Path(__file__).parent
MIXED = "_mixed"  # at the end of the files' names of a mixed comparison
LONG = 24  # rows, from which a table is folded
NARROW = 400  # points of width, up to which a picture is narrow
WIDTH = re.compile(rb'<svg[^>]* width="([\d.]+)pt"')


@dataclasses.dataclass(frozen=True)
class PageFigure:
    """A picture that is already drawn.

    Attributes:
      title: a few words.
      svg: the file.
      caption: what it shows.
      alt: what somebody who cannot see it should know.
    """

    title: str
    svg: Path
    caption: str
    alt: str


@dataclasses.dataclass(frozen=True)
class PageSection:
    """A part of a page; `body` is HTML and empty where there is nothing to say."""

    anchor: str
    title: str
    body: str
    tables: tuple[Table, ...] = ()


def document(title: str, verdict: str, setting: str, sections: Iterable[PageSection]) -> str:
    """The whole file.

    Args:
      title: small, above all.
      verdict: one to three lines of text; the first stands largest.
      setting: what the page is about, in a line.
      sections: in order, each linked from the top; none of them empty.
    """
    sections = list(sections)
    links = "".join(f'<li><a href="#{one.anchor}">{html.escape(one.title)}</a></li>\n' for one in sections)
    bodies = "".join(
        f'<section id="{one.anchor}" aria-labelledby="{one.anchor}-title">\n'
        f'<h2 id="{one.anchor}-title">{html.escape(one.title)}</h2>\n{one.body}</section>\n'
        for one in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>
{(HERE / "page.css").read_text()}</style>
</head>
<body>
<header>
<h1>{html.escape(title)}</h1>
<div class="verdict">
{paragraphs(verdict)}</div>
<p class="setting">{html.escape(setting)}</p>
</header>
<nav aria-label="Sections">
<ul>
{links}</ul>
</nav>
<main>
{bodies}</main>
<script>
{(HERE / "page.js").read_text()}</script>
</body>
</html>
"""


def paragraphs(text: str) -> str:
    """Each line as a paragraph."""
    return "".join(f"<p>{html.escape(line)}</p>\n" for line in text.splitlines() if line.strip())


def listed(heading: str, items: Sequence[str]) -> str:
    """A heading and the items below it; nothing without items."""
    if not items:
        return ""
    lines = "".join(f"<li>{html.escape(item)}</li>\n" for item in items)
    return f"<p>{html.escape(heading)}</p>\n<ul>\n{lines}</ul>\n"


def data_uri(kind: str, content: bytes) -> str:
    """A file inside of a page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def figures(drawn: Sequence[PageFigure]) -> str:
    """Pictures below or beside each other; nothing without any. Raises UserError where one cannot be read."""
    return f'<div class="figures">\n{"".join(map(_figure, drawn))}</div>\n' if drawn else ""


def _figure(figure: PageFigure) -> str:
    try:
        content = figure.svg.read_bytes()
    except OSError as error:
        raise UserError(f"the figure {figure.svg} cannot be read: {error.strerror or error}") from error
    title, caption, alt = (html.escape(text) for text in (figure.title, figure.caption, figure.alt))
    return (
        f'<figure{_narrow(content)}>\n<div class="scroll card" tabindex="0" role="region" aria-label="{title}">'
        f'<img src="{data_uri("image/svg+xml", content)}" alt="{alt}"></div>\n'
        f"<figcaption><strong>{title}.</strong> {caption}</figcaption>\n</figure>\n"
    )


def _narrow(svg: bytes) -> str:
    """A class for a picture that stands beside another, and that a phone shows whole."""
    width = WIDTH.search(svg)
    return ' class="narrow"' if width and float(width[1]) <= NARROW else ""


def table(one: Table, *, folded: bool) -> str:
    """The table in a frame that scrolls, with a link to save it."""
    label = html.escape(words(one.name))
    href = data_uri("text/csv;charset=utf-8", one.csv().encode())
    shown = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">\n{one.html()}</div>\n'
        f'<p class="save"><a download="{html.escape(one.name)}.csv" href="{href}">Save as CSV</a></p>\n'
    )
    if folded:
        return f"<details>\n<summary>{label} ({len(one.rows):,} rows)</summary>\n{shown}</details>\n"
    return f'<div class="table">\n<h3>{label}</h3>\n{shown}</div>\n'


def words(name: str) -> str:
    """What a table is called on the page."""
    heading = name.removesuffix(MIXED).replace("_", " ").capitalize()
    return f"{heading} (mixed)" if name.endswith(MIXED) else heading


def save(path: Path, text: str) -> None:
    """Writes a page or a table, whole or not at all; raises SaveError."""
    with files.atomic_write(path, "the page" if path.suffix == ".html" else "a table of the page") as file:
        file.write(text.encode())


def save_tables(tables: Iterable[Table], out: Path) -> None:
    """Writes each as `NAME.csv` and `NAME.md` into a directory; raises SaveError."""
    for one in tables:
        save(out / f"{one.name}.csv", one.csv())
        save(out / f"{one.name}.md", one.markdown())
