"""Queries and commands for a SLURM cluster; job ids have the form that submitit uses, such as 12_3."""

import re
import subprocess
import time


def state(job: str) -> str:
    """Return the state of a job or of one task of an array, such as RUNNING, also for a while after its end."""
    description = _run("scontrol", "--oneliner", "show", "job", job)
    return re.search(r"\bJobState=(\S+)", description).group(1)


def wait_for(job: str, *states: str, seconds: float = 60) -> str:
    """Wait until a job is in one of the states, and return that state."""
    deadline = time.monotonic() + seconds
    while (current := state(job)) not in states:
        assert time.monotonic() < deadline, (
            f"job {job} is {current} after {seconds} seconds, not {' or '.join(states)}"
        )
        time.sleep(0.2)
    return current


def cancel(job: str) -> None:
    """Stop a job by SIGTERM, and by SIGKILL after the cluster's KillWait."""
    _run("scancel", job)


def requeue(job: str) -> None:
    """Return a job to the queue, whether it runs or has ended."""
    _run("scontrol", "requeue", job)


def release(job: str) -> None:
    """Let a job start that was submitted with a hold."""
    _run("scontrol", "release", job)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
