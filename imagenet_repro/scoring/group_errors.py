"""Error rates of groups of images, such as countries, factors or frequencies of classes, and their spread."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from rich.console import Console
from rich.table import Table

from imagenet_repro.errors import UserError
from imagenet_repro.scoring.image_groups import Groups
from imagenet_repro.scoring.metrics import GUESSES, format_rate, is_wrong
from imagenet_repro.scoring.predictions import Predictions
from imagenet_repro.scoring.terminal import print_lines, print_table, score_table
from imagenet_repro.statistics.intervals import newcombe_interval
from imagenet_repro.statistics.populations import NEW_IMAGES, interval_heading, terminal_heading


@dataclasses.dataclass(frozen=True)
class GroupError:
    """Errors on the images of one group."""

    name: str
    images: int
    top1_wrong: int
    top5_wrong: int

    @property
    def error(self) -> float:
        """Top-1 error, a share of the group's images."""
        return self.top1_wrong / self.images


@dataclasses.dataclass(frozen=True)
class GroupErrors:
    """Errors of all groups.

    Attributes:
      heading: heading of the groups' column.
      groups: from the largest error to the smallest.
      everything: errors of all images that have a group, each counted once.
      left_out: number of images without a group.
      overlap: whether an image may belong to several groups.
    """

    heading: str
    groups: tuple[GroupError, ...]
    everything: GroupError
    left_out: int
    overlap: bool

    def gap(self) -> tuple[float, tuple[float, float]]:
        """Return the largest error minus the smallest, and its interval for new images.

        The interval is Newcombe's (1998, "Interval estimation for the difference between independent proportions",
        method 10), at the confidence that Bonferroni's correction needs for all pairs of groups, from which the pair
        with the largest gap was chosen: 95 % for all pairs at once.
        """
        pairs = len(self.groups) * (len(self.groups) - 1) // 2
        worst, best = self.groups[0], self.groups[-1]
        interval = newcombe_interval(
            (worst.top1_wrong, worst.images), (best.top1_wrong, best.images), confidence=1 - 0.05 / pairs
        )
        return worst.error - best.error, interval

    def p_value(self) -> float | None:
        """Return the p value of Pearson's chi-square test of equal errors; None if groups overlap or are all right."""
        wrong = np.array([group.top1_wrong for group in self.groups])
        right = np.array([group.images for group in self.groups]) - wrong
        if self.overlap or not wrong.any() or not right.any():
            return None
        from scipy.stats import chi2_contingency

        result: Any = chi2_contingency([wrong, right], correction=False)
        return float(result.pvalue)

    def table(self) -> Table:
        """Return the table of the groups for the terminal."""
        headings = [
            self.heading,
            "images",
            "top-1\nerror [%]",
            terminal_heading(interval_heading(NEW_IMAGES)),
            "ratio to\nall images",
            f"top-{GUESSES}\nerror [%]",
        ]
        return score_table(headings, [self._row(group) for group in (*self.groups, self.everything)])

    def _row(self, group: GroupError) -> list[str]:
        error, interval = format_rate(group.top1_wrong, group.images)
        ratio = f"{group.error / self.everything.error:.2f}" if self.everything.error else ""
        return [
            group.name,
            f"{group.images:,}",
            error,
            interval,
            ratio,
            format_rate(group.top5_wrong, group.images)[0],
        ]

    def sentences(self) -> list[str]:
        """Return sentences on the gap, on the test of equal errors, and on the images that are left out."""
        lines = []
        if len(self.groups) > 1:
            gap, (low, high) = self.gap()
            worst, best = self.groups[0], self.groups[-1]
            lines.append(
                f"Largest gap: {worst.name} minus {best.name}, {100 * gap:.1f} points, interval"
                f" [{100 * low:.1f}, {100 * high:.1f}], 95 % for all pairs of groups at once, for {NEW_IMAGES}."
            )
        p = self.p_value()
        if p is not None and len(self.groups) > 1:
            verdict = "differ" if p < 0.05 else "do not differ significantly"
            lines.append(f"Errors of the groups {verdict} (chi-square test, p = {p:.2g}).")
        if self.overlap:
            lines.append("An image may belong to several groups, so that their errors are not independent.")
        if self.left_out:
            lines.append(f"{self.left_out:,} images have no group and are left out.")
        return lines


def score(predicted: Predictions, groups: Groups) -> GroupErrors:
    """Return the errors of each group.

    Args:
      predicted: predictions with labels.
      groups: the groups of the images.

    Raises:
      UserError: images have no labels.
    """
    members: dict[str, list[int]] = {}
    grouped, overlap = [], False
    for row, id in enumerate(predicted.id.tolist()):
        names = groups.by_image.get(id)
        if names is None:
            continue
        grouped.append(row)
        overlap = overlap or len(names) > 1
        for name in names:
            members.setdefault(name, []).append(row)
    if np.any(predicted.label[grouped] < 0):
        raise UserError("these predictions are of images without labels, so their errors are not known")
    wrong = [is_wrong(predicted.top5, predicted.label, guesses) for guesses in (1, GUESSES)]
    errors = [_group(name, rows, wrong) for name, rows in members.items()]
    errors.sort(key=lambda group: (-group.error, group.name))
    everything = _group("all images", grouped, wrong)
    return GroupErrors(groups.heading, tuple(errors), everything, len(predicted) - len(grouped), overlap)


def _group(name: str, rows: Sequence[int], wrong: Sequence[Bool[np.ndarray, " n"]]) -> GroupError:
    return GroupError(name, len(rows), *(int(one[list(rows)].sum()) for one in wrong))


def show(errors: GroupErrors, console: Console | None = None) -> None:
    """Print the table of groups and the sentences."""
    console = console or Console()
    print_table(errors.table(), console)
    print_lines(errors.sentences(), console)
