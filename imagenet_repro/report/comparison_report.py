"""Show a comparison: draw the figures, fill the tables, put both on one page, and print the main result."""

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from imagenet_repro.report import comparison_page, curve_file, html_page, running, transfer_report
from imagenet_repro.report import targets as reached
from imagenet_repro.report.collect import are_same
from imagenet_repro.report.comparison_page import ComparisonPage, Thumbnails
from imagenet_repro.report.comparison_result import ComparisonResult
from imagenet_repro.report.html_page import PageFigure
from imagenet_repro.report.plots import (
    charts,
    confused_pairs,
    curves,
    dumbbell,
    history,
    matrix,
    pareto,
    profiles,
    shape_bias,
    wordnet_confusions,
)
from imagenet_repro.report.plots.charts import Chart, Click
from imagenet_repro.report.records import ComparedSystem, Comparison, TransferStudy
from imagenet_repro.report.sections import (
    best_checkpoints,
    class_gains,
    classes,
    confusions,
    crossed,
    differences,
    leaderboard,
    speed,
    spending,
    what_differs,
)
from imagenet_repro.report.sections import history as section_history
from imagenet_repro.report.sections import shape_bias as section_shape_bias
from imagenet_repro.report.sections import targets as section_targets
from imagenet_repro.report.sections import verdict as verdicts
from imagenet_repro.report.sections.confusion_examples import ConfusionExamples
from imagenet_repro.report.sections.confusions import WrongGuesses
from imagenet_repro.report.sections.differences import Answer, Differences, Question
from imagenet_repro.report.tables import Table
from imagenet_repro.report.targets import Target, Workload
from imagenet_repro.scoring import terminal, wordnet
from imagenet_repro.scoring.metrics import GUESSES
from imagenet_repro.statistics.populations import NEW_IMAGES, interval_heading

INTERVAL = interval_heading(NEW_IMAGES).partition(",")[0]  # of top-1; the population follows in the heading
IN_TERMINAL = (
    "system",
    "group",
    "top-1 error %",
    "optimistic by",
    INTERVAL,
    "top-5 error %",
    "training seconds",
    "seeds",
)
TARGETS_IN_TERMINAL = ("target", "system", "reached by", "images", "operations", "seconds", "energy")
MOST_IN_MATRIX = 40  # systems; the cells of more would take most of the page
FILE_WIDTH = 120  # columns of output to a file
CLICKS: dict[Click, str] = {  # ends a caption
    "": "",
    "run": " A click on a line opens its run.",
    "system": " A click on a system shows what differs in it.",
    "pair": " A click on a cell shows what differs between both systems.",
    "images": " A click on a cell shows some of its images.",
}
QUESTIONS: dict[Question, str] = {
    "recipes": (
        "Two recipes over all their seeds: crossed effects of seeds and images, for new images and new seeds. The"
        " variance of seeds is pooled over systems, unless a system's own is larger."
    ),
    "checkpoints": (
        "Two checkpoints on these images: one run of each system, of the lowest seed that both have. McNemar's test;"
        " bootstrap intervals, for new images and these checkpoints."
    ),
}
EACH_PAIR = "Each interval is for one pair by itself; judge by the adjusted p, which allows for the number of pairs."
ANSWERS: dict[Answer, str] = {
    "recipes": f"{QUESTIONS['recipes']} The intervals of all pairs cover at once (Tukey-Kramer).",
    "sign_flips": (
        "A second opinion on recipes over the seeds that both systems have, from nine shared seeds on, and more where"
        " there are many pairs. The sign-flip test takes these images as given, and supposes only that differences of"
        " equally good recipes are symmetric about zero; Student's t intervals, for new seeds on these images."
        f" {EACH_PAIR}"
    ),
    "checkpoints": f"{QUESTIONS['checkpoints']} {EACH_PAIR}",
}


def present(
    comparison: Comparison,
    out: Path,
    thumbnails: Thumbnails | None = None,
    pictured_ids: Collection[str] = (),
    study: TransferStudy | None = None,
    *,
    targets: Sequence[Target] = (),
) -> Path:
    """Print the main result, write `report.html`, `tables/` and `figures/` to a directory, return the page's path.

    Args:
      comparison: the systems.
      out: the directory, created if it is missing.
      thumbnails, pictured_ids: as in `ComparisonPage`.
      study: the sources and budgets of the same systems, where pretraining is compared, of one target.
      targets: errors, for which the page shows what it took to reach them.

    Raises:
      SaveError: a file cannot be written.
    """
    return Presenter(out).present(comparison, thumbnails, pictured_ids, study, targets=targets)


class Presenter:
    """Shows one comparison, again each time its runs change.

    What finished runs decide is computed and drawn again only when there are other finished runs than before; the
    curves are drawn each time, and the page and its tables are written.

    Args:
      out: the directory of the page, created if it is missing.
      refresh: seconds after which a browser reads the page again while a run has not ended; 0: never.

    Attributes:
      result: of the last call of `present`; None before it.
    """

    result: ComparisonResult | None = None

    def __init__(self, out: Path, *, refresh: float = 0):
        self._out, self._refresh = out, refresh
        self._systems: Sequence[ComparedSystem] = ()
        self._pairs: Differences | None = None
        self._figures: dict[str, list[PageFigure]] = {}
        self._tables: dict[str, list[Table]] = {}

    def present(
        self,
        comparison: Comparison,
        thumbnails: Thumbnails | None = None,
        pictured_ids: Collection[str] = (),
        study: TransferStudy | None = None,
        *,
        targets: Sequence[Target] = (),
    ) -> Path:
        """Print the main result and write everything, as the function `present` does."""
        is_known = bool(self._systems) and are_same(self._systems, comparison.systems) and study is None
        if not is_known:
            self._pairs = _differences(comparison) if comparison.systems else None
        page = ComparisonPage(
            comparison=_with_readable_names(comparison),
            verdict=_verdict(comparison, self._pairs, is_study=study is not None),
            groups=groups(comparison, self._pairs) if self._pairs else {},
            thumbnails=thumbnails,
            pictured_ids=pictured_ids,
            refresh=self._refresh if comparison.running else 0,
        )
        workloads = reached.workloads(comparison, targets)
        _show(page, workloads)  # first, so that a disk that is full now costs only the page
        drawn = self._draw(_Drawing(comparison, self._pairs, workloads, pictured_ids), study, is_known=is_known)
        path = comparison_page.write(dataclasses.replace(page, figures=self._figures, tables=self._tables), self._out)
        curve_file.write(comparison, self._out)
        for figure in drawn:  # last, since the drawing library holds much memory until the end of the process
            charts.write(figure.chart, self._out / html_page.FIGURES, f"the figure {figure.title!r}")
        self._systems = comparison.systems
        self.result = ComparisonResult(self._out, path, page.verdict, comparison, page.groups)
        Console(highlight=False).print(f"the page: {path}", markup=False, soft_wrap=True)
        return path

    def _draw(self, drawing: "_Drawing", study: TransferStudy | None, *, is_known: bool) -> Sequence[PageFigure]:
        """Make the figures and tables that are not known yet; return the figures that changed."""
        if is_known:
            self._figures["curves"] = drawing.curves()
            return self._figures["curves"]
        self._figures, self._tables = drawing.figures(), drawing.tables()
        if study:
            self._figures["transfer"] = transfer_report.draw(study.targets[0])
            self._tables["transfer"] = transfer_report.tables(study, study.targets[0])
        return list(itertools.chain.from_iterable(self._figures.values()))


def _verdict(comparison: Comparison, pairs: Differences | None, *, is_study: bool) -> str:
    """Return the verdict, and below it what a reader must know to trust it, a line each."""
    if not comparison.systems:
        return f"No run has ended yet.\n{running.sentence(comparison)}"
    verdict = verdicts.verdict(comparison, pairs) if pairs else verdicts.verdict_without_pairs(comparison)
    unequal = "" if is_study else what_differs.sentence(comparison)  # adaptations are meant to differ
    cautions = (unequal, speed.warning(comparison), running.sentence(comparison))
    return "\n".join(filter(None, (verdict, *cautions)))


def groups(comparison: Comparison, pairs: Differences) -> dict[str, str]:
    """Return letters by system; systems that share one do not differ significantly in top-1 error.

    A comparison of one system has no letters.
    """
    if len(comparison.systems) == 1:
        return {}
    letters = pairs.letters(1, pairs.question)
    return {system.name: letter for system, letter in zip(comparison.systems, letters, strict=True)}


def _differences(comparison: Comparison) -> Differences | None:
    """Return the differences of all pairs; None if the images differ, which only a mixed comparison allows."""
    if comparison.mixed and not comparison.same_images:
        return None
    return differences.differences(comparison)


def _with_readable_names(comparison: Comparison) -> Comparison:
    return dataclasses.replace(comparison, class_names=tuple(wordnet.readable_names(comparison.class_names)))


def _show(page: ComparisonPage, workloads: Sequence[Workload]) -> None:
    """Print the main columns of the leaderboard, the verdict, targets, spending, and the runs without a result."""
    console = Console(highlight=False)
    terminal.widen_for_file(console, FILE_WIDTH)
    if not page.comparison.systems:
        _show_running(console, page.comparison)
        return
    board = leaderboard.leaderboard(page.comparison, page.groups)
    short_headings = [heading.partition(",")[0] for heading in board.headings]
    columns = [short_headings.index(heading) for heading in IN_TERMINAL if heading in short_headings]
    headings, *rows = ([row[column] for column in columns] for row in (board.headings, *board.rows))
    headings = [heading.replace(", ", ",\n") for heading in headings]
    console.print(terminal.ruled_table(headings, rows, gap=3))
    lines = [f"mixed, {one}" for one in page.comparison.mixed] + page.verdict.splitlines()
    lines += [f"no result of {one.name}, seed {one.seed}: {one.reason}" for one in page.comparison.failures]
    if not page.comparison.scores_own_result:
        lines.insert(0, _describe_scoring(page.comparison))
    lines += [best_checkpoints.summary(page.comparison), spending.summary(page.comparison), _warning(page.comparison)]
    for line in filter(None, lines):
        console.print(line, markup=False)
    if workloads:
        table = section_targets.systems(page.comparison, workloads)
        columns = [index for index, heading in enumerate(table.headings) if heading in TARGETS_IN_TERMINAL]
        headings, *rows = ([row[column] for column in columns] for row in (table.headings, *table.rows))
        console.print(terminal.ruled_table(headings, rows, gap=3))


def _show_running(console: Console, comparison: Comparison) -> None:
    """Print the runs that have not ended, where none has."""
    table = running.table(comparison.running)
    if table:
        console.print(terminal.ruled_table(table.headings, table.rows, gap=2))
    for one in comparison.failures:
        console.print(f"no result of {one.name}, seed {one.seed}: {one.reason}", markup=False)


def _warning(comparison: Comparison) -> str:
    text = spending.warning(comparison)
    return f"warning: {text}" if text else ""


def _describe_scoring(comparison: Comparison) -> str:
    by = f" by the evaluation protocol {comparison.protocol}" if comparison.protocol else ""
    return f"errors on {comparison.evaluation_set or comparison.scored_split}{by}"


class _Drawing:
    """Makes the figures of one comparison, and the tables beside them."""

    def __init__(
        self,
        comparison: Comparison,
        pairs: Differences | None,
        workloads: Sequence[Workload] = (),
        pictured_ids: Collection[str] = (),
    ):
        self._comparison, self._differences, self._workloads = comparison, pairs, workloads
        self._pictured_ids = pictured_ids
        self._cues = section_shape_bias.results(comparison)
        self._wrong = confusions.wrong_guesses(comparison) if pairs else None
        self._tree = confusions.place_in_tree(self._wrong, comparison.class_names) if self._wrong else None

    def figures(self) -> dict[str, list[PageFigure]]:
        """Draw all figures; return them by section of the page."""
        if not self._comparison.systems:
            return {"curves": self.curves()}
        return {
            "curves": self.curves(),
            "targets": self._draw_profiles(),
            "compute": self._draw_costs(),
            "differences": self._draw_matrices(),
            "classes": self._draw_gains(),
            "confusions": self._draw_confusions(),
            "cues": self._draw_cues(),
            "history": self._draw_history(),
        }

    def tables(self) -> dict[str, list[Table]]:
        """Return the tables that belong to the figures, by section of the page."""
        if not self._comparison.systems:
            return {}
        return {
            "targets": section_targets.tables(self._comparison, self._workloads),
            "differences": self._difference_tables(),
            "confusions": self._confusion_tables(),
            "cues": [table for table in [section_shape_bias.table(self._cues)] if table],
        }

    def curves(self) -> list[PageFigure]:
        """Draw the learning curves of all runs, also of those that have not ended."""
        elsewhere = self._split_of_curves()
        has_several = any(len(system.runs) > 1 for system in self._comparison.systems)
        band = "; lines are means over seeds, bands span the lowest to the highest seed" if has_several else ""
        chart = curves.draw_systems(self._comparison)
        caption = f"Training loss and both error rates{elsewhere}{band}. All points are in {curve_file.NAME}."
        alt = "Three panels with one curve for each system."
        return [self._figure("Learning curves", chart, caption, alt)]

    def _figure(self, title: str, chart: Chart, caption: str, alt: str) -> PageFigure:
        """Return a figure, whose caption says what a click does."""
        return PageFigure(title, chart, f"{caption}{CLICKS[chart.click]}", alt)

    def _split_of_curves(self) -> str:
        """Return where the errors of the curves were measured, if that is not where the results were."""
        if not self._comparison.systems:
            return ""
        config = self._comparison.systems[0].runs[0].result["provenance"]["config"]
        split = config["data"]["eval_split"]
        elsewhere = f" on {split}, which is not the split of the results" * (split != self._comparison.scored_split)
        if not self._comparison.scores_own_result:
            elsewhere = f" on {split} by each run's own protocol, which are not the errors of the leaderboard"
        return elsewhere

    def _draw_profiles(self) -> list[PageFigure]:
        if not reached.known_measures(self._workloads):  # no run has reached a target
            return []
        shown = ", ".join(dict.fromkeys(str(one.target) for one in self._workloads))
        caption = (
            f"For each tau, the share of targets ({shown}) for which the median seed of a system needs at most tau"
            " times what the best system needs. Further up is better; a line that starts high belongs to a system that"
            " is often the best. Lines at the same height are drawn a little apart. Ratios beyond 4 are in the table."
        )
        alt = "One panel for each amount, with a rising step line for each system."
        networks = {system.name: system.network for system in self._comparison.systems}
        chart = profiles.draw_profiles(self._workloads, networks)
        return [self._figure("Performance profiles", chart, caption, alt)]

    def _draw_costs(self) -> list[PageFigure]:
        chart = pareto.draw_pareto(self._comparison)
        if not chart.views:
            return []
        caption = (
            "Lower and further left is better. The dashed steps are the Pareto front: no system is better in error"
            " and no worse in cost."
        )
        alt = "Points of error over a cost, one for each system, with intervals and the Pareto front."
        return [self._figure("Error against cost", chart, caption, alt)]

    def _draw_matrices(self) -> list[PageFigure]:
        pairs, systems = self._differences, self._comparison.systems
        if pairs is None or len(systems) == 1:
            return []
        return [self._draw_matrix(pairs, k) for k in (1, GUESSES)]

    def _draw_matrix(self, pairs: Differences, guesses: int) -> PageFigure:
        """Draw the pairs of all systems, or of those with the lowest errors where there are many."""
        shown = sorted(pairs.orders[guesses][:MOST_IN_MATRIX])
        of_shown = np.ix_(shown, shown)
        is_part = len(shown) < len(pairs.names)
        which = f"the {len(shown)} systems with the lowest errors" if is_part else "all pairs"
        rest = " The CSV file of the table has all pairs." if is_part else ""
        return self._figure(
            f"Top-{guesses} error, {which}",
            matrix.draw_matrix(
                [pairs.names[index] for index in shown],
                pairs.points(guesses, pairs.question)[of_shown],
                pairs.significant(guesses, pairs.question)[of_shown],
                stem=f"differences_top{guesses}",
                title=f"Differences in top-{guesses} error: {pairs.question}",
            ),
            f"{QUESTIONS[pairs.question]} {' '.join(matrix.notes(len(shown)))}{rest}",
            f"A matrix of the differences in top-{guesses} error between every two systems.",
        )

    def _draw_gains(self) -> list[PageFigure]:
        """Draw the gains from the first year's system to the last year's, or from the first given to the last."""
        systems, names = self._comparison.systems, wordnet.readable_names(self._comparison.class_names)
        if self._differences is None or len(systems) == 1:
            return []
        steps = classes.steps(self._comparison) or [(systems[0], systems[-1])]
        first, last = steps[0][0], steps[-1][1]
        before, after = classes.same_seed(first, last)
        gains = class_gains.gains(before.guesses, after.guesses, names)
        chart = dumbbell.draw_gains(gains, (first.name, last.name))
        caption = (
            f"The classes that gained most and least from {first.name} (seed {before.seed}) to {last.name}"
            f" (seed {after.seed})."
        )
        alt = "Two points for each class."
        return [self._figure(f"From {first.name} to {last.name}", chart, caption, alt)]

    def _draw_confusions(self) -> list[PageFigure]:
        if self._wrong is None:
            return []
        ranked = leaderboard.ranked(self._comparison)
        figures = [*self._draw_pairs(self._wrong, ranked[: confused_pairs.MOST_SYSTEMS])]
        if self._tree is None:
            return figures
        caption = (
            "Height in WordNet of the nearest kind that a wrong first guess and the label share. Numbers at the right:"
            " top-1 error."
        )
        chart = wordnet_confusions.draw_heights(self._tree)
        alt = "Stacked bars, one for each system."
        figures.append(self._figure("How far wrong guesses are from the label", chart, caption, alt))
        if len(self._tree.groups) > 1:
            best = ranked[0]
            images = ConfusionExamples(best, self._tree.wrong, self._pictured_ids).of_super_classes(self._tree)
            chart = wordnet_confusions.draw_super_classes(self._tree, best.name, images)
            caption = (
                f"Wrong first guesses of {best.name}, by the super-classes of label (row) and guess (column), in % of"
                " the row's images."
            )
            alt = "A heat map of labels and guesses."
            figures.append(self._figure(f"Super-classes, {best.name}", chart, caption, alt))
        return figures

    def _draw_pairs(self, wrong: WrongGuesses, systems: Sequence[ComparedSystem]) -> list[PageFigure]:
        """Draw the most frequent confusions of the best systems."""
        pairs = confused_pairs.most_frequent(wrong)
        if not pairs:
            return []
        classes = [(int(wrong.label[pair]), int(wrong.guess[pair])) for pair in pairs]
        images = {one.name: ConfusionExamples(one, wrong, self._pictured_ids).of_pairs(classes) for one in systems}
        chart = confused_pairs.draw_confused_pairs(wrong, [one.name for one in systems], pairs, images)
        mean = ", as a mean over seeds" if wrong.has_several_seeds else ""
        n_others = len(self._comparison.systems) - len(systems)
        others = f" The {len(systems)} best systems; the table has all." if n_others else ""
        caption = f"Images of the first class whose first guess was the second one{mean}.{others}"
        return [self._figure("Most frequent confusions", chart, caption, "A heat map of confusions and systems.")]

    def _draw_cues(self) -> list[PageFigure]:
        if not self._cues:
            return []
        chart = shape_bias.draw_shape_bias(self._comparison, self._cues)
        caption = "Images with the shape of one object and the texture of another; people name the shape."
        return [self._figure("Shape bias", chart, caption, "A row of points for each system, and for people.")]

    def _draw_history(self) -> list[PageFigure]:
        if not section_history.belongs_to(self._comparison):
            return []
        chart = history.draw_history(self._comparison)
        caption = (
            "Published top-5 errors of the challenge's entries, on its hidden test sets, beside the errors of the"
            " systems compared here."
        )
        alt = "A line that falls from 28.2 % in 2010 to 2.25 % in 2017."
        return [self._figure("The challenge", chart, caption, alt)]

    def _difference_tables(self) -> list[Table]:
        tables = list(filter(None, [crossed.crossed(self._comparison)]))
        if self._differences is None:
            return tables
        for answer, caption in ANSWERS.items():
            headings, rows = differences.rows(self._differences, answer)
            if rows:
                tables.append(
                    Table(
                        f"differences_{answer}",
                        tuple(headings),
                        tuple(map(tuple, rows)),
                        caption,
                        excerpt=differences.excerpt(self._differences, answer),
                        chosen=leaderboard.TELLING,
                    )
                )
        return tables

    def _confusion_tables(self) -> list[Table]:
        if self._wrong is None:
            return []
        tables = [confusions.most_confused(self._wrong, self._tree)]
        if self._tree is not None:
            tables += [
                confusions.distances(self._tree),
                confusions.errors_by_group(self._tree),
                confusions.inside_by_group(self._tree),
            ]
        return [table for table in tables if table.rows]
