"""`main.py export`: a run's weights as a file for other libraries, or in a repository on the Hugging Face Hub."""

from imagenet_repro.cli.command import Command, Option
from imagenet_repro.errors import UserError

HELP = """Write the weights of a run as .safetensors, as torchvision or timm loads them.

  python main.py export --workdir=runs/resnet50 --checkpoint=best --out=resnet50.safetensors

Writes the averaged weights where the run keeps an average. The file also states the network and how images are
preprocessed.

  python main.py export --workdir=runs/resnet50 --hub=USER/NAME --license=apache-2.0

--hub uploads them to the Hugging Face Hub, with config.json (network, options, classes, preprocessing), recipe.py
(the configuration) and a model card with the result and its interval, where one was measured. It needs
pip install 'imagenet_repro[hub]' and a token (hf auth login). evaluate, predict and probe load them with
--weights=hub:USER/NAME, train with --config.model.weights=hub:USER/NAME. This was tested against a local server with
the Hub's layout, and not yet against the Hub itself.
"""


def run(*, workdir: str, which: str, out: str, hub: str, private: bool, license: str) -> int:
    """Write or upload the weights of a run; return the exit code."""
    if not out and not hub:
        raise UserError("--out=FILE.safetensors or --hub=USER/NAME is needed, or both")
    if not hub and (private or license != "unknown"):
        raise UserError("--private and --license belong to --hub and would be ignored without it; leave them out")
    from imagenet_repro.pretrained.hub import parse
    from imagenet_repro.runs.export import export

    repository = parse(hub, "--hub=") if hub else None
    return export(workdir, which=which, out=out, repository=repository, private=private, license_id=license)


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
        Option("--out", default="", metavar="FILE.safetensors", writes="file", help="the file for the weights"),
        Option(
            "--hub",
            default="",
            metavar="USER/NAME[@BRANCH]",
            help="a repository on the Hugging Face Hub, which is created if it does not exist",
        ),
        Option("--private", is_switch=True, help="with --hub: a new repository can be read by its owner alone"),
        Option(
            "--license",
            default="unknown",
            metavar="ID",
            help="with --hub: the license of the weights, such as apache-2.0 (default: unknown)",
        ),
    ),
)
