"""`main.py compare`: finished runs, or those of a sweep, on one page."""

from typing import Any

from imagenet_repro.cli.command import Command, Option
from imagenet_repro.errors import EXIT_FINISHED

HELP = """Show which differences between finished runs are significant: a page with tables and figures.

  python main.py compare runs/decade                                 a sweep
  python main.py compare runs/demo/alexnet runs/demo/resnet18 --out=runs/demo

Runs with the same name and configuration and different seeds count as one system. Systems are named by `train --name`,
otherwise by the network and, where that is not enough, by the settings that tell them apart.

Runs with different budgets, data sets, splits or label sets are refused; --allow_mixed compares them anyway, and every
table states what differs.

  python main.py compare runs/decade --protocol=10crop               by another protocol
  python main.py compare runs/decade --set=v2                        on an evaluation set

  python main.py compare runs/decade --target=top1:40,top1:35        what it took to reach an error

With --target, the page shows the images, operations, seconds and energy that each system needed until an evaluation
during training was at or below an error in percent, with performance profiles over all targets.

  python main.py compare runs/decade --watch                         while it runs

Runs that have not ended are shown with how far they are and with their curves, apart from the leaderboard, the verdict
and all tests. `curves.csv` beside the page has every logged point.

With --protocol or --set, the errors come from the predictions that `evaluate --protocol` and `evaluate --set` stored
in each run's workdir for the checkpoint at the end of the run. For a run that lacks them, the message shows the
command that stores them. A page has the errors of one protocol and one set, and names both.
"""


def run(**options: Any) -> int:
    """Write the page of a comparison and print the verdict; return the exit code."""
    from imagenet_repro.sweeps.compare import compare

    compare(**options)
    return EXIT_FINISHED


COMMAND = Command(
    name="compare",
    help=HELP,
    run=run,
    options=(
        Option("workdirs", nargs="+", metavar="DIR", help="workdirs of runs, or of a sweep"),
        Option(
            "--out",
            metavar="DIR",
            writes="directory",
            help="the directory for the page (default: the workdir if there is one, otherwise the current directory)",
        ),
        Option(
            "--protocol",
            default="",
            metavar="NAME",
            help="errors by this protocol of `evaluate` (default: the run's own)",
        ),
        Option(
            "--set",
            parameter="set_name",
            default="",
            metavar="NAME",
            help="errors on this evaluation set (default: each run's split)",
        ),
        Option(
            "--target",
            default="",
            metavar="ERRORS",
            help="what it took to reach these errors, such as top1:35,top5:15 (percent)",
        ),
        Option(
            "--watch",
            is_switch=True,
            help="write page and terminal again whenever a run has changed, until all have ended or Ctrl-C",
        ),
        Option("--storage", default="", metavar="URL", help="the database of a sweep's trials, with its password"),
        Option("--allow_mixed", is_switch=True, help="also compare runs under different conditions"),
        Option("--people", nargs="+", default=(), metavar="FILE", help="predictions from games of `human`"),
    ),
)
