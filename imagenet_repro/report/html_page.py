"""The parts that all pages share. A page is one HTML file that needs no network, with sections, tables and figures.

The style sheet and the script in `templates/` become part of the file, and images are embedded as data URIs. The
script lets a reader sort tables, shows pictures again that are embedded once, and builds the rows of long tables when
they are opened; without it, those rows are in the files beside the page.
"""

import base64
import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup

from imagenet_repro.report.plots import charts
from imagenet_repro.report.plots.charts import Chart
from imagenet_repro.report.tables import Table
from imagenet_repro.report.templating import render
from imagenet_repro.storage import files

TRANSFER = "What pretraining was worth"  # title of a section, and of the page of several targets
TABLES = "tables"  # the subdirectory of tables
FIGURES = "figures"  # the subdirectory of the files of figures
MIXED = "_mixed"  # ends the file names of the tables of a mixed comparison
LONG = 24  # rows; longer tables are folded
ON_DEMAND = 200  # rows; the rows of longer tables are in the page once, as CSV, until a reader opens them
HEADINGS = {  # headings of tables whose name would not be a good heading
    "differences_checkpoints": "Differences between checkpoints",
    "differences_recipes": "Differences between recipes",
    "differences_sign_flips": "Differences between recipes on these images",
    "classes": "All classes",
    "crossed": "Networks by recipes",
    "targets": "Median amounts at the target",
    "target_runs": "Each run at the target",
    "profile_scores": "Scores of performance profiles",
    "profiles": "Performance profiles as numbers",
    "best_checkpoints": "Best checkpoints, selected by the images that score them",
    "spending": "Equality of what was spent",
    "disagreements": "Right and wrong by pairs of systems",
    "disagreement_examples": "Examples of disagreement",
    "gains_by_year": "Gains from year to year",
    "history": "Entries of the challenge",
    "sources_by_targets": "Sources by targets",
    "tree_distances": "Distance of wrong guesses in WordNet",
    "super_class_errors": "Errors by super-class",
    "super_class_inside": "Errors inside the super-class",
    "what_wrong_labels_do": "Measured and true differences",
    "what_wrong_labels_do_to_pairs": "Measured and true differences of these pairs",
}
CHART = " data-chart>"  # in the elements that hold charts; escapes keep the texts of a page from having it


@dataclasses.dataclass(frozen=True)
class PageFigure:
    """A figure of a page.

    Attributes:
      title: a few words.
      chart: the specifications and data of the figure.
      caption: what the figure shows.
      alt: a description for a reader who cannot see the figure.
    """

    title: str
    chart: Chart
    caption: str
    alt: str


@dataclasses.dataclass(frozen=True)
class PageSection:
    """A section of a page.

    Attributes:
      anchor: the element's id.
      title: the heading.
      body: HTML; empty if the section has nothing to show.
      tables: the tables within `body`, to be saved beside the page.
    """

    anchor: str
    title: str
    body: Markup
    tables: tuple[Table, ...] = ()


def render_page(title: str, verdict: str, setting: str, sections: Iterable[PageSection], refresh: float = 0) -> str:
    """Return a page as one HTML document.

    Args:
      title: the title, in small type at the top.
      verdict: one to four lines of text; the first is in the largest type.
      setting: one line about the data behind the page.
      sections: in order; each is linked from the top.
      refresh: seconds after which a browser reads the page again; 0: never.
    """
    sections = list(sections)
    has_charts = any(CHART in section.body for section in sections)
    return render(
        "page.html",
        title=title,
        verdict=render_paragraphs(verdict),
        setting=setting,
        sections=sections,
        refresh=f"{refresh:g}" if refresh else "",
        vega=Markup(charts.javascript()) if has_charts else "",
    )


def render_paragraphs(text: str) -> Markup:
    """Return each line of a text as a paragraph."""
    return render("paragraphs.html", lines=[line for line in text.splitlines() if line.strip()])


def render_list(heading: str, items: Sequence[str]) -> Markup:
    """Return a heading with a list of items below it; empty if there are no items."""
    return render("list.html", heading=heading, items=items) if items else Markup()


def render_figures(figures: Sequence[PageFigure]) -> Markup:
    """Return figures, narrow ones side by side; empty if there are none."""
    if not figures:
        return Markup()
    return render(
        "figures.html", figures=figures, directory=FIGURES, contents=[_chart_json(figure.chart) for figure in figures]
    )


def _chart_json(chart: Chart) -> Markup:
    """Return a chart as JSON that can stand within an element of HTML, whatever the names in its data are."""
    content = {
        "views": [
            {"label": view.label, "name": view.name, "specification": view.specification} for view in chart.views
        ],
        "datasets": chart.datasets,
        "legend": [dataclasses.asdict(entry) for entry in chart.legend],
        "click": chart.click,
        "narrowest": chart.narrowest,
    }
    text = json.dumps(charts.printable_part(content), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def render_table(table: Table, *, is_folded: bool) -> Markup:
    """Return a table in a frame that scrolls, with a link that saves it as CSV.

    A folded table of more than `ON_DEMAND` rows has its headings alone; the script fills it from the CSV when it is
    opened, so that a page with many systems or classes opens at once. Of a table with an excerpt the page has those
    rows alone, in the table and in what the link saves.
    """
    table = table.on_page(TABLES)
    is_on_demand = is_folded and len(table.rows) > ON_DEMAND
    return render(
        "table_card.html",
        name=table.name,
        heading=table.heading or table_heading(table.name),
        table_html=table.html(with_rows=not is_on_demand),
        directory=TABLES,
        csv_uri=data_uri("text/csv;charset=utf-8", encode(table.csv())),
        is_folded=is_folded,
        is_on_demand=is_on_demand,
        n_rows=len(table.rows),
    )


def table_heading(name: str) -> str:
    """Return the heading of a table on the page, from its name."""
    stem = name.removesuffix(MIXED)
    heading = HEADINGS.get(stem) or stem.replace("_", " ").capitalize()
    return f"{heading} (mixed)" if name.endswith(MIXED) else heading


def encode(text: str) -> bytes:
    """Return a text as UTF-8, with escapes for bytes of paths that are no text in any encoding."""
    return text.encode(errors="backslashreplace")


def data_uri(media_type: str, content: bytes) -> str:
    """Return a file's content as a URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def require_place(directory: Path, out: str | None, page: str, subdirectories: Sequence[str] = ()) -> None:
    """Check that a page and the files beside it can be written, before the work that leads to them.

    Args:
      directory: the directory of the page.
      out: the value of --out; None: the directory was chosen without it, and the message says how to choose another.
      page: the name of the page's file.
      subdirectories: names of the directories beside the page that receive files.

    Raises:
      SaveError: a file cannot be written.
    """
    option = "--out" if out else "the page"
    advice = "" if out else "name another directory with --out=DIR"
    files.require_writable_file(directory / page, option, advice)
    for name in subdirectories:
        files.require_writable_directory(directory / name, option, advice)


def save(path: Path, text: str) -> None:
    """Write a page or a table in one piece.

    Raises:
      SaveError: the file cannot be written.
    """
    with files.atomic_write(path, "the page" if path.suffix == ".html" else "a table of the page") as file:
        file.write(encode(text))


def save_tables(tables: Iterable[Table], out: Path) -> None:
    """Write each table as `NAME.csv` and `NAME.md` into a directory.

    Raises:
      SaveError: a file cannot be written.
    """
    for table in tables:
        save(out / f"{table.name}.csv", table.csv())
        save(out / f"{table.name}.md", table.markdown())
