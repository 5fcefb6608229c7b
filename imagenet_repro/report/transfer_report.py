"""The figures and tables of "What pretraining was worth", and the page of a study with several targets."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup
from rich.console import Console

from imagenet_repro.report import html_page
from imagenet_repro.report.html_page import LONG, PageFigure, PageSection
from imagenet_repro.report.plots import charts
from imagenet_repro.report.plots import transfer as transfer_plot
from imagenet_repro.report.records import TransferStudy, TransferTarget
from imagenet_repro.report.sections import transfer
from imagenet_repro.report.tables import Table

PAGE = "report.html"


def draw(target: TransferTarget) -> list[PageFigure]:
    """Return the figure of error against budget; none where there is one budget."""
    if len(target.by_budget) < 2:
        return []
    chart = transfer_plot.draw_budgets(target, f"transfer_{target.name.replace(' ', '_')}")
    return [
        PageFigure(
            f"Error against budget, {target.name}",
            chart,
            "Every budget has runs of its own, whose schedules end with it.",
            f"One line for each source and adaptation on {target.name}.",
        )
    ]


def tables(study: TransferStudy, target: TransferTarget) -> list[Table]:
    """Return the tables of one target."""
    return [
        table for table in (transfer.budgets(study, target), transfer.differences_from_scratch(study, target)) if table
    ]


def write(study: TransferStudy, out: Path, waiting: Sequence[str] = ()) -> Path:
    """Write the page of several targets with its tables and figures, print the verdict, and return the page's path.

    Args:
      study: the targets that have finished runs under the whole budget.
      out: the directory of the page.
      waiting: the names of the other targets, which the page lists.

    Raises:
      SaveError: a file cannot be written.
    """
    verdict = verdict_lines(study, waiting)
    overview = [transfer.sources_by_targets(study)]
    sections = [PageSection("targets", "All targets", _body([], overview), tuple(overview))]
    for target in study.targets:
        own, figures = tables(study, target), draw(target)
        for figure in figures:
            charts.write(figure.chart, out / html_page.FIGURES, "the figure of errors against budgets")
        link = Markup('<p><a href="{0}/{1}">The complete comparison on {0}</a></p>').format(target.name, PAGE)
        body = _body(figures, own) + link
        sections.append(PageSection(f"target_{target.name}", target.name, body, tuple(own)))
    html_page.save_tables([table for section in sections for table in section.tables], out / html_page.TABLES)
    path = out / PAGE
    setting = (
        f"{len(study.targets)} targets, every run with a budget of"
        f" {transfer.describe_budget(study.targets[0].whole.budget)} or a smaller one, as stated"
    )
    html_page.save(path, html_page.render_page(html_page.TRANSFER, "\n".join(verdict), setting, sections))
    console = Console(highlight=False)
    for line in (*verdict, f"the page: {path}"):
        console.print(line, markup=False, soft_wrap=True)
    return path


def verdict_lines(study: TransferStudy, waiting: Sequence[str] = ()) -> list[str]:
    """Return the headline of a study, the verdict on each target, and a sentence on each that `waiting` names."""
    verdicts = [transfer.headline(study), *(transfer.verdict(study, target) for target in study.targets)]
    return verdicts + [describe_waiting(one) for one in waiting]


def describe_waiting(name: str) -> str:
    """Return a sentence about a target without a finished run."""
    return f"{name}: no run under the whole budget has finished; `main.py sweep --status` shows its progress."


def _body(figures: list[PageFigure], own: list[Table]) -> Markup:
    parts = [html_page.render_table(table, is_folded=len(table.rows) > LONG) for table in own]
    return html_page.render_figures(figures) + Markup().join(parts)
