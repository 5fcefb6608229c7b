"""`main.py train`: train one system."""

from imagenet_repro.cli.command import PREPROCESS, Command, Option, Settings

HELP = """Train one system, or resume the run in the workdir.

  python main.py train --config=configs/resnet.py:50 --config.budget=90ep --workdir=runs/resnet50
  python main.py train --config=configs/resnet.py:50 --dry_run                            what it would need and cost
  python main.py train --config=configs/resnet.py:18 --config.data.name=cifar10 --workdir=runs/cifar \\
      --config.data.eval_split=test --config.data.image_size=32 --config.model.options="{'stem': 'small'}"

A configuration is a Python file. The text after its colon is the argument of its get_config, here the depth. Any key
can be set with --config.KEY=VALUE; --help lists every key with its default, range and meaning, --help=SECTION those of
a section. A budget is an amount of epochs (90ep), images (1.2e8img), steps (450000st), operations (2e18flop) or
seconds of training (3600s).

The workdir receives config.json, checkpoints/, metrics.jsonl and what the trackers of config.log.to write
(TensorBoard's files by default), and at the end result.json, predictions/, table.md and curves.png. Ctrl-C or SIGTERM
finishes the step and saves; a second signal ends the process at once. The same command resumes the run. To train on
several hosts, start the same command on each: under SLURM, on a TPU pod, or with COORDINATOR_ADDRESS, NUM_PROCESSES
and PROCESS_ID in the environment.
"""


def run(
    *,
    config: str,
    workdir: str,
    name: str,
    extend: bool,
    dry_run: bool,
    overrides: dict[str, str],
    preprocess: dict[str, str],
) -> int:
    """Train the configuration of a file in a workdir, or say what that would cost; return the exit code."""
    from rich.console import Console

    from imagenet_repro.config import load_config
    from imagenet_repro.errors import EXIT_FINISHED, InterruptedRunError, UserError
    from imagenet_repro.scoring.terminal import show_stages

    if not (workdir or dry_run):
        raise UserError("train needs --workdir=DIR, the directory for everything that the run writes")
    loaded_config = load_config(config, overrides | ({"name": name} if name else {}))
    with show_stages(Console()) as begin:
        begin("loading JAX")  # which takes seconds, and a mistyped key needs none of it
        from imagenet_repro.runs import train
        from imagenet_repro.runs.dry_run import dry_run as print_cost
        from imagenet_repro.runs.weights_images import with_preprocessing

    loaded_config = with_preprocessing(loaded_config, preprocess)
    if dry_run:
        return print_cost(loaded_config)
    try:
        train.train(loaded_config, workdir, extend=extend)
    except InterruptedRunError as stopped:
        print(stopped)
        return stopped.exit_code
    return EXIT_FINISHED


def _list_keys(section: str) -> str:
    """Return the list of configuration keys; it is made only when it is asked for, since that takes a while."""
    from imagenet_repro.cli.key_help import key_help

    return key_help(section)


COMMAND = Command(
    name="train",
    help=HELP,
    run=run,
    options=(
        Option("--config", required=True, metavar="FILE[:ARGUMENT]", help="a recipe, such as configs/resnet.py:50"),
        Option(
            "--workdir",
            default="",
            metavar="DIR",
            help="the directory for everything that the run writes; needed unless --dry_run is given",
        ),
        Option(
            "--name",
            default="",
            metavar="NAME",
            help="the system's name in tables and figures, the same for all its seeds (default: the network's)",
        ),
        Option(
            "--extend",
            is_switch=True,
            help="continue the workdir's run to a larger config.budget; its learning rates so far must not change",
        ),
        Option("--dry_run", is_switch=True, help="print what the run would need and how long it would take, and exit"),
    ),
    settings=(Settings("config", "any key of the configuration", parameter="overrides"), PREPROCESS),
    shows_exit_codes=True,
    details=_list_keys,
)
