"""Compilation ahead of measurements, in several threads."""

import concurrent.futures
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from benchmarks.device_parts.results import Results


class Compiler:
    """Threads that compile lowered steps: as many as the process may use cores, less two for Python and the device.

    Args:
      results: where the time of each compilation is recorded.
    """

    def __init__(self, results: Results):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.threads = max(1, cores - 2)
        self._pool = ThreadPoolExecutor(self.threads, "compile")
        self._results = results
        self._pending: set[Future] = set()

    def submit(self, name: str, lowered: Any, options: dict[str, Any] | None) -> "Future[Any]":
        """Compile a lowered step in a thread; the future's result is the compiled step."""
        future = self._pool.submit(self._compile, name, lowered, options)
        self._pending.add(future)
        return future

    def _compile(self, name: str, lowered: Any, options: dict[str, Any] | None) -> Any:
        began, cpu = time.perf_counter(), time.thread_time()
        compiled = lowered.compile(compiler_options=options)
        seconds = time.perf_counter() - began
        self._results.write(
            "compiled", program=name, seconds=round(seconds, 2), cpu=round(time.thread_time() - cpu, 2)
        )
        return compiled

    def wait(self, seconds: float) -> None:
        """Return when nothing is being compiled; raise TimeoutError after `seconds`."""
        _, running = concurrent.futures.wait(self._pending, timeout=max(0.0, seconds))
        self._pending = running
        if running:
            raise TimeoutError(f"{len(running)} programs were still being compiled")

    def cancel(self) -> None:
        """Drop the programs whose compilation has not begun."""
        for future in self._pending:
            future.cancel()
