"""Measure how far a system's probabilities can be trusted, on a page with tables and figures."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imagenet_repro.errors import EXIT_FINISHED, SaveError, UserError
from imagenet_repro.report import calibration_page
from imagenet_repro.report.calibration_page import CalibrationResult
from imagenet_repro.runs import stored_predictions
from imagenet_repro.runs.stored_predictions import StoredPredictions
from imagenet_repro.scoring import calibration, predictions


def calibrate(path: str, fit: str | None = None, out: str | None = None) -> int:
    """Writes the page, prints its measures and the verdict; returns the exit code.

    Args:
      path: a file of predictions, or the workdir of a finished run.
      fit: predictions of the same system on images of another split, where a temperature is found; None: none is.
      out: where the page goes; None: the run's workdir, or here.

    Raises:
      UserError: predictions are missing, damaged or without labels, or `fit` is of the same images, of another model
        or of images that it was trained on.
      SaveError: something cannot be written.
    """
    directory = Path(out) if out else Path(path) if Path(path).is_dir() else Path()
    if directory.exists() and not directory.is_dir():
        raise SaveError(f"--out={directory} is a file; a directory is needed")
    opened = stored_predictions.load(path)
    found = _calibrated(opened, stored_predictions.load(fit) if fit else None)
    page = calibration_page.write(found, directory)
    _show(found)
    print(f"the page: {page}")
    return EXIT_FINISHED


def _calibrated(opened: StoredPredictions, held_out: StoredPredictions | None) -> CalibrationResult:
    name = opened.network or opened.path.stem
    names, before = stored_predictions.class_names(opened), calibration.score_probabilities(opened.predictions)
    if held_out is None:
        return CalibrationResult(name, opened.predictions, names, before)
    _check_held_out(opened, held_out)
    temperature = calibration.fit_temperature(held_out.predictions)
    return CalibrationResult(
        name,
        opened.predictions,
        names,
        before,
        after=calibration.score_probabilities(opened.predictions, temperature),
        temperature=temperature,
        fitted_on=len(held_out.predictions),
    )


def _check_held_out(opened: StoredPredictions, held_out: StoredPredictions) -> None:
    classes = [one.predictions.logits.shape[1] for one in (opened, held_out)]
    if classes[0] != classes[1]:
        raise UserError(f"{opened.path} and {held_out.path} choose between {classes[0]:,} and {classes[1]:,} classes")
    stored_predictions.check_same_model(opened, held_out)
    stored_predictions.check_not_trained_on(held_out)
    predictions.check_disjoint(opened.predictions, held_out.predictions, "the temperature is found")


def _show(found: CalibrationResult) -> None:
    console = Console(highlight=False)
    shown = calibration_page.measures(found)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, heading in enumerate(shown.headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in shown.rows:
        table.add_row(*map(Text, row))
    console.print(table)
    for line in calibration_page.verdict(found).splitlines():
        console.print(line, markup=False, soft_wrap=True)
