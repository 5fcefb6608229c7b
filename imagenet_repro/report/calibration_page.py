"""How far a system's probabilities can be trusted: the page `calibration.html`, its tables and its pictures."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imagenet_repro.report import html_page
from imagenet_repro.report.html_page import LONG, PageFigure, PageSection
from imagenet_repro.report.plots import reliability
from imagenet_repro.report.plots.reliability import CalibrationState
from imagenet_repro.report.sections import confusions
from imagenet_repro.report.sections.class_gains import signed
from imagenet_repro.report.sections.confusions import Rows
from imagenet_repro.report.tables import MISSING, Table
from imagenet_repro.scoring import calibration
from imagenet_repro.scoring.calibration import BINS, Binning, ScoredProbabilities
from imagenet_repro.scoring.metrics import FINE_DIGITS_FROM, format_rate
from imagenet_repro.scoring.predictions import Predictions

TITLE = "How far its probabilities can be trusted"
COVERAGES = (100, 90, 80, 70, 50, 30, 10)  # percent
BINNINGS: dict[Binning, str] = {"width": "15 bins of equal width", "mass": "15 bins of equal mass"}


@dataclasses.dataclass(frozen=True)
class CalibrationResult:
    """What is shown of one system.

    Attributes:
      name: of the system.
      predictions: on the images that are scored.
      class_names: by class index; WordNet ids where the data set has those.
      before: its probabilities as they are.
      after: divided by the temperature, where there is one.
      temperature: found on other images.
      fitted_on: how many.
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
        """As it is, and with the temperature."""
        found = [CalibrationState("as it is", self.before)]
        return [*found, CalibrationState(f"temperature {self.temperature:.3g}", self.after)] if self.after else found


def write(found: CalibrationResult, out: Path) -> Path:
    """Writes `calibration.html`, `tables/` and `figures/` into a directory, and returns the page's path.

    Raises:
      SaveError: something cannot be written.
    """
    sections = _sections(found, out / "figures")
    html_page.save_tables((table for section in sections for table in section.tables), out / "tables")
    path = out / "calibration.html"
    html_page.save(path, html_page.document(TITLE, verdict(found), _setting(found), sections))
    return path


def verdict(found: CalibrationResult) -> str:
    """Two or three sentences, a line each."""
    before, chance = calibration.bin_images(found.before, "width"), calibration.chance_error(found.before, "width")
    said, right = found.before.confidence.mean(), found.before.right.mean()
    digits = _digits(found)
    lines = [
        f"{found.name} {_kind(before.error, chance.high, said - right)}: it gives its first guesses"
        f" {_percent(said, digits)} % on average, and {_percent(right, digits)} % of them are right.",
        f"Expected calibration error {_percent(before.error, digits)} %; a perfectly calibrated system would show"
        f" {_percent(chance.mean, digits)} % on {len(found.predictions):,} images, and at most"
        f" {_percent(chance.high, digits)} % in 95 of 100 draws.",
    ]
    if found.after:
        after = calibration.bin_images(found.after, "width").error
        likelihoods = (one.negative_log_likelihood for one in (found.before, found.after))
        lines.append(
            f"Divided by a temperature of {found.temperature:.3g}, found on {found.fitted_on:,} other images:"
            f" calibration error {_percent(after, digits)} %, negative log likelihood from"
            f" {' to '.join(f'{one:.3f}' for one in likelihoods)} nats."
        )
    return "\n".join(lines)


def _kind(error: float, high: float, surplus: float) -> str:
    if error <= high:
        return "cannot be told from a perfectly calibrated system on these images"
    return "is overconfident" if surplus > 0 else "is underconfident"


def _digits(found: CalibrationResult) -> int:
    return 2 if len(found.predictions) >= FINE_DIGITS_FROM else 1


def _percent(share: float, digits: int) -> str:
    return f"{100 * share:.{digits}f}"


def _setting(found: CalibrationResult) -> str:
    return (
        f"{found.name}, {len(found.predictions):,} images, {len(found.class_names):,} classes; confidence is the"
        " largest probability of the stored scores"
    )


# --- sections ---------------------------------------------------------------------------------------------------


def _sections(found: CalibrationResult, figures: Path) -> list[PageSection]:
    drawn = [_reliability(found, figures), _risk(found, figures)]
    return [
        _section("calibration", "Calibration", [measures(found)], drawn),
        _section(
            "bins", "Confidence and accuracy, bin by bin", [bins(state, k) for k, state in enumerate(found.states)]
        ),
        _section("risk", "Answering only when confident", [risks(found)]),
        _section("confusions", "Confusions", _confusions(found)),
    ]


def _section(anchor: str, title: str, tables: Sequence[Table], drawn: Sequence[PageFigure] = ()) -> PageSection:
    shown = "".join(html_page.table(one, folded=len(one.rows) > LONG) for one in tables)
    return PageSection(anchor, title, html_page.figures(drawn) + shown, tuple(tables))


def _reliability(found: CalibrationResult, figures: Path) -> PageFigure:
    return PageFigure(
        "Reliability",
        reliability.plot_reliability(found.states, figures / "reliability.png")[1],
        "Of the images in a bin of confidence, the share whose first guess is right, with 95 % intervals (Wilson)."
        " Below the diagonal the system is overconfident. Below, how many images are in each bin.",
        "Points of accuracy over confidence around a diagonal, and a histogram of confidence below.",
    )


def _risk(found: CalibrationResult, figures: Path) -> PageFigure:
    return PageFigure(
        "Risk against coverage",
        reliability.plot_risk(found.states, figures / "risk.png")[1],
        "Were only the most confident images answered, so many of those answers would be wrong. The area is the mean"
        " of the curve, in percent.",
        "A curve of top-1 error that rises with the share of images that are answered.",
    )


def _confusions(found: CalibrationResult) -> list[Table]:
    wrong = confusions.counted({found.name: [found.predictions]}, found.class_names)
    tree = confusions.along_tree(wrong, found.class_names)
    commonest = confusions.most_confused(wrong, tree)
    last = commonest.headings.index("all systems")  # the same as the one system's
    rows = tuple((*row[:last], *row[last + 1 :]) for row in commonest.rows)
    headings = (*commonest.headings[:last], "so taken")
    caption = "Of so many images of the class, the first guess took so many for the other class."
    parts = {"confusions": Rows(headings, rows, caption)}
    if tree is not None:
        parts["tree_distances"] = confusions.distances(tree)
    return [Table(name, part.headings, part.rows, part.caption) for name, part in parts.items() if part.rows]


# --- tables -----------------------------------------------------------------------------------------------------


def measures(found: CalibrationResult) -> Table:
    """Every measure, as it is and with the temperature."""
    digits = _digits(found)
    columns = [_measures(state.judged, digits) for state in found.states]
    rows = tuple((name, *(column[name] for column in columns)) for name in columns[0])
    caption = (
        "The calibration error is a mean of distances between accuracy and confidence, so that it is above zero by"
        " chance alone: “by chance” is what a perfectly calibrated system with these confidences would show, as a mean"
        " and at most in 95 of 100 of 1,000 draws; “less its bias” takes off an estimate of that (Kumar et al. 2019),"
        " which is too small an estimate where the error is small. Bins of equal mass hold equally many images. The"
        " area lies below the curve of risk against coverage."
    )
    return Table("calibration", ("measure", *(state.name for state in found.states)), rows, caption)


def _measures(judged: ScoredProbabilities, digits: int) -> dict[str, str]:
    error, low_to_high = format_rate(int(np.sum(~judged.right)), len(judged.right))
    found = {
        "top-1 error %": error,
        "its 95 % interval": low_to_high,
        "mean confidence %": _percent(judged.confidence.mean(), digits),
        "negative log likelihood, nats": f"{judged.negative_log_likelihood:.4f}",
        "Brier score": f"{judged.brier:.4f}",
    }
    for binning, name in BINNINGS.items():
        measured, chance = calibration.bin_images(judged, binning), calibration.chance_error(judged, binning)
        found |= {
            f"calibration error %, {name}": _percent(measured.error, digits + 1),
            f"by chance, {name}": _percent(chance.mean, digits + 1),
            f"by chance at most, {name}": _percent(chance.high, digits + 1),
            f"less its bias, {name}": _percent(measured.debiased, digits + 1).replace("-", "−"),
        }
    area, least = (curve(judged).area for curve in (calibration.risk_curve, calibration.best_risk_curve))
    return found | {
        "area of risk by coverage %": _percent(area, digits + 1),
        "least possible area %": _percent(least, digits + 1),
    }


def bins(state: CalibrationState, number: int) -> Table:
    """Every bin of equal width; `number` 0 is the system as it is, 1 with the temperature."""
    found = calibration.bin_images(state.judged, "width")
    place = np.unique(calibration.bin_indices(state.judged.confidence, "width"))
    columns = (place, found.images, found.right, found.confidence, found.accuracy)
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
    name = "reliability_at_temperature" if number else "reliability"
    headings = (
        "confidence %",
        "images",
        "mean confidence %",
        "top-1 error %",
        "95 % interval",
        "overconfidence, points",
    )
    caption = (
        f"{state.name.capitalize()}. Overconfidence is mean confidence less the share of right first guesses; bins"
        " without images are left out."
    )
    return Table(name, headings, rows, caption)


def risks(found: CalibrationResult) -> Table:
    """The error among the most confident images, at some shares of them."""
    curves = [calibration.risk_curve(state.judged) for state in found.states]
    curves.append(calibration.best_risk_curve(found.before))
    images, digits = len(found.predictions), _digits(found)
    rows = []
    for share in COVERAGES:
        answered = images * share // 100
        cells = [_percent(curve.risk[answered - 1], digits) if answered else MISSING for curve in curves]
        rows.append((f"{share}", f"{answered:,}", *cells))
    headings = ("answered, %", "images", *(state.name for state in found.states), "least possible")
    caption = "Top-1 error in % among the most confident images."
    return Table("risk", headings, tuple(rows), caption)
