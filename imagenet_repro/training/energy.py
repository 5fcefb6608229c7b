"""The energy of a run: what its devices and processors take while it trains, over all processes and resumptions.

The meter runs and pauses with the clock of training, so that energy, like seconds, is that of training and of waiting
for images. The power before the first step, with nothing to do, is measured as well; times the seconds of training it
is the idle part of the energy.

A meter reads the counters where a run looks at its clock anyway, and every few seconds in a thread, so that a counter
that starts anew is noticed. No step waits for it.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax

from imagenet_repro.training import energy_counters, hosts
from imagenet_repro.training.energy_counters import Counter, FoundCounters, Part, UnreadableError

IDLE_SECONDS = 2.0  # in which the idle power is measured; NVML renews its counters up to every 0.1 s
SECONDS_BETWEEN_READINGS = 10.0  # of the thread; the counters of RAPL start anew after a minute at the least
SECONDS_BETWEEN_ROWS = 0.5  # of the log's rows of training that have an energy

Record = dict[str, Any]
NOTHING: Record = {"devices": [], "parts": {}, "unknown": {}}
NOT_MEASURED = "it was not measured"
NO_COUNTERS = FoundCounters()


def open_meter(before: Record | None) -> "EnergyMeter":
    """Return the meter of this process of a run, after the idle power is measured.

    Args:
      before: the record of the run so far; None for a new run.
    """
    devices = jax.local_devices()
    platform = devices[0].platform
    counters = energy_counters.find_counters(platform, [getattr(one, "local_hardware_id", 0) or 0 for one in devices])
    device: Part = platform if platform in ("cpu", "tpu") else "gpu"
    return EnergyMeter(counters, device, before, idle_seconds=IDLE_SECONDS)


def unknown_so_far(reason: str) -> Record:
    """Return the record of a run that was measured only in part, for the reason given."""
    return NOTHING | {"unknown": {"before": reason}}


def restored(info: Mapping[str, Any]) -> Record:
    """Return the record in the `info` of a checkpoint; that of an older version has none, and so it stays unknown."""
    record = info.get("energy")
    return record if isinstance(record, dict) else unknown_so_far(f"up to step {info['steps']:,} {NOT_MEASURED}")


class EnergyMeter:
    """The energy that the counters of this process see while the meter runs, added to that of the run so far.

    Args:
      found: the counters.
      device: the part of the devices that compute; the total is unknown without it.
      before: the record of the run so far; None for a new run.
      idle_seconds: how long to measure the idle power.
      clock: returns seconds.
      sleep: waits for seconds.
    """

    def __init__(
        self,
        found: FoundCounters = NO_COUNTERS,
        device: Part = "cpu",
        before: Record | None = None,
        *,
        idle_seconds: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], Any] = time.sleep,
    ):
        self._counters, self._device, self._before = list(found.counters), device, before
        self._unknown: dict[str, str] = {**found.unknown}
        self._clock, self._lock = clock, threading.RLock()
        self._joules = {counter.id: 0.0 for counter in self._counters}
        self._seconds = 0.0
        self._since: float | None = None  # when the meter was started; None while it is paused
        self._readings: dict[str, float] = {}
        self._last_row = -SECONDS_BETWEEN_ROWS
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read_regularly, name="energy", daemon=True)
        self._idle_watts = self._measure_idle(idle_seconds, sleep) if idle_seconds and self._counters else {}
        if self._counters:
            self._thread.start()

    # --- running -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start to count."""
        with self._lock:
            self._read()
            self._since = self._clock()

    def stop(self) -> None:
        """Stop to count; the energy so far is kept."""
        with self._lock:
            if self._since is not None:
                self._count()
                self._since = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause within the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    # --- results -----------------------------------------------------------------------------------------------

    def record(self) -> Record:
        """Return the energy of the run so far, over all of its processes, as JSON values; every process must call it.

        Returns:
          `devices`, the parts that compute; `parts`, with `joules` and `idle_joules` of each part that is known (the
          second is None where no idle power was measured); `unknown`, the reason for each other part; and the totals
          `joules` and `idle_joules`, None where a part that computes is not known.
        """
        with self._lock:
            self._count()
            own = {"device": self._device, "unknown": self._unknown, "counters": list(map(self._own, self._counters))}
        return _combine(self._before, hosts.gather(own))

    def row(self) -> dict[str, float]:
        """Return the entry of a row of training, `joules`; empty if it is unknown, or was told half a second ago.

        Several processes tell one another their energies at evaluations and checkpoints alone.
        """
        now = self._clock()
        if jax.process_count() > 1 or not self._counters or now - self._last_row < SECONDS_BETWEEN_ROWS:
            return {}
        self._last_row = now
        return joules_entry(self.record())

    def describe(self) -> str:
        """Return a sentence about what is measured and the idle power; empty if the total is not known."""
        if joules_entry(self.record()) == {}:
            return ""
        parts: dict[str, float] = {}
        for counter in self._counters:
            parts[counter.part] = parts.get(counter.part, 0.0) + self._idle_watts.get(counter.id, 0.0)
        watts = ", ".join(f"{part} {value:.0f} W" for part, value in sorted(parts.items()))
        return f"energy is measured; idle power before the first step: {watts}"

    # --- counting ----------------------------------------------------------------------------------------------

    def _own(self, counter: Counter) -> dict[str, Any]:
        watts = self._idle_watts.get(counter.id)
        idle = None if watts is None else watts * self._seconds
        return {"id": counter.id, "part": counter.part, "joules": self._joules[counter.id], "idle_joules": idle}

    def _count(self) -> None:
        """Add what was used since the last reading, if the meter runs."""
        before = dict(self._readings)
        self._read()
        if self._since is None:
            return
        for counter in self._counters:
            self._joules[counter.id] += self._readings[counter.id] - before[counter.id]
        now = self._clock()
        self._seconds += now - self._since
        self._since = now

    def _read(self) -> None:
        """Read all counters; a part becomes unknown when one of its counters cannot be read any more."""
        for counter in list(self._counters):
            try:
                self._readings[counter.id] = counter.joules()
            except UnreadableError as error:
                self._unknown[counter.part] = str(error)
        self._counters = [counter for counter in self._counters if counter.part not in self._unknown]

    def _read_regularly(self) -> None:
        while not self._stopped.wait(SECONDS_BETWEEN_READINGS):
            with self._lock:
                self._count()

    def _measure_idle(self, seconds: float, sleep: Callable[[float], Any]) -> dict[str, float]:
        self._read()
        before, began = dict(self._readings), self._clock()
        sleep(seconds)
        self._read()
        took = self._clock() - began
        return {counter.id: (self._readings[counter.id] - before[counter.id]) / took for counter in self._counters}


def joules_entry(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the entry `joules` of a row of the log; empty if the energy is unknown."""
    return {} if record.get("joules") is None else {"joules": record["joules"]}


# --- several processes, and the run so far ----------------------------------------------------------------------


def _combine(before: Record | None, processes: Sequence[Mapping[str, Any]]) -> Record:
    """Return the record of the run so far and of its processes, which may share a counter."""
    unknown: dict[str, str] = {}
    for number, process in enumerate(processes):
        where = f"process {number}: " if len(processes) > 1 else ""
        for part, reason in process["unknown"].items():
            unknown.setdefault(part, where + reason)
    counters = {one["id"]: one for process in reversed(processes) for one in process["counters"]}
    parts: dict[str, dict[str, float | None]] = {}
    for one in counters.values():
        parts[one["part"]] = _add(parts.get(one["part"]), one)
    now = {
        "devices": sorted({process["device"] for process in processes}),
        "parts": {part: amounts for part, amounts in parts.items() if part not in unknown},
        "unknown": unknown,
    }
    return _with_totals(now if before is None else _continue(before, now))


def _continue(before: Record, now: Record) -> Record:
    """Return the record of two parts of a run, one after the other."""
    unknown = {**now["unknown"], **before["unknown"]}
    parts: dict[str, dict[str, float | None]] = {}
    for part in sorted({*before["parts"], *now["parts"]} - {*unknown}):
        has_both = part in before["parts"] and part in now["parts"]
        # A card that computes only now, or only did so before, has used nothing in the other part of the run.
        was_unused = part not in now["devices"] if part in before["parts"] else part not in before["devices"]
        if has_both or (was_unused and part in ("gpu", "tpu")):
            parts[part] = _add(before["parts"].get(part), now["parts"].get(part, {"joules": 0.0, "idle_joules": 0.0}))
        else:
            unknown[part] = f"in one part of the run {NOT_MEASURED}"
    return {"devices": sorted({*before["devices"], *now["devices"]}), "parts": parts, "unknown": unknown}


def _add(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> dict[str, float | None]:
    keys = ("joules", "idle_joules")
    if one is None:
        return {key: other[key] for key in keys}
    return {key: None if None in (one[key], other[key]) else one[key] + other[key] for key in keys}


def _with_totals(record: Record) -> Record:
    """Add the totals over the parts that are known."""
    is_known = not {*record["devices"], "before"} & {*record["unknown"]} and bool(record["parts"])
    amounts = list(record["parts"].values())
    joules = sum(one["joules"] for one in amounts) if is_known else None
    has_idle = is_known and all(one["idle_joules"] is not None for one in amounts)
    return record | {"joules": joules, "idle_joules": sum(one["idle_joules"] for one in amounts) if has_idle else None}
