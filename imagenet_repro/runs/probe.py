"""Judge the frozen features of a network by simple classifiers on a labelled data set."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from imagenet_repro import models, pretrained
from imagenet_repro.config import Config, build_section, config_to_dict, replace_keys, set_texts
from imagenet_repro.config.probe import Probe
from imagenet_repro.data import sources
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import EXIT_FINISHED, UserError, nearest
from imagenet_repro.inference.feature_extractor import FeatureExtractor
from imagenet_repro.probes.stored_features import StoredFeatures, check_same_network
from imagenet_repro.report.probe_report import print_report
from imagenet_repro.report.progress import show_progress
from imagenet_repro.runs import probe_methods
from imagenet_repro.runs.evaluate import (
    configure_evaluation,
    with_divisible_batch,
    with_evaluated_size,
)
from imagenet_repro.runs.probe_methods import METHODS, RUN, Features
from imagenet_repro.runs.restore import restore, trained_classes
from imagenet_repro.scoring import predictions
from imagenet_repro.storage import files, provenance, user
from imagenet_repro.storage.json_files import read_json, write_json
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import devices, memory, systems
from imagenet_repro.training.functional import Tensors
from imagenet_repro.training.systems import NetworkSystem
from imagenet_repro.training.systems.network import DTYPES, describe_loaded

RESULT = "probe.json"
HEAD = "linear_head.npz"


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A network whose features are judged.

    Attributes:
      config: of the network and the preparation of images.
      params: its parameters by name.
      stats: its running statistics by name.
      title: what it is, for a person.
      source: its origin, for provenance: a step of a run, or a file of weights.
      directory: the default directory of results.
    """

    config: Config
    params: Tensors
    stats: Tensors
    title: str
    source: dict[str, Any]
    directory: Path


def probe_run(workdir: str, *, which: str, data: dict[str, str], **judgement: Any) -> int:
    """Judge the features of a checkpoint of a run; `judgement` are the arguments of `judge`.

    Args:
      workdir: the workdir of a run, which need not be finished.
      which: "best", "last" or a step.
      data: keys of the section `data` to replace, as texts.
      judgement: see `judge`.

    Raises:
      UserError: the run does not train a network, or lacks the checkpoint; and as `judge`.
      SaveError: a result cannot be written.
    """
    parse_settings(judgement["methods"], judgement["settings"])
    run = Workdir(workdir)
    config = run.as_computed(replace_keys(run.config(), {f"data.{key}": value for key, value in data.items()}))
    config = with_divisible_batch(systems.require_network(config, run.path, "only a network's features can be judged"))
    devices.start()
    system = NetworkSystem.create(config, len(trained_classes(run)))
    restored = restore(run, system, system.initial_state(), which)
    title = f"{config.model.name}, step {restored.step:,} of {run.path}"
    params, stats = restored.state.evaluated
    source = {"step": restored.step, "run": str(run.path)}
    return judge(Frozen(config, params, stats, title, source, run.path / "probe"), **judgement)


def probe_weights(
    path: str,
    *,
    name: str = "",
    options: dict[str, Any] | None = None,
    preprocess: dict[str, str] | None = None,
    data: dict[str, str],
    **judgement: Any,
) -> int:
    """Judge the features of a file of weights, computed in float32; `judgement` are the arguments of `judge`.

    Args:
      path: a file of weights, `package:NAME` or `hub:USER/NAME`.
      name: the network; empty: the one that the file states, with its options.
      options: options of the network, which override those of the file.
      data: keys of the section `data`, as texts, which include `name`.
      preprocess: keys of the images' preprocessing to replace, as texts (pretrained/preprocessing.py).
      judgement: see `judge`.

    Raises:
      UserError: the file cannot be read or is of another network; and as `judge`.
      SaveError: a result cannot be written.
    """
    parse_settings(judgement["methods"], judgement["settings"])
    if "name" not in data:
        raise UserError("which data set? --data.name=NAME, such as --data.name=cifar10")
    weights = pretrained.read(path)
    selection = pretrained.select(weights, name, options, preprocess)
    name = selection.name
    config = configure_evaluation(name, selection.options, selection.preprocessing)
    config = replace_keys(config, {f"data.{key}": value for key, value in data.items()})
    config = with_divisible_batch(with_evaluated_size(config))
    devices.start()
    system = NetworkSystem.create(config, 0, weights)
    assert system.loaded is not None, "weights were given"
    print(describe_loaded(system.loaded))
    print(f"{name}; {selection.describe_images()}")
    params, stats = system.network.params, system.network.stats
    title = f"{models.canonical(name)}, {path}"
    source = {"weights": provenance.of_file(weights.path)}
    directory = Path("probes") / models.canonical(name)
    return judge(Frozen(config, params, stats, title, source, directory), **judgement)


def parse_settings(methods: str, settings: dict[str, str]) -> tuple[tuple[str, ...], Probe]:
    """Return the methods and the settings of texts by dotted key.

    Raises:
      UserError: an unknown method or key, or a value out of range.
    """
    names = tuple(methods.split(","))
    for name in names:
        if name not in METHODS:
            raise UserError(f"--method={methods}: there is no '{name}'; {nearest(name, METHODS)}")
    values = config_to_dict(Probe())
    set_texts(values, settings, Probe, "probe")
    return names, build_section(Probe, values, "probe")


def judge(frozen: Frozen, *, methods: str, out: str | None, features: str | None, settings: dict[str, str]) -> int:
    """Store the features of a training split and a scored split, judge them by each method, and print a table.

    Args:
      frozen: the network.
      methods: names of methods, separated by commas.
      out: the directory of predictions and of `probe.json`; None: `frozen.directory`.
      features: the directory of the features; None: `features` in that of the results.
      settings: keys of `config.probe.Probe`, as texts.

    Returns:
      The exit code.

    Raises:
      UserError: the splits share images, the network cannot take them, or a method cannot be applied to them.
      SaveError: a file cannot be written.
    """
    names, probe = parse_settings(methods, settings)
    if jax.process_count() > 1:
        raise UserError(f"probe runs in one process, over all its devices; here are {jax.process_count()}")
    train, scored = _open_splits(frozen.config)
    root = user.expand(out) if out else frozen.directory
    directory = root / files.bounded_name(f"{train.name}_{scored.split}".replace("/", "_"))
    files.require_writable_directory(directory, "--out")
    model = frozen.config.model
    network = models.abstract(model.name, 0, DTYPES[frozen.config.precision], **model.options)
    extractor = FeatureExtractor(frozen.config, network, frozen.params, frozen.stats)
    config = frozen.config
    print(f"{frozen.title}: {config.data.size_evaluated} px, {config.eval_crop}")
    source = (
        provenance.collect() | frozen.source | {"config": config_to_dict(config), "classes": list(train.class_names)}
    )
    stored_in = user.expand(features) if features else root / "features"
    judged = Features(
        extractor, probe, train, extractor.open(train, stored_in), extractor.open(scored, stored_in), source
    )
    check_same_network(judged.train, judged.scored)
    judged.layer  # noqa: B018 (an unknown layer is an error before any work)
    result = _Result(directory / RESULT, judged, frozen)
    result.record_pass("train", _extract(extractor, train, judged.train, _n_train_rows(names, probe, train)))
    result.record_pass("scored", _extract(extractor, scored, judged.scored, scored.num_examples))
    for name in names:
        result.compute(name)
    print_report({name: result.methods[name] for name in names}, f"{scored.name} {scored.split}", Console())
    print(f"predictions and {RESULT}: {directory}")
    return EXIT_FINISHED


def _n_train_rows(names: Sequence[str], settings: Probe, train: Split) -> int:
    """Return the number of training rows, from the first on, whose features the methods read."""
    held_out = probe_methods.n_held_out(settings, train.num_examples)
    if set(names) != {"linear"}:
        return train.num_examples
    if settings.linear.head:
        return 0
    return held_out if settings.linear.crops == "random" else train.num_examples


def _open_splits(config: Config) -> tuple[Split, Split]:
    data = config.data
    train, scored = (sources.open_split(data, split) for split in (data.train_split, data.scored_split))
    if sources.overlap(data, data.train_split, data.scored_split):
        raise UserError(
            f"data.train_split={data.train_split} and the scored split {data.scored_split} of {data.name} share"
            " images; a classifier cannot be judged on images that it was fitted to"
        )
    sources.check_ids(scored)
    return train, scored


def _extract(extractor: FeatureExtractor, split: Split, stored: StoredFeatures, rows: int) -> dict[str, Any]:
    """Compute what is missing of the first rows; return what the pass took, empty where nothing was missing."""
    missing = sum(map(len, stored.missing(rows)))
    if not missing:
        print(f"features of {split.name} {split.split}: stored in {stored.directory}")
        return {}
    with show_progress(f"features of {split.name} {split.split}", missing) as show:
        done = extractor.extract(split, stored, rows, show)
    speed = done.images / done.seconds
    print(
        f"features of {split.name} {split.split}: {done.images:,} images in {done.seconds:,.1f} s"
        f" ({speed:,.1f} images/s without compilation), {stored.bytes / 1e6:,.1f} MB in {stored.directory}"
    )
    return {"images": done.images, "seconds": done.seconds, "bytes": stored.bytes, "peak_memory": memory.peak()}


class _Result:
    """The file of results: each method is written as soon as it is computed, and is not computed again.

    Args:
      path: the file.
      judged: what the methods read.
      frozen: the network.
    """

    def __init__(self, path: Path, judged: Features, frozen: Frozen):
        self._path, self._judged = path, judged
        stored = read_json(path, "probe writes it", "remove it") if path.exists() else {}
        known = stored.get("methods", {}) if isinstance(stored, dict) else {}
        self.methods: dict[str, dict[str, Any]] = known
        self._content = {
            "network": frozen.title,
            "provenance": judged.provenance,
            "train": judged.train.description | {"split": judged.split.split},
            "scored": judged.scored.description,
            "passes": stored.get("passes", {}) if isinstance(stored, dict) else {},
        }

    def record_pass(self, name: str, cost: dict[str, Any]) -> None:
        """Write what a pass over the images took; a pass that had nothing to do leaves the older record."""
        if cost:
            self._content["passes"][name] = cost | {"directory": str(getattr(self._judged, name).directory)}
            self._write()

    def compute(self, name: str) -> None:
        """Judge by a method, store its predictions and write the file; take the stored result if there is one."""
        key = self._key(name)
        reads_head = name == "linear" and self._judged.settings.linear.head  # a file, which may have changed
        is_known = self.methods.get(name, {}).get("key") == key and self._has_predictions(name)
        if is_known and not reads_head:
            print(f"{name}: stored in {self._path}")
            return
        began = time.perf_counter()
        judgement = RUN[name](self._judged)
        seconds = time.perf_counter() - began
        paths: list[list[str]] = []
        for one in judgement.scored:
            paths.append([])
            for number, predicted in enumerate(one.predictions):
                file = self._path.parent / _file_name(name, one.setting, number, len(one.predictions))
                source = predicted.provenance | {"protocol": {"name": f"probe_{name}"}}
                predictions.save(file, dataclasses.replace(predicted, provenance=source))
                paths[-1].append(file.name)
        if judgement.head is not None:
            judgement.head.save(self._path.parent / HEAD)
        self.methods[name] = judgement.to_json(paths) | {
            "key": key,
            "seconds": seconds,
            "peak_memory": memory.peak(),
            "settings": config_to_dict(self._judged.settings),
        }
        self._write()

    def _write(self) -> None:
        write_json(self._path, self._content | {"methods": self.methods})

    def _key(self, name: str) -> str:
        """Return a hash of everything that a method's result depends on."""
        settings = config_to_dict(self._judged.settings)
        kept = {key: settings[key] for key in ("layer", "held_out", "seed", name)}
        judged = [self._judged.train.description, self._judged.scored.description]
        return hashlib.sha256(json.dumps([name, kept, judged], sort_keys=True).encode()).hexdigest()[:16]

    def _has_predictions(self, name: str) -> bool:
        rows: Sequence[dict[str, Any]] = self.methods[name].get("rows", ())
        return all((self._path.parent / file).exists() for row in rows for file in row["predictions"])


def _file_name(method: str, setting: str, number: int, count: int) -> str:
    """Return the name of a file of predictions, such as `knn_k_20.npz` or `fewshot_5_shots_draw_1.npz`."""
    words = (
        "".join(c if c.isalnum() or c in ".-" else "_" for c in setting.replace(" = ", "_"))
        if method != "linear"
        else ""
    )
    parts = [method, words, f"draw_{number}" if count > 1 else ""]
    return "_".join(part for part in parts if part) + ".npz"
