"""The command line: reads arguments and calls one function. `python main.py COMMAND --help` says more."""

import argparse
import os
import sys

from imagenet_repro.errors import EXIT_FINISHED, EXIT_STOPPED, UserError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's messages to its developers
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

ALL_GUESSES = 5  # that the challenge accepts for an image
Overrides = dict[str, dict[str, str]]  # texts by prefix and key

EXIT_CODES = """exit codes:
  0   done
  2   something to mend: an unknown key, missing data, a workdir of another configuration
  3   the loss is not finite; the last good checkpoint is kept
  74  a checkpoint or a result could not be written
  75  stopped by SIGTERM or Ctrl-C after finishing the step and saving; the same command goes on
"""

TRAIN = """Train one system, or go on where a run in the workdir stopped.

  python main.py train --config=configs/resnet.py:50 --config.budget=90ep --workdir=runs/resnet50
  python main.py train --config=configs/resnet.py:18 --config.data.name=cifar10 --workdir=runs/cifar \\
      --config.data.eval_split=test --config.data.image_size=32 --config.model.options="{'stem': 'small'}"

A configuration is a Python file; what follows its colon is handed to it (the depth, here). Any key can be set with
--config.KEY=VALUE; imagenet_repro/config.py has every key with its meaning and range. A budget is an amount of
epochs (90ep), images (1.2e8img), steps (450000st), operations (2e18flop) or seconds of training (3600s).

The workdir gets config.json, checkpoints/, metrics.jsonl and tensorboard/, and at the end result.json, predictions/,
table.md and curves.png. Ctrl-C or SIGTERM finishes the step and saves; a second one ends at once. The same command
resumes. Several hosts: start the same command on each, under SLURM, on a TPU pod, or with COORDINATOR_ADDRESS,
NUM_PROCESSES and PROCESS_ID in the environment.
"""

SWEEP = """Train many systems under one budget, each for every seed, perhaps after a search of its settings.

  python main.py sweep --config=configs/sweeps/decade.py --workdir=runs/decade
  python main.py sweep --config=configs/sweeps/learning_rate.py --workdir=runs/lr --config.search.trials=32
  python main.py sweep --config=… --workdir=… --dry_run           what would run, where, and what it would cost
  python main.py sweep --status --workdir=runs/decade             how far it is, from any terminal
  python main.py sweep --config=… --workdir=… --launcher=slurm --workers=8 --slurm.partition=gpu \
      --slurm.gpus_per_node=1 --slurm.time=600 --storage=postgresql+psycopg://HOST/sweeps

A sweep is a Python file; imagenet_repro/sweeps/config.py has every key. Settings are selected on a part of the
training split that is held out; the test split is scored by the selected runs alone, once. Whatever is stopped or
killed, workers or this process: the same command goes on, each training from its checkpoint. At the end it compares
the runs, as `compare DIR` does.

Workers run on this machine, one for each GPU, or as an array of SLURM jobs. Trials are kept in SQLite in the workdir;
for several machines name a storage that all reach, with its password in PGPASSWORD or ~/.pgpass.
"""

EVALUATE = """Score a checkpoint of a run on every image of a split, exactly once.

  python main.py evaluate --workdir=runs/resnet50
  python main.py evaluate --workdir=runs/resnet50 --set=v2
  python main.py evaluate --workdir=runs/resnet50 --data.name=cifar10 --data.eval_split=test

Prints both error rates with 95 % intervals and stores the predictions of each image as .npz
(imagenet_repro/scoring/predictions.py says what it holds).

  python main.py evaluate --workdir=runs/vgg16 --protocol=crop,10crop,vgg_dense,vgg_50crops,vgg_both
  python main.py evaluate --workdir=runs/vgg16 --protocol=crops --protocol.scales="(256,288)" --protocol.average=logits

scores by the protocols of the papers, or any list of scales, positions and flips (evaluation/protocols.py).

  python main.py evaluate --weights=resnet50.pth --model=resnet50 --data.name=imagenet2012 --out=predictions.npz

scores published weights, of torchvision, timm or transformers, without a run: --weights in place of --workdir. Images
are prepared as the file says, else as published for the network. A .pth that would run code is refused.

--set=NAME scores a network for ImageNet's 1,000 classes on a set of images by that set's own rule:

  imagenet                    the validation images; beside them people's errors on the challenge's test images
  real  multilabel            the same images with several labels each (ReaL; Shankar et al.)
  v2  v2_threshold  v2_top    ImageNet-V2, in its three selections
  a  r                        ImageNet-A and -R, guesses among their 200 classes alone
  sketch                      ImageNet-Sketch
  c                           ImageNet-C: 75 data sets and the mean corruption error; predictions go to a directory
  objectnet                   ObjectNet, with --mappings=objectnet-1.0/mappings

Each is a data set of tfds that `prepare` brings; what is missing says what to type. --data.name=NAME reads another
copy of it, such as a smaller one. Classes named by WordNet ids are also judged along its tree: the hierarchical cost
of the challenge of 2010, and how many wrong guesses are of the right super-class.
"""

LOCALIZE = """Say where the classes are that a trained network sees, as boxes, and how often they are right.

  python main.py localize --workdir=runs/resnet50 --boxes=boxes.csv
  python main.py localize --workdir=runs/resnet50 --boxes=ILSVRC/Annotations/CLS-LOC --method=cam

The challenge's second task: five guesses of class and box, right when the class is and the box overlaps any instance
with an intersection over union of 0.5. Boxes come from class activation maps, which need none to learn from, and from
a ridge regression on the last feature map, which learns from those of the training images. Without --method both are
compared, with two boxes that look at nothing.

Boxes are read from a CSV (file, x_min, y_min, x_max, y_max) or from a folder of PASCAL VOC's XML files. What is made
is kept beside the run's predictions, where `main.py score --task=localization` can score it.
"""

EXPORT = """Write the weights of a run as .safetensors, as torchvision or timm loads them.

  python main.py export --workdir=runs/resnet50 --checkpoint=best --out=resnet50.safetensors

The averaged weights where the run keeps them. The file also says which network it is of and how images are prepared.
"""

PREPARE = """Bring a data set into the one form that training reads: tfds, as ArrayRecord.

  python main.py prepare fractal                                   the embedded default, drawn in seconds
  python main.py prepare folder:PATH                               split/class/*.jpg, as folders or zips
  python main.py prepare imagenet2012 --manual_dir=DIR             the official archives (needs TensorFlow, once)
  python main.py prepare imagenet2012 --short_side=400 --quality=90    and a smaller copy beside it

A data set that is there as TFRecord is converted, not built again. What is prepared already is left alone.
"""

SCORE = """Score predictions that anyone made.

  python main.py score --predictions=guesses.txt --labels=labels.txt
  python main.py score --predictions=runs/resnet50/predictions/imagenet2012_validation.npz --real=real.json

Text files are in the challenge's form: a line for each image, up to five labels in order of falling confidence,
and a file with one label a line. Files of `evaluate` carry their labels.

  python main.py score --set=real --predictions=runs/resnet50/predictions/imagenet2012_validation.npz
  python main.py score --set=c --predictions=runs/resnet50/predictions

Files of `evaluate` can be scored again by the rule of a set, whose names `evaluate --help` lists: also by labels of
other people of the same images (real, multilabel), which are read from their prepared data set.

  python main.py score --task=localization --predictions=guesses.txt --labels=ILSVRC2012_validation_ground_truth.txt \\
      --boxes=Annotations/CLS-LOC/val --blacklist=ILSVRC2015_clsloc_validation_blacklist.txt
  python main.py score --task=detection --predictions=detections.txt --boxes=Annotations/DET/val --images=val.txt \\
      --classes=meta_det.mat --blacklist=ILSVRC2015_det_validation_blacklist.txt --against=others.txt

The challenge's other tasks: after each label "xmin ymin xmax ymax"; a detection a line, "image class confidence xmin
ymin xmax ymax". Boxes are a folder of XML files, or a CSV. With --against, who wins more classes.
"""

COMPARE = """Say which differences between finished runs are real: a page, with tables and pictures.

  python main.py compare runs/decade                                 a sweep
  python main.py compare runs/demo/alexnet runs/demo/resnet18 --out=runs/demo

Runs of one configuration with several seeds count as one system. Runs of different budgets, data sets, splits or label
sets are refused; --allow_mixed compares them all the same, and every table says what differs.
"""

AUDIT = """Find labels that are probably wrong, and say what every error rate is without them.

  python main.py audit --predictions runs/resnet50                            a finished run, on the split it scored
  python main.py audit --predictions a.npz b.npz --compare a.npz c.npz        the mean of two suspects, two compared
  python main.py audit --predictions runs/resnet50 --verdicts=checked.csv     rates also by what people decided

By confident learning with cleanlab. Writes audit.html, suspects.csv and
tables/. Predictions must be of images that were not trained on; those of a training split are refused. The verdicts
are suspects.csv with a column `verdict` more: keep, suggested, both or neither of the two labels shown.
"""

HUMAN = """Guess images yourself, in a browser: five guesses each, with search over the classes.

  python main.py human --data.name=imagenet2012 --images=100 --seed=0 --name=Ada --workdir=games/ada
  python main.py human … --finish                            store what was seen so far, and score it

Serves one page to this machine alone; on a remote one, forward the port that is printed (ssh -L). Ctrl-C stops, the
same command goes on with the next image. At the end, predictions are stored as those of `evaluate`, for `score`,
`ensemble` and others, and both error rates are printed with 95 % intervals beside the two people of the challenge.
"""

ENSEMBLE = """Average stored predictions of several systems, and say what each of them adds.

  python main.py ensemble --members runs/resnet50 runs/vgg16 runs/googlenet --out=ensemble.npz
  python main.py ensemble --members a.npz b.npz --weights=validation --select a_held_out.npz b_held_out.npz
  python main.py ensemble --config=configs/ensembles/googlenet.py                  the commands that make its members
  python main.py ensemble --config=configs/ensembles/googlenet.py --members runs/googlenet/*/googlenet144.npz

Members are files of `evaluate`, or workdirs of finished runs, on the same images. Weights are uniform, numbers with
commas, or found on another split, which --select names by predictions of the same members in the same order:
validation (lowest cross-entropy), greedy (selection with replacement), accuracy (in proportion to it). Prints what
leaving a member out changes, and the paired difference from the best member.
"""

CALIBRATE = """Say how far a system's probabilities can be trusted: a page, with tables and pictures.

  python main.py calibrate --predictions=runs/resnet50 --out=runs/resnet50/calibration
  python main.py calibrate --predictions=runs/resnet50 --fit=held_out.npz

Expected calibration error and how much of it so few images would show in any case, negative log likelihood, Brier
score, reliability, risk against coverage, the commonest confusions. --fit finds a temperature on predictions of
another split, and everything is shown before and after.
"""

MODELS = """Print the story: year, entry or network, sizes, published errors, and ours where measured.

  python main.py models                    everything
  python main.py models resnet             the networks with "resnet" in their name
  python main.py models resnet50           one network: paper, sizes, results, preprocessing, options
  python main.py models --runs runs/*      with the errors of finished runs on ImageNet beside the published ones
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the process's exit code."""
    parser, known, rest = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        overrides = _overrides(rest, getattr(known, "prefixes", ()))
        return known.run(known, overrides)
    except UserError as error:
        print(f"\n{parser.prog}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\n{parser.prog}: stopped before there was anything to save", file=sys.stderr)
        return EXIT_STOPPED


def _parse(arguments: list[str]) -> tuple[argparse.ArgumentParser, argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="main.py",
        description="Every winning system of the ImageNet challenge, and what came after, under one budget.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_train,
        _add_sweep,
        _add_evaluate,
        _add_localize,
        _add_export,
        _add_prepare,
        _add_score,
        _add_compare,
        _add_audit,
        _add_human,
        _add_ensemble,
        _add_calibrate,
        _add_models,
    ):
        add(commands)
    known, rest = parser.parse_known_args(arguments)
    return parser, known, rest


def _command(commands: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=text.splitlines()[0],
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "train", TRAIN)
    parser.epilog = EXIT_CODES
    parser.add_argument("--config", required=True, metavar="FILE[:ARGUMENT]", help="a recipe, such as configs/*.py")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="everything about the run goes here")

    def run(known: argparse.Namespace, overrides: Overrides) -> int:
        from imagenet_repro.config import load_config
        from imagenet_repro.runs.train import train

        return train(load_config(known.config, overrides["config"]), known.workdir)

    parser.set_defaults(run=run, prefixes=("config",))


def _add_sweep(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "sweep", SWEEP)
    parser.epilog = EXIT_CODES
    parser.add_argument("--config", metavar="FILE[:ARGUMENT]", help="a sweep, such as configs/sweeps/*.py")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="everything about the sweep goes here")
    parser.add_argument("--status", action="store_true", help="print how far it is, and do nothing")
    parser.add_argument("--dry_run", action="store_true", help="print what would run and what it would cost")
    parser.add_argument("--launcher", choices=("local", "slurm"), default="local", help="where workers run")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="default: one for each GPU here, else one")
    parser.add_argument("--storage", default="", metavar="URL", help="of the trials (default: SQLite in the workdir)")
    parser.add_argument_group("--slurm.KEY=VALUE", "of the jobs: partition, time (minutes), gpus_per_node, mem, …")

    def run(known: argparse.Namespace, overrides: Overrides) -> int:
        _refuse_for_status(known, overrides)
        from imagenet_repro.cli import evaluate

        if known.status:
            return evaluate.sweep_status(known.workdir, known.storage)
        return evaluate.sweep(
            known.config,
            known.workdir,
            overrides=overrides["config"],
            dry_run=known.dry_run,
            launcher=known.launcher,
            workers=known.workers,
            storage=known.storage,
            slurm=overrides["slurm"],
        )

    parser.set_defaults(run=run, prefixes=("config", "slurm"))


def _refuse_for_status(known: argparse.Namespace, overrides: Overrides) -> None:
    """Raises UserError where a sweep lacks its file, or `--status` stands beside what it does not read."""
    if not known.status and known.config is None:
        raise UserError("which sweep? --config=configs/sweeps/decade.py, or --status for one that was begun")
    others = known.config or known.dry_run or known.workers or known.launcher != "local" or any(overrides.values())
    if known.status and others:
        raise UserError("--status shows a sweep that was begun; beside it, only --workdir and --storage are read")


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "evaluate", EVALUATE)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workdir", metavar="DIR", help="of the run")
    what.add_argument("--weights", metavar="FILE", help="published weights: .safetensors, .pth, or .npz of ViT")
    parser.add_argument("--checkpoint", metavar="WHICH", help="of --workdir: last (default), best, or a step")
    parser.add_argument("--out", metavar="FILE", help="where the predictions go (default: in the workdir)")
    parser.add_argument(
        "--set", default="", metavar="NAME", help="an evaluation set of ImageNet's classes (see above)"
    )
    parser.add_argument("--mappings", default="", metavar="DIR", help="of ObjectNet's download, for --set=objectnet")
    parser.add_argument("--model", default="", metavar="NAME", help="network of --weights (default: as the file says)")
    parser.add_argument("--options", metavar="DICT", help="of that network, such as \"{'auxiliary': False}\"")
    parser.add_argument(
        "--drop_background", action="store_true", help="the file's first class is TensorFlow's background"
    )
    parser.add_argument(
        "--protocol",
        default="crop",
        metavar="NAME",
        help="10crop, googlenet144, vgg_dense, …; A,B: several; A+B: mixed",
    )
    parser.add_argument_group("--protocol.KEY=VALUE", "of the protocol: scales, squares, positions, flips, average")
    parser.add_argument_group("--data.KEY=VALUE", "another data set or split: any key of the section `data`")

    def run(known: argparse.Namespace, overrides: Overrides) -> int:
        _refuse_ignored(known)
        from imagenet_repro.cli import evaluate
        from imagenet_repro.config import parse_literal

        common = {"data": overrides["data"], "out": known.out}
        common |= {"protocol": known.protocol, "settings": overrides["protocol"]}
        common |= {"set_name": known.set, "mappings": known.mappings}
        if known.workdir is not None:
            return evaluate.evaluate(known.workdir, which=known.checkpoint or "last", **common)
        return evaluate.evaluate_weights(
            known.weights,
            name=known.model,
            options=None if known.options is None else parse_literal(known.options),
            drop_background=known.drop_background,
            **common,
        )

    parser.set_defaults(run=run, prefixes=("data", "protocol"))


def _refuse_ignored(known: argparse.Namespace) -> None:
    """Raises UserError for an option of `evaluate` that what is evaluated does not read."""
    if known.workdir is None:
        ignored, chosen, other = {"--checkpoint": known.checkpoint is not None}, "--weights", "--workdir"
    else:
        given = known.model != "", known.options is not None, known.drop_background
        ignored = dict(zip(("--model", "--options", "--drop_background"), given, strict=True))
        chosen, other = "--workdir", "--weights"
    for option, is_given in ignored.items():
        if is_given:
            raise UserError(f"{option} belongs to {other} and would be ignored beside {chosen}; leave it out")


def _add_localize(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "localize", LOCALIZE)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="of the run")
    parser.add_argument("--boxes", required=True, metavar="PATH", help="annotated ones: a CSV or a folder of XML")
    parser.add_argument("--checkpoint", default="last", metavar="WHICH", help="last (default), best, or a step")
    parser.add_argument("--method", choices=("cam", "regression"), help="default: both")
    parser.add_argument(
        "--threshold", type=float, default=0.2, metavar="SHARE", help="of a map's highest value (default 0.2)"
    )
    parser.add_argument_group("--data.KEY=VALUE", "another data set or split: any key of the section `data`")

    def run(known: argparse.Namespace, overrides: Overrides) -> int:
        from imagenet_repro.cli import evaluate

        return evaluate.localize(
            known.workdir,
            boxes=known.boxes,
            which=known.checkpoint,
            method=known.method,
            threshold=known.threshold,
            data=overrides["data"],
        )

    parser.set_defaults(run=run, prefixes=("data",))


def _add_export(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "export", EXPORT)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="of the run")
    parser.add_argument("--checkpoint", default="last", metavar="WHICH", help="last (default), best, or a step")
    parser.add_argument("--out", required=True, metavar="FILE.safetensors", help="where the weights go")

    def run(known: argparse.Namespace, _: Overrides) -> int:
        from imagenet_repro.cli import evaluate

        return evaluate.export(known.workdir, which=known.checkpoint, out=known.out)

    parser.set_defaults(run=run)


def _add_prepare(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "prepare", PREPARE)
    parser.add_argument("name", help="fractal, folder:PATH, or any tfds image-classification data set")
    parser.add_argument(
        "--data_dir", default="", metavar="DIR", help="default: $TFDS_DATA_DIR or ~/tensorflow_datasets"
    )
    parser.add_argument("--manual_dir", metavar="DIR", help="where archives lie that a person must download")
    parser.add_argument(
        "--name", dest="as_name", metavar="NAME", help="of a folder: data set (default: its last part)"
    )
    parser.add_argument("--short_side", type=int, metavar="PIXELS", help="also write a copy no larger than this")
    parser.add_argument("--quality", type=int, default=90, metavar="Q", help="JPEG quality of that copy (default 90)")
    parser.add_argument_group(
        "--fractal.KEY=VALUE", "of the default: categories, train_images, validation_images, size, seed, …"
    )

    def run(known: argparse.Namespace, overrides: Overrides) -> int:
        from imagenet_repro.cli import evaluate

        return evaluate.prepare(
            known.name,
            data_dir=known.data_dir,
            manual_dir=known.manual_dir,
            as_name=known.as_name,
            short_side=known.short_side,
            quality=known.quality,
            fractal=overrides["fractal"],
        )

    parser.set_defaults(run=run, prefixes=("fractal",))


def _add_score(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "score", SCORE)
    parser.add_argument(
        "--task", choices=tuple(TASK_OPTIONS), default="classification", help="of the challenge (classification)"
    )
    parser.add_argument("--predictions", required=True, metavar="FILE", help="text in the challenge's form, or .npz")
    parser.add_argument("--labels", metavar="FILE", help="one label a line (default: those in the .npz)")
    parser.add_argument(
        "--guesses", type=int, default=ALL_GUESSES, metavar="N", help="errors with 1 to N guesses (default 5)"
    )
    parser.add_argument("--real", metavar="FILE", help="ReaL label lists (real.json)")
    parser.add_argument("--set", default="", metavar="NAME", help="score by the rule of an evaluation set")
    parser.add_argument("--data_dir", default="", metavar="DIR", help="of the set's labels (default: as for prepare)")
    parser.add_argument("--mappings", default="", metavar="DIR", help="of ObjectNet's download, for --set=objectnet")
    parser.add_argument("--boxes", metavar="PATH", help="annotated ones: a folder of XML, or a CSV")
    parser.add_argument("--images", metavar="FILE", help="lines NAME NUMBER (default: all that have boxes, sorted)")
    parser.add_argument("--classes", metavar="FILE", help="meta*.mat of the devkit, or lines NUMBER ID")
    parser.add_argument("--blacklist", metavar="FILE", help="images, or images and classes, whose boxes do not count")
    parser.add_argument("--against", metavar="FILE", help="another entry's detections")

    def run(known: argparse.Namespace, _: Overrides) -> int:
        _refuse_of_other_tasks(known)
        return {"classification": _classified, "localization": _localized, "detection": _detected}[known.task](known)

    parser.set_defaults(run=run)


TASK_OPTIONS = {  # of `score`, beside --predictions
    "classification": ("labels", "guesses", "real", "set", "data_dir", "mappings"),
    "localization": ("labels", "boxes", "images", "classes", "blacklist"),
    "detection": ("boxes", "images", "classes", "blacklist", "against"),
}
TASK_NEEDS = {"classification": (), "localization": ("boxes",), "detection": ("boxes", "classes")}


def _refuse_of_other_tasks(known: argparse.Namespace) -> None:
    """Raises UserError for an option of `score` that the task does not read, or that it lacks."""
    for option in sorted({option for options in TASK_OPTIONS.values() for option in options}):
        given = getattr(known, option) not in (None, "", ALL_GUESSES)
        if given and option not in TASK_OPTIONS[known.task]:
            tasks = " and ".join(task for task, options in TASK_OPTIONS.items() if option in options)
            raise UserError(
                f"--{option} belongs to --task={tasks} and would be ignored for {known.task}; leave it out"
            )
        if not given and option in TASK_NEEDS[known.task]:
            raise UserError(f"--task={known.task} needs --{option}; see main.py score --help")


def _classified(known: argparse.Namespace) -> int:
    if known.set:
        return _score_set(known)
    if known.mappings or known.data_dir:
        raise UserError("--mappings and --data_dir belong to --set and would be ignored; leave them out")
    from imagenet_repro.scoring import classification

    card = classification.score(known.predictions, known.labels, guesses=known.guesses, real_path=known.real)
    classification.show(card)
    return EXIT_FINISHED


def _score_set(known: argparse.Namespace) -> int:
    if known.labels or known.real or known.guesses != ALL_GUESSES:
        raise UserError("--labels, --real and --guesses do not go with --set, which has labels and a rule of its own")
    from imagenet_repro.inference import evaluation_sets

    evaluation_sets.score_stored(known.predictions, known.set, data_dir=known.data_dir, mappings=known.mappings)
    return EXIT_FINISHED


def _localized(known: argparse.Namespace) -> int:
    from imagenet_repro.scoring.localization import errors

    card = errors.score(
        known.predictions,
        known.boxes,
        labels=known.labels,
        images=known.images,
        blacklist=known.blacklist,
        classes=known.classes,
    )
    errors.show(card)
    return EXIT_FINISHED


def _detected(known: argparse.Namespace) -> int:
    from imagenet_repro.scoring import detection

    entries = [known.predictions] if known.against is None else [known.predictions, known.against]
    card = detection.score(entries, known.boxes, known.classes, images=known.images, blacklist=known.blacklist)
    detection.show(card)
    return EXIT_FINISHED


def _add_compare(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "compare", COMPARE)
    parser.add_argument("workdirs", nargs="+", metavar="DIR", help="workdirs of finished runs, or of a sweep")
    parser.add_argument("--out", metavar="DIR", help="where the page goes (default: the sweep's workdir, or here)")
    parser.add_argument("--storage", default="", metavar="URL", help="of a sweep's trials, where it has a password")
    parser.add_argument("--allow_mixed", action="store_true", help="also runs that were not given the same")
    parser.add_argument("--people", nargs="+", default=[], metavar="FILE", help="predictions of games of `human`")

    def run(known: argparse.Namespace, _: Overrides) -> int:
        from imagenet_repro.cli import compare

        options = {"allow_mixed": known.allow_mixed, "storage": known.storage, "people": known.people}
        return compare.compare(known.workdirs, known.out, **options)

    parser.set_defaults(run=run)


def _add_audit(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "audit", AUDIT)
    what = "files of predictions, or workdirs of finished runs"
    parser.add_argument("--predictions", nargs="+", required=True, metavar="FILE_or_RUN", help=f"{what}, of one split")
    parser.add_argument("--compare", nargs="+", default=[], metavar="FILE_or_RUN", help="compared pair by pair")
    parser.add_argument("--verdicts", metavar="FILE", help="suspects.csv with people's verdicts")
    parser.add_argument("--out", metavar="DIR", help="where the page goes (default: the first run's workdir, or here)")
    parser.add_argument(
        "--filter",
        choices=("prune_by_noise_rate", "both"),
        default="prune_by_noise_rate",
        help="both: suspect only what is also among the least probable of its class",
    )
    parser.add_argument(
        "--rank",
        choices=("normalized_margin", "self_confidence"),
        default="normalized_margin",
        help="what comes first: the lowest p(label) - max p(other) (default), or the lowest p(label)",
    )
    parser.add_argument(
        "--wrong_share", type=float, metavar="SHARE", help="of the labels, for what it does to a comparison (0.0583)"
    )

    def run(known: argparse.Namespace, _: Overrides) -> int:
        from imagenet_repro.cli import audit

        share = {} if known.wrong_share is None else {"wrong_share": known.wrong_share}
        return audit.audit(
            known.predictions,
            compare=known.compare,
            verdicts=known.verdicts,
            out=known.out,
            filter_by=known.filter,
            rank_by=known.rank,
            **share,
        )

    parser.set_defaults(run=run)


def _add_ensemble(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "ensemble", ENSEMBLE)
    parser.add_argument("--members", nargs="+", default=[], metavar="FILE_OR_RUN", help="predictions to average")
    parser.add_argument("--config", metavar="FILE[:ARGUMENT]", help="a published one, such as configs/ensembles/*.py")
    parser.add_argument("--weights", metavar="HOW", help="uniform (default), validation, greedy, accuracy, or W1,W2,…")
    parser.add_argument("--average", choices=("probabilities", "logits"), help="of what (default: probabilities)")
    parser.add_argument(
        "--select", nargs="+", default=[], metavar="FILE_OR_RUN", help="where weights are found: the members elsewhere"
    )
    parser.add_argument("--out", metavar="FILE", help="keep the ensemble's own predictions")

    def run(known: argparse.Namespace, _: Overrides) -> int:
        from imagenet_repro.cli import ensemble

        return ensemble.ensemble(
            known.members,
            config=known.config,
            weights=known.weights,
            average=known.average,
            select=known.select,
            out=known.out,
        )

    parser.set_defaults(run=run)


def _add_human(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "human", HUMAN)
    parser.add_argument("--split", default="validation", metavar="SPLIT", help="of the images (default validation)")
    parser.add_argument("--images", type=int, default=100, metavar="N", help="how many (default 100)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="draws them and their order (default 0)")
    parser.add_argument("--name", required=True, help="who guesses, for tables")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the guesses, and at the end the predictions")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of the page (default: any free one)")
    parser.add_argument("--finish", action="store_true", help="store and score what was seen so far")
    parser.add_argument_group("--data.KEY=VALUE", "the data set: name, data_dir, train_split (of the examples)")

    def run(known: argparse.Namespace, overrides: Overrides) -> int:
        from imagenet_repro.cli import human

        return human.human(
            overrides["data"],
            split=known.split,
            images=known.images,
            seed=known.seed,
            name=known.name,
            workdir=known.workdir,
            port=known.port,
            finish=known.finish,
        )

    parser.set_defaults(run=run, prefixes=("data",))


def _add_calibrate(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "calibrate", CALIBRATE)
    parser.add_argument("--predictions", required=True, metavar="FILE_OR_RUN", help="of one system")
    parser.add_argument("--fit", metavar="FILE_OR_RUN", help="its predictions on another split, for a temperature")
    parser.add_argument("--out", metavar="DIR", help="where the page goes (default: the run's workdir, or here)")

    def run(known: argparse.Namespace, _: Overrides) -> int:
        from imagenet_repro.cli import calibrate

        return calibrate.calibrate(known.predictions, known.fit, known.out)

    parser.set_defaults(run=run)


def _add_models(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "models", MODELS)
    parser.add_argument("pattern", nargs="?", default="", help="part of a name, or a name")
    parser.add_argument("--runs", nargs="+", default=[], metavar="DIR", help="workdirs of finished runs on ImageNet")

    def run(known: argparse.Namespace, _: Overrides) -> int:
        from imagenet_repro.cli import evaluate

        return evaluate.show_models(known.pattern, known.runs)

    parser.set_defaults(run=run)


def _overrides(rest: list[str], prefixes: tuple[str, ...]) -> Overrides:
    """Texts by prefix and key, of arguments of the form `--PREFIX.KEY=VALUE` or `--PREFIX.KEY VALUE`.

    Raises:
      UserError: an argument of another form.
    """
    found: Overrides = {prefix: {} for prefix in prefixes}
    words = iter(rest)
    for word in words:
        name, equals, value = word.partition("=")
        prefix, dot, key = name.removeprefix("--").partition(".")
        if not (name.startswith("--") and dot and prefix in found):
            raise UserError(f"unknown argument '{word}'; see --help")
        if not equals:
            value = next(words, None)
        if value is None or value.startswith("--"):
            raise UserError(f"{name} needs a value: {name}=VALUE")
        found[prefix][key] = value
    return found


if __name__ == "__main__":
    sys.exit(main())
