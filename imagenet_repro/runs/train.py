"""`main.py train`: one run, from its configuration to its result."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from imagenet_repro.config import AnyConfig, Config, FeatureConfig, FrozenConfig, config_to_dict, resolve_config
from imagenet_repro.data import pairs
from imagenet_repro.data.prepare import fingerprint
from imagenet_repro.data.sources import Split, Splits
from imagenet_repro.errors import UserError
from imagenet_repro.report import energy, result_table
from imagenet_repro.report.plots import curves
from imagenet_repro.runs import initial_weights
from imagenet_repro.runs.contrastive_run import ContrastiveRun
from imagenet_repro.runs.feature_run import FeatureRun
from imagenet_repro.runs.frozen_run import FrozenRun
from imagenet_repro.runs.network_run import NetworkRun
from imagenet_repro.runs.results import TrainingResult
from imagenet_repro.runs.run import Run
from imagenet_repro.scoring import class_names, terminal
from imagenet_repro.storage import files, provenance, user
from imagenet_repro.storage.workdir import CONFIG, RESULT, Workdir
from imagenet_repro.training import cpu_precision, devices, extension, hosts, log, peers, systems, trackers

RUNS: dict[type, Callable[[Any, Workdir, Splits], Run | FrozenRun]] = {
    systems.NetworkSystem: NetworkRun,
    systems.ContrastiveSystem: ContrastiveRun,
    systems.FeatureSystem: FeatureRun,
    systems.FrozenSystem: FrozenRun,
}

# Orbax's longest path below the directory of checkpoints: a step, an item, a process, and a file of arrays.
LONGEST_PATH = f"{'0' * 12}.orbax-checkpoint-tmp/state.orbax-checkpoint-tmp/ocdbt.process_000000/d/{'0' * 40}"


def train(config: AnyConfig, workdir: str | Path, *, extend: bool = False) -> TrainingResult:
    """Train a configuration in a workdir, or continue the run in it; return its result.

    For a finished run, the result is shown and returned again, and nothing is built or compiled.

    The workdir then holds `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/`, and when the budget is
    spent `result.json`, `predictions/`, `curves.png` and `table.md`.

    Args:
      config: the configuration.
      workdir: the directory.
      extend: whether the run in the workdir continues to the larger budget of `config`. Its steps so far must have the
        same learning rates under both (training/extension.py).

    Raises:
      InterruptedRunError: a signal, such as that of Ctrl-C, stopped the run; another call continues it.
      DivergedError: the loss is not finite.
      SaveError: a checkpoint or the result cannot be written.
      UserError: any other error that the caller can correct.
    """
    directory = Workdir(workdir)
    devices.start()
    try:
        with peers.explained():
            return _train(config, directory, extend=extend)
    finally:
        directory.unlock()


def _train(config: AnyConfig, directory: Workdir, *, extend: bool) -> TrainingResult:
    if jax.process_index() == 0 and not isinstance(config, FrozenConfig):
        trackers.require_installed(config.log.to)
    config = _with_image_size(config, directory)
    with terminal.show_stages(hosts.console(), announce=True) as begin:
        begin(f"reading the data set {config.data.name}")
        splits = pairs.open_splits(config)
        config = _with_recorded_name(config, directory)
        before = _open(config, directory, splits.train, extend=extend) if jax.process_index() == 0 else None
        before = hosts.from_first(before and config_to_dict(before))
    if hosts.from_first(directory.is_finished and not before):
        if jax.process_index() == 0:
            print(f"{directory.path}: the budget of this run, {config.budget}, is spent")
        return _show(directory)
    if jax.process_index() == 0:
        fingerprint.say_what_changed(splits.train)
    with terminal.show_stages(hosts.console(), announce=True) as begin:
        begin(f"building {config.system_name}")
        run = RUNS[systems.SYSTEMS[type(config)]](config, directory, splits)
        if before and isinstance(run, NetworkRun):
            run.before = resolve_config(before)
    run.go()
    return _show(directory)


def _with_recorded_name(config: AnyConfig, workdir: Workdir) -> AnyConfig:
    """Return the configuration with the name that a run was started with, unless it has another."""
    if config.name or not (workdir.is_started and workdir.has_config):
        return config
    return dataclasses.replace(config, name=workdir.config().name)


def _refuse_other_classes(workdir: Workdir, split: Split) -> None:
    """Raise UserError if the data set has other classes, or another order of them, than when the run began."""
    recorded = workdir.classes() if workdir.is_started else ()
    if recorded and recorded != split.class_names:
        began = f"the run in {workdir.path}, when it began,"
        class_names.check_same_order(split.class_names, f"data set {split.name}", recorded, began)


def _open(config: AnyConfig, workdir: Workdir, split: Split, *, extend: bool = False) -> Config | None:
    """Lock the workdir, record the configuration, and check that all that a run writes can be written.

    Returns:
      The configuration of the run that is extended, which stays recorded until its learning rates are compared; None
      where the run has this budget already.
    """
    workdir.lock()
    if message := workdir.set_damaged_result_aside():
        print(message)
    if workdir.is_started and not workdir.has_config:
        print(f"{workdir.path / CONFIG} is missing; the configuration of this command is taken as the run's")
    _refuse_other_classes(workdir, split)
    classes = {"classes": list(split.class_names)}
    before = _smaller(config, workdir) if extend else None
    same = dataclasses.replace(config, budget=before.budget, schedule=before.schedule) if before else config
    workdir.record_config(
        same, provenance.collect() | classes | _weights(config, workdir) | _precision(config, workdir)
    )
    if before or not workdir.is_finished:
        _require_writable(config, workdir)
    return before


def _smaller(config: AnyConfig, workdir: Workdir) -> Config | None:
    """Return the recorded configuration of a run whose budget `config` extends; None if it has this budget.

    Raises:
      UserError: there is no such run, or its budget is not smaller.
    """
    if not (workdir.is_started and workdir.has_config):
        raise UserError(f"--extend: {workdir.path} holds no run that could be extended")
    recorded = workdir.config()
    if not (isinstance(config, Config) and isinstance(recorded, Config)):
        raise UserError("--extend: only the run of a network can be extended")
    if recorded.budget == config.budget:
        return None
    extension.check_larger(recorded.budget, config.budget)
    return recorded


def _require_writable(config: AnyConfig, workdir: Workdir) -> None:
    """Raise SaveError if a file that the run writes, now or at its end, cannot be written."""
    advice = "choose another --workdir"
    for path in (workdir.predictions(config.data, config.data.scored_split), workdir.path / RESULT, workdir.metrics):
        files.require_writable_file(path, "the run's files", advice)
    files.require_writable_file(workdir.checkpoints / LONGEST_PATH, "checkpoints", advice)
    if isinstance(config, FeatureConfig | FrozenConfig) and config.cache_dir:
        files.require_writable_directory(user.expand(config.cache_dir), "config.cache_dir")


def _with_image_size(config: AnyConfig, workdir: Workdir) -> AnyConfig:
    """Return the configuration of a run whose network is built for its images; a run of an older version stays."""
    if not isinstance(config, Config):
        return config
    recorded = workdir.config() if jax.process_index() == 0 and workdir.is_started and workdir.has_config else None
    is_older = type(recorded) is Config and "image_size" not in recorded.model.options
    return config if hosts.from_first(is_older) else systems.with_image_size(config)


def _weights(config: AnyConfig, workdir: Workdir) -> dict[str, Any]:
    """Return the source from which a new run starts, under `weights`; a resumed run does not need it."""
    if not config.initial_weights or workdir.has_checkpoints:
        return {}
    return {"weights": initial_weights.describe_source(config.initial_weights)}


def _precision(config: AnyConfig, workdir: Workdir) -> dict[str, str]:
    """Return the precision that a new run of a network computes in, under `precision`; a started run keeps its own."""
    if (workdir.is_started and workdir.has_config) or not isinstance(config, Config):
        return {}
    return {"precision": cpu_precision.choose(config.precision)}


def _show(workdir: Workdir) -> TrainingResult:
    """Show the table of a finished run and draw its curves, in one process; return its result in all of them."""
    if jax.process_index() == 0:
        _print_result(workdir)
    return TrainingResult.from_first_process(workdir)


def _print_result(workdir: Workdir) -> None:
    row = result_table.row(workdir.result())
    result_table.show([row])
    print(energy.describe(workdir.result()))
    workdir.write("table.md", result_table.markdown([row]))
    curves.plot_curves({row.system: log.read_rows(workdir.metrics)}, workdir.path / "curves.png")
    print(f"table: {workdir.path / 'table.md'}\nlearning curves: {workdir.path / 'curves.png'}")
