"""Sweeps whose worker, whose command, or both are killed again and again."""

import os
import signal
from pathlib import Path

from benchmarks.fault_parts import outcome, programs, recipe, warm

PART = "killed sweeps"
VICTIMS = ("worker", "command", "both")
STEPS = 150  # of each run, with a checkpoint at every tenth
SEEDS = (0, 1)
RESUMED = (74, 75)  # exit codes after which the same command goes on
LIMIT = 1200.0  # seconds of a sweep between two kills


def kill_sweeps(bench, tries):
    """Kill each victim `tries` times during one sweep, at random moments, and compare the runs with unharmed ones."""
    expected = None
    for victim in bench.tries(PART, [f"{victim} x{tries}" for victim in VICTIMS]):
        expected = expected or _unharmed(bench)
        with bench.workdir(PART, victim) as (workdir, broken):
            kills = _sweep(bench, workdir, victim.split()[0], tries, broken)
            for name, numbers in expected.items():
                if wrong := outcome.differences(read_numbers(workdir / name), numbers):
                    broken.append(f"{name}: {len(wrong)} numbers differ, such as {wrong[0]}")
            broken += [f"left over: {path.name}" for path in workdir.rglob("*.part*")]
            bench.record(PART, victim, broken, kills=kills)


def _unharmed(bench):
    workdir = bench.folder / "unharmed" / "sweep"
    if not (workdir / "report.html").exists():
        process = programs.start(_arguments(bench, workdir), f"{workdir}.output")
        assert programs.wait(process, LIMIT) == 0, programs.last_line(f"{workdir}.output")
    return {f"runs/a/seed{seed}": read_numbers(workdir / f"runs/a/seed{seed}") for seed in SEEDS}


def _arguments(bench, workdir):
    """Return the arguments of a sweep over one network with two seeds, whose file is written beside its workdir."""
    file = Path(f"{workdir}.py")
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = {
        "budget": f"{STEPS}st",
        "seeds": SEEDS,
        "train_split": "train",
        "select_split": "validation[:50%]",
        "test_split": "validation[50%:]",
        "systems": {
            "a": {
                "config": f"{warm.RECIPE}:{recipe.AVERAGED},{bench.data}",
                "set": {"evaluate_every": "50st", "checkpoint": {"every": "10st"}},
            }
        },
    }
    file.write_text(f"def get_config():\n    return {settings!r}\n", encoding="utf-8")
    return ["sweep", f"--config={file}", f"--workdir={workdir}"]


def _sweep(bench, workdir, victim, tries, broken):
    """Run a sweep to its end, killing the victim at random moments; return the number of kills."""
    moments, output = warm.generator(PART, victim), f"{workdir}.output"
    process = programs.start(_arguments(bench, workdir), output)
    kills = 0
    for number in range(tries):
        moment = STEPS * len(SEEDS) * (number + moments.random()) / tries
        programs.wait_until(lambda rows=moment: _progress(workdir) > rows, LIMIT, process)
        if process.poll() is not None:  # it gives up after a few workers, and asks for the same command
            process = programs.start(_arguments(bench, workdir), output)
            programs.wait_until(_worker_pids(workdir), LIMIT, process)
        if victim in ("command", "both"):
            programs.kill(process)
        if victim in ("worker", "both"):
            _kill_workers(workdir)
        kills += 1
        if victim in ("command", "both"):
            process = programs.start(_arguments(bench, workdir), output)
    code = programs.wait(process, LIMIT)
    for _ in range(tries):
        if code in RESUMED:
            code = programs.wait(programs.start(_arguments(bench, workdir), output), LIMIT)
    if code != 0:
        broken.append(f"exit code {code}: {programs.last_line(output)}")
    if "Traceback" in Path(output).read_text(encoding="utf-8", errors="replace"):
        broken.append(f"a traceback in {output}")
    for run_output in workdir.glob("runs/*/*/output.log"):
        if "Traceback" in run_output.read_text(encoding="utf-8", errors="replace"):
            broken.append(f"a traceback in {run_output}")
    return kills


def _progress(workdir):
    """Return the rows of the logs of all runs."""
    return sum(programs.rows(path.parent) for path in workdir.glob("runs/*/*/metrics.jsonl"))


def _worker_pids(workdir):
    """Return a function that returns the process ids of the workers."""
    from imagenet_repro.sweeps.directory import SweepDirectory

    return SweepDirectory(workdir).worker_pids


def _kill_workers(workdir):
    for pid in _worker_pids(workdir)():
        os.kill(pid, signal.SIGKILL)


def read_numbers(workdir):
    """Return the numbers of a finished run of a sweep, read in a fork."""
    target = Path(f"{workdir}.numbers")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            warm.dump(target, outcome.describe(workdir))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return warm.load(target) if status == 0 else {}
