"""`main.py human`: a person labels images in a browser."""

from typing import Any

from imagenet_repro.cli.command import Command, Option, Settings

HELP = """Guess the classes of images yourself, in a browser: five guesses each, with a search over the classes.

  python main.py human --data.name=imagenet2012 --images=100 --seed=0 --name=Ada --workdir=games/ada
  python main.py human … --finish                            store and score the guesses made so far

Serves one page to this machine only; on a remote machine, forward the port that is printed (ssh -L). Ctrl-C stops,
and the same command continues with the next image. At the end, predictions are stored in the format of `evaluate`,
for `score`, `ensemble` and the other commands, and both error rates are printed with 95 % intervals for new images
beside the two annotators of the challenge.
"""


def run(**options: Any) -> int:
    """Serve the game until it is finished or stopped; return the exit code."""
    from imagenet_repro.human.play import play

    return play(**options)


COMMAND = Command(
    name="human",
    help=HELP,
    run=run,
    options=(
        Option("--split", default="validation", metavar="SPLIT", help="the split to label (default: validation)"),
        Option("--images", type=int, default=100, metavar="N", help="number of images (default 100)"),
        Option(
            "--seed",
            type=int,
            low=0,
            high=2**31 - 1,
            default=0,
            metavar="N",
            help="selects the images and their order (default 0)",
        ),
        Option("--name", required=True, help="the person's name, for tables"),
        Option("--workdir", required=True, metavar="DIR", help="the directory for the guesses and the predictions"),
        Option("--port", type=int, default=0, metavar="N", help="the port of the page (default: any free port)"),
        Option("--finish", is_switch=True, help="store and score the guesses made so far"),
    ),
    settings=(Settings("data", "the data set: name, data_dir, train_split (for the examples)"),),
)
