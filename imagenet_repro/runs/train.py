"""`main.py train`: one run, from its configuration to its result."""

from typing import Any

import jax

from imagenet_repro.config import AnyConfig
from imagenet_repro.config.amount import Amount
from imagenet_repro.data import sources
from imagenet_repro.errors import EXIT_FINISHED
from imagenet_repro.report import result_table
from imagenet_repro.report.plots import curves
from imagenet_repro.runs.feature_run import FeatureRun
from imagenet_repro.runs.network_run import NetworkRun
from imagenet_repro.runs.run import Run
from imagenet_repro.storage import provenance
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import devices, log, systems

RUNS: dict[type, type[Run]] = {systems.NetworkSystem: NetworkRun, systems.FeatureSystem: FeatureRun}


def train(config: AnyConfig, workdir: str) -> int:
    """Trains a configuration in a workdir, or goes on where a run in it stopped; returns the exit code.

    A run whose budget is spent is shown again, and nothing is built or compiled.

    The workdir then holds `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/`, and when the budget is
    spent `result.json`, `predictions/`, `curves.png` and `table.md`.

    Raises:
      UserError: anything that the caller can mend; errors.py has the exit codes.
    """
    place = Workdir(workdir)
    _check_amounts(config)
    devices.start()
    splits = sources.open_splits(config.data)
    if jax.process_index() == 0:
        place.lock()
        place.record_config(config, provenance.collect() | _weights(config, place))
    if place.is_finished:
        print(f"{place.path}: the budget of this run, {config.budget}, is spent")
        return _show(place)
    run = RUNS[systems.SYSTEMS[type(config)]](config, place, splits)
    code = run.go()
    return code or _show(place)


def _weights(config: AnyConfig, place: Workdir) -> dict[str, Any]:
    """The file that a new run starts from, under the key `weights`; on resuming, it may be gone."""
    if not config.initial_weights or place.has_checkpoints:
        return {}
    return {"weights": provenance.of_file(config.initial_weights)}


def _show(place: Workdir) -> int:
    """Table and curves of a finished run, from one process."""
    if jax.process_index() != 0:
        return EXIT_FINISHED
    row = result_table.row(place.result())
    result_table.show([row])
    place.write("table.md", result_table.markdown([row]))
    curves.plot_curves({row.system: log.read_rows(place.metrics)}, place.path / "curves.png")
    print(f"table: {place.path / 'table.md'}\nlearning curves: {place.path / 'curves.png'}")
    return EXIT_FINISHED


def _check_amounts(config: AnyConfig) -> None:
    for key, text in (
        ("budget", config.budget),
        ("evaluate_every", config.evaluate_every),
        ("checkpoint.every", config.checkpoint.every),
    ):
        Amount.parse(text, key)
