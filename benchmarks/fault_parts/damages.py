"""Workdirs of stopped runs with one damaged file: the run must resume, or end with a message that names the file."""

import re
import shutil
import zlib
from pathlib import Path

from benchmarks.fault_parts import outcome, recipe, warm
from benchmarks.fault_parts.bench import numbers

PART = "damaged files"
KINDS = (recipe.NETWORK, recipe.FEATURES)
STOPPED_IN = "/checkpoints/8"  # the run is killed when it begins to write this checkpoint; two older ones are whole
WAYS = ("truncated", "emptied", "deleted", "one bit flipped", "garbage")
USER_ERRORS = (2, 74)


def damage_files(bench, tries):
    """Damage each file in each way; with `tries`, so many of all cases at equal distances."""
    bases = {kind: _stopped(bench, kind) for kind in KINDS}
    cases = [f"{kind} {name} {way}" for kind, base in bases.items() for name in _files(base) for way in WAYS]
    if tries:
        cases = [cases[index * len(cases) // tries] for index in range(min(tries, len(cases)))]
    for case in bench.tries(PART, cases):
        _try(bench, case, bases)


def _stopped(bench, kind):
    """Return the workdir of a run that was killed in the middle, which is made once."""
    base = bench.folder / "stopped" / kind
    if not base.exists():
        operations = [line.split(" ", 2) for line in bench.reference(kind).operations]
        moment = next(int(number) for number, _, path in operations if path.startswith(STOPPED_IN))
        killed = bench.train(kind, base, kill_at=moment)
        assert killed.code < 0, killed.output
    return base


def _files(base):
    """Return the names of the files of a workdir; of a system of features those that a network does not have."""
    names = sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.is_file())
    return [name for name in names if name.startswith("features/")] if base.name == recipe.FEATURES else names


def _try(bench, case, bases):
    kind, rest = case.split(" ", 1)
    name, way = rest.split(" ", 1)
    number = f"case {zlib.crc32(case.encode())}"
    with bench.workdir(PART, number) as (workdir, broken):
        shutil.copytree(bases[kind], workdir)
        damage(workdir / name, way, warm.generator(case))
        ended = bench.train(kind, workdir)
        end = "resumed"
        if ended.code == 0:
            broken.extend(_wrong(bench, kind, workdir, name))
        elif ended.code in USER_ERRORS and "Traceback" not in ended.output and _is_named(ended.paragraph, name):
            end = "named the file"
        else:
            broken.append(f"exit code {ended.code}: {ended.message}")
        bench.record(PART, case, broken, kind=kind, way=way, end=end, message=ended.paragraph if ended.code else "")


def _wrong(bench, kind, workdir, name):
    """Return what is wrong with a run that resumed: not what was set aside, nor the rows of a damaged log."""
    reference = bench.reference(kind)
    wrong = [one for one in outcome.differences(numbers(workdir), reference.numbers) if not one.startswith(name)]
    broken = [f"{len(wrong)} numbers differ, such as {wrong[0]}"] if wrong else []
    left = sorted(one for one in outcome.files(workdir) - set(reference.files) if ".damaged" not in one)
    return broken + ([f"files left over: {', '.join(left[:4])}"] if left else [])


def _is_named(message, name):
    """Return whether a message names a file, or the checkpoint or stage that it belongs to."""
    path = Path(name)
    parts = {path.name, *(part for part in path.parts[:-1] if re.search(r"\d", part))}
    return any(part in message for part in parts)


def damage(path, way, generator):
    """Damage a file in one of the ways."""
    content = bytearray(path.read_bytes())
    if way == "deleted":
        path.unlink()
        return
    if way == "truncated":
        content = content[: len(content) // 2]
    elif way == "emptied":
        content = bytearray()
    elif way == "garbage":
        content = bytearray(generator.randbytes(max(64, len(content))))
    elif content:
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)
