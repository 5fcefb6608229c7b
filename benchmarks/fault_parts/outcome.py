"""Traces of a run: its numbers, without times, and its files, without the parts of names that change."""

import hashlib
import json
import re
from pathlib import Path

TIMES = re.compile(r"second|time|memory|date|host|pid|started|_at$")  # keys of a result whose values may differ
EXIT_CODES = (0, 75)


def describe(workdir):
    """Return the numbers of a finished run, as texts by name; it reads checkpoints, so it runs in a fork."""
    import numpy as np

    from imagenet_repro.training.log import read_rows

    workdir = Path(workdir)
    numbers = {}
    steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())
    for name, array in _arrays(workdir / "checkpoints" / str(steps[-1]) / "state").items():
        numbers[f"checkpoint {steps[-1]} {name}"] = _digest(array)
    for path in sorted((workdir / "predictions").glob("*.npz")):
        with np.load(path) as file:
            for name in file.files:
                if name != "provenance":
                    numbers[f"{path.name} {name}"] = _digest(file[name])
    result = json.loads((workdir / "result.json").read_text(encoding="utf-8"))
    numbers["result.json"] = json.dumps(_without_times(result), sort_keys=True)
    for row in read_rows(workdir / "metrics.jsonl"):  # without damaged lines
        if row["kind"] in ("train", "eval"):
            key = f"metrics.jsonl {row['kind']} {row['step']}"
            numbers[key + (" again" if key in numbers else "")] = json.dumps(_without_times(row), sort_keys=True)
    return numbers


def files(workdir):
    """Return the names of the files of a workdir; numbers that a process chooses are replaced."""
    names = set()
    for path in Path(workdir).rglob("*"):
        name = str(path.relative_to(workdir))
        name = re.sub(r"events\.out\.tfevents.*", "events", name)
        name = re.sub(r"(checkpoints/[^/]+/[^/]+/).*", r"\1", name)  # Orbax and OCDBT choose the names of their files
        names.add(name)
    return names


def differences(numbers, expected):
    """Return the names of numbers that differ between two runs."""
    return sorted(name for name in {*numbers, *expected} if numbers.get(name) != expected.get(name))


def _arrays(path):
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as reader:
        tree = reader.metadata(path).item_metadata.tree
        tree = reader.restore(
            path, restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        )
    return {jax.tree_util.keystr(key): np.asarray(leaf) for key, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _digest(array):
    return f"{array.dtype}{list(array.shape)} {hashlib.sha256(array.tobytes()).hexdigest()}"


def _without_times(value):
    if isinstance(value, dict):
        return {
            key: _without_times(one)
            for key, one in value.items()
            if key not in {"provenance", "stages"} and not TIMES.search(key)
        }
    return value
