"""`main.py models`: the history of the challenge and every network, in the terminal."""

import sys
from collections.abc import Sequence

from imagenet_repro.cli.command import Command, Option
from imagenet_repro.config.run import Taps
from imagenet_repro.errors import EXIT_FINISHED, UserError, nearest

HELP = """Print the history: year, entry or network, sizes, published errors, and errors measured here.

  python main.py models                    everything
  python main.py models resnet             the networks with "resnet" in their name
  python main.py models clip               networks with an image tower and a text tower
  python main.py models resnet50           one network: paper, sizes, results, preprocessing, options
  python main.py models --runs runs/*      with the errors of finished runs on ImageNet beside the published ones
  python main.py models --flops=real       multiply-adds without taps of convolutions on padding
"""


def run(*, pattern: str = "", runs: Sequence[str] = (), flops: Taps = "full") -> int:
    """Print the entries and the networks whose name contains `pattern`, or all about one; return the exit code.

    Args:
      pattern: part of a name; empty: everything.
      runs: workdirs of finished runs, whose errors on ImageNet are shown beside the published ones. A shell pattern
        such as `runs/*` also names other files: any that is not a finished run is left out, with a note on stderr.
      flops: the taps of convolutions that count as multiply-adds: "full", all, as papers do; "real", those on pixels.

    Raises:
      UserError: no name of a network contains the pattern, or the result of a run is damaged.
    """
    from imagenet_repro import models
    from imagenet_repro.models.image_text import TWO_TOWERS
    from imagenet_repro.report import zoo_listing
    from imagenet_repro.storage.workdir import Workdir
    from imagenet_repro.zoo.entries import ENTRIES
    from imagenet_repro.zoo.systems import SYSTEMS

    network = models.canonical(pattern)
    names = [name for name in models.names() if pattern in name]
    two_towers = [name for name in TWO_TOWERS if pattern in name]
    if network not in models.names() and not names and not two_towers:
        known = (*models.names(), *TWO_TOWERS)
        raise UserError(f"no network's name contains '{pattern}': {nearest(pattern, known)}")
    unfinished = [path for path in runs if not Workdir(path).is_finished]
    if unfinished:
        print(f"left out, since they hold no finished run: {', '.join(unfinished)}", file=sys.stderr)
    measured = zoo_listing.measured_in(Workdir(path).result() for path in runs if path not in unfinished)
    if network in models.names():
        zoo_listing.describe(network, measured.get(network))
        return EXIT_FINISHED
    if names:
        zoo_listing.show(names, measured, () if pattern else ENTRIES, () if pattern else SYSTEMS, taps=flops)
    if two_towers:
        zoo_listing.show_two_towers(two_towers)
    return EXIT_FINISHED


COMMAND = Command(
    name="models",
    help=HELP,
    run=run,
    options=(
        Option("pattern", nargs="?", default="", help="part of a name, or a name"),
        Option(
            "--flops",
            default="full",
            choices=("full", "real"),
            help="multiply-adds with all taps of convolutions, as papers count, or without those on padding",
        ),
        Option("--runs", nargs="+", default=(), metavar="DIR", help="workdirs of finished runs on ImageNet"),
    ),
)
