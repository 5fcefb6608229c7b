"""A figure of the challenge from 2010 to 2017, with the systems of a comparison at their years."""

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from typing import Any

from imagenet_repro.report import zoo_listing
from imagenet_repro.report.plots import charts, label_placement
from imagenet_repro.report.plots.charts import Chart, ChartView
from imagenet_repro.report.plots.label_placement import Frame
from imagenet_repro.report.plots.style import (
    MUTED,
    LegendEntry,
    describe_ranges,
    error_domain,
    error_range,
    rounded,
    system_entries,
)
from imagenet_repro.report.records import ComparedSystem, Comparison
from imagenet_repro.report.text import clipped_name
from imagenet_repro.scoring.sets import IMAGENET
from imagenet_repro.zoo.entries import ENTRIES
from imagenet_repro.zoo.published import year

PERSON = "a person"  # an entry's `who`
PEOPLE = (PERSON, "a second person")
WINNER = ", winner"  # ends an entry's `who`
DARK = "#444444"  # of the entries' marks
SIZE = (660, 330)  # pixels of a panel in the files
PIECES = 12  # segments into which a slope is cut, so that names do not cover it
ENTRIES_NOTE = "Filled diamonds, on the line: winners of the challenge; hollow ones: other entries."
OTHER_DATA = "The two panels cannot be compared: other images, another budget, and single models below."
SAME_DATA = "Systems here: single models on the validation set. Entries: on the hidden test set."

Point = tuple[float, float]


def draw_history(comparison: Comparison) -> Chart:
    """Return the published top-5 errors of the entries over the years, and ours.

    Our errors share the axis of the entries if they were measured on all of ImageNet's validation set; otherwise they
    have a separate panel. A system stands at the year of its network or entry; without a known year it is
    left out.
    """
    ours = _placed(comparison.systems)
    is_shared = bool(ours) and _on_validation(comparison)
    years = [*(entry.year for entry in ENTRIES), *(one.year for one in ours)]
    domain = (min(years) - 0.8, max(years) + 0.9)
    ranges = [error_range(one.system, 5) for one in ours]
    top = max([entry.top5 for entry in ENTRIES] + [high for _, _, high in ranges if is_shared])
    upper = Frame(SIZE, domain, (0, 1.1 * top))
    legend = tuple(one.entry for one in ours)
    systems = {one.system.name for one in ours}
    datasets = _entry_rows()
    datasets["ours"] = [_our_row(one) for one in ours]
    names, lines = _named_entries(domain)
    if is_shared:
        names += _named_systems(ours)
        lines += _bars(ours)
    datasets["names"] = _name_rows(names, lines, upper, systems)
    heading = "Published: top-5 error in the challenge, %"
    if is_shared:
        heading = "Top-5 error in the challenge, as published, and here, %"
    layers = _draw_entries(upper) + (_draw_systems(upper, legend) if is_shared else [])
    panels = [_panel([*layers, _draw_names("names", upper)], heading)]
    if ours and not is_shared:
        lower = Frame(SIZE, domain, error_domain(min(low for _, low, _ in ranges), max(high for *_, high in ranges)))
        datasets["own_names"] = _name_rows(_named_systems(ours), _bars(ours), lower, systems)
        title = f"Here: top-5 error on {comparison.scored_data}, {comparison.scored_split}, %"
        panels.append(_panel([*_draw_systems(lower, legend), _draw_names("own_names", lower)], title))
    specification = charts.draw_panels(panels, notes=_notes(comparison, ours), columns=1)
    return Chart((ChartView("", "history", specification),), datasets, legend, click="system", narrowest=520)


def _on_validation(comparison: Comparison) -> bool:
    """Return whether the errors are on all of ImageNet's validation set, which resembles the challenge's test set."""
    is_complete = comparison.scored_split == "validation" and comparison.n_images == zoo_listing.VALIDATION_IMAGES
    return is_complete and IMAGENET.fullmatch(comparison.scored_data) is not None


@dataclasses.dataclass(frozen=True)
class _Placed:
    """A system at its year."""

    system: ComparedSystem
    year: int
    entry: LegendEntry


def _placed(systems: Sequence[ComparedSystem]) -> list[_Placed]:
    dated = [(one, year(one.network), entry) for one, entry in zip(systems, system_entries(systems), strict=True)]
    return [_Placed(system, when, entry) for system, when, entry in dated if when is not None]


def _notes(comparison: Comparison, ours: Sequence[_Placed]) -> list[str]:
    sentences = [ENTRIES_NOTE]
    if ours:
        sentences.append(SAME_DATA if _on_validation(comparison) else OTHER_DATA)
        sentences.append(f"Bars: {describe_ranges([one.system for one in ours])}.")
    shown = {one.system.name for one in ours}
    unknown = [system.name for system in comparison.systems if system.name not in shown]
    if unknown:
        sentences.append(f"Not shown (no known year): {', '.join(unknown)}.")
    return sentences


# --- data -------------------------------------------------------------------------------------------------------


def _entry_rows() -> dict[str, charts.Rows]:
    """Return the winners, the other entries and the person as data sets."""
    winners = [entry for entry in ENTRIES if entry.who.endswith(WINNER)]
    person = next(entry for entry in ENTRIES if entry.who == PERSON)
    others = [entry for entry in ENTRIES if entry not in winners and entry.who not in PEOPLE]
    rows = {
        kind: [
            {
                "who": entry.who.removesuffix(WINNER),
                "year": entry.year,
                "error": entry.top5,
                "protocol": entry.protocol,
            }
            for entry in some
        ]
        for kind, some in (("winners", winners), ("others", others), ("person", [person]))
    }
    (row,) = rows["person"]
    row["label"] = f"{row['who']}: {row['error']:g} on {row['protocol']}"
    return dict(rows)


def _our_row(one: _Placed) -> dict[str, Any]:
    error, low, high = map(rounded, error_range(one.system, 5))
    return {"system": one.system.name, "year": one.year, "error": error, "low": low, "high": high}


def _named_entries(domain: Point) -> tuple[list[tuple[str, Point]], list[tuple[Point, Point]]]:
    """Return the names of the entries with their points, and the lines that names must not cover."""
    rows = _entry_rows()
    (person,) = rows["person"]
    points = [(row["year"], row["error"]) for row in rows["winners"]]
    names = [
        (f"{row['who']} {row['error']:g}", (row["year"], row["error"])) for row in rows["winners"] + rows["others"]
    ]
    slopes = [piece for pair in itertools.pairwise(points) for piece in _pieces(*pair)]
    return names, [*slopes, ((domain[0], person["error"]), (domain[1], person["error"]))]


def _pieces(start: Point, end: Point) -> list[tuple[Point, Point]]:
    def at(share: float) -> Point:
        return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])

    return [(at(piece / PIECES), at((piece + 1) / PIECES)) for piece in range(PIECES)]


def _named_systems(ours: Sequence[_Placed]) -> list[tuple[str, Point]]:
    return [(one.system.name, (float(one.year), error_range(one.system, 5)[0])) for one in ours]


def _bars(ours: Sequence[_Placed]) -> list[tuple[Point, Point]]:
    ranges = [(one.year, *error_range(one.system, 5)) for one in ours]
    return [((when, low), (when, high)) for when, _, low, high in ranges]


def _name_rows(
    names: Sequence[tuple[str, Point]], lines: Sequence[tuple[Point, Point]], frame: Frame, systems: Collection[str]
) -> charts.Rows:
    offsets = label_placement.offsets([name for name, _ in names], [point for _, point in names], lines, frame)
    return [
        {
            "system": name if name in systems else "",
            "label": clipped_name(name),
            "year": x,
            "error": rounded(y),
            "front": False,
            **offset,
        }
        for (name, (x, y)), offset in zip(names, offsets, strict=True)
    ]


# --- drawing ----------------------------------------------------------------------------------------------------


def _place(frame: Frame, *, error: str = "error") -> dict[str, Any]:
    """Return altair's encodings of year and error."""
    import altair

    years = [when for when in range(1900, 2100) if frame.x[0] <= when <= frame.x[1]]
    look = altair.Axis(format="d", values=years[:: 1 if len(years) < 15 else 2], grid=False)
    scales = [altair.Scale(domain=domain, nice=False, zero=False) for domain in (frame.x, frame.y)]
    return {
        "x": altair.X("year:Q", scale=scales[0], axis=look, title=None),
        "y": altair.Y(f"{error}:Q", scale=scales[1], axis=altair.Axis(tickCount=6), title=None),
    }


def _panel(layers: Sequence[Any], title: str) -> Any:
    import altair

    return altair.LayerChart(layer=list(layers), width=SIZE[0], height=SIZE[1], title=title)


def _draw_entries(frame: Frame) -> list[Any]:
    """Return the layers of the winners on a line, the other entries, and the person as a horizontal line."""
    import altair

    place = _place(frame)
    tooltip = [
        altair.Tooltip("who:N", title="entry"),
        altair.Tooltip("year:Q", format="d"),
        altair.Tooltip("error:Q", title="top-5 error, %"),
        altair.Tooltip("protocol:N", title="on"),
    ]
    winners = charts.chart_on("winners")
    mark: dict[str, Any] = {"shape": "diamond", "size": 60, "color": DARK, "opacity": 1}
    person = charts.chart_on("person")
    return [
        winners.mark_line(color=DARK, strokeWidth=1.6).encode(**place),
        winners.mark_point(filled=True, **mark).encode(**place, tooltip=tooltip),
        charts.chart_on("others").mark_point(filled=False, **mark).encode(**place, tooltip=tooltip),
        person.mark_rule(color=MUTED, strokeDash=[4, 3]).encode(y=place["y"]),
        person.mark_text(color=MUTED, align="left", baseline="bottom", dx=4, dy=-3).encode(
            y=place["y"], x=altair.value(0), text="label:N"
        ),
    ]


def _draw_systems(frame: Frame, legend: Sequence[LegendEntry]) -> list[Any]:
    import altair

    systems = charts.chart_on("ours")
    colour = charts.colour_of(legend, is_shown=False)
    form = ".2f"
    tooltip = [
        altair.Tooltip("system:N"),
        altair.Tooltip("year:Q", format="d"),
        altair.Tooltip("error:Q", title="top-5 error, %", format=form),
        altair.Tooltip("low:Q", title="from", format=form),
        altair.Tooltip("high:Q", title="to", format=form),
    ]
    bars = systems.mark_rule(strokeWidth=1.5).encode(
        **_place(frame, error="low"), y2="high:Q", color=colour, **charts.opacity("strokeOpacity", 0.6)
    )
    marks = systems.mark_point(filled=True, size=75, cursor="pointer").encode(
        **_place(frame), color=colour, shape=charts.shape_of(legend, is_shown=False), **charts.opacity("fillOpacity"),
        tooltip=tooltip,
    )  # fmt: skip
    return [bars, marks]


def _draw_names(dataset: str, frame: Frame) -> Any:
    return label_placement.draw_names(dataset, _place(frame))
