"""Measure how far a system's probabilities can be trusted, on a page with tables and figures."""

import dataclasses
from pathlib import Path

from rich.console import Console

from imagenet_repro.errors import EXIT_FINISHED
from imagenet_repro.report import calibration_page, html_page
from imagenet_repro.report.calibration_page import CalibrationResult
from imagenet_repro.runs import stored_predictions
from imagenet_repro.runs.stored_predictions import StoredPredictions
from imagenet_repro.scoring import calibration, predictions, terminal


def calibrate(path: str, fit: str | None = None, out: str | None = None) -> int:
    """Write the page of a calibration, and print its measures and the verdict.

    Args:
      path: a file of predictions, or the workdir of a finished run.
      fit: predictions of the same system on another split, to which a temperature is fitted; None: none is fitted.
      out: the directory for the page; None: the run's workdir, otherwise the current directory.

    Returns:
      The exit code.

    Raises:
      UserError: predictions are missing, damaged or without labels, or those of `fit` are for the same images, by
        another model, or for images that it was trained on.
      SaveError: the page cannot be written.
    """
    directory = Path(out) if out else Path(path) if Path(path).is_dir() else Path()
    html_page.require_place(directory, out, calibration_page.PAGE, (html_page.TABLES, html_page.FIGURES))
    stored = stored_predictions.load(path)
    result = _measure(stored, stored_predictions.load(fit) if fit else None)
    _print(result)
    page = calibration_page.write(result, directory)
    print(f"the page: {page}")
    return EXIT_FINISHED


def _measure(stored: StoredPredictions, held_out: StoredPredictions | None) -> CalibrationResult:
    """Return the calibration of predictions, and with held-out predictions also that after fitting a temperature."""
    name = stored.network or stored.path.stem
    class_names = stored_predictions.class_names(stored)
    before = calibration.score_probabilities(stored.predictions)
    if held_out is None:
        return CalibrationResult(name, stored.predictions, class_names, before)
    held_out = _in_same_classes(stored, held_out)
    temperature = calibration.fit_temperature(held_out.predictions)
    return CalibrationResult(
        name,
        stored.predictions,
        class_names,
        before,
        after=calibration.score_probabilities(stored.predictions, temperature),
        temperature=temperature,
        fitted_on=len(held_out.predictions),
    )


def _in_same_classes(stored: StoredPredictions, held_out: StoredPredictions) -> StoredPredictions:
    """Return held-out predictions with the classes of the others; UserError if they are not suitable."""
    stored_predictions.check_same_model(stored, held_out)
    stored_predictions.check_not_trained_on(held_out)
    predictions.check_disjoint(stored.predictions, held_out.predictions, "the temperature is found")
    aligned = predictions.align_classes(stored.predictions, str(stored.path), held_out.predictions, str(held_out.path))
    return dataclasses.replace(held_out, predictions=aligned)


def _print(result: CalibrationResult) -> None:
    console = Console(highlight=False)
    measures = calibration_page.measures(result)
    console.print(terminal.ruled_table(measures.headings, measures.rows, gap=3))
    for line in calibration_page.verdict(result).splitlines():
        console.print(line, markup=False, soft_wrap=True)
