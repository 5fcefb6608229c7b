"""The decade at 64 pixels: `configs/sweeps/decade.py`, one run after another while time is left."""

import json
import shutil
import time
from concurrent.futures import Future
from typing import Any

import jax

from benchmarks.device_parts import images
from benchmarks.device_parts.bench import Bench, Part
from benchmarks.device_parts.devices import is_installed
from benchmarks.device_parts.errors import LeftOutError
from imagenet_repro.config import AnyConfig, Config
from imagenet_repro.data.sources import Splits
from imagenet_repro.storage import provenance
from imagenet_repro.storage.workdir import RESULT, Workdir
from imagenet_repro.training.step import EvalStep
from imagenet_repro.training.systems import NetworkSystem

NEEDED = {"grain": "grain", "ml_collections": "ml-collections", "tensorboardX": "tensorboardX", "scipy": "scipy"}
# The form of the sweep, the systems that are run (all: None), and settings over the sweep's.
FORMS: dict[str, tuple[str, tuple[str, ...] | None, dict[str, str]]] = {
    "full": ("small", None, {}),
    "small": ("laptop", None, {}),
    "tiny": ("laptop", ("alexnet",), {"budget": "16img", "systems.alexnet.set.batch_size": "8"}),
}
# A run here is never resumed, and its curves are not looked at.
AT_THE_END = {"set.evaluate_every": "1e9st", "set.checkpoint.every": "1e9st"}


class Decade(Part):
    """Each system of the sweep with seed 0 and its full budget, networks first.

    A run is the one that `main.py train` does, with the images of `--data` in place of a prepared data set. The
    programs of the networks are compiled ahead, in all threads, and the runs find them in the cache.
    """

    name, title = "decade", "the decade at 64 px on the classes of --data"
    compiles = True
    takes_all = True

    def __init__(self):
        self._configs: dict[str, AnyConfig] = {}
        self._splits: Splits | None = None
        self._programs: dict[str, list[Future]] = {}

    def estimate(self, bench: Bench) -> float:
        """See `Part`; of the first run alone, since the others run while time is left."""
        return 3 * bench.scale.trace_seconds + bench.compile_time(2) + 10 if bench.options.data else 0.0

    def prepare(self, bench: Bench) -> None:
        """See `Part`."""
        if not bench.options.data or any(not is_installed(module) for module in NEEDED):
            return
        self._splits = images.folder_splits(bench.options.data)
        self._configs = _configs(bench)
        networks = {name: config for name, config in self._configs.items() if isinstance(config, Config)}
        seconds = 2 * bench.scale.trace_seconds * bench.pace
        for name, config in networks.items():
            if bench.left < 4 * seconds:  # those that cannot be run need not be compiled
                break
            bench.say(f"tracing {name}")
            self._compile_ahead(bench, name, config)

    def _compile_ahead(self, bench: Bench, name: str, config: Config) -> None:
        assert self._splits is not None
        with bench.matmul_precision(config.precision):
            system = NetworkSystem.create(config, self._splits.train.num_classes)
            state, spread = system.initial_state(), system.spread
            batch = spread.put_batch(system.blank_batch(config.batch_size))
            step = system.train_step(self._splits.train.num_examples)
            lowered = spread.lower_training(step, state, batch)
            scored = {key: batch[key] for key in ("image", "label")}
            scored["weight"] = jax.numpy.ones_like(batch["label"], jax.numpy.float32)
            evaluation = spread.lower_evaluation(EvalStep(system.score), state, scored)
        options = spread.compiler_options
        self._programs[name] = [
            bench.compiler.submit(f"{name}, decade", lowered, options),
            bench.compiler.submit(f"{name}, evaluation", evaluation, options),
        ]

    def run(self, bench: Bench) -> None:
        """See `Part`."""
        if not bench.options.data:
            raise LeftOutError("no images: name a folder or zips with --data")
        missing = [package for module, package in NEEDED.items() if not is_installed(module)]
        if missing:
            raise LeftOutError(f"not installed: pip install {' '.join(missing)}")
        longest = 0.0
        for name, config in self._configs.items():
            if bench.box_left < 1.2 * longest:
                bench.left_out(f"{name} and the systems after it in the decade", "the time is used up")
                return
            with bench.attempt(name):
                for program in self._programs.pop(name, []):
                    bench.result_of(program)
                longest = max(longest, self._run(bench, name, config))

    def _run(self, bench: Bench, name: str, config: AnyConfig) -> float:
        """Train one system and write its result; return the seconds that it took."""
        from imagenet_repro.runs.train import RUNS
        from imagenet_repro.training import systems

        assert self._splits is not None
        workdir = Workdir(bench.scratch / "runs" / name)
        shutil.rmtree(workdir.path, ignore_errors=True)
        began = time.perf_counter()
        workdir.lock()
        workdir.record_config(config, provenance.collect())
        precision = config.precision if isinstance(config, Config) else "float32"
        with bench.matmul_precision(precision):
            RUNS[systems.SYSTEMS[type(config)]](config, workdir, self._splits).go()
        seconds = time.perf_counter() - began
        bench.record("decade", system=name, data=self._splits.train.name, seconds=seconds, **_row(workdir))
        bench.say(f"{name}: trained, evaluated and saved in {seconds:.0f} s")
        shutil.rmtree(workdir.path / "checkpoints", ignore_errors=True)
        return seconds


def _row(workdir: Workdir) -> dict[str, Any]:
    result = json.loads((workdir.path / RESULT).read_text(encoding="utf-8"))
    return {
        "budget": result["budget"],
        "classes": len(result["classes"]),
        "training_seconds": result["spent"]["seconds"],
        "trained_images": result["spent"]["images"],
        "compilation_seconds": result["compilation_seconds"],
        "peak_memory": result["peak_memory"],
        "scored_images": result["rates"]["images"],
        "top1_error": result["rates"]["top1_error"],
        "top5_error": result["rates"]["top5_error"],
    }


def _configs(bench: Bench) -> dict[str, AnyConfig]:
    """Return the configuration of each system's run with seed 0, networks first."""
    from imagenet_repro.config.sweep import load_sweep
    from imagenet_repro.sweeps.plan import build_run_config, plan_runs

    form, names, overrides = FORMS[bench.scale.name]
    overrides = overrides | AT_THE_END
    sweep = load_sweep(f"configs/sweeps/decade.py:{form}", overrides)
    runs = [run for run in plan_runs(sweep) if run.seed == 0 and (names is None or run.system in names)]
    configs = {run.system: build_run_config(sweep, run, {}) for run in runs}
    return dict(sorted(configs.items(), key=lambda item: not isinstance(item[1], Config)))
