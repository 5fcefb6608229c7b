"""`main.py localize`: boxes around the classes that a trained network predicts."""

from typing import Any

from imagenet_repro.cli.command import Command, Option, Settings

HELP = """Draw boxes around the classes that a trained network predicts, and measure the localization error.

  python main.py localize --workdir=runs/resnet50 --boxes=boxes.csv
  python main.py localize --workdir=runs/resnet50 --boxes=ILSVRC/Annotations/CLS-LOC --method=cam

This is the challenge's second task: five guesses of class and box. A guess is right when the class is right and the
box overlaps any instance with an intersection over union of at least 0.5. Boxes come from class activation maps, which
need no annotated boxes, and from a ridge regression on the last feature map, which is fitted to the annotated boxes
of training images. Without --method both are compared, beside two baselines that ignore the image.

Boxes are read from a CSV file (file, x_min, y_min, x_max, y_max) or from a folder of PASCAL VOC's XML files. The
predicted boxes are stored beside the run's predictions, where `main.py score --task=localization` can score them.
"""


def run(**options: Any) -> int:
    """Predict boxes with the network of a run and print their errors; return the exit code."""
    from imagenet_repro.runs.localize import localize

    return localize(**options)


COMMAND = Command(
    name="localize",
    help=HELP,
    run=run,
    options=(
        Option("--workdir", required=True, metavar="DIR", help="the workdir of a run"),
        Option("--boxes", required=True, metavar="PATH", help="annotated boxes: a CSV file or a folder of XML files"),
        Option(
            "--checkpoint",
            parameter="which",
            default="last",
            metavar="WHICH",
            help="last (default), best, or a step",
        ),
        Option("--method", choices=("cam", "regression"), help="the method that makes boxes (default: both)"),
        Option(
            "--threshold",
            type=float,
            default=0.2,
            metavar="SHARE",
            help="share of a map's highest value above which a position is in the box (default 0.2)",
        ),
        Option(
            "--out",
            metavar="DIR",
            writes="directory",
            help="the directory for boxes, table and figure (default: directories in the workdir)",
        ),
    ),
    settings=(Settings("data", "another data set or split: any key of the section `data`"),),
)
