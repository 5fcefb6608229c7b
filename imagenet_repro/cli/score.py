"""`main.py score`: error rates of stored predictions, from this project or from anywhere else."""

from typing import Any

from imagenet_repro.cli.command import Command, Option
from imagenet_repro.errors import EXIT_FINISHED, UserError

HELP = """Score stored predictions, from this project or from anywhere else.

  python main.py score --predictions=guesses.txt --labels=labels.txt
  python main.py score --predictions=runs/resnet50/predictions/imagenet2012_validation.npz --real=real.json

Text files are in the challenge's form: one line for each image with up to five labels in order of decreasing
confidence, and a file with one label a line. Files that `evaluate` wrote contain the labels.

  python main.py score --set=real --predictions=runs/resnet50/predictions/imagenet2012_validation.npz
  python main.py score --set=c --predictions=runs/resnet50/predictions

Files that `evaluate` wrote can be scored again by the rule of an evaluation set; `evaluate --help` lists their names.
This includes other labels of the same images (real, multilabel), which are read from their prepared data set.

  python main.py score --set=cue_conflict --predictions=FILE.csv

Answers in the form of the cue-conflict experiment's files give the shape bias of their observer.

  python main.py score --by=country --table=photos.csv --predictions=FILE.npz
  python main.py score --by=imagenet_x --predictions=FILE.npz
  python main.py score --by=class_frequency --predictions=FILE.npz

Errors of groups of images: by a column of a table that names their files (Dollar Street, GeoDE, or any data set), by
the factors of the package imagenet-x, or by the number of training images of each class (over 100, 20 to 100, fewer).

  python main.py score --task=localization --predictions=guesses.txt --labels=ILSVRC2012_validation_ground_truth.txt \\
      --boxes=Annotations/CLS-LOC/val --blacklist=ILSVRC2015_clsloc_validation_blacklist.txt
  python main.py score --task=detection --predictions=detections.txt --boxes=Annotations/DET/val --images=val.txt \\
      --classes=meta_det.mat --blacklist=ILSVRC2015_det_validation_blacklist.txt --against=others.txt

The challenge's other tasks. Localization: "xmin ymin xmax ymax" after each label. Detection: one detection a line,
"image class confidence xmin ymin xmax ymax". Boxes are a folder of XML files or a CSV file. With --against, two
entries are compared by the number of classes that each wins.
"""

ALL_GUESSES = 5  # the number of guesses that the challenge accepts for an image

TASK_OPTIONS = {  # beside --predictions
    "classification": ("labels", "guesses", "real", "set_name", "data_dir", "mappings", "by", "table"),
    "localization": ("labels", "boxes", "images", "classes", "blacklist"),
    "detection": ("boxes", "images", "classes", "blacklist", "against"),
}
NEEDED_OPTIONS = {"classification": (), "localization": ("boxes",), "detection": ("boxes", "classes")}


def run(*, task: str, predictions: str, **options: Any) -> int:
    """Score predictions by the rules of a task and print the error rates; return the exit code."""
    _check_options(task, options)
    score = {"classification": _classification, "localization": _localization, "detection": _detection}[task]
    score(predictions, **{keyword: options[keyword] for keyword in TASK_OPTIONS[task]})
    return EXIT_FINISHED


def _check_options(task: str, options: dict[str, Any]) -> None:
    """Raise UserError for an option that the task does not read, and for one that it needs and lacks."""
    for option in sorted(COMMAND.options, key=lambda option: option.keyword):
        tasks = [name for name, keywords in TASK_OPTIONS.items() if option.keyword in keywords]
        if not tasks:
            continue
        is_given = options[option.keyword] != option.default
        if is_given and task not in tasks:
            raise UserError(
                f"{option.flag} belongs to --task={' and '.join(tasks)} and would be ignored for {task}; leave it out"
            )
        if not is_given and option.keyword in NEEDED_OPTIONS[task]:
            raise UserError(f"--task={task} needs {option.flag}; see main.py score --help")


def _classification(
    predictions: str,
    *,
    labels: str | None,
    guesses: int,
    real: str | None,
    set_name: str,
    data_dir: str,
    mappings: str,
    by: str,
    table: str,
) -> None:
    if by:
        if labels or real or set_name or guesses != ALL_GUESSES:
            raise UserError("--labels, --real, --set and --guesses do not go with --by, whose labels are in the .npz")
        _by_group(predictions, by, table)
        return
    if table:
        raise UserError("--table belongs to --by=COLUMN and would be ignored; leave it out")
    if set_name:
        if labels or real or guesses != ALL_GUESSES:
            raise UserError("--labels, --real and --guesses do not go with --set, which has its own labels and rule")
        from imagenet_repro.inference import evaluation_sets

        evaluation_sets.score_stored(predictions, set_name, data_dir=data_dir, mappings=mappings)
        return
    if mappings or data_dir:
        raise UserError("--mappings and --data_dir belong to --set and would be ignored; leave them out")
    from imagenet_repro.scoring import classification

    classification.print_score(classification.score(predictions, labels, guesses=guesses, real_path=real))


def _by_group(path: str, by: str, table: str) -> None:
    from imagenet_repro.scoring import group_errors, image_groups
    from imagenet_repro.scoring.predictions import load

    predicted = load(path)
    group_errors.show(group_errors.score(predicted, image_groups.find(by, table, predicted)))


def _localization(predictions: str, *, boxes: str, **options: Any) -> None:
    from imagenet_repro.scoring.localization import error_rates

    error_rates.print_score(error_rates.score(predictions, boxes, **options))


def _detection(predictions: str, *, boxes: str, classes: str, against: str | None, **options: Any) -> None:
    from imagenet_repro.scoring import detection

    entries = [predictions] if against is None else [predictions, against]
    detection.print_score(detection.score(entries, boxes, classes, **options))


COMMAND = Command(
    name="score",
    help=HELP,
    run=run,
    options=(
        Option(
            "--task",
            choices=tuple(TASK_OPTIONS),
            default="classification",
            help="task of the challenge (default: classification)",
        ),
        Option("--predictions", required=True, metavar="FILE", help="text in the challenge's form, or .npz"),
        Option("--labels", metavar="FILE", help="one label a line (default: the labels in the .npz)"),
        Option(
            "--guesses",
            type=int,
            default=ALL_GUESSES,
            metavar="N",
            help="print the error rates with 1 to N guesses (default 5)",
        ),
        Option("--real", metavar="FILE", help="ReaL label lists (real.json)"),
        Option("--set", parameter="set_name", default="", metavar="NAME", help="score by the rule of this set"),
        Option("--data_dir", default="", metavar="DIR", help="with --set: where its labels are (as in prepare)"),
        Option("--mappings", default="", metavar="DIR", help="with --set=objectnet: the mappings of its download"),
        Option("--by", default="", metavar="GROUPS", help="errors by group: imagenet_x, class_frequency, or a column"),
        Option("--table", default="", metavar="FILE", help="with --by=COLUMN: a CSV, TSV or Parquet file of images"),
        Option("--boxes", metavar="PATH", help="annotated boxes: a folder of XML files, or a CSV file"),
        Option("--images", metavar="FILE", help="lines NAME NUMBER (default: all images with boxes, sorted)"),
        Option("--classes", metavar="FILE", help="meta*.mat of the devkit, or lines NUMBER ID"),
        Option("--blacklist", metavar="FILE", help="images, or images and classes, whose boxes are not scored"),
        Option("--against", metavar="FILE", help="the detections of another entry, for comparison"),
    ),
)
