"""Tests of a run on two hosts: stops, seconds and checkpoints on which both agree."""

import json
import os
import subprocess
import sys

import pytest

from tests import command_line
from tests.training import two_hosts


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return what two processes saw, in a list by process."""
    directory = tmp_path_factory.mktemp("two_hosts") / "run[seed=1]"  # Orbax would expand it
    directory.mkdir()
    flags = {"XLA_FLAGS": command_line.xla_flags(devices=1), "JAX_PLATFORMS": "cpu"}
    with command_line.coordinator() as shared:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", two_hosts.__name__, str(directory)],
                cwd=command_line.REPOSITORY,
                env=os.environ | flags | shared | {"PROCESS_ID": str(number)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in range(2)
        ]
        outputs = [process.communicate(timeout=1500)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return [json.loads((directory / f"{number}.json").read_text()) for number in range(2)]


def test_a_stop_of_one_process_stops_both_at_the_same_step_a_few_steps_later(both):
    stopped = [seen["stopped"] for seen in both]
    assert [each["stopped_by"] for each in stopped] == ["a signal elsewhere", "SIGTERM"]
    first, second = (each["steps"] for each in stopped)
    assert first == second
    assert two_hosts.STOP_AT <= first <= two_hosts.STOP_AT + 3


def test_the_resumed_run_ends_with_the_same_bits_in_both(both):
    ends = {(seen[run]["steps"], seen[run]["params"]) for seen in both for run in ("whole", "resumed")}
    assert len(ends) == 1
    assert all(seen["whole"]["stopped_by"] is None for seen in both)


def test_both_know_the_least_memory_in_bytes_beyond_32_bits(both):
    assert [seen["memory"] for seen in both] == [[79_999_999_000] * 2] * 2


def test_a_budget_of_seconds_is_that_of_the_first_process_in_both(both):
    timed = [seen["timed"] for seen in both]
    assert timed[0] == timed[1]  # steps, seconds, the rate of every step, parameters
    assert len(timed[0]["rates"]) == timed[0]["steps"] > 1
    assert timed[0]["seconds"] >= float(two_hosts.SECONDS[:-1])


def test_the_first_process_checks_a_checkpoint_for_both_and_says_what_is_wrong(both):
    damaged = [seen["damaged"] for seen in both]
    assert [each["step"] for each in damaged] == [9, 9]
    assert [each["read"] > 0 for each in damaged] == [True, False]
    assert [len(each["said"]) for each in damaged] == [1, 0]
    assert "has changed since it was written; it is now 12.damaged" in damaged[0]["said"][0]
    assert all(each["steps"][-2:] == [9, 12] for each in damaged)
