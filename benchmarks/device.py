"""Measure everything on an accelerator in a few minutes, the most important first.

    python benchmarks/device.py --minutes=8                             on an accelerator
    python benchmarks/device.py --minutes=30 --data=tiny-imagenet-100   with the decade at 64 pixels
    python benchmarks/device.py --minutes=10 --size=small               on a CPU
    python benchmarks/device.py --minutes=3 --parts=devices,peaks,main

One process and one cache of compiled programs do everything, in stages. In a stage, all steps are traced one after
another and compiled in several threads. Nothing is timed while something is compiled, and PyTorch's process is paused
while our steps are timed. Each part is estimated first and skipped if it does not fit into the time that is left;
shorter ones may still follow.

Every result is a line of `results.jsonl`, written to the disk when it comes, so the process can be killed at any time.
`summary.md` is written anew after each part. Both are in results/device/NAME. A second run with the same `--cache`
finds the compiled programs of the first. docs/device.md says how to take this to a machine.
"""

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

GRACE = 15.0  # seconds after the end in which the part that runs may finish
STOPPED = 3  # the exit code where a part had to be cut


def main():
    """Measure the parts in stages, and end with the time."""
    arguments = _arguments()
    _set_environment(arguments)
    from benchmarks.device_parts import stages

    bench = _create_bench(arguments)
    chosen = set(arguments.parts.split(",")) if arguments.parts else None
    all_stages = stages.create()
    names = [part.name for stage in all_stages for part in stage]
    unknown = (chosen or set()) - set(names)
    if unknown:
        sys.exit(f"--parts: there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    _end_in_time(bench)
    is_compiling = False
    try:
        for stage in all_stages:
            _measure_stage(bench, [part for part in stage if chosen is None or part.name in chosen])
    finally:
        is_compiling = bench.close()
    bench.record("end", left=bench.left)
    _summarise(bench)
    print(f"results: {bench.results.folder}", flush=True)
    if is_compiling:  # Python would wait for the compilation of what was left out
        os._exit(0)


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything (default: 8)")
    parser.add_argument("--name", help="folder of the results (default: the kind of the device)")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "results" / "device", help="parent of that folder")
    parser.add_argument("--parts", help="some parts alone, separated by commas")
    parser.add_argument("--size", choices=("full", "small", "tiny"), help="default: full, and small on a CPU")
    parser.add_argument("--data", default="", help="folder or zip of images, train/CLASS/IMAGE, for loader and decade")
    parser.add_argument("--data_dir", default="", help="tfds' directory of a prepared data set, for the loader")
    parser.add_argument("--data_name", default="imagenet2012", help="that data set")
    parser.add_argument("--peer_python", default=sys.executable, help="interpreter with PyTorch (default: this one)")
    parser.add_argument("--cache", type=Path, help="compiled programs and workdirs (default: OUTPUT/cache)")
    return parser.parse_args()


def _set_environment(arguments):
    """Set what JAX reads when it is imported: memory is shared with PyTorch, and programs are cached."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    arguments.cache = (arguments.cache or arguments.output / "cache").absolute()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(arguments.cache / "compiled")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def _create_bench(arguments):
    """Open the devices and the folder of the results, and start PyTorch."""
    import jax

    from benchmarks.device_parts import bench as benches
    from benchmarks.device_parts import results
    from imagenet_repro.training import devices

    devices.start()
    kind = re.sub(r"\W+", "_", jax.devices()[0].device_kind.lower()).strip("_")
    folder = results.free_folder(arguments.output, arguments.name or kind)
    size = arguments.size or ("small" if jax.default_backend() == "cpu" else "full")
    options = benches.Options(
        minutes=arguments.minutes,
        data_dir=arguments.data_dir,
        data_name=arguments.data_name,
        data=arguments.data,
        peer_python=arguments.peer_python,
    )
    return benches.Bench(folder, arguments.cache, benches.SCALES[size], options)


def _measure_stage(bench, parts):
    """Prepare the parts of a stage that fit into the time that is left, then run them one after another."""
    from benchmarks.device_parts.runner import PartRun

    runs = []
    for part in parts:
        estimate = part.estimate(bench) * bench.pace
        left = bench.left - sum(run.estimate for run in runs)
        if part.compiles or any(run.part.compiles for run in runs):
            left -= bench.scale.compile_seconds * bench.pace  # until the last program is compiled
        if estimate > left:
            bench.record("skipped", part=part.name, reason=f"about {estimate:.0f} s needed, {max(0, left):.0f} s left")
            bench.say(f"skipped {part.name}: about {estimate:.0f} s needed, {max(0, left):.0f} s left")
            continue
        bench.record("planned", part=part.name, estimated=estimate)
        runs.append(PartRun(bench, part, estimate))
    for run in runs:
        run.prepare()
    for run in runs:
        run.run()
        _summarise(bench)


def _summarise(bench):
    from benchmarks.device_parts import summary

    summary.write(bench.results.folder, bench.results.rows)


def _end_in_time(bench):
    """End the process some seconds after its time, or on SIGTERM; every result is on the disk by then."""

    def end(reason):
        with contextlib.suppress(Exception):
            bench.record("cut", part=bench.running, reason=reason)
            bench.record("left_out", name=bench.running, reason=reason)
            _summarise(bench)
        with contextlib.suppress(Exception):
            bench.close()
        os._exit(STOPPED)

    def watch():
        time.sleep(max(0.0, bench.left) + GRACE)
        end("the time was used up while it ran")

    signal.signal(signal.SIGTERM, lambda *_: end("the process was asked to end"))
    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        traceback.print_exc()
        sys.exit(STOPPED)
