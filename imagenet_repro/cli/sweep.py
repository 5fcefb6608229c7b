"""`main.py sweep`: train many systems under one budget, and compare them."""

from imagenet_repro.cli.command import Command, Option, Settings
from imagenet_repro.errors import EXIT_FINISHED, UserError

HELP = """Train many systems under one budget, with several seeds each, optionally after a search of their settings.

  python main.py sweep --config=configs/sweeps/decade.py --workdir=runs/decade
  python main.py sweep --config=configs/sweeps/learning_rate.py --workdir=runs/lr --config.search.trials=32
  python main.py sweep --config=… --workdir=… --dry_run           what would run, where, and what it would cost
  python main.py sweep --config=… --workdir=… --config.cross.optimizer.learning_rate=0.1,0.3    a grid of settings
  python main.py sweep --config=… --workdir=… --dry_run --topology=h100:8    the same on devices that are not here
  python main.py sweep --status --workdir=runs/decade             the progress of a sweep, from any terminal
  python main.py sweep --config=… --workdir=… --launcher=slurm --workers=8 --slurm.partition=gpu \\
      --slurm.gpus_per_node=1 --slurm.time=600 --storage=postgresql+psycopg://HOST/sweeps

A sweep is a Python file; imagenet_repro/config/sweep.py lists every key. Settings are selected on a held-out part of
the training split. Only the selected runs are scored on the test split, once each. Workers and this process can be
stopped or killed at any time: the same command continues, and each training resumes from its checkpoint. At the end,
the runs are compared, as `compare DIR --target=…` does.

Workers run on this machine, one for each GPU, or as an array of SLURM jobs. Trials are stored in an SQLite database
in the workdir. For several machines, name a database that all of them can reach, with its password in PGPASSWORD or
~/.pgpass.
"""


def run(
    *,
    config: str | None,
    workdir: str,
    status: bool,
    dry_run: bool,
    topology: str | None,
    launcher: str,
    workers: int,
    storage: str,
    target: str,
    overrides: dict[str, str],
    slurm: dict[str, str],
) -> int:
    """Run or resume a sweep and compare its runs, or print its plan or its progress; return the exit code."""
    if topology and not dry_run:
        raise UserError(
            f"--topology={topology} needs --dry_run: it says what the sweep would cost there, and runs nothing"
        )
    if status and (config or dry_run or workers or launcher != "local" or target or overrides or slurm):
        raise UserError("--status shows a sweep that has started; only --workdir and --storage can be given with it")
    if not status and not config:
        raise UserError("which sweep? --config=configs/sweeps/decade.py, or --status for one that has started")
    from imagenet_repro.config.sweep import load_sweep

    loaded_sweep = load_sweep(config, overrides) if config else None  # before JAX is imported, which takes seconds
    if topology:
        from imagenet_repro.planning import topology as topologies

        topologies.silence()  # before JAX is imported
    from imagenet_repro.report.targets import parse_targets
    from imagenet_repro.sweeps import controller
    from imagenet_repro.sweeps.compare import compare
    from imagenet_repro.sweeps.launch import read_slurm_options

    if loaded_sweep is None:
        return controller.show_status(workdir, storage)
    parse_targets(target)  # before anything runs
    options = controller.SweepOptions(launcher, workers, storage, read_slurm_options(slurm))
    if dry_run:
        return controller.dry_run(loaded_sweep, workdir, options, topology or "")
    code = controller.run_sweep(loaded_sweep, workdir, options)
    if code == EXIT_FINISHED:
        compare([workdir], storage=storage, target=target)
    return code


COMMAND = Command(
    name="sweep",
    help=HELP,
    run=run,
    options=(
        Option("--config", metavar="FILE[:ARGUMENT]", help="a sweep, such as configs/sweeps/decade.py"),
        Option("--workdir", required=True, metavar="DIR", help="the directory for everything that the sweep writes"),
        Option("--status", is_switch=True, help="print the progress of the sweep and exit"),
        Option("--dry_run", is_switch=True, help="print what would run and what it would cost, and exit"),
        Option(
            "--topology",
            metavar="DEVICES",
            help="with --dry_run: compile for these devices, such as h100:8, instead of measuring on this machine",
        ),
        Option("--launcher", choices=("local", "slurm"), default="local", help="where workers run (default: local)"),
        Option(
            "--workers",
            type=int,
            low=0,
            default=0,
            metavar="N",
            help="number of workers (default: one for each GPU of this machine, one where there is none)",
        ),
        Option(
            "--storage",
            default="",
            metavar="URL",
            help="the database of the trials (default: SQLite in the workdir)",
        ),
        Option(
            "--target",
            default="",
            metavar="ERRORS",
            help="for the page: what it took to reach these errors, such as top1:35,top5:15 (percent)",
        ),
    ),
    settings=(
        Settings("config", "any key of the sweep", parameter="overrides"),
        Settings("slurm", "options of the jobs: partition, time (minutes), gpus_per_node, mem, …"),
    ),
    shows_exit_codes=True,
)
