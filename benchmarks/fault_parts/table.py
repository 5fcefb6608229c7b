"""The table of the benchmark."""

import importlib.metadata
import platform
from collections import Counter

from benchmarks.fault_parts import damages, hosts, kills, loaders, sweeps

TITLE = """# Killed and damaged runs

`python benchmarks/faults.py`, whose first lines say what is killed, how, and what a run must do to survive. A chosen
moment is a write, rename, removal or fsync below the workdir: one of each sort before any sort twice. Every second run
that is killed there or at a random moment is killed again after its resume.

Broken by earlier tries, and mended: half of an old checkpoint stayed for good when a kill interrupted its removal;
`descriptors.svg` was never drawn when a kill came after `descriptors.png`; the file with which a run tries whether it
can write checkpoints stayed; partial files stayed.
"""
PACKAGES = ("jax", "orbax-checkpoint", "tensorstore", "grain", "optuna")


def markdown(rows):
    """Return the page of the rows: the table, and a list of what broke."""
    lines = ["| what was done | tries | survived |", "|---|---:|---:|"]
    for title, chosen in _groups(rows):
        if not chosen:
            continue
        survived = sum(not row["broken"] for row in chosen)
        lines.append(f"| {title} | {len(chosen)} | {survived} |")
    broken = [f"- {row['part']}, {row['name']}: {'; '.join(row['broken'])}" for row in rows if row["broken"]]
    ends = Counter(row["end"] for row in rows if row["part"] == damages.PART and not row["broken"])
    notes = [
        f"Of the damaged workdirs, {ends['resumed']} resumed and {ends['named the file']} named the file."
    ] * bool(ends)
    waits = [row["seconds"] for row in rows if row["part"] == hosts.PART]
    notes += [f"The other process of a killed one ended after {_seconds(waits)}."] * bool(waits)
    return "\n".join(
        [TITLE, _versions(rows), "", *lines, "", *notes, "", "What broke:" if broken else "Nothing broke.", *broken]
    )


def _groups(rows):
    """Yield a title and the rows of each line of the table."""
    for part in (kills.CHOSEN, kills.RANDOM):
        for kind in kills.KINDS:
            yield f"{kind}: killed at {part}", [row for row in rows if row["part"] == part and row["kind"] == kind]
    for way in damages.WAYS:
        yield f"one file: {way}", [row for row in rows if row["part"] == damages.PART and row["way"] == way]
    yield "a process that reads images: killed", [row for row in rows if row["part"] == loaders.PART]
    for victim in sweeps.VICTIMS:
        chosen = [row for row in rows if row["part"] == sweeps.PART and row["name"].startswith(victim)]
        kills_of = sum(row["kills"] for row in chosen)
        yield f"a sweep: {victim} killed ({kills_of} kills in all)", chosen
    yield "one of two processes: killed", [row for row in rows if row["part"] == hosts.PART]


def _seconds(values):
    return " and ".join(f"{value:.0f} s" for value in sorted(values))


def _versions(rows):
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return f"Commit {commits}, Python {platform.python_version()}, {packages}."
