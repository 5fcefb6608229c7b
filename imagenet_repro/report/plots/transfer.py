"""Error against budget for every source and adaptation of a target."""

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from imagenet_repro.report.plots import curves
from imagenet_repro.report.plots.style import AS_TEXT, GRID, MUTED, STYLE, fix_layout, new_figure, power, styles, write
from imagenet_repro.report.records import TransferTarget
from imagenet_repro.report.sections import transfer

MOST_TICKS = 9  # of the axis of budgets; fewer budgets each have one
LINE: dict[str, Any] = {"linewidth": 1.6, "markersize": 5, "zorder": 3}


def plot_budgets(target: TransferTarget, path: str | Path) -> list[Path]:
    """Draw top-1 error against budget, one line for each system with intervals; return the .png and the .svg.

    Raises:
      SaveError: a file cannot be written.
    """
    lines = transfer.points(target)
    amounts = [point.budget for line in lines.values() for point in line]
    unit, written = power(max(amount.value for amount in amounts))
    with rc_context(STYLE | AS_TEXT):
        names = {name: transfer.label(target, name) for name in lines}
        width = 6 + curves.LETTER * max(map(len, names.values()))
        figure = new_figure((width, 4.6 if len(lines) <= 8 else 6), w_pad=0.1)
        panel = figure.subplots()
        panel.set_title(f"Top-1 error on {target.name}, %", loc="left", fontweight="bold", fontsize=11)
        panel.set_xlabel(f"budget, {transfer.UNITS[amounts[0].unit]}{written}")
        panel.set_xscale("log")
        for (name, line), style in zip(lines.items(), styles(), strict=False):
            x = [point.budget.value / unit for point in line]
            y = [100 * point.error for point in line]
            bars = [[100 * (p.error - p.low) for p in line], [100 * (p.high - p.error) for p in line]]
            panel.errorbar(x, y, yerr=bars, fmt="none", ecolor=style["color"], elinewidth=1.0, capsize=2, alpha=0.7)
            look: dict[str, Any] = LINE | style
            panel.plot(x, y, label=curves.RUN + names[name], **look)
        values = sorted({amount.value / unit for amount in amounts})
        panel.set_xlim(values[0] / 1.1, values[-1] * 1.1)
        is_short = len(values) <= MOST_TICKS
        panel.xaxis.set_major_locator(
            FixedLocator(values) if is_short else LogLocator(subs=(1.0, 2.0, 5.0), numticks=MOST_TICKS)
        )
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_ylim(bottom=0)
        panel.grid(axis="y", color=GRID, linewidth=0.8)
        panel.set_axisbelow(True)
        figure.supxlabel(transfer.note(target.whole), x=0.01, ha="left", fontsize=9, color=MUTED)
        fix_layout(figure)  # on which the positions of the names depend
        curves.label_lines(panel)
        return write(figure, path, "the figure of errors against budgets")
