"""Charts as Vega-Lite specifications, made with altair.

One specification gives the interactive chart of a page, which the browser draws with the Vega libraries in the page,
and the PNG and SVG files, which vl-convert draws. A chart is a row of panels. The page draws each panel by itself, as
wide as there is space, and shows its own legend; the files have all panels side by side and Vega's legend.
"""

import dataclasses
import functools
import importlib.metadata
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from imagenet_repro.report.plots.style import GRID, MUTED, LegendEntry
from imagenet_repro.report.text import NAME_LENGTH, printable
from imagenet_repro.storage import files, user

Rows = list[dict[str, Any]]
# Opens what a reader clicks: a run, the differences of one system or of a pair, or the images of a confusion.
Click = Literal["", "run", "system", "pair", "images"]

SCALE = 2.0  # pixels of a PNG for each of the specification
ISOLATED = "isolated"  # the parameter with the names of the systems that stand out; null: all do
FAINT = 0.12  # opacity of the others
LEGEND_LETTER = 6.2  # pixels, the mean width of a character in a legend
EXPORTED = "window.vegaEmbed = vegaEmbed;"  # what the script gives to those of the page
INK = "#0b0b0a"  # of text on coloured cells, in every theme
# Shortens a name as `text.clipped_name` does, in the language of Vega's expressions.
CLIPPED = (
    f"length(datum.label) > {NAME_LENGTH} ? slice(datum.label, 0, {NAME_LENGTH - NAME_LENGTH // 2 - 1}) + '…'"
    f" + slice(datum.label, -{NAME_LENGTH // 2}) : datum.label"
)
CONFIG: dict[str, Any] = {
    "aria": False,  # the tables say it better than a label for each mark
    "background": "#ffffff",
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domainColor": MUTED,
        "gridColor": GRID,
        "labelColor": MUTED,
        "tickColor": MUTED,
        "titleColor": MUTED,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelLimit": 260,
        "titleLimit": 600,
    },
    "title": {
        "anchor": "start",
        "color": "#000000",
        "fontSize": 13,
        "subtitleColor": MUTED,
        "subtitleFontSize": 11,
        "offset": 12,
    },
    "legend": {
        "labelColor": "#000000",
        "titleColor": MUTED,
        "labelFontSize": 11,
        "labelLimit": 300,
        "symbolLimit": 0,
        "titleLimit": 600,
    },
    "point": {"opacity": 1},
    "text": {"color": "#000000", "fontSize": 11},
    "concat": {"spacing": 36},
}


@dataclasses.dataclass(frozen=True)
class ChartView:
    """A chart with one choice of its axes.

    Attributes:
      label: names the choice; empty if there is no other.
      name: the stem of the files.
      specification: Vega-Lite with panels in `concat`, whose data are names of the chart's data sets.
    """

    label: str
    name: str
    specification: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart with its data.

    Attributes:
      views: at least one; the first is shown until a reader chooses another.
      datasets: rows by the name of the data set; each view reads some of them.
      legend: the systems of the chart, for the legend of a page; empty: the chart has Vega's legend or none.
      click: the effect of a click on a mark.
      narrowest: width in pixels that a panel needs; on a narrower screen it scrolls.
      is_narrow: whether the chart stands beside another one on a wide screen.
    """

    views: tuple[ChartView, ...]
    datasets: Mapping[str, Rows]
    legend: tuple[LegendEntry, ...] = ()
    click: Click = ""
    narrowest: int = 260
    is_narrow: bool = False

    def complete(self, view: ChartView) -> dict[str, Any]:
        """Return the specification of a view with the data that it reads, without characters that no file can hold."""
        used = {name: self.datasets[name] for name in sorted(set(_data_names(view.specification)))}
        return printable_part({**view.specification, "datasets": used})

    def image_ids(self) -> tuple[str, ...]:
        """Return the ids of the images that clicks show, each once."""
        rows = (row for dataset in self.datasets.values() for row in dataset)
        return tuple(dict.fromkeys(image["id"] for row in rows for image in row.get("examples", ())))


def printable_part(part: Any) -> Any:
    """Return a part of a specification or of its data in which all texts can be written to a file."""
    if isinstance(part, str):
        return printable(part)
    if isinstance(part, Mapping):
        return {printable(key): printable_part(value) for key, value in part.items()}
    return [printable_part(value) for value in part] if isinstance(part, list | tuple) else part


def _data_names(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        data = part.get("data")
        if isinstance(data, Mapping) and "name" in data:
            yield data["name"]
        for value in part.values():
            yield from _data_names(value)
    elif isinstance(part, list):
        for value in part:
            yield from _data_names(value)


# --- specifications ---------------------------------------------------------------------------------------------


def chart_on(dataset: str) -> Any:
    """Return an altair chart without marks that reads a data set of the chart by its name."""
    import altair

    return altair.Chart(altair.NamedData(dataset))


def draw_panels(
    panels: Sequence[Any], *, title: str | list[str] = "", notes: Sequence[str] = (), columns: int | None = None
) -> dict[str, Any]:
    """Return the specification of altair charts side by side.

    altair checks each object against its schema as it is made, which takes more time than drawing; the tests check
    complete specifications instead.

    Args:
      panels: altair's charts.
      title: the title of all; empty: none. A page shows it as text above the panels.
      notes: lines below the title in the files, where a page has a caption.
      columns: panels in a row; None: all.
    """
    import altair

    heading: dict[str, Any] = {}
    if title:
        heading = {"title": altair.Title(title, subtitle=list(notes))}
    elif notes:
        small = altair.Title(list(notes), color=MUTED, fontSize=11, fontWeight="normal")
        heading = {"title": small}
    whole = altair.ConcatChart(concat=list(panels), columns=columns or len(panels), config=CONFIG, **heading)
    specification = whole.to_dict(validate=False)
    return specification | {"params": [{"name": ISOLATED, "value": None}]}


def colour_of(legend: Sequence[LegendEntry], *, is_shown: bool = True) -> Any:
    """Return the encoding of the colour by system, with Vega's legend in the files."""
    import altair

    names, colours = [entry.name for entry in legend], [entry.colour for entry in legend]
    return altair.Color(
        "system:N", scale=altair.Scale(domain=names, range=colours), legend=_legend(names) if is_shown else None
    )


def fill_of(legend: Sequence[LegendEntry]) -> Any:
    """Return the encoding of the fill by system, without a legend."""
    import altair

    scale = altair.Scale(domain=[entry.name for entry in legend], range=[entry.colour for entry in legend])
    return altair.Fill("system:N", scale=scale, legend=None)


def dash_of(legend: Sequence[LegendEntry]) -> Any:
    """Return the encoding of the line style by system, without a legend."""
    import altair

    names = [entry.name for entry in legend]
    scale = altair.Scale(domain=names, range=[list(entry.dash) for entry in legend])
    return altair.StrokeDash("system:N", scale=scale, legend=None)


def shape_of(legend: Sequence[LegendEntry], *, is_shown: bool = True) -> Any:
    """Return the encoding of the shape of marks by system."""
    import altair

    names = [entry.name for entry in legend]
    scale = altair.Scale(domain=names, range=[entry.shape for entry in legend])
    return altair.Shape("system:N", scale=scale, legend=_legend(names) if is_shown else None)


def _legend(names: Sequence[str], width: float = 1000) -> Any:
    import altair

    column = 40 + LEGEND_LETTER * min(NAME_LENGTH, max(map(len, names), default=1))
    return altair.Legend(
        title=None, orient="bottom", columns=max(1, int(width / column)), symbolStrokeWidth=2, symbolOpacity=1,
        labelExpr=CLIPPED,
    )  # fmt: skip


def log_ticks(low: float, high: float) -> list[float]:
    """Return ticks of a logarithmic axis: powers of ten or, over less than two decades, also their double and half."""
    factors = (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = (float(f"{factor}e{power}") for power in powers for factor in factors)
    return [tick for tick in every if low <= tick <= high]


def opacity(channel: Literal["opacity", "fillOpacity", "strokeOpacity"], shown: float = 1.0) -> dict[str, Any]:
    """Return the encoding of an opacity by its channel; it is low for the systems that do not stand out.

    Strokes and fills that are not opaque are drawn ten times as fast as whole marks that are not.
    """
    import altair

    kinds = {
        "opacity": altair.OpacityValue,
        "fillOpacity": altair.FillOpacityValue,
        "strokeOpacity": altair.StrokeOpacityValue,
    }
    test = f"!{ISOLATED} || !datum.system || indexof({ISOLATED}, datum.system) >= 0"
    return {channel: kinds[channel](value=FAINT * shown, condition={"test": test, "value": shown})}


# --- files and pages --------------------------------------------------------------------------------------------


def write(chart: Chart, folder: Path, what: str) -> list[Path]:
    """Write each view of a chart as `NAME.png` and `NAME.svg`, each in one piece; return the paths.

    Args:
      chart: the chart.
      folder: the directory, created if it is missing.
      what: the name of the chart in an error.

    Raises:
      SaveError: a file cannot be written.
    """
    import vl_convert

    paths = []
    for view in chart.views:
        svg = vl_convert.vegalite_to_svg(json.dumps(chart.complete(view)))
        contents = {".png": vl_convert.svg_to_png(svg, scale=SCALE), ".svg": svg.encode()}
        for suffix, content in contents.items():
            path = folder / f"{view.name}{suffix}"
            with files.atomic_write(path, what) as file:
                file.write(content)
            paths.append(path)
    return paths


@functools.cache
def javascript() -> str:
    """Return the Vega libraries as one script that needs no network.

    Bundling takes more than a second, so the script is kept in the user's cache, by the version of vl-convert.
    """
    import vl_convert

    path = user.cache_directory() / f"vega-{importlib.metadata.version('vl-convert-python')}.js"
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        pass
    script = vl_convert.javascript_bundle(EXPORTED)
    if "</script" in script or "<!--" in script:
        raise ValueError("the Vega libraries cannot stand within an element of HTML")
    try:
        with files.atomic_write(path, "the cache of the Vega libraries") as file:
            file.write(script.encode())
    except files.SaveError:
        pass  # the cache only saves time
    return script
