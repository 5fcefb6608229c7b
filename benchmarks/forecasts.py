"""Forecasts of runs against what came: images, memory and time of several systems on this machine.

    python main.py prepare silhouettes
    python -m benchmarks.forecasts --workdir=/tmp/forecasts

Each system of configs/demo.py is forecast as `sweep --dry_run` does, trained as a worker of a sweep does, and forecast
again, each in a process of its own. The networks have a budget of seconds, so that how many images they see is for
them to show; that of hand-made features is a number of images. What a machine does beside this changes between the
forecast and the run. So the run is compared with the mean of both forecasts, and the last column says by how much they
differ: the time of a step in the second over that in the first.
"""

import argparse
import dataclasses
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagenet_repro.config import AnyConfig, config_to_dict, load_config
from imagenet_repro.runs.estimate_cost import RunCost
from imagenet_repro.storage.json_files import read_json, write_json
from imagenet_repro.sweeps.cost import measure_run

SYSTEMS = ("lenet5", "alexnet", "resnet18", "vit_tiny_patch16", "xrce_2011")
FEATURES = ("xrce_2011",)
BUDGETS = {True: "12000img", False: "20s"}  # by whether the system is one of hand-made features
HEADINGS = (
    "system", "images", "came", "ratio", "memory, MB", "came", "ratio", "seconds", "came", "ratio", "second / first",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Pair:
    """A run with the forecasts before and after it.

    Attributes:
      system: of configs/demo.py.
      before: the forecast before the run.
      after: the one after it.
      result: the run's `result.json`.
      seconds: of the run's process.
    """

    system: str
    before: RunCost
    after: RunCost
    result: dict[str, Any]
    seconds: float

    def row(self) -> list[str]:
        """Return the cells of the table: the mean forecast, what came, and the ratio of the first to the second."""
        cells = [self.system]
        images, peak = self.result["spent"]["images"], self.result["peak_memory"]["bytes"]
        both = self.before, self.after
        for forecasts, came, scale in (
            ([one.images for one in both], images, 1),
            ([one.peak_memory["bytes"] for one in both], peak, 1e6),
            ([one.total_seconds for one in both], self.seconds, 1),
        ):
            mean = statistics.fmean(forecasts)
            cells += [f"{mean / scale:,.0f}", f"{came / scale:,.0f}", f"{mean / came:.2f}"]
        return [*cells, f"{self.after.step_seconds / self.before.step_seconds:.2f}"]


def measure(system: str, directory: Path, data_dir: str) -> Pair:
    """Forecast, train and forecast again."""
    budget = BUDGETS[system in FEATURES]
    overrides = {"budget": budget, "evaluate_every": budget, "checkpoint.every": budget, "data.data_dir": data_dir}
    splits = {"train_split": "train[:95%]", "eval_split": "train[95%:]", "test_split": "validation"}
    overrides |= {f"data.{name}": value for name, value in splits.items()}
    directory.mkdir(parents=True)
    file, workdir = directory / "run.json", directory / "run"
    config = load_config(f"configs/demo.py:{system}", overrides)
    write_json(file, config_to_dict(config))
    before = forecast(config)
    began = time.perf_counter()
    command = [sys.executable, "-m", "imagenet_repro.sweeps.trial", str(file), str(workdir)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - began
    return Pair(system, before, forecast(config), read_json(workdir / "result.json", "train writes it"), seconds)


def forecast(config: AnyConfig) -> RunCost:
    """Return the forecast of a configuration, as `sweep --dry_run` makes it."""
    cost = measure_run(config)
    if isinstance(cost, str):
        raise SystemExit(cost)
    return cost


def describe(pairs: Sequence[Pair]) -> list[str]:
    """Return the table in Markdown."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|---|{'---:|' * (len(HEADINGS) - 1)}"]
    return [*lines, *(f"| {' | '.join(pair.row())} |" for pair in pairs)]


def main() -> None:
    """Measure the systems, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="for the runs; must not exist")
    parser.add_argument("--data_dir", default="", help="of the prepared data sets")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="of configs/demo.py, with commas")
    arguments = parser.parse_args()
    pairs = []
    for system in arguments.systems.split(","):
        load = os.getloadavg()[0]
        pairs.append(measure(system, arguments.workdir / system, arguments.data_dir))
        print(f"{system}: load {load:.1f} before, {os.getloadavg()[0]:.1f} after, {os.cpu_count()} cores", flush=True)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    print("\n".join(describe(pairs)))


if __name__ == "__main__":
    main()
