"""The energy of runs as tables and lines write it; a run without a measurement is "unknown", and never zero."""

from collections.abc import Mapping, Sequence
from typing import Any

from imagenet_repro.report.tables import MISSING
from imagenet_repro.report.text import quantity

UNKNOWN = "unknown"
NOT_RECORDED = "it was not recorded"


def joules(result: Mapping[str, Any]) -> float | None:
    """Return the energy of a run's training, from its `result.json`; None if it is unknown."""
    return _record(result).get("joules")


def parts(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the parts of the machine whose energy is in the total of a run; empty if the total is unknown."""
    return () if joules(result) is None else tuple(sorted(_record(result)["parts"]))


def idle_share(result: Mapping[str, Any]) -> float | None:
    """Return the share of the energy that idle power would have taken in the same time; None if it is unknown."""
    total, idle = joules(result), _record(result).get("idle_joules")
    return None if not total or idle is None else min(1.0, idle / total)


def describe(result: Mapping[str, Any]) -> str:
    """Return the line about energy at the end of a run."""
    record, total = _record(result), joules(result)
    if total is None:
        reasons = dict.fromkeys(record.get("unknown", {}).values())
        return f"energy: {UNKNOWN}; {'; '.join(reasons) or NOT_RECORDED}"
    amounts = ", ".join(f"{part} {quantity(round(one['joules']))}J" for part, one in sorted(record["parts"].items()))
    share = idle_share(result)
    idle = "idle power was not measured" if share is None else f"{100 * share:.0f} % of it idle power"
    missing = "".join(f"; {part} {UNKNOWN}: {reason}" for part, reason in record["unknown"].items())
    return f"energy: {joules_cell(total)} ({amounts}), {idle}{missing}"


def describe_sum(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a line about the energy of several runs; that of different parts of machines is not added up."""
    sums: dict[tuple[str, ...], list[float]] = {}
    for result in results:
        if (total := joules(result)) is not None:
            sums.setdefault(parts(result), []).append(total)
    known = [
        f"{joules_cell(sum(values))} in {_count_runs(len(values))} ({', '.join(of)})" for of, values in sums.items()
    ]
    n_unknown = len(results) - sum(map(len, sums.values()))
    unknown = [f"{UNKNOWN} in {_count_runs(n_unknown)}"] if n_unknown else []
    return f"energy of training: {'; '.join(known + unknown)}"


def _count_runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"


def joules_cell(value: float | None) -> str:
    """Return an energy with its unit."""
    return UNKNOWN if value is None else f"{quantity(round(value))}{'' if value >= 999.5 else ' '}J"


def share_cell(shares: Sequence[float | None]) -> str:
    """Return the mean of the idle shares of runs, as whole percent; a dash unless all are known."""
    known = [share for share in shares if share is not None]
    return f"{100 * sum(known) / len(known):.0f} %" if known and len(known) == len(shares) else MISSING


def _record(result: Mapping[str, Any]) -> Mapping[str, Any]:
    record = result.get("energy")
    return record if isinstance(record, dict) else {}
