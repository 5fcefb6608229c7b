"""The page: all that a comparison found, in one HTML file that needs no network, and every table beside it."""

import dataclasses
import html
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from imagenet_repro.report import html_page
from imagenet_repro.report.html_page import LONG, MIXED, PageFigure, PageSection
from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun
from imagenet_repro.report.sections import classes, history, leaderboard, people, provenance
from imagenet_repro.report.sections.disagreements import ImageExample, ImageGroup, disagreements
from imagenet_repro.report.tables import Table

TITLE = "ImageNet systems under one budget"
MANY = 12  # kinds of disagreement, above which those of pairs are folded together

PARTS = ("curves", "compute", "differences", "classes", "confusions", "history")
Thumbnails = Callable[[Sequence[str]], Mapping[str, bytes]]


@dataclasses.dataclass(frozen=True)
class ComparisonPage:
    """What the page is made of.

    Attributes:
      comparison: its class names are shown as they stand.
      verdict: one to three sentences; the first line stands largest.
      figures, tables: by the part of the page in which they stand, of `PARTS`; those without content are left out.
      groups: letters by the name of a system; those that share one cannot be told apart.
      thumbnails: from ids of images to JPEGs of a few kB (shown at 96 px), of those that it has; None: ids alone.
    """

    comparison: Comparison
    verdict: str
    figures: Mapping[str, Sequence[PageFigure]] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, Sequence[Table]] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)
    thumbnails: Thumbnails | None = None


def write(page: ComparisonPage, out: Path) -> Path:
    """Writes `report.html` and, for each table, `tables/NAME.csv` and `.md`; returns the page's path.

    Where the comparison is mixed every table says so: in its caption, and by `_mixed` at the end of its files' names.

    Raises:
      UserError: a figure cannot be read.
      SaveError: a file cannot be written.
      ValueError: two tables of one name, or a part of the page that there is not.
    """
    _check_parts(page)
    sections = [section for section in _sections(page) if section.body]
    tables = [table for section in sections for table in section.tables]
    names = [table.name for table in tables]
    if len(set(names)) != len(names):
        raise ValueError(f"two tables of one name among {names}")
    html_page.save_tables(tables, out / "tables")
    path = out / "report.html"
    html_page.save(path, html_page.document(TITLE, page.verdict, _setting(page.comparison), sections))
    return path


def _check_parts(page: ComparisonPage) -> None:
    unknown = {*page.figures, *page.tables} - {*PARTS}
    if unknown:
        raise ValueError(f"the page has no part {sorted(unknown)}; it has {PARTS}")


# --- sections ---------------------------------------------------------------------------------------------------


def _sections(page: ComparisonPage) -> list[PageSection]:
    """All sections in order, those without content with an empty body."""
    comparison = page.comparison
    board = [
        leaderboard.leaderboard(comparison, page.groups),
        leaderboard.costs(comparison),
        leaderboard.seeds(comparison),
    ]
    return [
        PageSection("selection", "How settings were chosen", html_page.paragraphs(comparison.selection)),
        PageSection("warnings", "Warnings", _warnings(comparison)),
        _section(page, "leaderboard", "Leaderboard", board),
        _section(page, "curves", "Learning curves"),
        _section(page, "compute", "Error against compute"),
        _section(page, "differences", "Which differences are real"),
        _section(page, "classes", "Class by class", _of_classes(comparison)),
        _section(page, "confusions", "Confusions"),
        _disagreements(page),
        _section(page, "people", "People", [people.table(comparison)]),
        _section(page, "history", "The challenge, 2010 to 2017", [history.entries()]),
        _provenance(comparison),
    ]


def _of_classes(comparison: Comparison) -> list[Table | None]:
    if not comparison.same_images:
        return []
    return [
        classes.hardest(comparison),
        classes.gains_of_steps(comparison),
        classes.gains_of_classes(comparison),
        classes.errors_of_classes(comparison),
    ]


def _section(page: ComparisonPage, anchor: str, title: str, own: Sequence[Table | None] = ()) -> PageSection:
    """Figures, then tables: those made here, then those handed in."""
    tables = tuple(_marked(table, page.comparison) for table in (*own, *page.tables.get(anchor, ())) if table)
    drawn = [_caveat(figure, page.comparison) for figure in page.figures.get(anchor, ())]
    folded = anchor == "differences"
    shown = "".join(html_page.table(table, folded=folded or len(table.rows) > LONG) for table in tables)
    return PageSection(anchor, title, html_page.figures(drawn) + shown, tables)


def _marked(table: Table, comparison: Comparison) -> Table:
    """The table; of a mixed comparison with what differs in its caption and in its files' names."""
    if not comparison.mixed:
        return table
    caption = f"Mixed: {' '.join(comparison.mixed)} {table.caption}"
    return dataclasses.replace(table, name=f"{table.name}{MIXED}", caption=caption)


def _caveat(figure: PageFigure, comparison: Comparison) -> PageFigure:
    """The figure; of a mixed comparison with a caption that says so."""
    return dataclasses.replace(
        figure, caption=f"Mixed, see the warnings. {figure.caption}" if comparison.mixed else figure.caption
    )


def _warnings(comparison: Comparison) -> str:
    mixed = html_page.listed("These runs differ in what should be equal; every table is marked.", comparison.mixed)
    if not comparison.same_images:
        mixed += html_page.paragraphs(
            "Nothing here compares systems image by image or class by class: their images differ."
        )
    failed = [f"{one.name}, seed {one.seed}: {one.why}" for one in comparison.failures]
    return mixed + html_page.listed("Planned runs that have no result and stand in no table:", failed)


def _disagreements(page: ComparisonPage) -> PageSection:
    title = "Images that tell systems apart"
    if not page.comparison.same_images:
        return PageSection("disagreements", title, "")
    found = disagreements(page.comparison)
    tables = [_marked(table, page.comparison) for table in (found.counts, found.examples) if table]
    pictures = page.thumbnails(found.ids) if page.thumbnails and found.ids else {}
    shown = "".join(html_page.table(table, folded=table.name.startswith("disagreement_examples")) for table in tables)
    pairs = [kind for kind in itertools.chain.from_iterable(found.pairs) if kind.count]
    others = [kind for kind in (found.nobody, *found.alone) if kind.count]
    gallery = _gallery(others, pictures) + _folded_gallery(pairs, pictures)
    return PageSection("disagreements", title, gallery + shown, tuple(tables))


def _provenance(comparison: Comparison) -> PageSection:
    table = _marked(provenance.runs(comparison), comparison)
    each = "".join(_run(system, run) for system in comparison.systems for run in system.runs)
    return PageSection(
        "provenance", "Where every number comes from", html_page.table(table, folded=False) + each, (table,)
    )


# --- pieces of HTML ---------------------------------------------------------------------------------------------


def _folded_gallery(kinds: Sequence[ImageGroup], pictures: Mapping[str, bytes]) -> str:
    shown = _gallery(kinds, pictures)
    if len(kinds) <= MANY:
        return shown
    summary = f"What one system gets and another misses ({len(kinds)} ways)"
    return f"<details>\n<summary>{summary}</summary>\n{shown}</details>\n"


def _gallery(kinds: Sequence[ImageGroup], pictures: Mapping[str, bytes]) -> str:
    shown = "".join(_kind(kind, pictures) for kind in kinds)
    return f'<div class="kinds">\n{shown}</div>\n' if shown else ""


def _kind(kind: ImageGroup, pictures: Mapping[str, bytes]) -> str:
    examples = "".join(_example(example, pictures.get(example.id)) for example in kind.examples)
    return (
        f"<details>\n<summary>{html.escape(kind.title)}: {kind.count:,}</summary>\n"
        f'<ul class="examples">\n{examples}</ul>\n</details>\n'
    )


def _example(example: ImageExample, picture: bytes | None) -> str:
    image = ""
    if picture:
        alt = html.escape(f"{example.label} ({example.id})")
        image = f'<img src="{html_page.data_uri("image/jpeg", picture)}" alt="{alt}">'
    said = "".join(_guess(name, guess, right=guess == example.label) for name, guess in example.guesses)
    return (
        f"<li>{image}<div><strong>{html.escape(example.label)}</strong>\n<ul>{said}</ul>\n"
        f"<code>{html.escape(example.id)}</code></div></li>\n"
    )


def _guess(system: str, guess: str, *, right: bool) -> str:
    text = html.escape(f"{system}: {guess}")
    return f'<li class="right">{text} ✓</li>' if right else f"<li>{text}</li>"


def _run(system: ComparedSystem, run: FinishedRun) -> str:
    facts = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>\n" for k, v in provenance.facts(run).items())
    configuration = html.escape(json.dumps(run.result["provenance"]["config"], indent=1))
    return (
        f"<details>\n<summary>{html.escape(system.name)}, seed {run.seed}</summary>\n<dl>\n{facts}</dl>\n"
        f'<p>Configuration</p>\n<pre tabindex="0">{configuration}</pre>\n</details>\n'
    )


def _setting(comparison: Comparison) -> str:
    """What was compared, in a line."""
    systems, runs = len(comparison.systems), sum(len(system.runs) for system in comparison.systems)
    counted = f"{systems} system{'s' * (systems > 1)}, {runs} run{'s' * (runs > 1)}"
    if comparison.mixed:
        return f"{counted} that differ in what should be equal; the warnings say in what"
    return (
        f"{counted}, {comparison.budget} each, trained on {comparison.data} {comparison.train_split}, scored on"
        f" the {comparison.images:,} images of {comparison.scored_split}"
    )
