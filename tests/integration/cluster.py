"""What tests ask a SLURM cluster, and tell it; jobs are called as submitit calls them, such as 12_3."""

import re
import subprocess
import time


def state(job: str) -> str:
    """The state of a job or of one of an array's, such as RUNNING, also for a while after it has ended."""
    described = _said("scontrol", "--oneliner", "show", "job", job)
    return re.search(r"\bJobState=(\S+)", described).group(1)


def wait_for(job: str, *states: str, seconds: float = 60) -> str:
    """Waits until a job is in one of the states, and says which."""
    deadline = time.monotonic() + seconds
    while (now := state(job)) not in states:
        assert time.monotonic() < deadline, f"job {job} is {now} after {seconds} seconds, not {' or '.join(states)}"
        time.sleep(0.2)
    return now


def cancel(job: str) -> None:
    """Has a job stopped by SIGTERM, and by SIGKILL after the cluster's KillWait."""
    _said("scancel", job)


def requeue(job: str) -> None:
    """Puts a job back into the queue, whether it runs or has ended."""
    _said("scontrol", "requeue", job)


def release(job: str) -> None:
    """Lets a job start that was submitted to be held."""
    _said("scontrol", "release", job)


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
