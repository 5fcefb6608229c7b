"""`main.py calibrate`: how far the probabilities of a system can be trusted."""

from typing import Any

from imagenet_repro.cli.command import Command, Option

HELP = """Measure how far a system's probabilities can be trusted: a page with tables and figures.

  python main.py calibrate --predictions=runs/resnet50 --out=runs/resnet50/calibration
  python main.py calibrate --predictions=runs/resnet50 --fit=held_out.npz

Reports the expected calibration error with the part of it that the small number of images explains, the negative log
likelihood, the Brier score, reliability, risk against coverage, and the commonest confusions. --fit fits a
temperature to predictions on another split, and every measure is shown before and after.
"""


def run(**options: Any) -> int:
    """Write the page of a calibration and print its measures; return the exit code."""
    from imagenet_repro.runs.calibrate import calibrate

    return calibrate(**options)


COMMAND = Command(
    name="calibrate",
    help=HELP,
    run=run,
    options=(
        Option(
            "--predictions",
            parameter="path",
            required=True,
            metavar="FILE_OR_RUN",
            help="a file of predictions, or the workdir of a finished run",
        ),
        Option("--fit", metavar="FILE_OR_RUN", help="its predictions on another split, to fit a temperature to"),
        Option(
            "--out",
            metavar="DIR",
            writes="directory",
            help="the directory for the page (default: the run's workdir, otherwise the current directory)",
        ),
    ),
)
