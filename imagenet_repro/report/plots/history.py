"""A figure of the challenge from 2010 to 2017, with the systems of a comparison at their years."""

import dataclasses
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from imagenet_repro.report import zoo_listing
from imagenet_repro.report.plots import label_placement
from imagenet_repro.report.plots.style import (
    AS_TEXT,
    GRID,
    MUTED,
    STYLE,
    describe_ranges,
    error_range,
    fix_layout,
    limit_errors,
    new_figure,
    styles,
    write,
)
from imagenet_repro.report.records import ComparedSystem, Comparison
from imagenet_repro.scoring.sets import IMAGENET
from imagenet_repro.zoo.entries import ENTRIES
from imagenet_repro.zoo.published import year

PERSON = "a person"  # an entry's `who`
PEOPLE = (PERSON, "a second person")
WINNER = ", winner"  # ends an entry's `who`
ENTRY = {"marker": "D", "markersize": 6, "color": "#333333"}
EARLIEST, LATEST = 1900.0, 2100.0  # beyond every axis of years
PIECES = 12  # segments into which a slope is cut, so that names do not cover it
OTHER_DATA = "The two panels cannot be compared: other images, another budget, and single models below."
SAME_DATA = "Systems here: single models on the validation set. Entries: on the hidden test set."


def plot_history(comparison: Comparison, path: str | Path) -> list[Path]:
    """Draw the published top-5 errors of the entries over the years, and ours; return the .png and the .svg.

    Our errors share the axis of the entries if they were measured on all of ImageNet's validation set; otherwise they
    have a separate panel. A system stands at the year of its network or entry; without a known year it is
    left out.

    Args:
      comparison: the systems.
      path: the path of the figure.

    Raises:
      SaveError: a file cannot be written.
    """
    ours = _placed(comparison.systems)
    shared = _on_validation(comparison)
    rows = 1 if shared or not ours else 2
    with rc_context(STYLE | AS_TEXT):
        figure = new_figure((9, 4.4 * rows + 0.6), w_pad=0.1, h_pad=0.08, hspace=0.04)
        panels = list(figure.subplots(rows, 1, squeeze=False)[:, 0])
        drawn = [_draw_challenge(panels[0])]
        if ours:
            drawn.append(_draw_ours(panels[-1], ours))
        _finish(panels, comparison, ours)
        figure.supxlabel(_caption(comparison, ours), x=0.01, ha="left", fontsize=9, color=MUTED)
        fix_layout(figure)  # on which the positions of the names depend
        for panel in panels:
            _write_names(panel, [one for one in drawn if one.panel is panel])
        return write(figure, path, "the history of the challenge")


def _on_validation(comparison: Comparison) -> bool:
    """Return whether the errors are on all of ImageNet's validation set, which resembles the challenge's test set."""
    is_complete = comparison.scored_split == "validation" and comparison.n_images == zoo_listing.VALIDATION_IMAGES
    return is_complete and IMAGENET.fullmatch(comparison.scored_data) is not None


@dataclasses.dataclass(frozen=True)
class _Placed:
    """A system at its year."""

    system: ComparedSystem
    year: int
    style: Mapping[str, str]


def _placed(systems: Sequence[ComparedSystem]) -> list[_Placed]:
    dated = [(system, year(system.network), style) for system, style in zip(systems, styles(), strict=False)]
    return [_Placed(system, when, style) for system, when, style in dated if when is not None]


def _caption(comparison: Comparison, ours: Sequence[_Placed]) -> str:
    sentences = []
    if ours:
        sentences.append(SAME_DATA if _on_validation(comparison) else OTHER_DATA)
        sentences.append(f"Bars: {describe_ranges([one.system for one in ours])}.")
    shown = {one.system.name for one in ours}
    unknown = [system.name for system in comparison.systems if system.name not in shown]
    if unknown:
        sentences.append(f"Not shown (no known year): {', '.join(unknown)}.")
    return textwrap.fill(" ".join(sentences), 110)


# --- drawing ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """The content of a panel: points with their names, and segments of lines that names must not cover."""

    panel: Axes
    names: Sequence[str]
    points: Float[np.ndarray, "n 2"]
    lines: Float[np.ndarray, "m 2 2"]


def _draw_challenge(panel: Axes) -> _Drawn:
    """Draw the winners on a line, the other entries as points, and the person as a horizontal line."""
    winners = [entry for entry in ENTRIES if entry.who.endswith(WINNER)]
    person = next(entry for entry in ENTRIES if entry.who == PERSON)
    others = [entry for entry in ENTRIES if entry not in winners and entry.who not in PEOPLE]
    line = np.array([(entry.year, entry.top5) for entry in winners], np.float64)
    rest = np.array([(entry.year, entry.top5) for entry in others], np.float64)
    panel.plot(*line.T, label="winner", linewidth=1.6, zorder=3, **ENTRY)
    panel.plot(*rest.T, label="other entry", linestyle="none", markerfacecolor="white", zorder=2, **ENTRY)
    panel.axhline(person.top5, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    names = [f"{entry.who.removesuffix(WINNER)} {entry.top5:g}" for entry in (*winners, *others)]
    slopes = np.concatenate([_pieces(*pair) for pair in itertools.pairwise(line)])
    right = np.array([line[-1, 0] + 0.8, person.top5])
    across = np.array([[[EARLIEST, person.top5], [LATEST, person.top5]]])
    names.append(f"{person.who}: {person.top5:g} on {person.protocol}")
    return _Drawn(panel, names, np.concatenate([line, rest, [right]]), np.concatenate([slopes, across]))


def _pieces(start: Float[np.ndarray, " 2"], end: Float[np.ndarray, " 2"]) -> Float[np.ndarray, "p 2 2"]:
    ends = np.linspace(start, end, PIECES + 1)
    return np.stack([ends[:-1], ends[1:]], 1)


def _draw_ours(panel: Axes, ours: Sequence[_Placed]) -> _Drawn:
    errors = np.array([error_range(one.system, 5) for one in ours])
    years = np.array([one.year for one in ours], np.float64)
    for one, (error, low, high) in zip(ours, errors, strict=True):
        look = {"color": one.style["color"], "zorder": 4, "clip_on": False}
        panel.plot([one.year] * 2, [low, high], linewidth=1.4, alpha=0.6, **look)
        panel.plot(one.year, error, linestyle="none", marker=one.style["marker"], markersize=7, **look)
    bars = np.stack([np.stack([years, errors[:, end]], -1) for end in (1, 2)], 1)
    return _Drawn(panel, [one.system.name for one in ours], np.stack([years, errors[:, 0]], -1), bars)


def _finish(panels: Sequence[Axes], comparison: Comparison, ours: Sequence[_Placed]) -> None:
    years = [*(entry.year for entry in ENTRIES), *(one.year for one in ours)]
    for panel in panels:
        panel.set_xlim(min(years) - 0.8, max(years) + 0.9)
        panel.xaxis.set_major_locator(MultipleLocator(1 if max(years) - min(years) < 15 else 2))
        panel.xaxis.set_major_formatter("{x:.0f}")
        panel.grid(axis="y", color=GRID, linewidth=0.8)
        panel.set_axisbelow(True)
    title = {"loc": "left", "fontweight": "bold", "fontsize": 11}
    heading = "Published: top-5 error in the challenge"
    top = max(entry.top5 for entry in ENTRIES)
    if len(panels) == 1 and ours:
        heading = "Top-5 error in the challenge, as published, and here"
        top = max(top, *(error_range(one.system, 5)[2] for one in ours))
        panels[0].plot([], [], label="system here (any colour)", linestyle="none", marker="o", color=MUTED)
    panels[0].set_ylim(0, 1.1 * top)
    panels[0].set_title(f"{heading}, %", pad=24, **title)
    panels[0].legend(loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=3, frameon=False, borderpad=0.2)
    if len(panels) == 2:
        ranges = np.array([error_range(one.system, 5) for one in ours])
        limit_errors(panels[1], ranges[:, 1], ranges[:, 2])
        panels[1].set_title(f"Here: top-5 error on {comparison.scored_data}, {comparison.scored_split}, %", **title)


def _write_names(panel: Axes, drawn: Sequence[_Drawn]) -> None:
    names = [name for one in drawn for name in one.names]
    points = np.concatenate([one.points for one in drawn])
    lines = np.concatenate([one.lines for one in drawn])
    label_placement.write_names(panel, names, points, bold=np.zeros(len(names), bool), lines=lines)
