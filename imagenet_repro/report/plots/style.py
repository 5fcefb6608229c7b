"""The parts that all charts share: colours, units, error bars, and the entries of their legends."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

from imagenet_repro.report.records import ComparedSystem
from imagenet_repro.statistics.intervals import binomial_interval
from imagenet_repro.statistics.populations import NEW_IMAGES

# Okabe & Ito (2008): distinct for people with any common colour blindness. Its yellow is too pale for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Beyond seven systems the colours repeat with the next line style and marker. Lengths of dashes and gaps in pixels.
LINES = ((1, 0), (6, 3), (2, 2))
MARKERS = ("circle", "square", "triangle-up")
MUTED = "#666666"
GRID = "#e6e6e6"
HAND_MADE = "hand-made features"  # the family of systems before 2012
SMALLEST_RANGE = 5.0  # percentage points of an axis of errors


@dataclasses.dataclass(frozen=True)
class LegendEntry:
    """The look of one system in all charts.

    Attributes:
      name: of the system.
      family: of its network; empty if it is not known.
      colour: of its lines and marks.
      dash: lengths of the dashes and gaps of its lines, in pixels.
      shape: of its marks, in Vega's words.
    """

    name: str
    family: str
    colour: str
    dash: tuple[int, int]
    shape: str


def entries(names_and_networks: Sequence[tuple[str, str]]) -> tuple[LegendEntry, ...]:
    """Return the legend's entry of each system, from its name and its network; they are the same in every chart."""
    kinds = itertools.cycle(zip(LINES, MARKERS, strict=True))
    looks = ((colour, dash, shape) for dash, shape in kinds for colour in COLOURS)
    return tuple(
        LegendEntry(name, family(network), *look)
        for (name, network), look in zip(names_and_networks, looks, strict=False)
    )


def system_entries(systems: Sequence[ComparedSystem]) -> tuple[LegendEntry, ...]:
    """Return the legend's entry of each system of a comparison."""
    return entries([(system.name, system.network) for system in systems])


def family(network: str) -> str:
    """Return the family of a network, such as "resnet"; empty if the registry does not have it."""
    from imagenet_repro.models import registry
    from imagenet_repro.zoo.entries import ENTRIES

    if network in {entry.system for entry in ENTRIES if entry.system}:
        return HAND_MADE
    return registry.family(network)


def rounded(value: float) -> float | None:
    """Return a number with six significant digits, for the data of a chart; None if it is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def error_range(system: ComparedSystem, guesses: int) -> tuple[float, float, float]:
    """Return (error, low, high) with 1 or 5 guesses, in percent.

    For one seed these are the error and Wilson's 95 % interval, for new images and these checkpoints. For several
    seeds they are the mean, the lowest and the highest.
    """
    errors = system.errors(guesses)
    low, high = min(errors), max(errors)
    if len(errors) == 1:
        rates = system.runs[0].rates
        low, high = binomial_interval(rates.top1_wrong if guesses == 1 else rates.top5_wrong, rates.images)
    return 100 * system.mean_error(guesses), 100 * low, 100 * high


def describe_ranges(systems: Sequence[ComparedSystem]) -> str:
    """Return the meaning of the bars of `error_range`, as part of a sentence."""
    one, several = (f"Wilson's 95 % intervals for {NEW_IMAGES}", "lowest to highest seed, around the mean")
    seeds = {len(system.runs) for system in systems}
    if seeds == {1}:
        return one
    return several if 1 not in seeds else f"{several}; for one seed {one}"


def error_domain(low: float, high: float) -> tuple[float, float]:
    """Return the ends of an axis of errors in percent: the range of the bars, at least five points, and some space."""
    centre = (high + low) / 2
    half = 0.62 * max(high - low, SMALLEST_RANGE)
    return max(0.0, centre - half), min(100.0, centre + half)
