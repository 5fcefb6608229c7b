"""`main.py export`: a run's weights as a file for other libraries."""

from typing import Any

from imagenet_repro.cli.command import Command, Option

HELP = """Write the weights of a run as .safetensors, as torchvision or timm loads them.

  python main.py export --workdir=runs/resnet50 --checkpoint=best --out=resnet50.safetensors

Writes the averaged weights where the run keeps an average. The file also states the network and how images are
preprocessed.
"""


def run(**options: Any) -> int:
    """Write the weights of a run; return the exit code."""
    from imagenet_repro.runs.export import export

    return export(**options)


COMMAND = Command(
    name="export",
    help=HELP,
    run=run,
    options=(
        Option("--workdir", required=True, metavar="DIR", help="the workdir of a run"),
        Option(
            "--checkpoint",
            parameter="which",
            default="last",
            metavar="WHICH",
            help="last (default), best, or a step",
        ),
        Option(
            "--out",
            required=True,
            metavar="FILE.safetensors",
            writes="file",
            help="the file for the weights",
        ),
    ),
)
