"""Figures of wrong first guesses in the WordNet tree: their distance from the label, and confused super-classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from imagenet_repro.report.plots import charts
from imagenet_repro.report.plots.charts import INK, Chart, ChartView
from imagenet_repro.report.plots.style import COLOURS, rounded
from imagenet_repro.report.sections.confusions import ConfusionTree
from imagenet_repro.report.text import clipped_name

# The greatest height of each band, with kinds of that height; heights between ImageNet's classes end at 19.
BANDS = ((5, "dog, car"), (7, "bird, vehicle"), (9, "mammal, device"), (13, "animal, artifact"), (19, "entity"))
SHADES = ("#cfe1f2", "#93c4de", "#4a97c9", "#1764ab", "#08306b")  # darker is farther
DARK = 3  # shades from this one on carry white text
ON_DARK = "#fffffe"  # white in every theme
NARROWEST_BAR = 0.07  # of the axis; a narrower part of a bar has no number
FAINTEST = 1.5  # percent, below which a cell has no number, so that large numbers stand out
CELL = 26  # pixels
BLUES = ("#f7fbff", "#d6e6f4", "#abd0e6", "#6aaed6", "#3787c0", "#105ba4", "#08306b")  # ColorBrewer
WIDTH, ROW = 640, 26  # pixels of the panel of bars and of a bar in the files


def draw_heights(tree: ConfusionTree) -> Chart:
    """Return each system's top-1 error as a bar, divided by the height of the nearest kind of both label and guess.

    Args:
      tree: the wrong guesses of all systems.
    """
    systems, shares = tree.wrong.systems, _band_shares(tree)
    keys = _band_keys()
    whole = max(1.0, float(shares.sum(axis=1).max()))
    bars, totals = [], []
    columns = zip(systems, shares, tree.share_inside().tolist(), tree.mean_cost().tolist(), strict=True)
    for name, of_system, inside, cost in columns:
        start = 0.0
        for place, (key, share) in enumerate(zip(keys, of_system.tolist(), strict=True)):
            text = f"{share:.1f}" if share > NARROWEST_BAR * whole else ""
            bars.append({
                "system": name, "height": key, "share": rounded(share), "start": rounded(start),
                "end": rounded(start + share), "middle": rounded(start + share / 2), "text": text,
                "dark": place >= DARK,
            })  # fmt: skip
            start += share
        inside_percent = rounded(100 * inside)
        totals.append({
            "system": name, "error": rounded(start), "inside": inside_percent, "cost": rounded(cost),
            "text": f"{start:.1f}",
        })  # fmt: skip
    title = "Wrong first guesses by the height in WordNet of the nearest kind of both label and guess"
    panel = _draw_bars(list(systems), keys, whole)
    specification = charts.draw_panels([panel], title=title)
    return Chart((ChartView("", "heights", specification),), {"bars": bars, "totals": totals}, narrowest=460)


def draw_super_classes(tree: ConfusionTree, system: str, images: Mapping[tuple[str, str], Sequence[Any]]) -> Chart:
    """Return one system's wrong first guesses by super-class of label and guess, in percent of the label's images.

    The figure needs at least two super-classes (`tree.groups`) to be useful.

    Args:
      tree: the wrong guesses of all systems.
      system: the name of one of them.
      images: examples by super-class of label and of guess, for a click on their cell: the id of each image, and the
        names of its label and of its guess.
    """
    shares = _group_shares(tree, tree.wrong.systems.index(system))
    sizes = np.bincount(tree.group).tolist()
    rows = [f"{name} ({count})" for name, count in zip(tree.groups, sizes, strict=True)]
    cells = []
    for label, guess in zip(*map(np.ndarray.tolist, np.nonzero(shares)), strict=True):
        share = float(shares[label, guess])
        of_cell = images.get((tree.groups[label], tree.groups[guess]), ())
        cells.append({
            "label": rows[label], "guess": tree.groups[guess], "share": rounded(share),
            "text": f"{share:.0f}" if share >= FAINTEST else "", "inside": label == guess,
            "title": f"{tree.groups[label]}, guessed as {tree.groups[guess]}: examples of {system}",
            "examples": [{"id": id, "label": of_image, "guess": guessed} for id, of_image, guessed in of_cell],
        })  # fmt: skip
    title = f"{clipped_name(system)}: super-classes of wrong first guesses, % of a row’s images"
    notes = [
        "Rows: super-class of the image, with its number of classes. Columns: super-class of the first guess.",
        "Outlined: another class of the same super-class.",
    ]
    panel = _draw_cells(rows, list(tree.groups), max(1.0, float(shares.max())))
    specification = charts.draw_panels([panel], title=title, notes=notes)
    return Chart((ChartView("", "super_classes", specification),), {"cells": cells}, click="images")


def _band_shares(tree: ConfusionTree) -> Float[np.ndarray, "s b"]:
    """Return the wrong first guesses in each band, in percent of all images."""
    band = np.searchsorted([top for top, _ in BANDS], tree.cost)
    return 100 * tree.wrong.images_by(band, len(BANDS)) / tree.wrong.images.sum()


def _band_keys() -> list[str]:
    bottoms = [0, *(top for top, _ in BANDS[:-1])]
    return [f"{bottom + 1}–{top} ({kinds})" for bottom, (top, kinds) in zip(bottoms, BANDS, strict=True)]


def _draw_bars(systems: Sequence[str], keys: Sequence[str], whole: float) -> Any:
    import altair

    look = altair.Axis(domain=False, ticks=False, labelColor="#000000", labelExpr=charts.CLIPPED, labelLimit=180)
    y = altair.Y("system:N", scale=altair.Scale(domain=systems, paddingInner=0.28), axis=look, title=None)
    title = "wrong first guesses, % of all images"
    scale = altair.Scale(domain=(0, 1.09 * whole), nice=False)
    axis = altair.Axis(tickCount=6)
    legend = altair.Legend(title=None, orient="top", columns=2)
    colour = altair.Color("height:N", scale=altair.Scale(domain=list(keys), range=list(SHADES)), legend=legend)
    bars, totals = charts.chart_on("bars"), charts.chart_on("totals")
    ends = {"x": altair.X("start:Q", scale=scale, axis=axis, title=title), "x2": "end:Q", "y": y}
    layers: list[Any] = [
        bars.mark_bar(stroke="#fffffe", strokeWidth=0.8).encode(
            **ends, color=colour,
            tooltip=[
                altair.Tooltip("system:N"), altair.Tooltip("height:N"),
                altair.Tooltip("share:Q", title="% of all images", format=".2f"),
            ],
        )
    ]  # fmt: skip
    for is_dark, ink in ((False, INK), (True, ON_DARK)):
        some = bars.transform_filter("datum.dark" if is_dark else "!datum.dark").mark_text(color=ink, fontSize=10)
        middle = altair.X("middle:Q", scale=scale, axis=axis, title=title)
        layers.append(some.encode(x=middle, y=y, text="text:N"))
    error = altair.X("error:Q", scale=scale, axis=axis, title=title)
    total = totals.mark_text(align="left", dx=5, fontWeight="bold").encode(
        x=error, y=y, text="text:N",
        tooltip=[
            altair.Tooltip("system:N"),
            altair.Tooltip("error:Q", title="top-1 error, %", format=".2f"),
            altair.Tooltip("inside:Q", title="inside the super-class, % of the errors", format=".1f"),
            altair.Tooltip("cost:Q", title="mean height, 0 for a right guess", format=".3f"),
        ],
    )  # fmt: skip
    return altair.LayerChart(layer=[*layers, total], width=WIDTH, height=ROW * len(systems))


def _group_shares(tree: ConfusionTree, system: int) -> Float[np.ndarray, "g g"]:
    """Return the wrong first guesses by super-class of label (row) and guess, in percent of the row's images."""
    wrong, size = tree.wrong, len(tree.groups)
    pairs = wrong.guessed[system]
    pairs = pairs[wrong.has_guess[pairs]]
    code = tree.group[wrong.label[pairs]] * size + tree.group[wrong.guess[pairs]]
    counts = np.bincount(code, minlength=size**2).reshape(size, size) / wrong.seeds[system]
    return 100 * counts / np.maximum(tree.images(), 1)[:, None]


def _draw_cells(rows: Sequence[str], columns: Sequence[str], largest: float) -> Any:
    import altair

    look: dict[str, Any] = {"domain": False, "ticks": False, "labelColor": "#000000"}
    x_axis = altair.Axis(orient="top", labelAngle=-90, **look)
    x = altair.X("guess:N", scale=altair.Scale(domain=list(columns)), axis=x_axis, title=None)
    y = altair.Y("label:N", scale=altair.Scale(domain=list(rows)), axis=altair.Axis(**look), title=None)
    # The square root shows differences between small shares.
    stops = (largest * np.linspace(0, 1, len(BLUES)) ** 2).round(6).tolist()
    colour = altair.Color("share:Q", scale=altair.Scale(domain=stops, range=list(BLUES)), legend=None)
    cells = charts.chart_on("cells")
    tooltip = [
        altair.Tooltip("label:N", title="image"),
        altair.Tooltip("guess:N", title="first guess"),
        altair.Tooltip("share:Q", title="% of the images", format=".2f"),
    ]
    outlined = cells.transform_filter("datum.inside").mark_rect(
        stroke=COLOURS[1], strokeWidth=1.5, fillOpacity=0, tooltip=None
    )
    layers: list[Any] = [
        cells.mark_rect(cursor="pointer").encode(x=x, y=y, color=colour, tooltip=tooltip),
        outlined.encode(x=x, y=y),
    ]
    for test, ink in ((f"datum.share <= {0.36 * largest}", INK), (f"datum.share > {0.36 * largest}", ON_DARK)):
        some = cells.transform_filter(test).mark_text(color=ink, fontSize=10, tooltip=None)
        layers.append(some.encode(x=x, y=y, text="text:N"))
    return altair.LayerChart(layer=layers, width=altair.Step(CELL), height=altair.Step(CELL))
