"""Runs that are killed: at chosen operations on their files, and at random moments."""

import re
import signal

from benchmarks.fault_parts import recipe, warm

KINDS = (recipe.NETWORK, recipe.FEATURES, recipe.AVERAGED)
CHOSEN, RANDOM = "chosen moments", "random moments"


def kill_at_chosen(bench, tries):
    """Kill runs at operations of every sort; every second one is killed again after its resume."""
    for kind, number in _share(bench, CHOSEN, tries):
        moments = choose(bench.reference(kind).operations, len(range(KINDS.index(kind), tries, len(KINDS))))
        _kill(bench, CHOSEN, kind, number, first={"kill_at": moments[number]})


def kill_at_random(bench, tries):
    """Kill runs at random times; every second one is killed again after its resume."""
    for kind, number in _share(bench, RANDOM, tries):
        seconds = bench.reference(kind).seconds
        moment = warm.generator(RANDOM, kind, number).uniform(0, seconds)
        _kill(bench, RANDOM, kind, number, first={"kill_after": moment})


def _share(bench, part, tries):
    """Yield the kind and the number of each try; the kinds take turns."""
    names = [f"{KINDS[index % len(KINDS)]} {index // len(KINDS)}" for index in range(tries)]
    for name in bench.tries(part, names):
        kind, number = name.split()
        yield kind, int(number)


def _kill(bench, part, kind, number, first):
    name = f"{kind} {number}"
    operations = bench.reference(kind).operations
    with bench.workdir(part, name) as (workdir, broken):
        kills, where = [first], []
        if number % 2:
            kills.append({"kill_at": warm.generator(part, name).randrange(1, len(operations))})
        for kill in kills:
            killed = bench.train(kind, workdir, **kill)
            where.append(killed.operations[-1] if killed.operations else "before the first operation")
            if killed.code not in (-signal.SIGKILL, 0):
                broken.append(f"exit code {killed.code} instead of a kill: {killed.message}")
        broken.extend(bench.finish(kind, workdir))
        bench.record(part, name, broken, kind=kind, where=where)


def choose(operations, count):
    """Return the numbers of `count` operations: one of each sort first, then others at equal distances."""
    sorts = {}
    for line in operations:
        number, name, path = line.split(" ", 2)
        sorts.setdefault((name, re.sub(r"[0-9a-f]{6,}|\d+", "N", path)), int(number))
    firsts = sorted(sorts.values())
    if len(firsts) >= count:
        return [firsts[index * len(firsts) // count] for index in range(count)]
    others = [number for number in range(1, len(operations) + 1) if number not in sorts.values()]
    missing = count - len(firsts)
    return sorted(firsts + [others[index * len(others) // missing] for index in range(missing)])
