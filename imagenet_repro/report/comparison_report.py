"""A comparison made visible: pictures drawn, tables filled, all of it on one page, the gist in the terminal."""

import dataclasses
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Shown
from rich.text import Text

from imagenet_repro.report import comparison_page
from imagenet_repro.report.comparison_page import ComparisonPage, Thumbnails
from imagenet_repro.report.html_page import PageFigure
from imagenet_repro.report.plots import curves, dumbbell, history, matrix, pareto, wordnet_confusions
from imagenet_repro.report.records import Comparison
from imagenet_repro.report.sections import class_gains, classes, confusions, crossed, differences, leaderboard
from imagenet_repro.report.tables import Table
from imagenet_repro.scoring import wordnet
from imagenet_repro.scoring.metrics import GUESSES

FIGURES = "figures"  # below the page's directory
IN_TERMINAL = ("system", "group", "top-1 error %", "95 % interval", "top-5 error %", "training seconds", "seeds")
FILE_WIDTH = 120  # columns, where rich would assume 80
AMOUNTS = {"images": "images seen", "flops": "operations", "seconds": "seconds of training"}
QUESTIONS = {
    "checkpoints": "These two checkpoints on these images: the first common seed of each pair, McNemar's test.",
    "recipes": "These two recipes, over the seeds that both have: the test of sign flips.",
}
JUDGE = "Intervals are for one pair each; judge by the adjusted p, which allows for the number of pairs."


def present(comparison: Comparison, out: Path, thumbnails: Thumbnails | None = None) -> Path:
    """Writes `report.html`, `tables/` and `figures/` to a directory, and returns the page's path.

    Args:
      comparison: what was gathered.
      out: made where it is missing.
      thumbnails: of report.Page.

    Raises:
      SaveError: something cannot be written.
    """
    found = _found(comparison)
    drawing = _Drawing(comparison, found, out / FIGURES)
    verdict = differences.sentence(comparison, found) if found else _without_pairs(comparison)
    page = ComparisonPage(
        comparison=_readable(comparison),
        verdict=verdict.replace(". ", ".\n", 1),
        figures=drawing.figures(),
        tables=drawing.tables(),
        groups=groups(comparison, found) if found else {},
        thumbnails=thumbnails,
    )
    path = comparison_page.write(page, out)
    _show(page, path)
    return path


def _found(comparison: Comparison) -> differences.Differences | None:
    """The differences of all pairs; None where the images are not the same, which only a mixed comparison's can be."""
    if comparison.mixed and not comparison.same_images:
        return None
    return differences.differences(comparison)


def _without_pairs(comparison: Comparison) -> str:
    best = leaderboard.ranked(comparison)[0]
    return (
        f"{best.name} has the lowest top-1 error, {100 * best.mean_error(1):.1f} %. These systems were not scored on"
        " the same images, so nothing says which differences are real."
    )


def groups(comparison: Comparison, found: differences.Differences) -> dict[str, str]:
    """Letters of systems that cannot be told apart in top-1 error, none where there is one system."""
    if len(comparison.systems) == 1:
        return {}
    letters = found.letters(1, found.question)
    return {system.name: letter for system, letter in zip(comparison.systems, letters, strict=True)}


def _readable(comparison: Comparison) -> Comparison:
    return dataclasses.replace(comparison, class_names=tuple(wordnet.readable_names(comparison.class_names)))


def _show(page: ComparisonPage, path: Path) -> None:
    """The leaderboard's main columns and the verdict, for a person at a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    board = leaderboard.leaderboard(page.comparison, page.groups)
    columns = [board.headings.index(heading) for heading in IN_TERMINAL if heading in board.headings]
    table = Shown(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, column in enumerate(columns):
        table.add_column(board.headings[column], justify="right" if number else "left", overflow="fold")
    for row in board.rows:
        table.add_row(*(Text(row[column]) for column in columns))
    console.print(table)
    for line in (*(f"mixed, {one}" for one in page.comparison.mixed), *page.verdict.splitlines()):
        console.print(line, markup=False)
    for failure in page.comparison.failures:
        console.print(f"without {failure.name}, seed {failure.seed}: {failure.why}", markup=False)
    console.print(f"the page: {path}", markup=False, soft_wrap=True)


class _Drawing:
    """Draws the pictures of one comparison into a directory."""

    def __init__(self, comparison: Comparison, found: differences.Differences | None, out: Path):
        self._comparison, self._found, self._out = comparison, found, out
        self._wrong = confusions.wrong_guesses(comparison) if found else None
        self._tree = confusions.along_tree(self._wrong, comparison.class_names) if found else None

    def figures(self) -> dict[str, list[PageFigure]]:
        """All pictures, by the part of the page."""
        return {
            "curves": self._curves(),
            "compute": self._compute(),
            "differences": self._matrices(),
            "classes": self._gains(),
            "confusions": self._confusions(),
            "history": self._history(),
        }

    def tables(self) -> dict[str, list[Table]]:
        """The tables that others do not make, by the part of the page."""
        return {"differences": self._difference_tables(), "confusions": self._confusion_tables()}

    def _curves(self) -> list[PageFigure]:
        config = self._comparison.systems[0].runs[0].result["provenance"]["config"]
        split = config["data"]["eval_split"]
        held = f" on {split}, not the split of the results" if split != self._comparison.scored_split else ""
        several = any(len(system.runs) > 1 for system in self._comparison.systems)
        band = ": means over seeds, in a band from lowest to highest" if several else ""
        return [
            PageFigure(
                f"Against {what}",
                curves.plot_systems(self._comparison, self._out / f"curves_{amount}.png", against=amount)[1],
                f"Training loss and both error rates{held}{band}.",
                f"Three panels of curves that fall with {what}, one for each system.",
            )
            for amount, what in AMOUNTS.items()
        ]

    def _compute(self) -> list[PageFigure]:
        what = {"flops": "operations of training", "multiply_adds": "multiply-adds of one image"}
        return [
            PageFigure(
                f"Against {text}",
                pareto.plot_pareto(self._comparison, self._out / f"pareto_{cost}.png", against=cost)[1],
                "Lower and further left is better. The steps are the Pareto front: no system beats those in both.",
                f"Points of error over {text}, one for each system, with intervals and the Pareto front.",
            )
            for cost, text in what.items()
        ]

    def _matrices(self) -> list[PageFigure]:
        found, systems = self._found, self._comparison.systems
        if found is None or len(systems) == 1:
            return []
        return [
            PageFigure(
                f"Top-{k} error, all pairs",
                matrix.plot_matrix(
                    [system.name for system in systems],
                    found.points(k, found.question),
                    found.different(k, found.question),
                    self._out / f"differences_top{k}.png",
                    title=f"Differences in top-{k} error: {found.question}",
                )[1],
                QUESTIONS[found.question],
                f"A matrix of the differences in top-{k} error between every two systems.",
            )
            for k in (1, GUESSES)
        ]

    def _gains(self) -> list[PageFigure]:
        """From the first year's system to the last one's; as they were given, where nobody knows their years."""
        systems, names = self._comparison.systems, wordnet.readable_names(self._comparison.class_names)
        if self._found is None or len(systems) == 1:
            return []
        steps = classes.steps(self._comparison) or [(systems[0], systems[-1])]
        first, last = steps[0][0], steps[-1][1]
        before, after = classes.same_seed(first, last)
        gained = class_gains.gains(before.guesses, after.guesses, names)
        drawn = dumbbell.plot_gains(gained, self._out / "gains.png", systems=(first.name, last.name))
        caption = (
            f"The classes that gained most and least from {first.name} (seed {before.seed}) to {last.name}"
            f" (seed {after.seed})."
        )
        return [
            PageFigure(f"From {first.name} to {last.name}", drawn[1], caption, "Pairs of points, one for each class.")
        ]

    def _confusions(self) -> list[PageFigure]:
        if self._tree is None:
            return []
        drawn = wordnet_confusions.plot_heights(self._tree, self._out / "heights.png")
        figures = [
            PageFigure(
                "How far wrong guesses go",
                drawn[1],
                "Height in WordNet of what a wrong first guess and the label have in common.",
                "Stacked bars, one for each system.",
            )
        ]
        if len(self._tree.groups) > 1:
            best = leaderboard.ranked(self._comparison)[0].name
            drawn = wordnet_confusions.plot_super_classes(self._tree, best, self._out / "super_classes.png")
            caption = f"Where the first guesses of {best} go, by super-class."
            figures.append(
                PageFigure(f"Super-classes, {best}", drawn[1], caption, "A heat map of labels and guesses.")
            )
        return figures

    def _history(self) -> list[PageFigure]:
        drawn = history.plot_history(self._comparison, self._out / "history.png")
        caption = "Published top-5 errors of the entries, on the challenge's hidden test sets, and ours beside them."
        return [
            PageFigure("The challenge", drawn[1], caption, "A falling line from 28.2 % in 2010 to 2.25 % in 2017.")
        ]

    def _difference_tables(self) -> list[Table]:
        found = list(filter(None, [crossed.crossed(self._comparison)]))
        for question, text in QUESTIONS.items():
            headings, rows = differences.rows(self._found, question) if self._found else ([], [])
            if rows:
                found.append(
                    Table(f"differences_{question}", tuple(headings), tuple(map(tuple, rows)), f"{text} {JUDGE}")
                )
        return found

    def _confusion_tables(self) -> list[Table]:
        if self._wrong is None:
            return []
        parts = {"confusions": confusions.most_confused(self._wrong, self._tree)}
        if self._tree is not None:
            parts |= {
                "tree_distances": confusions.distances(self._tree),
                "super_class_errors": confusions.errors_by_group(self._tree),
                "super_class_inside": confusions.inside_by_group(self._tree),
            }
        return [Table(name, rows.headings, rows.rows, rows.caption) for name, rows in parts.items() if rows.rows]
