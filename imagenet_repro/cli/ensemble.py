"""`main.py ensemble`: the averaged predictions of several systems."""

from typing import Any

from imagenet_repro.cli.command import Command, Option

HELP = """Average the stored predictions of several systems, and report what each of them contributes.

  python main.py ensemble --members runs/resnet50 runs/vgg16 runs/googlenet --out=ensemble.npz
  python main.py ensemble --members a.npz b.npz --weights=validation --select a_held_out.npz b_held_out.npz
  python main.py ensemble --config=configs/ensembles/googlenet.py                  the commands that make its members
  python main.py ensemble --config=configs/ensembles/googlenet.py --members runs/googlenet/*/googlenet144.npz

Members are files that `evaluate` wrote, or workdirs of finished runs, on the same images. Weights are uniform,
numbers with commas, or found on another split, for which --select names predictions of the same members in the same
order: validation (lowest cross-entropy), greedy (selection with replacement), accuracy (in proportion to it). Prints
the effect of leaving each member out, and the paired difference from the best member.
"""


def run(**options: Any) -> int:
    """Average the predictions of members and print the error rates; return the exit code."""
    from imagenet_repro.runs.ensemble import ensemble

    return ensemble(**options)


COMMAND = Command(
    name="ensemble",
    help=HELP,
    run=run,
    options=(
        Option("--members", nargs="+", default=(), metavar="FILE_OR_RUN", help="predictions to average"),
        Option(
            "--config",
            metavar="FILE[:ARGUMENT]",
            help="a published ensemble, such as configs/ensembles/googlenet.py",
        ),
        Option("--weights", metavar="HOW", help="uniform (default), validation, greedy, accuracy, or W1,W2,…"),
        Option("--average", choices=("probabilities", "logits"), help="averaged quantity (default: probabilities)"),
        Option(
            "--select",
            nargs="+",
            default=(),
            metavar="FILE_OR_RUN",
            help="predictions of the members on another split, on which weights are found",
        ),
        Option("--out", metavar="FILE", writes="file", help="a file for the predictions of the ensemble"),
    ),
)
