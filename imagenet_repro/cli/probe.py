"""`main.py probe`: judge frozen features by simple classifiers."""

from typing import Any

from imagenet_repro.cli.command import NETWORK, PREPROCESS, Command, Option, Settings, parse_network_options

HELP = """Judge the frozen features of a network by simple classifiers on any labelled data set.

  python main.py probe --workdir=runs/resnet50 --data.name=cifar10 --data.eval_split=test
  python main.py probe --weights=dinov2.pth --model=vit_small_patch14_dinov2 --data.name=imagenet2012 --method=linear
  python main.py probe --weights=resnet50.pth --model=resnet50 --data.name=cifar10 --method=knn,fewshot

Methods:

  linear    heads on 13 learning rates x layers, trained together by SGD (DINOv2's linear evaluation)
  knn       weighted vote of the nearest training images, k of 10, 20, 100, 200 (DINO)
  logistic  logistic regression by L-BFGS; the regularisation is searched for (CLIP)
  fewshot   ridge regression on 1, 5, 10, 25 images of each class, three draws (big_vision)

One pass over data.train_split and the scored split (data.test_split, otherwise data.eval_split) writes the features to
disk; every method reads them there, and a second call computes nothing again. Head, k and regularisation are selected
on a held-out part of the training images (--probe.held_out); the table also says what selecting on the scored split
would have claimed.

  python main.py probe --workdir=runs/resnet50 --method=linear --probe.linear.steps=1250 --probe.linear.crops=random
  python main.py probe --workdir=runs/resnet50 --method=fewshot --probe.fewshot.shots=1,5 --probe.layer=pooled

Writes probe.json and a file of predictions for each classifier (.npz), which `ensemble`, `audit` and `calibrate` read.
"""


def run(
    *,
    workdir: str | None,
    checkpoint: str | None,
    weights: str | None,
    model: str,
    options: str | None,
    preprocess: dict[str, str],
    **common: Any,
) -> int:
    """Judge the features of a run's checkpoint or of a file of weights; return the exit code."""
    parsed = parse_network_options(
        workdir=workdir, checkpoint=checkpoint, model=model, options=options, preprocess=preprocess
    )
    from imagenet_repro.runs.probe import probe_run, probe_weights

    if workdir is not None:
        return probe_run(workdir, which=checkpoint or "last", **common)
    return probe_weights(str(weights), name=model, options=parsed, preprocess=preprocess, **common)


COMMAND = Command(
    name="probe",
    help=HELP,
    run=run,
    options=(
        *NETWORK,
        Option(
            "--method",
            parameter="methods",
            default="linear,knn,logistic,fewshot",
            metavar="A,B",
            help="linear, knn, logistic, fewshot (default: all)",
        ),
        Option(
            "--out",
            metavar="DIR",
            writes="directory",
            help="the directory of results (default: probe in the workdir; with --weights probes/MODEL)",
        ),
        Option(
            "--features",
            metavar="DIR",
            writes="directory",
            help="the directory of stored features, which several probes may share (default: features in --out)",
        ),
    ),
    settings=(
        Settings("probe", "layer, held_out, seed, and keys of a method: linear.steps, knn.k, …", parameter="settings"),
        PREPROCESS,
        Settings("data", "the data set and its splits: any key of the section `data`"),
    ),
    one_of=("--workdir", "--weights"),
)
