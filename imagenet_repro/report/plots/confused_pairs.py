"""A figure of the most frequent confusions of two classes, by system."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from imagenet_repro.report.plots import charts
from imagenet_repro.report.plots.charts import INK, Chart, ChartView
from imagenet_repro.report.plots.matrix import SLANT
from imagenet_repro.report.plots.style import rounded
from imagenet_repro.report.plots.wordnet_confusions import BLUES, ON_DARK
from imagenet_repro.report.sections.confusion_examples import Image
from imagenet_repro.report.sections.confusions import WrongGuesses

MOST_PAIRS, MOST_SYSTEMS = 15, 12  # rows and columns
CELL = (46, 24)  # pixels
NOTE = "Number of images of the first class that were guessed as the second one."
DARK_FROM = 0.6  # of the strongest colour; darker cells have white numbers


def most_frequent(wrong: WrongGuesses) -> list[int]:
    """Return the indices of the most frequent confusions, by their sum over systems."""
    totals = np.zeros(len(wrong.label))
    for counts in wrong.counts():
        totals += counts
    totals[~wrong.has_guess] = 0.0
    return [pair for pair in np.argsort(-totals, kind="stable")[:MOST_PAIRS].tolist() if totals[pair] > 0]


def draw_confused_pairs(
    wrong: WrongGuesses,
    systems: Sequence[str],
    pairs: Sequence[int],
    images: Mapping[str, Mapping[tuple[int, int], Sequence[Image]]],
) -> Chart:
    """Return the number of images of each confusion, for each system.

    Args:
      wrong: the wrong guesses of all systems.
      systems: the names of those that are drawn, in order.
      pairs: the indices of the confusions that are drawn.
      images: examples by system and by class indices of label and guess, for a click on their cell.
    """
    counts = {system: _counts(wrong, wrong.systems.index(system), pairs) for system in systems}
    cells = []
    for place, pair in enumerate(pairs):
        classes = (int(wrong.label[pair]), int(wrong.guess[pair]))
        name = " → ".join(wrong.class_names[index] for index in classes)
        for system in systems:
            count = float(counts[system][place])
            examples = images.get(system, {}).get(classes, ())
            cells.append({
                "pair": name, "system": system, "count": rounded(count), "text": f"{count:.3g}" if count else "",
                "of": int(wrong.images[classes[0]]), "title": f"{name}: examples of {system}",
                "examples": [{"id": id, "label": label, "guess": guess} for id, label, guess in examples],
            })  # fmt: skip
    names = list(dict.fromkeys(cell["pair"] for cell in cells))
    panel = _draw_cells(names, list(systems), max([1.0, *(cell["count"] for cell in cells)]))
    specification = charts.draw_panels([panel], notes=[NOTE])
    return Chart((ChartView("", "confused_pairs", specification),), {"cells": cells}, click="images")


def _counts(wrong: WrongGuesses, system: int, pairs: Sequence[int]) -> Float[np.ndarray, " k"]:
    """Return one system's numbers of images of some confusions, as means over its seeds."""
    place = np.full(len(wrong.label), -1)
    place[list(pairs)] = np.arange(len(pairs))
    guessed = place[wrong.guessed[system]]
    return np.bincount(guessed[guessed >= 0], minlength=len(pairs)) / wrong.seeds[system]


def _draw_cells(pairs: Sequence[str], systems: Sequence[str], largest: float) -> Any:
    import altair

    look: dict[str, Any] = {"domain": False, "ticks": False, "labelColor": "#000000"}
    x_axis = altair.Axis(orient="top", labelAngle=SLANT, labelExpr=charts.CLIPPED, **look)
    x = altair.X("system:N", scale=altair.Scale(domain=list(systems)), axis=x_axis, title=None)
    y_axis = altair.Axis(labelLimit=320, **look)
    y = altair.Y("pair:N", scale=altair.Scale(domain=list(pairs)), axis=y_axis, title=None)
    stops = np.linspace(0, largest, len(BLUES)).round(6).tolist()
    colour = altair.Color("count:Q", scale=altair.Scale(domain=stops, range=list(BLUES)), legend=None)
    tooltip = [
        altair.Tooltip("pair:N", title="confusion"),
        altair.Tooltip("system:N"),
        altair.Tooltip("count:Q", title="images", format=",.4~f"),
        altair.Tooltip("of:Q", title="images of the class", format=","),
    ]
    cells = charts.chart_on("cells")
    layers = [cells.mark_rect(cursor="pointer").encode(x=x, y=y, color=colour, tooltip=tooltip)]
    for test, ink in (
        (f"datum.count <= {DARK_FROM * largest}", INK),
        (f"datum.count > {DARK_FROM * largest}", ON_DARK),
    ):
        some = cells.transform_filter(test).mark_text(color=ink, fontSize=10, tooltip=None)
        layers.append(some.encode(x=x, y=y, text="text:N"))
    return altair.LayerChart(layer=layers, width=altair.Step(CELL[0]), height=altair.Step(CELL[1]))
