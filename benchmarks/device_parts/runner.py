"""One part's preparation and run: its time, and what becomes of its errors."""

import time
from collections.abc import Callable

from benchmarks.device_parts.bench import Bench, Part
from benchmarks.device_parts.errors import LeftOutError

PACE_BOUNDS = (0.3, 4.0)


class PartRun:
    """A part whose estimate fitted into the time.

    Args:
      bench: the shared state.
      part: the part.
      estimate: seconds that it is expected to take, at the present pace.
    """

    def __init__(self, bench: Bench, part: Part, estimate: float):
        self.bench, self.part, self.estimate = bench, part, estimate
        self._pace = bench.pace
        self._seconds = 0.0
        self._failed = False

    def prepare(self) -> None:
        """Prepare the part, within twice its estimate."""
        self._guarded(self.part.prepare)

    def run(self) -> None:
        """Run the part if it was prepared, write its time, and adapt the pace of the estimates."""
        if not self._failed:
            self.bench.say(f"--- {self.part.name}: {self.part.title} (about {self.estimate:.0f} s)")
            self._guarded(self.part.run)
        bench, end = self.bench, "failed or left out" if self._failed else "done"
        bench.record("part", part=self.part.name, estimated=self.estimate, seconds=self._seconds, end=end)
        if not self._failed and self.estimate > 5:
            ratio = self._seconds / (self.estimate / self._pace)
            bench.pace = min(max((bench.pace + ratio) / 2, PACE_BOUNDS[0]), PACE_BOUNDS[1])

    def _guarded(self, work: Callable[[Bench], None]) -> None:
        bench, name = self.bench, self.part.name
        bench.running = name
        waiting = bench.scale.compile_seconds * bench.pace  # for programs of other parts of the stage
        box = max(0.0, 2 * (self.estimate + waiting) + bench.scale.margin - self._seconds)
        bench.box_end = bench.deadline if self.part.takes_all else min(time.perf_counter() + box, bench.deadline)
        began = time.perf_counter()
        self._failed = True
        with bench.attempt(name):
            if bench.left <= 0:
                raise LeftOutError("no time is left")
            work(bench)
            self._failed = False
        self._seconds += time.perf_counter() - began
