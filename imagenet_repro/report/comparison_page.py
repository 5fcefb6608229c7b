"""The page of a comparison: one HTML file that needs no network, and every table beside it as CSV and Markdown."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from imagenet_repro.report import html_page, running
from imagenet_repro.report.html_page import LONG, MIXED, PageFigure, PageSection
from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun
from imagenet_repro.report.sections import (
    best_checkpoints,
    classes,
    history,
    leaderboard,
    people,
    provenance,
    shape_bias,
    spending,
    what_differs,
)
from imagenet_repro.report.sections.disagreements import ImageGroup, disagreements
from imagenet_repro.report.tables import Table
from imagenet_repro.report.templating import render

PAGE = "report.html"
TITLE = "Systems under one budget"
MOST_PICTURES = 150  # thumbnails that only clicks on charts show
MANY = 12  # groups of images; more groups for pairs of systems are folded together

PARTS = ("transfer", "curves", "targets", "compute", "differences", "classes", "confusions", "cues", "history")
# Tables that are folded whatever their length.
DETAILS = ("spending", best_checkpoints.NAME, "target_runs", "profiles")
Thumbnails = Callable[[Sequence[str]], Mapping[str, bytes]]


@dataclasses.dataclass(frozen=True)
class ComparisonPage:
    """The content of the page.

    Attributes:
      comparison: its class names are shown unchanged.
      verdict: a few sentences; the first line is in the largest type.
      figures, tables: by their section, one of `PARTS`; a section without content is left out.
      groups: letters by the name of a system; systems that share a letter do not differ significantly.
      thumbnails: a function from ids of images to the available JPEGs, a few kB each, to be shown at 96 px;
        None: the page shows ids alone.
      pictured_ids: ids of images that may have a thumbnail; they are preferred as examples.
      refresh: seconds after which a browser reads the page again; 0: never.
    """

    comparison: Comparison
    verdict: str
    figures: Mapping[str, Sequence[PageFigure]] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, Sequence[Table]] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)
    thumbnails: Thumbnails | None = None
    pictured_ids: Collection[str] = ()
    refresh: float = 0


def write(page: ComparisonPage, out: Path) -> Path:
    """Write `report.html` and, for each table, `tables/NAME.csv` and `.md`; return the page's path.

    Every table of a mixed comparison is marked: in its caption, and by `_mixed` at the end of its files' names.

    Raises:
      SaveError: a file cannot be written.
      ValueError: two tables have the same name, or the page has no such part.
    """
    _check_parts(page)
    sections = [section for section in _sections(page) if section.body]
    tables = [table for section in sections for table in section.tables]
    names = [table.name for table in tables]
    if len(set(names)) != len(names):
        raise ValueError(f"two tables have the same name: {names}")
    html_page.save_tables(tables, out / html_page.TABLES)
    path = out / PAGE
    setting = _describe_setting(page.comparison)
    html_page.save(path, html_page.render_page(TITLE, page.verdict, setting, sections, page.refresh))
    return path


def _check_parts(page: ComparisonPage) -> None:
    unknown = {*page.figures, *page.tables} - {*PARTS}
    if unknown:
        raise ValueError(f"the page has no part {sorted(unknown)}; it has {PARTS}")


def _describe_setting(comparison: Comparison) -> str:
    """Return one line with the systems compared, their budget and the images."""
    if not comparison.systems:
        budgets = ", ".join(dict.fromkeys(run.budget for run in comparison.running))
        n_running = len(comparison.running)
        return f"{n_running} run{'s' * (n_running > 1)}, with a budget of {budgets}"
    n_systems, n_runs = len(comparison.systems), sum(len(system.runs) for system in comparison.systems)
    counts = f"{n_systems} system{'s' * (n_systems > 1)}, {n_runs} run{'s' * (n_runs > 1)}"
    by = f", by the evaluation protocol {comparison.protocol}" if comparison.protocol else ""
    if comparison.mixed:
        return f"{counts} under different conditions; the warnings say which{by}"
    scored = f"{comparison.evaluation_set} ({comparison.scored_data}, {comparison.scored_split})"
    if not comparison.evaluation_set:
        scored = comparison.scored_split
    return (
        f"{counts} with a budget of {comparison.budget} each, trained on {comparison.data} {comparison.train_split},"
        f" scored on the {comparison.n_images:,} images of {scored}{by}"
    )


# --- sections ---------------------------------------------------------------------------------------------------


def _sections(page: ComparisonPage) -> list[PageSection]:
    """Return all sections in order; those without content have an empty body."""
    comparison = page.comparison
    if not comparison.systems:
        return [
            PageSection("warnings", "Warnings", _render_warnings(comparison)),
            _section(page, "running", running.TITLE, [running.table(comparison.running)]),
            _section(page, "curves", "Learning curves"),
        ]
    return [
        PageSection("selection", "How settings were chosen", html_page.render_paragraphs(comparison.selection)),
        PageSection("warnings", "Warnings", _render_warnings(comparison)),
        _leaderboard_section(page),
        _section(page, "what_differs", what_differs.TITLE, [what_differs.table(comparison)]),
        _section(page, "running", running.TITLE, [running.table(comparison.running)]),
        _section(page, "transfer", html_page.TRANSFER),
        _section(page, "curves", "Learning curves"),
        _section(page, "targets", "What it took to reach an error"),
        _section(page, "compute", "Error against compute"),
        _section(page, "differences", "Which differences are significant"),
        _section(page, "classes", "Class by class", _class_tables(comparison)),
        _section(page, "confusions", "Confusions"),
        _disagreement_section(page),
        _section(page, "cues", shape_bias.TITLE),
        _section(page, "people", "People", [people.table(comparison)]),
        _section(page, "history", "The challenge, 2010 to 2017, and after", _history_tables(comparison)),
        _provenance_section(comparison),
    ]


def _history_tables(comparison: Comparison) -> list[Table | None]:
    return [history.entries(), history.later_systems()] if history.belongs_to(comparison) else []


def _leaderboard_section(page: ComparisonPage) -> PageSection:
    comparison = page.comparison
    tables = [
        leaderboard.leaderboard(comparison, page.groups),
        leaderboard.costs(comparison),
        leaderboard.seeds(comparison),
        best_checkpoints.table(comparison),
        spending.table(comparison),
    ]
    section = _section(page, "leaderboard", "Leaderboard", tables)
    note = html_page.render_paragraphs(leaderboard.interval_note(comparison))
    return dataclasses.replace(section, body=note + section.body)


def _class_tables(comparison: Comparison) -> list[Table | None]:
    if not comparison.same_images:
        return []
    return [
        classes.hardest(comparison),
        classes.gains_of_steps(comparison),
        classes.gains_of_classes(comparison),
        classes.errors_of_classes(comparison),
    ]


def _section(page: ComparisonPage, anchor: str, title: str, own_tables: Sequence[Table | None] = ()) -> PageSection:
    """Return a section with the page's figures, then its own tables, then the page's tables."""
    all_tables = (*own_tables, *page.tables.get(anchor, ()))
    tables = tuple(_mark_mixed(table, page.comparison) for table in all_tables if table)
    figures = [_mark_mixed_figure(figure, page.comparison) for figure in page.figures.get(anchor, ())]
    all_folded = anchor == "differences"
    parts = [
        html_page.render_table(table, is_folded=all_folded or _is_detail(table) or len(table.rows) > LONG)
        for table in tables
    ]
    return PageSection(anchor, title, html_page.render_figures(figures) + Markup().join(parts), tables)


def _is_detail(table: Table) -> bool:
    return table.name.removesuffix(MIXED) in DETAILS


def _mark_mixed(table: Table, comparison: Comparison) -> Table:
    """Return the table; in a mixed comparison its caption lists the differing conditions, and its name is marked."""
    if not comparison.mixed:
        return table
    caption = f"Mixed: {' '.join(comparison.mixed)} {table.caption}"
    return dataclasses.replace(table, name=f"{table.name}{MIXED}", caption=caption)


def _mark_mixed_figure(figure: PageFigure, comparison: Comparison) -> PageFigure:
    """Return the figure; in a mixed comparison its caption says so."""
    if not comparison.mixed:
        return figure
    return dataclasses.replace(figure, caption=f"Mixed, see the warnings. {figure.caption}")


def _render_warnings(comparison: Comparison) -> Markup:
    heading = "These runs differ in conditions that should be equal; every table is marked as mixed."
    body = html_page.render_list(heading, comparison.mixed)
    if comparison.systems and not comparison.same_images:
        body += html_page.render_paragraphs(
            "The runs were scored on different images, so this page does not compare systems image by image or class"
            " by class."
        )
    body += html_page.render_paragraphs(spending.warning(comparison))
    failures = [f"{one.name}, seed {one.seed}: {one.reason}" for one in comparison.failures]
    return body + html_page.render_list("Planned runs without a result; no table includes them:", failures)


def _disagreement_section(page: ComparisonPage) -> PageSection:
    title = "Images on which systems disagree"
    if not page.comparison.same_images:
        return PageSection("disagreements", title, Markup())
    disagreeing = disagreements(page.comparison, page.pictured_ids)
    tables = [_mark_mixed(table, page.comparison) for table in (disagreeing.counts, disagreeing.examples) if table]
    charted = _charted_ids(page)
    ids = tuple(dict.fromkeys((*disagreeing.ids, *charted)))
    thumbnails = page.thumbnails(ids) if page.thumbnails and ids else {}
    pairs = [group for group in itertools.chain.from_iterable(disagreeing.pairs) if group.count]
    others = [group for group in (disagreeing.all_wrong, *disagreeing.only_one_right) if group.count]
    pictures = _Pictures(thumbnails)
    galleries = _render_gallery(others, pictures) + _render_gallery(pairs, pictures, _folded_title(pairs))
    shown = [
        html_page.render_table(
            table,
            is_folded=table.name.startswith("disagreement_examples")
            or len(table.on_page(html_page.TABLES).rows) > LONG,
        )
        for table in tables
    ]
    hidden = render("hidden_pictures.html", pictures=pictures, ids=[id for id in charted if id in pictures])
    return PageSection("disagreements", title, galleries + Markup().join(shown) + hidden, tuple(tables))


def _charted_ids(page: ComparisonPage) -> tuple[str, ...]:
    """Return the ids of images that clicks on charts show, at most `MOST_PICTURES`."""
    figures = itertools.chain.from_iterable(page.figures.values())
    return tuple(dict.fromkeys(id for figure in figures for id in figure.chart.image_ids()))[:MOST_PICTURES]


def _folded_title(groups: Sequence[ImageGroup]) -> str:
    """Return the title below which groups are folded together; empty if there are few."""
    return f"Images that one system classifies correctly and another does not ({len(groups)} groups)" * (
        len(groups) > MANY
    )


class _Pictures:
    """The thumbnails of a page. Each is embedded where it is shown first and then referred to by number."""

    def __init__(self, thumbnails: Mapping[str, bytes]):
        self._thumbnails = thumbnails
        self._numbers: dict[str, int] = {}

    def source(self, id: str) -> Markup:
        """Return the attributes of an `img` of this image: its number, and at the first call its content."""
        number = self._numbers.get(id)
        if number is None:
            number = self._numbers[id] = len(self._numbers)
            uri = html_page.data_uri("image/jpeg", self._thumbnails[id])
            return Markup('src="{}" data-picture="{}" data-id="{}"').format(uri, number, id)
        return Markup('data-picture="{}"').format(number)

    def is_embedded(self, id: str) -> bool:
        """Return whether an image's content is in the page already."""
        return id in self._numbers

    def __contains__(self, id: str) -> bool:
        return id in self._thumbnails


def _render_gallery(groups: Sequence[ImageGroup], pictures: _Pictures, folded_title: str = "") -> Markup:
    if not groups:
        return Markup()
    return render("gallery.html", groups=groups, pictures=pictures, folded_title=folded_title)


def _provenance_section(comparison: Comparison) -> PageSection:
    table = _mark_mixed(provenance.runs(comparison), comparison)
    runs = [_render_run(system, run) for system in comparison.systems for run in system.runs]
    body = html_page.render_table(table, is_folded=False) + Markup().join(runs)
    return PageSection("provenance", "Provenance of every number", body, (table,))


def _render_run(system: ComparedSystem, run: FinishedRun) -> Markup:
    configuration = json.dumps(run.result["provenance"]["config"], indent=1)
    facts = provenance.facts(run)
    return render("run.html", system=system.name, seed=run.seed, facts=facts, configuration=configuration)
