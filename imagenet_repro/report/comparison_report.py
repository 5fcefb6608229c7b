"""Show a comparison: draw the figures, fill the tables, put both on one page, and print the main result."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console

from imagenet_repro.report import comparison_page, curve_file, running, transfer_report
from imagenet_repro.report import targets as reached
from imagenet_repro.report.collect import are_same
from imagenet_repro.report.comparison_page import ComparisonPage, Thumbnails
from imagenet_repro.report.comparison_result import ComparisonResult
from imagenet_repro.report.html_page import PageFigure
from imagenet_repro.report.plots import curves, dumbbell, history, matrix, pareto, profiles, wordnet_confusions
from imagenet_repro.report.plots.curves import Against
from imagenet_repro.report.plots.pareto import Cost
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
from imagenet_repro.report.sections import targets as section_targets
from imagenet_repro.report.sections import verdict as verdicts
from imagenet_repro.report.sections.differences import Answer, Differences, Question
from imagenet_repro.report.tables import Table
from imagenet_repro.report.targets import Target, Workload
from imagenet_repro.scoring import terminal, wordnet
from imagenet_repro.scoring.metrics import GUESSES
from imagenet_repro.statistics.populations import NEW_IMAGES, interval_heading

INTERVAL = interval_heading(NEW_IMAGES).partition(",")[0]  # of top-1; the population follows in the heading
FIGURES = "figures"  # the subdirectory of the page's directory
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
FILE_WIDTH = 120  # columns of output to a file
AMOUNTS: dict[Against, str] = {
    "images": "images seen",
    "flops": "floating-point operations",
    "seconds": "seconds of training",
}
COSTS: dict[Cost, str] = {
    "flops": "floating-point operations of training",
    "multiply_adds": "multiply-adds of one image",
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
        self._draw(_Drawing(comparison, self._pairs, self._out / FIGURES, workloads), study, is_known=is_known)
        self._systems = comparison.systems
        path = comparison_page.write(dataclasses.replace(page, figures=self._figures, tables=self._tables), self._out)
        curve_file.write(comparison, self._out)
        self.result = ComparisonResult(self._out, path, page.verdict, comparison, page.groups)
        Console(highlight=False).print(f"the page: {path}", markup=False, soft_wrap=True)
        return path

    def _draw(self, drawing: "_Drawing", study: TransferStudy | None, *, is_known: bool) -> None:
        if is_known:
            self._figures["curves"] = drawing.curves()
            return
        self._figures, self._tables = drawing.figures(), drawing.tables()
        if study:
            self._figures["transfer"] = transfer_report.draw(study.targets[0], self._out / FIGURES)
            self._tables["transfer"] = transfer_report.tables(study, study.targets[0])


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
    """Draws the figures of one comparison into a directory, and builds the tables beside them."""

    def __init__(
        self, comparison: Comparison, pairs: Differences | None, out: Path, workloads: Sequence[Workload] = ()
    ):
        self._comparison, self._differences, self._out, self._workloads = comparison, pairs, out, workloads
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
        }

    def curves(self) -> list[PageFigure]:
        """Draw the learning curves of all runs, also of those that have not ended."""
        elsewhere = self._split_of_curves()
        has_several = any(len(system.runs) > 1 for system in self._comparison.systems)
        band = "; lines are means over seeds, bands span the lowest to the highest seed" if has_several else ""
        return [
            PageFigure(
                f"Against {amount}",
                curves.plot_systems(self._comparison, self._out / f"curves_{against}.png", against=against)[1],
                f"Training loss and both error rates{elsewhere}{band}. All points are in {curve_file.NAME}.",
                f"Three panels with one curve for each system against {amount}.",
            )
            for against, amount in AMOUNTS.items()
        ]

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
        paths = profiles.plot_profiles(self._workloads, self._out / "profiles.png")
        return [PageFigure("Performance profiles", paths[1], caption, alt)]

    def _draw_costs(self) -> list[PageFigure]:
        return [
            PageFigure(
                f"Against {cost}",
                pareto.plot_pareto(self._comparison, self._out / f"pareto_{against}.png", against=against)[1],
                "Lower and further left is better. The dashed steps are the Pareto front: no system is better in error"
                " and no worse in cost.",
                f"Points of error over {cost}, one for each system, with intervals and the Pareto front.",
            )
            for against, cost in COSTS.items()
        ]

    def _draw_matrices(self) -> list[PageFigure]:
        pairs, systems = self._differences, self._comparison.systems
        if pairs is None or len(systems) == 1:
            return []
        return [
            PageFigure(
                f"Top-{k} error, all pairs",
                matrix.plot_matrix(
                    [system.name for system in systems],
                    pairs.points(k, pairs.question),
                    pairs.significant(k, pairs.question),
                    self._out / f"differences_top{k}.png",
                    title=f"Differences in top-{k} error: {pairs.question}",
                )[1],
                QUESTIONS[pairs.question],
                f"A matrix of the differences in top-{k} error between every two systems.",
            )
            for k in (1, GUESSES)
        ]

    def _draw_gains(self) -> list[PageFigure]:
        """Draw the gains from the first year's system to the last year's, or from the first given to the last."""
        systems, names = self._comparison.systems, wordnet.readable_names(self._comparison.class_names)
        if self._differences is None or len(systems) == 1:
            return []
        steps = classes.steps(self._comparison) or [(systems[0], systems[-1])]
        first, last = steps[0][0], steps[-1][1]
        before, after = classes.same_seed(first, last)
        gains = class_gains.gains(before.guesses, after.guesses, names)
        paths = dumbbell.plot_gains(gains, self._out / "gains.png", systems=(first.name, last.name))
        caption = (
            f"The classes that gained most and least from {first.name} (seed {before.seed}) to {last.name}"
            f" (seed {after.seed})."
        )
        return [PageFigure(f"From {first.name} to {last.name}", paths[1], caption, "Two points for each class.")]

    def _draw_confusions(self) -> list[PageFigure]:
        if self._tree is None:
            return []
        paths = wordnet_confusions.plot_heights(self._tree, self._out / "heights.png")
        figures = [
            PageFigure(
                "How far wrong guesses are from the label",
                paths[1],
                "Height in WordNet of the nearest kind that a wrong first guess and the label share.",
                "Stacked bars, one for each system.",
            )
        ]
        if len(self._tree.groups) > 1:
            best = leaderboard.ranked(self._comparison)[0].name
            paths = wordnet_confusions.plot_super_classes(self._tree, best, self._out / "super_classes.png")
            caption = f"Wrong first guesses of {best}, by the super-classes of label and guess."
            figures.append(
                PageFigure(f"Super-classes, {best}", paths[1], caption, "A heat map of labels and guesses.")
            )
        return figures

    def _draw_history(self) -> list[PageFigure]:
        if not section_history.belongs_to(self._comparison):
            return []
        paths = history.plot_history(self._comparison, self._out / "history.png")
        caption = (
            "Published top-5 errors of the challenge's entries, on its hidden test sets, beside the errors of the"
            " systems compared here."
        )
        alt = "A line that falls from 28.2 % in 2010 to 2.25 % in 2017."
        return [PageFigure("The challenge", paths[1], caption, alt)]

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
