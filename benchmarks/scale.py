"""Measure how the queue of a sweep and its progress display grow with the number of trials.

    python benchmarks/scale.py                     200 and 2,000 trials in SQLite
    python benchmarks/scale.py --trials=100,1000

A sweep of five systems is made: half of its trials are complete, eight run, each with a `metrics.jsonl` of 20,000
rows, and the others wait. Three things are timed: one claim of a worker, which first looks for lost runs; `sweep
--status`, after imports; and one look of the process that watches the sweep. The table has the median of several
turns in milliseconds of CPU time and, in brackets, of the clock, which includes waits for the disk, and the exponent
with which CPU time grows. Nothing is trained.
"""

import argparse
import contextlib
import datetime
import io
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from imagenet_repro.config.sweep import SweepConfig, resolve_sweep  # noqa: E402
from imagenet_repro.sweeps import controller  # noqa: E402
from imagenet_repro.sweeps.directory import SweepDirectory  # noqa: E402
from imagenet_repro.sweeps.queue import SweepQueue  # noqa: E402
from imagenet_repro.sweeps.status import SweepStatus, live_view  # noqa: E402

SYSTEMS, RUNNING, ROWS, TURNS = 5, 8, 20_000, 5
RATE = "optimizer.learning_rate"
ROW = {"kind": "train", "step": 1, "progress": 0.5, "seconds": 9.0, "loss": 1.0, "top1_error": 0.5}


def main() -> None:
    """Print the table of times by number of trials."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", default="200,2000", help="numbers of trials, the smallest first")
    sizes = [int(text) for text in parser.parse_args().trials.split(",")]
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
