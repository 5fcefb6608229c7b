"""Measure how the queue of a sweep, its progress display, and `compare` grow with the number of trials and runs.

    python benchmarks/scale.py                     200 and 2,000 trials in SQLite
    python benchmarks/scale.py --trials=100,1000
    python benchmarks/scale.py --runs=33,99        compare, with 50,000 x 1,000 predictions of each run

A sweep of five systems is made: half of its trials are complete, eight run, each with a `metrics.jsonl` of 20,000
rows, and the others wait. Three things are timed: one claim of a worker, which first looks for lost runs; `sweep
--status`, after imports; and one look of the process that watches the sweep. The table has the median of several
turns in milliseconds of CPU time and, in brackets, of the clock, which includes waits for the disk, and the exponent
with which CPU time grows. Nothing is trained.

With `--runs`, workdirs of so many systems, one run each, are made below a temporary directory, and `compare` reads
and presents them in a process of its own. A run's predictions are a file of 103 MB, which takes 7 MB on the disk where
its zeros can be left out. Chromium, where it is installed, opens the page.
"""

import argparse
import contextlib
import datetime
import io
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from imagenet_repro.config.sweep import SweepConfig, resolve_sweep  # noqa: E402
from imagenet_repro.report import collect, comparison_page, comparison_report  # noqa: E402
from imagenet_repro.scoring import predictions  # noqa: E402
from imagenet_repro.storage.workdir import Workdir  # noqa: E402
from imagenet_repro.sweeps import controller  # noqa: E402
from imagenet_repro.sweeps.directory import SweepDirectory  # noqa: E402
from imagenet_repro.sweeps.queue import SweepQueue  # noqa: E402
from imagenet_repro.sweeps.status import SweepStatus, live_view  # noqa: E402
from tests.report import comparisons  # noqa: E402

SYSTEMS, RUNNING, ROWS, TURNS = 5, 8, 20_000, 5
IMAGES, CLASSES = 50_000, 1_000  # of a run's predictions
# Notes the time since the page was asked for, after its layout.
OPENED = "<script>document.body.offsetHeight; document.body.dataset.opened = performance.now();</script>"
RATE = "optimizer.learning_rate"
ROW = {"kind": "train", "step": 1, "progress": 0.5, "seconds": 9.0, "loss": 1.0, "top1_error": 0.5}


def main() -> None:
    """Print the table of times by number of trials, or of `compare` by number of runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", default="200,2000", help="numbers of trials, the smallest first")
    parser.add_argument("--runs", default="", help="measure compare with these numbers of runs instead")
    parser.add_argument("--compare", default="", help="present the runs below this directory, and print what it took")
    options = parser.parse_args()
    if options.compare:
        print(json.dumps(_compare(Path(options.compare))))
    elif options.runs:
        _measure_pages([int(text) for text in options.runs.split(",")])
    else:
        _measure_sweeps([int(text) for text in options.trials.split(",")])


def _measure_sweeps(sizes: list[int]) -> None:
    times = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            times[size] = _measure(SweepDirectory(Path(folder) / "sweep"), _sweep(size))
    print(f"| ms of CPU time (of the clock) | {' | '.join(f'{size:,} trials' for size in sizes)} | exponent |")
    print("|---|" + "---:|" * (len(sizes) + 1))
    for name in times[sizes[0]]:
        cells = [f"{1000 * times[size][name][0]:,.0f} ({1000 * times[size][name][1]:,.0f})" for size in sizes]
        ratio = times[sizes[-1]][name][0] / max(times[sizes[0]][name][0], 1e-9)
        print(f"| {name} | {' | '.join(cells)} | {math.log(ratio) / math.log(sizes[-1] / sizes[0]):.2f} |")


def _measure_pages(sizes: list[int]) -> None:
    """Print a table of what `compare` takes by number of runs, each in a process of its own."""
    figures = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            _write_runs(Path(folder) / "runs", size)
            command = [sys.executable, __file__, f"--compare={folder}"]
            done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
            figures[size] = json.loads(done.stdout.splitlines()[-1])
    print(f"| `compare` | {' | '.join(f'{size:,} runs' for size in sizes)} | exponent |")
    print("|---|" + "---:|" * (len(sizes) + 1))
    for name in figures[sizes[0]]:
        ratio = figures[sizes[-1]][name] / figures[sizes[0]][name]
        cells = " | ".join(f"{figures[size][name]:,.1f}" for size in sizes)
        exponent = f"{math.log(ratio) / math.log(sizes[-1] / sizes[0]):.2f}" if len(sizes) > 1 else "-"
        print(f"| {name} | {cells} | {exponent} |")


def _write_runs(folder: Path, runs: int) -> None:
    """Write workdirs of finished runs with guesses that are right more and more often; the scores are all equal."""
    rng = np.random.default_rng(0)
    ids = np.array([f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, IMAGES + 1)])
    label = rng.integers(0, CLASSES, IMAGES).astype(np.int32)
    classes = [f"class {number}" for number in range(CLASSES)]
    for number in range(runs):
        path = folder / f"system_{number:02d}"
        (path / "predictions").mkdir(parents=True)
        shift = rng.integers(1, CLASSES - 5, (IMAGES, 1))
        top5 = ((label[:, None] + shift + np.arange(5)) % CLASSES).astype(np.int32)
        right = rng.random(IMAGES) < 0.3 + 0.5 * number / runs
        top5[right, 0] = label[right]
        wrong = [int((top5[:, :guesses] != label[:, None]).all(axis=1).sum()) for guesses in (1, 5)]
        result: dict[str, Any] = comparisons.result(path.name, 0, number, wrong, IMAGES) | {"classes": classes}
        config = result["provenance"]["config"]
        scores = np.zeros((IMAGES, CLASSES), np.float16)
        stored = predictions.Predictions(
            ids, label, top5, scores, {"classes": classes, "step": 1000, "config": config}
        )
        predictions.save(path / result["predictions"], stored)
        _free_zeros(path / result["predictions"])
        (path / "result.json").write_text(json.dumps(result), encoding="utf-8")
        rows = "".join(json.dumps(row) + "\n" for row in comparisons.logged(result))
        (path / "metrics.jsonl").write_text(rows, encoding="utf-8")


def _free_zeros(path: Path) -> None:
    """Let the zeros of a file take no space, where the file system and util-linux can."""
    program = shutil.which("fallocate")
    if program:
        subprocess.run([program, "--dig-holes", path], check=False, capture_output=True)


def _compare(folder: Path) -> dict[str, float]:
    """Read and present the runs below a directory; return what that took by name."""
    began = time.process_time()
    paths = sorted((folder / "runs").iterdir())
    comparison = collect.collect([collect.RunGroup(path.name, (Workdir(path),)) for path in paths])
    read = time.process_time()
    page = comparison_report.present(comparison, folder / "page").read_text(encoding="utf-8")
    return {
        "CPU seconds to read the runs": read - began,
        "CPU seconds of all": time.process_time() - began,
        "MB of peak memory": _peak_megabytes(),
        "MB of the page": len(page.encode()) / 1e6,
        "seconds to open the page": _seconds_to_open(folder / "page" / comparison_page.PAGE),
        "elements of the page": len(re.findall("<[a-z]", page)),
    }


def _seconds_to_open(page: Path) -> float:
    """Return the median seconds in which Chromium reads a page, runs its scripts and lays it out; NaN without it."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        return math.nan
    before, _, after = page.read_text(encoding="utf-8").rpartition("</body>")
    with tempfile.TemporaryDirectory() as folder:
        watched = Path(folder) / "page.html"
        watched.write_text(f"{before}{OPENED}</body>{after}", encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        command = [program, *options, "--dump-dom", watched.as_uri()]
        texts = [
            subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout for _ in range(TURNS)
        ]
    return statistics.median(float(re.findall(r"data-opened=.([\d.]+)", text)[0]) / 1000 for text in texts)


def _peak_megabytes() -> float:
    """Return the most memory that this program has held; `getrusage` would count the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def _sweep(trials: int) -> SweepConfig:
    axis = {"key": RATE, "low": 1e-3, "high": 1e-1, "log": True}
    system = {"config": "lenet.py", "base": {"model": {"name": "lenet5"}}, "search": [axis]}
    names = [f"system_{number}" for number in range(SYSTEMS)]
    search = {"trials": trials // SYSTEMS}
    return resolve_sweep({"budget": "16st", "systems": dict.fromkeys(names, system), "search": search})


def _measure(directory: SweepDirectory, sweep: SweepConfig) -> dict[str, tuple[float, float]]:
    """Return the median seconds of CPU and of the clock of each action."""
    directory.path.mkdir()
    url = directory.default_storage
    queue = SweepQueue(url, sweep, directory.check(sweep, url))
    directory.record(sweep, url)
    _fill(queue)
    for _ in range(RUNNING):
        claim = queue.claim("host/0")
        assert claim is not None
        path = directory.path / claim.planned.name / "metrics.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text((json.dumps(ROW) + "\n") * ROWS, encoding="utf-8")
    worker, watcher = (SweepQueue(url, sweep, directory.identity()) for _ in range(2))

    def claim_run() -> None:
        worker.requeue_lost()
        assert worker.claim("host/1") is not None

    def watch() -> None:
        watcher.requeue_lost()
        live_view(SweepStatus(watcher.statuses(), directory.path), RUNNING)

    def show() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            controller.show_status(str(directory.path), "")

    return {
        "the first claim of a worker": _seconds(claim_run, 1),
        "`sweep --status`": _seconds(show, TURNS),
        "the first look of the watcher": _seconds(watch, 1),
        "a later look of the watcher": _seconds(watch, TURNS),
        "a later claim": _seconds(claim_run, TURNS),
    }


def _fill(queue: SweepQueue) -> None:
    """Enqueue all runs and complete half of the trials, without a wait for the disk after each."""
    engine = queue.storage.engine
    connection = engine.raw_connection()
    connection.driver_connection.execute("PRAGMA synchronous = OFF")  # pyright: ignore[reportOptionalMemberAccess]
    connection.close()
    queue.fill()
    names = [name for name, planned in queue.planned.items() if planned.is_trial]
    done = set(names[: len(names) // 2])
    now = datetime.datetime.now()
    times = {"start": now, "end": now + datetime.timedelta(seconds=9)}
    distribution = json.dumps(
        {"name": "FloatDistribution", "attributes": {"step": None, "low": 1e-3, "high": 1e-1, "log": True}}
    )
    finish = sqlalchemy.text(
        "update trials set state = 'COMPLETE', datetime_start = :start, datetime_complete = :end where trial_id = :id"
    )
    score = sqlalchemy.text(
        "insert into trial_values (trial_id, objective, value, value_type) values (:id, 0, :value, 'FINITE')"
    )
    suggest = sqlalchemy.text(
        "insert into trial_params (trial_id, param_name, param_value, distribution_json)"
        " values (:id, :key, 0.01, :distribution)"
    )
    query = sqlalchemy.text("select trial_id, value_json from trial_user_attributes where key = 'name'")
    with engine.begin() as connection:
        ids = [trial_id for trial_id, text in connection.execute(query).all() if json.loads(text) in done]
        connection.execute(finish, [times | {"id": trial_id} for trial_id in ids])
        connection.execute(score, [{"id": trial_id, "value": 0.5 + 1e-4 * trial_id} for trial_id in ids])
        connection.execute(suggest, [{"id": i, "key": RATE, "distribution": distribution} for i in ids])


def _seconds(act: Callable[[], None], turns: int) -> tuple[float, float]:
    """Return the median seconds of CPU and of the clock of an action."""
    cpu, clock = [], []
    for _ in range(turns):
        began_cpu, began = time.process_time(), time.perf_counter()
        act()
        cpu.append(time.process_time() - began_cpu)
        clock.append(time.perf_counter() - began)
    return statistics.median(cpu), statistics.median(clock)


if __name__ == "__main__":
    main()
