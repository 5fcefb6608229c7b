"""Error against budget for every source and adaptation of a target."""

from imagenet_repro.report.plots import charts
from imagenet_repro.report.plots.charts import Chart, ChartView
from imagenet_repro.report.plots.style import entries, rounded
from imagenet_repro.report.records import TransferTarget
from imagenet_repro.report.sections import transfer

MOST_TICKS = 9  # of the axis of budgets; fewer budgets each have one
SIZE = (620, 320)  # pixels of the panel in the files


def draw_budgets(target: TransferTarget, stem: str) -> Chart:
    """Return top-1 error against budget, one line for each system with intervals.

    Args:
      target: the systems under each budget.
      stem: of the files' names.
    """
    import altair

    lines = transfer.points(target)
    rows = [
        {
            "system": transfer.label(target, name),
            "budget": rounded(point.budget.value),
            "error": rounded(100 * point.error),
            "low": rounded(100 * point.low),
            "high": rounded(100 * point.high),
        }
        for name, line in lines.items()
        for point in line
    ]
    networks = {system.name: system.network for one in target.by_budget.values() for system in one.systems}
    legend = entries([(transfer.label(target, name), networks[name]) for name in lines])
    unit = transfer.UNITS[next(iter(lines.values()))[0].budget.unit]
    values = sorted({row["budget"] for row in rows})
    domain = (values[0] / 1.1, values[-1] * 1.1)
    ticks = values if len(values) <= MOST_TICKS else charts.log_ticks(*domain)
    scale = altair.Scale(type="log", domain=domain, nice=False)
    x = altair.X(
        "budget:Q", scale=scale, axis=altair.Axis(values=ticks, format="~s", grid=False), title=f"budget, {unit}"
    )
    y_scale = altair.Scale(domainMin=0)
    y = altair.Y("error:Q", scale=y_scale, title=None)
    form = ".2f"
    tooltip = [
        altair.Tooltip("system:N"),
        altair.Tooltip("error:Q", title="top-1 error, %", format=form),
        altair.Tooltip("low:Q", title="from", format=form),
        altair.Tooltip("high:Q", title="to", format=form),
        altair.Tooltip("budget:Q", title=unit, format=".4~s"),
    ]
    points, colour = charts.chart_on("points"), charts.colour_of(legend)
    bars = points.mark_rule(strokeWidth=1.2).encode(
        x=x,
        y=altair.Y("low:Q", scale=y_scale, title=None),
        y2="high:Q",
        color=colour,
        **charts.opacity("strokeOpacity", 0.6),
    )
    line = points.mark_line(strokeWidth=2).encode(
        x=x, y=y, color=colour, strokeDash=charts.dash_of(legend), **charts.opacity("strokeOpacity")
    )
    marks = points.mark_point(filled=True, size=45).encode(
        x=x, y=y, color=colour, shape=charts.shape_of(legend), **charts.opacity("fillOpacity"), tooltip=tooltip
    )
    title = f"Top-1 error on {target.name}, %"
    panel = altair.LayerChart(layer=[bars, line, marks], width=SIZE[0], height=SIZE[1], title=title)
    specification = charts.draw_panels([panel], notes=[transfer.note(target.whole)])
    return Chart((ChartView("", stem, specification),), {"points": rows}, legend)
