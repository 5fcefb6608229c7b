"""`main.py audit`: labels that are probably wrong, and error rates without them."""

from typing import Any

from imagenet_repro.cli.command import Command, Option

HELP = """Find labels that are probably wrong, and report every error rate without them.

  python main.py audit --predictions runs/resnet50                            a finished run, on the split it scored
  python main.py audit --predictions a.npz b.npz --compare a.npz c.npz        suspects from a mean; two compared
  python main.py audit --predictions runs/resnet50 --verdicts=checked.csv     also the rates by human verdicts

Uses confident learning (cleanlab). Writes audit.html, suspects.csv and tables/. Predictions must be for images that
were not trained on; predictions for a training split are refused. The file of verdicts is suspects.csv with one more
column, `verdict`: keep, suggested, both or neither of the two labels shown.
"""

PREDICTIONS = "files of predictions, or workdirs of finished runs"


def run(*, wrong_share: float | None, **options: Any) -> int:
    """Write the suspects and their page; return the exit code."""
    from imagenet_repro.runs.audit import audit

    share: dict[str, Any] = {} if wrong_share is None else {"wrong_share": wrong_share}
    return audit(**options, **share)


COMMAND = Command(
    name="audit",
    help=HELP,
    run=run,
    options=(
        Option(
            "--predictions",
            parameter="paths",
            nargs="+",
            required=True,
            metavar="FILE_or_RUN",
            help=f"{PREDICTIONS}, of one split",
        ),
        Option("--compare", nargs="+", default=(), metavar="FILE_or_RUN", help=f"{PREDICTIONS}, compared in pairs"),
        Option("--verdicts", metavar="FILE", help="suspects.csv with human verdicts"),
        Option(
            "--out",
            metavar="DIR",
            writes="directory",
            help="the directory for the page (default: the first run's workdir, otherwise the current directory)",
        ),
        Option(
            "--filter",
            parameter="filter_by",
            choices=("prune_by_noise_rate", "both"),
            default="prune_by_noise_rate",
            help="both: only suspects that are also among the least probable images of their class",
        ),
        Option(
            "--rank",
            parameter="rank_by",
            choices=("normalized_margin", "self_confidence"),
            default="normalized_margin",
            help="order of the suspects: by p(label) - max p(other) (default) or by p(label), lowest first",
        ),
        Option(
            "--wrong_share",
            type=float,
            low=0,
            high=1,
            metavar="SHARE",
            help="share of wrong labels, for their effect on a comparison (default: 0.0583, ImageNet's)",
        ),
    ),
)
