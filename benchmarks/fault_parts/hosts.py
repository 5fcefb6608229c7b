"""Runs on two hosts, here two processes. One is killed: the other ends in a minute, and both resume."""

import random
import time

from benchmarks.fault_parts import outcome, programs, recipe, warm
from benchmarks.fault_parts.sweeps import read_numbers

PART = "killed hosts"
STEPS = 200
OVERRIDES = (
    "--config.parallel=shard_map",
    f"--config.budget={STEPS}st",
    "--config.evaluate_every=100st",
    "--config.checkpoint.every=20st",
)
ALONE = 60.0  # seconds in which the other process must end
LIMIT = 600.0


def kill_hosts(bench, tries):
    """Kill the first and the second process of a run in turn, at a random moment of its steps."""
    expected = None
    for name in bench.tries(PART, [f"process {number % 2}, try {number // 2}" for number in range(tries)]):
        expected = expected or _unharmed(bench)
        victim = int(name.split()[1].rstrip(","))
        with bench.workdir(PART, name) as (workdir, broken):
            seconds, sentence = _kill_one(bench, workdir, victim, warm.generator(PART, name), broken)
            codes = _finish(bench, workdir)
            if codes != [0, 0]:
                broken.append(f"exit codes {codes} after a resume")
            elif wrong := outcome.differences(read_numbers(workdir), expected):
                broken.append(f"{len(wrong)} numbers differ, such as {wrong[0]}")
            bench.record(PART, name, broken, seconds=seconds, sentence=sentence)


def _unharmed(bench):
    workdir = bench.folder / "unharmed" / "hosts"
    if not (workdir / "result.json").exists():
        assert _finish(bench, workdir) == [0, 0], programs.last_line(f"{workdir}.output0")
    return read_numbers(workdir)


def _start(bench, workdir):
    address = f"127.0.0.1:{random.randint(20_000, 60_000)}"
    arguments = [*warm.train_arguments(recipe.NETWORK, bench.data, workdir), *OVERRIDES]
    return [
        programs.start(
            arguments,
            f"{workdir}.output{index}",
            COORDINATOR_ADDRESS=address,
            NUM_PROCESSES="2",
            PROCESS_ID=str(index),
        )
        for index in range(2)
    ]


def _finish(bench, workdir):
    return [programs.wait(process, LIMIT) for process in _start(bench, workdir)]


def _kill_one(bench, workdir, victim, moments, broken):
    """Kill one process; return how long the other lived on, and its last line."""
    processes = _start(bench, workdir)
    moment = moments.randrange(1, STEPS // 2)
    programs.wait_until(lambda: programs.rows(workdir) > moment, LIMIT, processes[victim])
    programs.kill(processes[victim])
    began = time.monotonic()
    code = programs.wait(processes[1 - victim], LIMIT)
    seconds = time.monotonic() - began
    sentence = programs.last_line(f"{workdir}.output{1 - victim}")
    if code != 75 or seconds > ALONE or f"process {victim} of 2 was lost" not in sentence:
        broken.append(f"exit code {code} after {seconds:.0f} s: {sentence}")
    return seconds, sentence
