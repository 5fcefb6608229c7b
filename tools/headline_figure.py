"""Draw the figure at the head of the README: errors by year, of the challenge's winners and of `make demo`.

    python -m tools.headline_figure

Published errors come from `imagenet_repro.zoo`, the person's from `imagenet_repro.scoring`, the demo's from the
leaderboards in results/demo and, where its longer form has been run, results/demo_long. Writes
docs/images/headline.svg and .png.
"""

import csv
import re
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from imagenet_repro.scoring.people import PEOPLE
from imagenet_repro.zoo.entries import ENTRIES
from imagenet_repro.zoo.published import year
from tools.generated import REPOSITORY

RESULTS = REPOSITORY / "results"
DEMOS = {"demo": "24,000 images seen", "demo_long": "240,000 images seen"}  # directories of results, and their budgets
OUT = REPOSITORY / "docs" / "images" / "headline"
WINNER = ", winner"  # ends the name of an entry that won
BLUE, ORANGE, GREEN, MUTED = "#0072B2", "#D55E00", "#009E73", "#5c5c5c"
BEFORE = 2011  # the last year of hand-made features, whose name stands to the left of its mark
# The position of a winner's name, in points from its mark, and its alignment; the last three are crowded.
PLACES = {"MSRA": (0, -16, "center"), "Trimps-Soushen": (4, 44, "left"), "WMW": (8, -4, "left")}
USUAL_PLACE = (9, 3, "left")
NAMES = {
    "lenet5": "LeNet-5",
    "xrce_2011": "XRCE",
    "alexnet": "AlexNet (one tower)",
    "resnet18": "ResNet-18",
    "vit_tiny_patch16": "ViT-Ti/16",
}
YEARS = {"alexnet": 2012}  # of the network of two towers; this is its later form
STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "svg.hashsalt": "headline",  # the same input gives the same file
    "svg.fonttype": "path",
}


def main() -> None:
    """Write the figure as SVG and PNG."""
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 4.4), layout=ConstrainedLayoutEngine(wspace=0.06))
        challenge, demo = figure.subplots(1, 2, width_ratios=(1.1, 1))
        draw_challenge(challenge)
        draw_demo(demo, read_demos(RESULTS))
        OUT.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(OUT.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(OUT.with_suffix(".png"), dpi=140, metadata={"Software": None})


def draw_challenge(axes: Axes) -> None:
    """Draw the winners' published top-5 errors over the years, and the error of a person."""
    winners = [entry for entry in ENTRIES if entry.who.endswith(WINNER)]
    axes.plot([entry.year for entry in winners], [entry.top5 for entry in winners], "o-", color=BLUE, linewidth=2)
    for entry in winners:
        name = entry.who.removesuffix(WINNER)
        x, y, alignment = PLACES.get(name, USUAL_PLACE)
        axes.annotate(
            f"{name} {entry.top5:g}",
            (entry.year, entry.top5),
            xytext=(x, y),
            textcoords="offset points",
            ha=alignment,
            fontsize=9.5,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.7} if y > 20 else None,
        )
    person = PEOPLE[0]
    error = 100 * person.error
    axes.axhline(error, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
    axes.text(2009.6, error - 0.5, f"a person: {error:.1f}", color=MUTED, va="top", fontsize=9.5)
    axes.set(xlim=(2009.5, 2018.5), ylim=(0, 31.5), xticks=range(2010, 2018))
    axes.set_title(
        "Published: winners of the challenge,\ntop-5 error on ImageNet's test set, %", loc="left", fontsize=11
    )
    axes.grid(axis="y", color="#e8e8e8")
    axes.set_axisbelow(True)


def read_leaderboard(path: Path) -> list[tuple[str, int, float, float, float]]:
    """Return (system, year, top-1 error, low, high) of each system by year, errors in percent."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    measured = []
    for row in rows:
        interval = next(row[heading] for heading in row if heading.startswith("95 % interval"))  # of top-1
        low, high = (float(number) for number in re.findall(r"[\d.]+", interval))
        system = row["system"]
        measured.append((system, YEARS.get(system) or year(system) or 0, float(row["top-1 error %"]), low, high))
    return sorted(measured, key=lambda one: one[1])


def read_demos(results: Path) -> dict[str, list[tuple[str, int, float, float, float]]]:
    """Return the systems of each demo whose results exist, by the name of its budget."""
    paths = {label: results / name / "tables" / "leaderboard.csv" for name, label in DEMOS.items()}
    return {label: read_leaderboard(path) for label, path in paths.items() if path.exists()}


def draw_demo(axes: Axes, demos: dict[str, list[tuple[str, int, float, float, float]]]) -> None:
    """Draw the demos' top-1 errors over the years, with their 95 % intervals, a line for each budget."""
    for (label, measured), colour in zip(demos.items(), (ORANGE, GREEN), strict=False):
        axes.plot(
            [one[1] for one in measured], [one[2] for one in measured], "o-", color=colour, linewidth=2, label=label
        )
        for system, at, error, low, high in measured:
            axes.plot((at, at), (low, high), color=colour, linewidth=6, alpha=0.35, solid_capstyle="butt")
            axes.annotate(
                f"{NAMES.get(system, system)} {error:.1f}",
                (at, error),
                xytext=(-6, -14) if at == BEFORE else (9, 3),
                textcoords="offset points",
                ha="right" if at == BEFORE else "left",
                fontsize=9.5,
            )
    axes.set(xlim=(1997, 2020.5), ylim=(0, 100), xticks=(1998, 2005, 2010, 2015, 2020))
    axes.set_title(
        "Measured here, by the demo and with ten times its budget:\ntop-1 error on ten classes of silhouettes, %",
        loc="left",
        fontsize=11,
    )
    axes.set_xlabel(
        "1,000 images; bars: 95 % intervals. Not comparable with the left.", loc="left", color=MUTED, fontsize=9
    )
    axes.legend(loc="upper left", frameon=False, fontsize=9.5)
    axes.grid(axis="y", color="#e8e8e8")
    axes.set_axisbelow(True)


if __name__ == "__main__":
    main()
