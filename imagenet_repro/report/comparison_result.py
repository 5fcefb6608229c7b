"""The result that `compare` returns in Python."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagenet_repro.report.records import Comparison
from imagenet_repro.report.sections import leaderboard
from imagenet_repro.scoring.metrics import GUESSES


@dataclasses.dataclass(frozen=True)
class SystemResult:
    """The errors of one system, as the leaderboard shows them.

    Attributes:
      name: unique within the comparison.
      network: the network, or the entry of the challenge.
      seeds: of its runs.
      group: letters; systems that share one do not differ significantly in top-1 error. Empty: there are none.
      top1_error: the mean over seeds, in [0, 1].
      top1_interval: its 95 % interval, for the population that `ComparisonResult.population` names.
      top5_error: as `top1_error`.
      top5_interval: as `top1_interval`.
    """

    name: str
    network: str
    seeds: tuple[int, ...]
    group: str
    top1_error: float
    top1_interval: tuple[float, float]
    top5_error: float
    top5_interval: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class ComparisonResult:
    """A comparison, and the files that were written.

    Attributes:
      directory: of the page, the figures, the tables and `curves.csv`.
      page: the HTML file; None above several targets without a study of pretraining.
      verdict: the sentences at the top of the page, a line each.
      comparison: the systems with their runs, guesses and curves; None above several targets.
      letters: groups of systems by name.
      targets: the result of each target of a sweep that has several.
    """

    directory: Path
    page: Path | None
    verdict: str
    comparison: Comparison | None = dataclasses.field(default=None, repr=False)
    letters: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    targets: Mapping[str, "ComparisonResult"] = dataclasses.field(default_factory=dict)

    @property
    def figures(self) -> Path:
        """The directory of the figures, each as PNG and SVG."""
        return self.directory / "figures"

    @property
    def tables(self) -> Path:
        """The directory of the tables, each as CSV and Markdown."""
        return self.directory / "tables"

    @property
    def population(self) -> str:
        """The population that the intervals are about."""
        return leaderboard.population(self.comparison) if self.comparison else ""

    @functools.cached_property
    def systems(self) -> tuple[SystemResult, ...]:
        """The systems whose runs have ended, by rising top-1 error."""
        if self.comparison is None or not self.comparison.systems:
            return ()
        intervals = {
            guesses: dict(
                zip(
                    (system.name for system in self.comparison.systems),
                    leaderboard.error_intervals(self.comparison, guesses),
                    strict=True,
                )
            )
            for guesses in (1, GUESSES)
        }
        return tuple(
            SystemResult(
                name=system.name,
                network=system.network,
                seeds=system.seeds,
                group=self.letters.get(system.name, ""),
                top1_error=system.mean_error(1),
                top1_interval=intervals[1][system.name],
                top5_error=system.mean_error(GUESSES),
                top5_interval=intervals[GUESSES][system.name],
            )
            for system in leaderboard.ranked(self.comparison)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return verdict, systems and targets as JSON values."""
        return {
            "page": None if self.page is None else str(self.page),
            "verdict": self.verdict,
            "population": self.population,
            "systems": [dataclasses.asdict(system) for system in self.systems],
            "targets": {name: one.to_dict() for name, one in self.targets.items()},
        }
