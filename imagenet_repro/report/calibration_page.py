"""The calibration of a system's probabilities: the page `calibration.html`, its tables and its figures."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from imagenet_repro.report import html_page
from imagenet_repro.report.html_page import LONG, PageFigure, PageSection
from imagenet_repro.report.plots import charts, reliability
from imagenet_repro.report.plots.charts import Chart
from imagenet_repro.report.plots.reliability import CalibrationState
from imagenet_repro.report.sections import confusions
from imagenet_repro.report.tables import MISSING, Table
from imagenet_repro.report.text import signed
from imagenet_repro.scoring import calibration
from imagenet_repro.scoring.calibration import BINS, Binning, ScoredProbabilities
from imagenet_repro.scoring.metrics import FINE_DIGITS_FROM, format_rate
from imagenet_repro.scoring.predictions import Predictions
from imagenet_repro.statistics.populations import NEW_IMAGES, interval_heading

PAGE = "calibration.html"
TITLE = "Calibration: how far the probabilities can be trusted"
COVERAGES = (100, 90, 80, 70, 50, 30, 10)  # percent of the images
BINNINGS: dict[Binning, str] = {"width": "15 bins of equal width", "mass": "15 bins of equal mass"}


@dataclasses.dataclass(frozen=True)
class CalibrationResult:
    """The calibration of one system.

    Attributes:
      name: the system's name.
      predictions: its predictions on the scored images.
      class_names: names by class index; WordNet ids if the data set has those.
      before: the calibration of its probabilities as they are.
      after: the calibration at the temperature; None: no temperature was fitted.
      temperature: the divisor of the scores, fitted on other images.
      fitted_on: number of those images.
    """

    name: str
    predictions: Predictions
    class_names: tuple[str, ...]
    before: ScoredProbabilities
    after: ScoredProbabilities | None = None
    temperature: float = 1.0
    fitted_on: int = 0

    @property
    def states(self) -> list[CalibrationState]:
        """Return the probabilities as they are, and those at the temperature if there is one."""
        states = [CalibrationState("as it is", self.before)]
        if self.after:
            states.append(CalibrationState(f"temperature {self.temperature:.3g}", self.after))
        return states


def write(result: CalibrationResult, out: Path) -> Path:
    """Write `calibration.html`, `tables/` and `figures/` into a directory; return the page's path.

    Raises:
      SaveError: a file cannot be written.
    """
    sections = _sections(result, out / html_page.FIGURES)
    html_page.save_tables((table for section in sections for table in section.tables), out / html_page.TABLES)
    path = out / PAGE
    html_page.save(path, html_page.render_page(TITLE, verdict(result), _describe_setting(result), sections))
    return path


def verdict(result: CalibrationResult) -> str:
    """Return the verdict in two or three sentences, one on each line."""
    before, chance = calibration.bin_images(result.before, "width"), calibration.chance_error(result.before, "width")
    confidence, accuracy = result.before.confidence.mean(), result.before.right.mean()
    digits = _digits(result)
    lines = [
        f"{result.name} {_assessment(before.error, chance.high, confidence - accuracy)}: the mean confidence of its"
        f" first guesses is {_percent(confidence, digits)} %, and {_percent(accuracy, digits)} % of them are right.",
        f"The expected calibration error is {_percent(before.error, digits)} %. A perfectly calibrated system would"
        f" show {_percent(chance.mean, digits)} % on {len(result.predictions):,} images by chance, and at most"
        f" {_percent(chance.high, digits)} % in 95 of 100 draws.",
    ]
    if result.after:
        after = calibration.bin_images(result.after, "width").error
        likelihoods = (one.negative_log_likelihood for one in (result.before, result.after))
        lines.append(
            f"With scores divided by a temperature of {result.temperature:.3g}, fitted on {result.fitted_on:,} other"
            f" images, the calibration error is {_percent(after, digits)} %, and the negative log likelihood goes from"
            f" {' to '.join(f'{one:.3f}' for one in likelihoods)} nats."
        )
    return "\n".join(lines)


def _assessment(error: float, high: float, surplus: float) -> str:
    if error <= high:
        return "does not differ significantly from a perfectly calibrated system on these images"
    return "is overconfident" if surplus > 0 else "is underconfident"


def _digits(result: CalibrationResult) -> int:
    return 2 if len(result.predictions) >= FINE_DIGITS_FROM else 1


def _percent(share: float, digits: int) -> str:
    return f"{100 * share:.{digits}f}"


def _describe_setting(result: CalibrationResult) -> str:
    return (
        f"{result.name}, {len(result.predictions):,} images, {len(result.class_names):,} classes; confidence is the"
        " largest probability in the softmax of the stored scores"
    )


# --- sections ---------------------------------------------------------------------------------------------------


def _sections(result: CalibrationResult, figures: Path) -> list[PageSection]:
    drawn = [_reliability_figure(result, figures), _risk_figure(result, figures)]
    return [
        _section("calibration", "Calibration", [measures(result)], drawn),
        _section(
            "bins",
            "Confidence and accuracy, bin by bin",
            [bins(state, with_temperature=k > 0) for k, state in enumerate(result.states)],
        ),
        _section("risk", "Error when only confident guesses count", [risks(result)]),
        _section("confusions", "Confusions", _confusion_tables(result)),
    ]


def _section(anchor: str, title: str, tables: Sequence[Table], drawn: Sequence[PageFigure] = ()) -> PageSection:
    shown = [html_page.render_table(table, is_folded=len(table.rows) > LONG) for table in tables]
    return PageSection(anchor, title, html_page.render_figures(drawn) + Markup().join(shown), tuple(tables))


def _reliability_figure(result: CalibrationResult, figures: Path) -> PageFigure:
    return PageFigure(
        "Reliability",
        _written(reliability.draw_reliability(result.states), figures, "the figure of reliability"),
        f"Accuracy of the first guesses in each bin of confidence, with Wilson's 95 % intervals for {NEW_IMAGES}."
        " Below the diagonal the system is overconfident. The histogram shows the share of the images in each bin.",
        "Points of accuracy over confidence around a diagonal, and a histogram of confidence below.",
    )


def _risk_figure(result: CalibrationResult, figures: Path) -> PageFigure:
    return PageFigure(
        "Risk against coverage",
        _written(reliability.draw_risk(result.states), figures, "the figure of risk against coverage"),
        "Top-1 error among the most confident guesses, against the share of the images that they are (coverage). The"
        " area is the mean of the curve, in percent.",
        "A curve of top-1 error that rises with coverage.",
    )


def _written(chart: Chart, figures: Path, what: str) -> Chart:
    """Write the files of a chart, and return it."""
    charts.write(chart, figures, what)
    return chart


def _confusion_tables(result: CalibrationResult) -> list[Table]:
    wrong = confusions.count_wrong({result.name: [result.predictions]}, result.class_names)
    tree = confusions.place_in_tree(wrong, result.class_names)
    common = confusions.most_confused(wrong, tree)
    last = common.headings.index("all systems")  # equal to the column of the one system
    rows = tuple((*row[:last], *row[last + 1 :]) for row in common.rows)
    headings = (*common.headings[:last], "guesses")
    caption = "The number of images of the class for which the first guess was the other class."
    tables = [Table("confusions", headings, rows, caption), *([confusions.distances(tree)] if tree else [])]
    return [table for table in tables if table.rows]


# --- tables -----------------------------------------------------------------------------------------------------


def measures(result: CalibrationResult) -> Table:
    """Return every measure of calibration, of the probabilities as they are and at the temperature."""
    digits = _digits(result)
    columns = [_measures(state.judged, digits) for state in result.states]
    rows = tuple((name, *(column[name] for column in columns)) for name in columns[0])
    caption = (
        "The calibration error is a mean distance between accuracy and confidence, so it is above zero by chance"
        " alone. “By chance” is what a perfectly calibrated system with these confidences would show: the mean of"
        " 1,000 draws, and the value that 95 % of them do not exceed. “Debiased” subtracts an estimate of that (Kumar"
        " et al. 2019), which is too small where the error is small. Bins of equal mass hold equal numbers of images."
        " The area is that below the curve of top-1 error against coverage. The interval of the error is Wilson's 95 %"
        f" interval for {NEW_IMAGES}."
    )
    return Table("calibration", ("measure", *(state.name for state in result.states)), rows, caption)


def _measures(judged: ScoredProbabilities, digits: int) -> dict[str, str]:
    error, interval = format_rate(int(np.sum(~judged.right)), len(judged.right))
    cells = {
        "top-1 error %": error,
        interval_heading(NEW_IMAGES): interval,
        "mean confidence %": _percent(judged.confidence.mean(), digits),
        "negative log likelihood, nats": f"{judged.negative_log_likelihood:.4f}",
        "Brier score": f"{judged.brier:.4f}",
    }
    for binning, name in BINNINGS.items():
        measured, chance = calibration.bin_images(judged, binning), calibration.chance_error(judged, binning)
        cells |= {
            f"calibration error %, {name}": _percent(measured.error, digits + 1),
            f"by chance, {name}": _percent(chance.mean, digits + 1),
            f"by chance at most (95 %), {name}": _percent(chance.high, digits + 1),
            f"debiased, {name}": _percent(measured.debiased, digits + 1).replace("-", "−"),
        }
    area, least = (curve(judged).area for curve in (calibration.risk_curve, calibration.best_risk_curve))
    return cells | {
        "area below error against coverage %": _percent(area, digits + 1),
        "smallest possible area %": _percent(least, digits + 1),
    }


def bins(state: CalibrationState, *, with_temperature: bool) -> Table:
    """Return a row for each bin of equal width that has images."""
    binned = calibration.bin_images(state.judged, "width")
    occupied = np.unique(calibration.bin_indices(state.judged.confidence, "width"))
    columns = (occupied, binned.images, binned.right, binned.confidence, binned.accuracy)
    rows = tuple(
        (
            f"{100 * k / BINS:.1f} to {100 * (k + 1) / BINS:.1f}",
            f"{images:,}",
            f"{100 * confidence:.1f}",
            *format_rate(int(images - right), int(images)),
            signed(100 * (confidence - accuracy)),
        )
        for k, images, right, confidence, accuracy in zip(*columns, strict=True)
    )
    name = "reliability_at_temperature" if with_temperature else "reliability"
    headings = (
        "confidence %",
        "images",
        "mean confidence %",
        "top-1 error %",
        interval_heading(NEW_IMAGES),
        "overconfidence, points",
    )
    caption = (
        f"Probabilities: {state.name}. Overconfidence is mean confidence minus accuracy. Bins without images are left"
        f" out. Intervals are Wilson's 95 % intervals for {NEW_IMAGES}."
    )
    return Table(name, headings, rows, caption)


def risks(result: CalibrationResult) -> Table:
    """Return the top-1 error among the most confident guesses, at several coverages."""
    curves = [calibration.risk_curve(state.judged) for state in result.states]
    curves.append(calibration.best_risk_curve(result.before))
    n_images, digits = len(result.predictions), _digits(result)
    rows = []
    for share in COVERAGES:
        n_answered = n_images * share // 100
        cells = [_percent(curve.risk[n_answered - 1], digits) if n_answered else MISSING for curve in curves]
        rows.append((f"{share}", f"{n_answered:,}", *cells))
    headings = ("coverage %", "images", *(state.name for state in result.states), "smallest possible")
    caption = "Top-1 error in % among the most confident first guesses. Coverage is their share of all images."
    return Table("risk", headings, tuple(rows), caption)
